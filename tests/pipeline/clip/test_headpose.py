"""Head pose: the signs and the composition are proved by turning a head by explicit matrices and looking at it."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.clip.headpose import (
    FOCAL_WIDTHS,
    angles_from_rotation,
    estimate_poses,
    pose_from_mesh,
    rotation_from_angles,
)
from pipeline.models.canonical import (
    RIGID_POINTS,
    align,
    canonical_face,
    measure_canonical_face,
    mirror_pairs,
)
from pipeline.models.landmarkers import FaceMesh468, Roi, load_mesh_network, roi_from_box, roi_from_points
from schemas.face import POSE_FIELDS

SIZE_PX = 512
# The face fills .63 of a crop: about six eye-corner distances away for a focal length of two widths.
DISTANCE = 6.0
NOSE_TIP, CHIN, FOREHEAD, RIGHT_EYE, LEFT_EYE = 4, 152, 10, 33, 263


def photograph(rotation: np.ndarray, place: tuple[float, float] = (0.0, 0.0), distance: float = DISTANCE) -> np.ndarray:
    """What a pinhole camera and a faultless landmarker make of a turned head: [468, 3] in pixels."""
    head = canonical_face() @ rotation.T + [*place, distance]
    focal = FOCAL_WIDTHS * SIZE_PX
    xy = focal * head[:, :2] / head[:, 2:] + SIZE_PX / 2
    z = (head[:, 2:] - distance) * focal / distance
    return np.concatenate([xy, z], axis=1).astype(np.float32)


def pose_of(mesh: np.ndarray) -> np.ndarray:
    return estimate_poses(mesh[None], np.ones(1, np.float32), SIZE_PX, SIZE_PX)[0]


# --- convention ----------------------------------------------------------------------------------------------------


def test_rotation_is_rz_ry_rx_with_pitch_negated():
    a, b, c = np.deg2rad([-20.0, 30.0, 10.0])  # x, y, z
    rx = [[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]
    ry = [[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]
    rz = [[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]]
    expected = np.array(rz) @ np.array(ry) @ np.array(rx)
    np.testing.assert_allclose(rotation_from_angles(30.0, 20.0, 10.0), expected, atol=1e-12)


def test_angles_come_back_from_their_rotation():
    for yaw in (-80, -30, 0, 45, 80):
        for pitch in (-60, 0, 25):
            for roll in (-170, -20, 0, 90):
                found = angles_from_rotation(rotation_from_angles(yaw, pitch, roll))
                np.testing.assert_allclose(found, (yaw, pitch, roll), atol=1e-9)


def test_the_canonical_face_looks_at_the_camera_upright():
    face = canonical_face()
    assert face[NOSE_TIP, 2] < face[RIGHT_EYE, 2]  # -z is towards the viewer
    assert face[FOREHEAD, 1] < face[CHIN, 1]  # y points down
    assert face[RIGHT_EYE, 0] < 0 < face[LEFT_EYE, 0]  # the character's right is at image left
    assert np.linalg.norm(face[RIGHT_EYE] - face[LEFT_EYE]) == pytest.approx(1.0, abs=1e-3)
    np.testing.assert_allclose(face[RIGID_POINTS].mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(face[mirror_pairs(face)] * [-1, 1, 1], face, atol=1e-6)


def test_yaw_is_positive_when_the_nose_points_to_image_left():
    mesh = photograph(rotation_from_angles(30, 0, 0))
    assert mesh[NOSE_TIP, 0] < mesh[[RIGHT_EYE, LEFT_EYE], 0].mean()
    assert pose_of(mesh)[0] == pytest.approx(30, abs=1)


def test_pitch_is_positive_when_the_nose_points_up():
    straight, up = photograph(rotation_from_angles(0, 0, 0)), photograph(rotation_from_angles(0, 20, 0))
    eyes = [RIGHT_EYE, LEFT_EYE]
    assert up[NOSE_TIP, 1] - up[eyes, 1].mean() < straight[NOSE_TIP, 1] - straight[eyes, 1].mean()
    assert pose_of(up)[1] == pytest.approx(20, abs=1)


def test_roll_is_positive_when_the_head_turns_clockwise_on_screen():
    mesh = photograph(rotation_from_angles(0, 0, 25))
    assert mesh[LEFT_EYE, 1] > mesh[RIGHT_EYE, 1]  # the eye at image right has gone down
    assert mesh[CHIN, 0] < mesh[FOREHEAD, 0]
    assert pose_of(mesh)[2] == pytest.approx(25, abs=1)


# --- geometry ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("yaw", range(-60, 61, 10))
def test_yaw_of_a_photographed_head_comes_back_within_a_degree(yaw):
    np.testing.assert_allclose(pose_of(photograph(rotation_from_angles(yaw, 0, 0)))[:3], (yaw, 0, 0), atol=1)


@pytest.mark.parametrize("angles", [(0, p, 0) for p in range(-30, 31, 10)] + [(0, 0, r) for r in range(-60, 61, 15)])
def test_pitch_and_roll_come_back_within_a_degree(angles):
    np.testing.assert_allclose(pose_of(photograph(rotation_from_angles(*angles)))[:3], angles, atol=1)


def test_angles_together_come_back_exactly_without_perspective_and_within_three_degrees_with_it():
    rng = np.random.default_rng(0)
    for _ in range(40):
        angles = rng.uniform((-60, -25, -30), (60, 25, 30))
        rotation = rotation_from_angles(*angles)
        flat = (canonical_face() @ rotation.T * 100 + [200, 300, 0]).astype(np.float32)
        np.testing.assert_allclose(pose_of(flat)[:3], angles, atol=0.01)
        np.testing.assert_allclose(pose_of(photograph(rotation))[:3], angles, atol=3)


def test_place_is_in_crop_units_and_distance_in_eye_corner_distances():
    # One unit right and half a unit up, seen from 8 units with a focal length of two widths.
    pose = pose_of(photograph(np.eye(3), place=(1.0, -0.5), distance=8.0))
    np.testing.assert_allclose(pose[3:5], (0.5 + 2 / 8, 0.5 - 1 / 8), atol=0.01)
    assert pose[5] == pytest.approx(8.0, rel=0.02)


def test_pose_does_not_depend_on_the_size_or_place_of_the_face():
    mesh = photograph(rotation_from_angles(20, -10, 5))
    moved = mesh * np.float32(0.4) + np.float32([300, -40, 0])
    np.testing.assert_allclose(pose_of(moved)[:3], pose_of(mesh)[:3], atol=1e-3)


def test_a_moving_jaw_and_brows_are_no_pose():
    mesh = photograph(rotation_from_angles(15, 5, 0))
    moved = mesh.copy()
    moved[[CHIN, 13, 14, 17, 61, 291, 0, 148, 377, 159, 386, 105, 334]] += np.float32([0, 30, 5])
    np.testing.assert_array_equal(pose_of(moved), pose_of(mesh))


def test_frames_without_a_face_are_zero_and_the_others_carry_their_confidence():
    mesh = np.stack([photograph(np.eye(3)), np.zeros((468, 3), np.float32)])
    poses = estimate_poses(mesh, np.array([0.75, 0.0], np.float32), SIZE_PX, SIZE_PX)
    assert poses.shape == (2, len(POSE_FIELDS))
    assert poses.dtype == np.float32
    assert poses[0, 6] == 0.75
    assert not poses[1].any()


def test_align_is_a_proper_rotation_even_for_a_mirrored_target():
    points = np.random.default_rng(0).normal(size=(20, 3))
    for target in (points, points * [-1, 1, 1]):
        assert np.linalg.det(align(points, target)[1]) == pytest.approx(1.0)
    rotation = rotation_from_angles(20, 30, -50)
    scale, found, shift = align(points, 2.5 * points @ rotation.T + [1, 2, 3])
    assert scale == pytest.approx(2.5)
    np.testing.assert_allclose(found, rotation, atol=1e-12)
    np.testing.assert_allclose(shift, [1, 2, 3], atol=1e-12)


# --- the canonical face --------------------------------------------------------------------------------------------


def readings(image: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """Forty-five crops of one portrait, and as many of its mirror image put back."""
    network = load_mesh_network()
    face = network.read(image, roi_from_box(box))
    for _ in range(3):
        face = network.read(image, roi_from_points(face.points))
    roi, width = roi_from_points(face.points), image.shape[1]
    mirrored = np.ascontiguousarray(image[:, ::-1])
    plain, turned = [], []
    for size in (0.9, 1.0, 1.1):
        for angle in np.deg2rad((-10, -5, 0, 5, 10)):
            for shift in (-0.03, 0.0, 0.03):
                side, away = roi.side_px * size, shift * roi.side_px
                plain.append(network.read(image, Roi(roi.x + away, roi.y, side, roi.angle_rad + angle)).points)
                flipped = Roi(width - roi.x + away, roi.y, side, angle - roi.angle_rad)
                turned.append(network.read(mirrored, flipped).points)
    partner = mirror_pairs(plain[0].astype(np.float64))
    return np.stack([*plain, *(points[partner] * [-1, 1, 1] for points in turned)])


def test_the_canonical_face_is_what_two_packaged_portraits_give():
    import matplotlib as mpl
    from skimage import data

    hopper = cv2.imread(str(Path(mpl.get_data_path()) / "sample_data" / "grace_hopper.jpg"))
    portraits = [
        readings(np.ascontiguousarray(data.astronaut()), (180.0, 70.0, 270.0, 180.0)),
        readings(np.ascontiguousarray(hopper[..., ::-1]), (172.0, 143.0, 368.0, 339.0)),
    ]
    np.testing.assert_allclose(measure_canonical_face(portraits), canonical_face(), atol=2e-3)


# --- rendered heads ------------------------------------------------------------------------------------------------

RENDERED = [
    *((sign * 25, 0, 0) for sign in (-1, 1)),
    *((0, sign * 15, 0) for sign in (-1, 1)),
    *((0, 0, sign * 20) for sign in (-1, 1)),
]


@pytest.mark.parametrize("angles", RENDERED)
def test_the_pose_of_a_rendered_head_is_read_from_its_picture(angles):
    from pipeline.demo.head import HeadPlacement, render_head
    from pipeline.demo.solids import Character

    image, truth = render_head(np.full((640, 640, 3), 110, np.uint8), Character(), HeadPlacement(*angles))
    face = FaceMesh468().locate(image, truth.box)
    assert face is not None
    found = angles_from_rotation(pose_from_mesh(face.points).rotation)
    np.testing.assert_allclose(found, angles, atol=10)
    axis = int(np.argmax(np.abs(angles)))
    assert np.sign(found[axis]) == np.sign(angles[axis])
    assert abs(found[axis]) > 0.5 * abs(angles[axis])


# --- real faces ----------------------------------------------------------------------------------------------------


# Signs by eye: Einstein looks to image right and leans clockwise; the woman looks to image left and up.
@pytest.mark.assets
@pytest.mark.parametrize(
    ("picture", "box", "low", "high"),
    [
        ("einstein.jpg", (353, 281, 438, 381), (-40, -5, 5), (-10, 30, 30)),
        ("aflw-test.jpg", (140, 198, 335, 357), (5, 0, -5), (25, 20, 10)),
        ("takeo.ppm", (31, 85, 126, 172), (-15, -15, -5), (10, 10, 5)),
    ],
)
def test_pose_of_photographs_looks_right(assets, picture, box, low, high):
    image = np.ascontiguousarray(cv2.imread(str(assets / "stills" / picture))[..., ::-1])
    face = FaceMesh468().locate(image, box)
    assert face is not None
    angles = np.array(angles_from_rotation(pose_from_mesh(face.points).rotation))
    assert np.all((angles >= low) & (angles <= high)), angles


@pytest.mark.assets
def test_pose_follows_a_pose_network_and_does_not_tremble(assets):
    import av
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    networks = [
        onnxruntime.InferenceSession(str(assets / "weights" / f"fsanet-{name}-iter-688590.onnx"), options)
        for name in ("1x1", "var")
    ]
    tracker, found, expected = FaceMesh468(), [], []
    with av.open(str(assets / "video" / "tps_driving.mp4")) as container:
        for frame in container.decode(video=0):
            image = frame.to_ndarray(format="rgb24")
            face = tracker.locate(image, (80.0, 90.0, 330.0, 370.0))
            assert face is not None
            found.append(angles_from_rotation(pose_from_mesh(face.points).rotation))
            low, high = face.points[:, :2].min(axis=0), face.points[:, :2].max(axis=0)
            (x, y), side = (low + high) / 2, (high - low).max() * 1.35
            zoom = 64 / side
            patch = cv2.warpAffine(image, np.array([[zoom, 0, 32 - x * zoom], [0, zoom, 32 - y * zoom]]), (64, 64))
            blob = cv2.dnn.blobFromImage(patch, 1 / 128, mean=(127.5,) * 3, swapRB=True)
            expected.append(np.mean([n.run(None, {n.get_inputs()[0].name: blob})[0][0] for n in networks], axis=0))
    angles, reference = np.array(found), np.array(expected)
    assert np.abs(angles - reference).mean(axis=0).max() < 4  # measured 1.2, 1.9, 2.1
    for axis in range(3):
        assert np.corrcoef(angles[:, axis], reference[:, axis])[0, 1] > 0.8
    trembling = np.median(np.abs(np.diff(angles, 2, axis=0)), axis=0)
    assert np.all(trembling < (0.6, 0.9, 0.4))  # measured .34, .70, .24
