"""Layouts: 68 points must mean to every reader what the mesh means, and depth that is filled in must be the head's."""

import numpy as np
import pytest

from pipeline.clip.headpose import angles_from_rotation, estimate_poses, pose_from_mesh, rotation_from_angles
from pipeline.clip.motion import estimate_motion, mouth_opening
from pipeline.models.canonical import canonical_face
from pipeline.models.layouts import FACE_MESH_468, IBUG_68, Layout, with_depth

LAYOUTS = {"mesh": FACE_MESH_468, "ibug": IBUG_68}
ANGLES = [(0, 0, 0), (40, 0, 0), (-25, 15, 0), (0, -20, 20), (30, 10, -35)]


def placed(layout: Layout, angles: tuple[float, float, float], scale: float = 90.0) -> np.ndarray:
    return layout.average() @ rotation_from_angles(*angles).T * scale + [200, 300, 0]


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layouts_points_lie_where_their_names_say(name):
    layout = LAYOUTS[name]
    face = layout.average()
    assert face.shape == (layout.num_points, 3)
    right, left = layout.outer_eyes
    assert np.linalg.norm(face[left] - face[right]) == pytest.approx(1.0, abs=1e-3)
    for eye, lids, brow, side in (
        (layout.left_eye, layout.left_lids, layout.left_brow, 1),
        (layout.right_eye, layout.right_lids, layout.right_brow, -1),
    ):
        assert np.all(face[[*eye, *brow], 0] * side > 0)
        assert all(face[upper, 1] < face[lower, 1] for upper, lower in lids)
        assert face[list(brow), 1].max() < face[list(eye), 1].min()
    assert all(face[upper, 1] < face[lower, 1] for upper, lower in layout.lips)
    assert face[layout.chin, 1] == face[:, 1].max()
    assert face[layout.mouth_corners[0], 0] < 0 < face[layout.mouth_corners[1], 0]


def test_both_layouts_mean_the_same_face():
    mesh, ibug = FACE_MESH_468, IBUG_68
    for kind in ("left_eye", "right_eye", "mouth_corners", "outer_eyes"):
        np.testing.assert_allclose(
            canonical_face()[list(getattr(mesh, kind))], ibug.average()[list(getattr(ibug, kind))], atol=1e-12
        )
    for kind in ("nose_base", "chin"):
        np.testing.assert_allclose(canonical_face()[getattr(mesh, kind)], ibug.average()[getattr(ibug, kind)])
    np.testing.assert_array_equal(ibug.to_ibug68(ibug.average()), ibug.average()[:, :2].astype(np.float32))


def test_the_opening_of_a_mouth_is_the_same_in_both_layouts():
    mesh = canonical_face().copy()
    mesh[[14, 87, 317, 178, 402], 1] += 0.1
    assert mouth_opening(mesh) == pytest.approx(0.094, abs=0.02)
    points = IBUG_68.average().copy()
    points[[65, 66, 67], 1] += 0.1
    assert mouth_opening(points, IBUG_68) == pytest.approx(mouth_opening(mesh), rel=0.05)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("angles", ANGLES)
def test_depth_of_the_average_face_is_found_again_from_x_and_y(name, angles):
    layout = LAYOUTS[name]
    face = placed(layout, angles)
    deepened = with_depth(face[:, :2], layout)
    np.testing.assert_array_equal(deepened[:, :2], face[:, :2])
    np.testing.assert_allclose(deepened[:, 2], face[:, 2] - face[layout.rigid, 2].mean(), atol=0.5)
    read = angles_from_rotation(pose_from_mesh(deepened.astype(np.float32), layout).rotation)
    np.testing.assert_allclose(read, angles, atol=0.5)


def test_depth_does_not_depend_on_place_size_or_roll():
    face = placed(IBUG_68, (25, -10, 0)) + np.random.default_rng(0).normal(0, 1, (68, 3))
    plain = with_depth(face[:, :2], IBUG_68)
    roll = rotation_from_angles(0, 0, 50)[:2, :2]
    moved = with_depth(face[:, :2] @ roll.T * 3 + [10, -400], IBUG_68)
    np.testing.assert_allclose(moved[:, 2], 3 * plain[:, 2], atol=0.05)


@pytest.mark.parametrize("pose", ["mesh", "pnp"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_poses_of_points_without_depth_have_the_signs_of_the_convention(name, pose):
    layout = LAYOUTS[name]
    for axis, angle in ((0, 25), (0, -25), (1, 15), (1, -15), (2, 20), (2, -20)):
        angles = tuple(float(angle) if index == axis else 0.0 for index in range(3))
        face = with_depth(placed(layout, angles, scale=150)[:, :2], layout).astype(np.float32)
        estimated = estimate_poses(face[None], np.ones(1, np.float32), 512, 512, layout, pose)[0]
        # A camera nearby sees what is drawn without perspective as a head turned by a few degrees.
        np.testing.assert_allclose(estimated[:3], angles, atol=6)


def test_a_pinhole_camera_at_the_assumed_distance_is_undone_by_pnp():
    for angles in ANGLES:
        head = IBUG_68.average() @ rotation_from_angles(*angles).T + [0, 0, 6.0]
        xy = 1024 * head[:, :2] / head[:, 2:] + 255.5
        face = np.concatenate([xy, np.zeros((68, 1))], axis=1).astype(np.float32)
        pose = estimate_poses(face[None], np.ones(1, np.float32), 512, 512, IBUG_68, "pnp")[0]
        np.testing.assert_allclose(pose[:3], angles, atol=0.05)


def test_angles_that_a_network_read_are_taken_over_and_the_place_is_the_fits():
    face = placed(IBUG_68, (10, 0, 0)).astype(np.float32)
    points, confidence = np.stack([face, face]), np.array([0.5, 0.0], np.float32)
    read = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    poses = estimate_poses(points, confidence, 512, 512, IBUG_68, read)
    np.testing.assert_array_equal(poses[0, :3], [1, 2, 3])
    np.testing.assert_array_equal(poses[0, 3:], estimate_poses(points, confidence, 512, 512, IBUG_68)[0, 3:])
    assert not poses[1].any()


def test_motion_of_68_points_follows_the_motion_of_the_mesh_they_come_from():
    from pipeline.models import layouts

    time = np.arange(80)
    mesh = np.repeat(canonical_face()[None] * 100, 80, axis=0)
    mesh[:, [14, 87, 317, 178, 402], 1] += 12 + 12 * np.sin(time / 3)[:, None]
    mesh[:, [61], 0] -= 6 + 6 * np.sin(time / 5)[:, None]
    blink = np.zeros(80)
    blink[30:35] = (3, 7, 8, 7, 3)
    mesh[:, [385, 387], 1] += blink[:, None]
    mesh[:, [336, 296, 334, 293, 300, 107, 66, 105, 63, 70], 1] -= 4 + 4 * np.cos(time / 7)[:, None]
    turned = np.stack([frame @ rotation_from_angles(10 * np.sin(k / 20), 0, 5).T for k, frame in enumerate(mesh)])
    seen = np.ones(80, np.float32)
    wanted = estimate_motion(turned.astype(np.float32), seen).channels
    points = np.stack([with_depth(layouts._chosen68(frame)[:, :2], IBUG_68) for frame in turned]).astype(np.float32)
    motion = estimate_motion(points, seen, IBUG_68).channels
    for channel in (0, 1, 2, 4):
        assert np.corrcoef(motion[:, channel], wanted[:, channel])[0, 1] > 0.95, channel
    assert motion[32, 2] > 0.8 > 0.3 > motion[32, 3]  # the character's own left eye alone
