"""Landmarkers of plain points: how the file is asked, what it may answer, and PFLD on real and rendered faces."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from flows.settings import checked
from pipeline.clip.landmarks import estimate_landmarks
from pipeline.clip.meters import model_files
from pipeline.models import onnx_session, point_networks
from pipeline.models.landmarkers import Roi
from pipeline.models.layouts import FACE_MESH_468, IBUG_68, FacePoints
from pipeline.models.onnx_session import OnnxNetwork
from pipeline.models.point_networks import PFLD, OnnxLandmarker
from pipeline.models.registry import ModelSet
from schemas.config import DomainConfig, LandmarkConfig
from schemas.errors import UsageError
from schemas.face import num_points, own_scheme
from schemas.landmarkers import PointNetwork, UserLandmarker
from tests.helpers import onnx_files

SIDE = 32
SQUARE = Roi(x=99.5, y=49.5, side_px=64.0, angle_rad=0.0)  # pixels 68 to 131 and 18 to 81
BOX = (80.0, 30.0, 120.0, 70.0)
SPEC = PointNetwork(input_px=SIDE, num_points=4)
CORNERS = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)


def landmarker(path: Path, spec: PointNetwork = SPEC, least: float = 0.5) -> OnnxLandmarker:
    return OnnxLandmarker(path, spec, least)


def with_spot(x: float, y: float, size: tuple[int, int] = (200, 120)) -> np.ndarray:
    image = np.zeros((size[1], size[0], 3), np.uint8)
    cv2.circle(image, (round(x), round(y)), 6, (255, 0, 0), -1)
    return image


# --- what the file is asked and what it answers --------------------------------------------------------------------


def test_shares_of_the_square_and_its_pixels_mean_the_same_places(tmp_path):
    image = np.zeros((100, 200, 3), np.uint8)
    shares = landmarker(onnx_files.constant(tmp_path / "a.onnx", CORNERS)).read(image, SQUARE)
    pixels = SPEC.model_copy(update={"units": "pixels"})
    face = landmarker(onnx_files.constant(tmp_path / "b.onnx", CORNERS * SIDE), pixels).read(image, SQUARE)
    # The corners of the square's first and last pixels, whose centres lie at whole numbers.
    np.testing.assert_allclose(shares.points[:, :2], [[67.5, 17.5], [131.5, 17.5], [131.5, 81.5], [67.5, 81.5]])
    np.testing.assert_allclose(face.points, shares.points)


def test_a_turned_square_turns_its_points_clockwise_on_screen(tmp_path):
    face = landmarker(onnx_files.constant(tmp_path / "a.onnx", CORNERS)).read(
        np.zeros((100, 200, 3), np.uint8), replace(SQUARE, angle_rad=np.pi / 2)
    )
    np.testing.assert_allclose(face.points[0, :2], [131.5, 17.5], atol=1e-4)  # its left upper corner, now at the right


@pytest.mark.parametrize(("channels", "first"), [("rgb", 200), ("bgr", 50)])
def test_values_reach_the_network_in_its_order_and_scale(tmp_path, channels, first):
    weight = np.zeros((8, 3 * SIDE * SIDE))
    weight[0, : SIDE * SIDE] = 1 / SIDE**2  # the mean of the first channel
    spec = SPEC.model_copy(update={"channels": channels, "mean": 100.0, "scale": 50.0, "units": "pixels"})
    path = onnx_files.linear(tmp_path / "a.onnx", weight, np.tile(10.0, 8), SIDE)
    image = np.empty((100, 200, 3), np.uint8)
    image[:] = (200, 120, 50)
    face = landmarker(path, spec).read(image, Roi(99.5, 49.5, SIDE, 0.0))
    assert face.points[0, 0] == pytest.approx(10 + (first - 100) / 50 + 99.5 - SIDE / 2, abs=1e-3)


def test_the_picture_that_the_network_sees_is_the_squares_part_of_the_image(tmp_path):
    path = onnx_files.centre_finder(tmp_path / "a.onnx", np.zeros((4, 2)))
    for x, y in ((85, 40), (110, 65), (99, 49)):
        face = landmarker(path, least=0.0).read(with_spot(x, y), SQUARE)
        np.testing.assert_allclose(face.points[0, :2], (x, y), atol=0.3)


def test_a_third_column_is_depth_in_the_unit_of_x_or_certainty(tmp_path):
    rows = np.concatenate([CORNERS, [[-0.5], [0.2], [0.9], [1.5]]], axis=1)
    path, image = onnx_files.constant(tmp_path / "a.onnx", rows), np.zeros((100, 200, 3), np.uint8)
    depth = landmarker(path, SPEC.model_copy(update={"third": "depth"})).read(image, SQUARE)
    np.testing.assert_allclose(depth.points[:, 2], np.array([-0.5, 0.2, 0.9, 1.5]) * 64, rtol=1e-5)
    sure = landmarker(path, SPEC.model_copy(update={"third": "certainty"})).locate(image, BOX)
    assert sure is not None
    np.testing.assert_allclose(sure.certainty, [0, 0.2, 0.9, 1])
    assert sure.confidence == pytest.approx(0.525)


def test_sixty_eight_points_get_the_average_faces_depth_and_others_none(tmp_path):
    face = IBUG_68.average()[:, :2]
    low, high = face.min(axis=0), face.max(axis=0)
    face = (face - (low + high) / 2) / (1.2 * (high - low).max()) + 0.5
    image = np.zeros((100, 200, 3), np.uint8)
    landmarks = landmarker(onnx_files.constant(tmp_path / "a.onnx", face), PointNetwork(input_px=SIDE), 0.0).locate(
        image, BOX
    )
    assert landmarks is not None
    nose, eye = landmarks.points[30], landmarks.points[36]
    assert nose[2] < eye[2]
    four = landmarker(onnx_files.constant(tmp_path / "b.onnx", CORNERS), least=0.0).locate(image, BOX)
    assert four is not None
    assert not four.points[:, 2].any()


# --- files that do not fit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "change", "message"),
    [
        (lambda path: path, {}, r"is missing: check the path"),
        (lambda path: path.write_bytes(b"no network") and path, {}, r"is no network that ONNX Runtime can run"),
        (lambda path: onnx_files.constant(path, CORNERS, side=48), {}, r"\[batch, 3, 48, 48\].*\[1, 3, 32, 32\]"),
        (lambda path: onnx_files.constant(path, CORNERS[:3]), {}, r"shape \[1, 6\]: expected 4 points of 2 numbers"),
        (
            lambda path: onnx_files.constant(path, CORNERS),
            {"third": "depth"},
            r"\[1, 8\]: expected 4 points of 3 numbers",
        ),
        (lambda path: onnx_files.constant(path, CORNERS * np.nan), {}, r"not finite"),
        (lambda path: onnx_files.constant(path, CORNERS * 32), {}, r"32\.0 sides away .* set units"),
        (lambda path: onnx_files.constant(path, CORNERS), {"units": "pixels"}, r"within two pixels .* units to 'crop'"),
    ],
)
def test_a_file_that_does_not_fit_its_description_is_refused_in_one_sentence(tmp_path, make, change, message):
    with pytest.raises(UsageError, match=message) as refused:
        landmarker(make(tmp_path / "own.onnx"), SPEC.model_copy(update=change))
    assert "\n" not in str(refused.value)
    assert "own.onnx" in str(refused.value)


def test_a_configured_file_is_looked_at_before_any_work(tmp_path):
    path = onnx_files.constant(tmp_path / "own.onnx", CORNERS[:3])
    own = {"path": str(path), "input_px": SIDE, "num_points": 4}
    config = checked({"domains": {"real": {"landmarker": own}}}, "config.yaml")
    with pytest.raises(UsageError, match=r"domains\.real\.landmarker .*expected 4 points"):
        ModelSet(model_files(config)).check()
    onnx_files.constant(path, CORNERS)
    ModelSet(model_files(config)).check()


def test_a_landmarker_that_nobody_knows_is_one_line():
    for wrong in ("pfdl", {"path": "a.onnx"}, 7):
        with pytest.raises(UsageError, match=r"domains\.real\.landmarker") as refused:
            checked({"domains": {"real": {"landmarker": wrong}}}, "config.yaml")
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("points", "allowed"), [(67, False), (68, True), (69, False)])
def test_angles_of_another_source_need_points_that_tell_the_heads_place(points, allowed):
    own = UserLandmarker(path="own.onnx", input_px=SIDE, num_points=points)
    given = {"description": "x", "detectors": (), "presence_gate": False, "landmarker": own, "pose": "fsanet"}
    if allowed:
        assert DomainConfig(**given).pose == "fsanet"
    else:
        with pytest.raises(ValueError, match="needs a landmarker of 68 points"):
            DomainConfig(**given)


def test_a_file_that_changes_is_another_model(tmp_path):
    path = onnx_files.constant(tmp_path / "own.onnx", CORNERS)
    own = {"path": str(path), "input_px": SIDE, "num_points": 4}
    models = ModelSet(model_files(checked({"domains": {"mesh": {"landmarker": own}}}, "config.yaml")))
    before = models.files.digests("mesh")
    onnx_files.constant(path, CORNERS / 2)
    assert models.files.digests("mesh") != before
    assert not any(name.startswith("own-") for name in models.files.digests("real"))


# --- the tracker ---------------------------------------------------------------------------------------------------

# Wide enough that the square of these points is the square they were read in.
DIAMOND = np.array([[0, -1], [1, 0], [0, 1], [-1, 0]], float) / 2.4


def test_a_moving_spot_is_followed_and_a_reset_tracker_repeats_itself_to_the_bit(tmp_path):
    tracker = landmarker(onnx_files.centre_finder(tmp_path / "a.onnx", DIAMOND))
    images = [with_spot(95 + 2 * k, 50) for k in range(6)]

    def track() -> np.ndarray:
        tracker.reset()
        faces = [tracker.locate(image, (70.0, 25.0, 130.0, 75.0)) for image in images]
        return np.stack([face.points for face in faces if face is not None])

    first = track()
    assert len(first) == 6
    np.testing.assert_allclose(first[:, :, 0].mean(axis=1), 95 + 2 * np.arange(6), atol=1)
    np.testing.assert_array_equal(track(), first)


@pytest.mark.parametrize(("moved", "agrees"), [(1 / 65, True), (1 / 64, True), (1 / 63, False)])
def test_a_face_is_where_two_readings_agree(tmp_path, monkeypatch, moved, agrees):
    monkeypatch.setattr(point_networks, "_LOST", 1 / 32)  # of numbers that floats hold exactly
    tracker = landmarker(onnx_files.constant(tmp_path / "a.onnx", CORNERS))
    count = 0

    def read(_image: np.ndarray, roi: Roi) -> FacePoints:
        nonlocal count
        count += 1
        points = np.zeros((4, 3), np.float32)
        points[:, :2] = (CORNERS - 0.5) * 40 + [100, 50]  # the next square is 48 px large
        points[:, 0] += moved * 48 * (count % 2)
        return FacePoints(points, 0.0)

    monkeypatch.setattr(tracker, "read", read)
    face = tracker.locate(np.zeros((100, 200, 3), np.uint8), BOX)
    assert (face is not None) == agrees
    if face is not None:
        assert face.confidence == pytest.approx(1 - moved * 32, abs=1e-5)


def test_points_beside_their_box_are_no_face(tmp_path):
    path = onnx_files.centre_finder(tmp_path / "a.onnx", DIAMOND)
    image = with_spot(100, 50)
    assert landmarker(path).locate(image, BOX) is not None
    assert landmarker(path).locate(image, (5.0, 20.0, 65.0, 80.0)) is None


def test_a_clip_of_unnamed_points_keeps_them_under_their_own_scheme_and_is_not_readable(tmp_path):
    tracker = landmarker(onnx_files.centre_finder(tmp_path / "a.onnx", DIAMOND))
    images = [with_spot(100, 50), np.zeros((120, 200, 3), np.uint8), with_spot(102, 50)]
    boxes = [BOX, (0.0, 0.0, 4.0, 4.0), BOX]
    track = estimate_landmarks(images, boxes, tracker, LandmarkConfig())
    assert tracker.scheme == own_scheme(4) == "points4"
    assert num_points(tracker.scheme) == 4
    assert track.points.shape == track.smoothed.shape == (3, 4, 3)
    np.testing.assert_array_equal(track.confidence > 0, [True, False, True])
    assert not track.points[1].any()
    assert not track.readable.any()


@pytest.mark.parametrize(("scheme", "count"), [("points1", 1), ("points98", 98), ("points9999", 9999), ("none", 68)])
def test_schemes_say_how_many_points_they_have(scheme, count):
    assert num_points(scheme) == count


@pytest.mark.parametrize("scheme", ["points0", "points", "points10000", "ibug98", "points-3", "points98 "])
def test_other_schemes_are_unknown(scheme):
    with pytest.raises(KeyError):
        num_points(scheme)


# --- PFLD ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pfld(assets) -> OnnxLandmarker:
    return OnnxLandmarker(assets / "weights" / "pfld.onnx", PFLD, 0.5, "PFLD")


@pytest.mark.assets
def test_taking_denormal_weights_out_leaves_none_and_changes_no_bit_of_pfld(assets):
    import onnx
    import onnxruntime
    from onnx import numpy_helper

    path = assets / "weights" / "pfld.onnx"

    def weights(model):
        return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}

    before, after = weights(onnx.load_model(path)), weights(onnx.load_from_string(onnx_session._normal_weights(path)))
    assert before.keys() == after.keys()
    smallest = np.finfo(np.float32).tiny
    floats = [name for name, values in before.items() if values.dtype == np.float32]
    assert sum(((before[name] != 0) & (np.abs(before[name]) < smallest)).sum() for name in floats) > 100_000
    for name in floats:
        changed = before[name] != after[name]
        assert not ((after[name] != 0) & (np.abs(after[name]) < smallest)).any(), name
        assert not after[name][changed].any(), name
        assert (np.abs(before[name][changed]) < 1e-20).all(), name

    # Whoever adds less than a sum's last bit adds nothing: a law of the format, and the same on every processor.
    plain = onnxruntime.InferenceSession(str(path), onnx_session.session_options(), providers=["CPUExecutionProvider"])
    network = OnnxNetwork(path, (1, 3, 112, 112), "PFLD")
    for seed in range(3):
        blob = np.random.default_rng(seed).random((1, 3, 112, 112), np.float32)
        np.testing.assert_array_equal(network.run(blob), plain.run(None, {"input": blob})[0])


# Measured .055, .033, .050 from these boxes; the mesh .087, .041, .054.
@pytest.mark.assets
@pytest.mark.parametrize(("number", "limit"), [(0, 0.065), (1, 0.04), (2, 0.06)])
def test_pfld_on_labelled_photographs(assets, pfld, number, limit):
    from pipeline.bench.landmarks import _STILLS, _still, normalised_error

    picture, truth, _ = _STILLS[number]
    face = _still(assets, picture, truth)
    pfld.reset()
    located = pfld.locate(face.image, face.box)
    assert located is not None
    assert normalised_error(located.points[:, :2], face.points).mean() <= limit


@pytest.mark.assets
def test_pfld_sees_no_face_in_grass(assets, pfld):
    image = cv2.imread(str(assets / "stills" / "grass.jpg"), cv2.IMREAD_COLOR_RGB)
    height, width = image.shape[:2]
    for x in (0.25, 0.45, 0.65):
        pfld.reset()
        assert pfld.locate(image, (width * (x - 0.2), height * 0.2, width * (x + 0.2), height * 0.8)) is None


@pytest.mark.assets
@pytest.mark.parametrize("angles", [(25, 0, 0), (-25, 0, 0), (0, 15, 0), (0, -15, 0), (0, 0, 20), (0, 0, -20)])
@pytest.mark.parametrize("pose", ["mesh", "pnp", "fsanet"])
def test_every_source_of_angles_has_the_signs_of_the_convention_on_rendered_heads(assets, pfld, pose, angles):
    from pipeline.clip.headpose import estimate_poses
    from pipeline.demo.head import HeadPlacement, render_head
    from pipeline.demo.solids import Character
    from pipeline.models.pose_networks import FsaNet

    image, truth = render_head(np.full((640, 640, 3), 110, np.uint8), Character(), HeadPlacement(*angles))
    if pose == "fsanet":
        folder = assets / "weights"
        network = FsaNet(folder / "fsanet-1x1-iter-688590.onnx", folder / "fsanet-var-iter-688590.onnx")
        read = np.array(network.read(image, truth.box))
    else:
        pfld.reset()
        face = pfld.locate(image, truth.box)
        assert face is not None
        read = estimate_poses(face.points[None], np.ones(1, np.float32), 640, 640, IBUG_68, pose)[0, :3]
    np.testing.assert_allclose(read, angles, atol=9)
    axis = int(np.argmax(np.abs(angles)))
    assert abs(read[axis]) > 0.6 * abs(angles[axis])
    assert np.sign(read[axis]) == np.sign(angles[axis])


@pytest.mark.assets
def test_pfld_follows_the_mouth_and_the_lids_of_a_rendered_head(pfld):
    from pipeline.clip.motion import estimate_motion
    from pipeline.demo.head import HeadPlacement, render_head
    from pipeline.demo.solids import Character

    time = np.arange(24)
    openings, closures = np.abs(np.sin(time / 4)), np.where(time % 8 == 5, 1.0, 0.0)
    drawn = [
        render_head(
            np.full((640, 640, 3), 110, np.uint8), Character(), HeadPlacement(10 * np.sin(k / 5), 0, 0),
            mouth_open=float(openings[k]), eye_closure=float(closures[k]),
        )
        for k in time
    ]  # fmt: skip
    track = estimate_landmarks([image for image, _ in drawn], [truth.box for _, truth in drawn], pfld, LandmarkConfig())
    motion = estimate_motion(track.raw, track.readable, track.layout or FACE_MESH_468)
    assert (track.confidence > 0).all()
    assert np.corrcoef(motion.channels[:, 0], openings)[0, 1] > 0.85
    for channel in (2, 3):
        assert np.corrcoef(motion.channels[:, channel], closures)[0, 1] > 0.85
