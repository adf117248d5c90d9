"""FAN against the package it comes from. All weights here are random stand-ins with the real layout: no accuracy."""

import hashlib
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.clip.landmarks import estimate_landmarks
from pipeline.models.fan import FaceAlignment68
from pipeline.models.layouts import IBUG_68
from schemas.config import LandmarkConfig
from schemas.errors import UsageError

BOXES = [(60.0, 40.0, 160.0, 170.0), (20.0, 30.0, 140.0, 150.0), (90.0, 60.0, 200.0, 190.0)]
NO_LIMIT = 0.0


def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (3, 14, 15, 3), dtype=np.uint8)
    return [np.kron(image, np.ones((16, 16, 1), np.uint8)) for image in coarse]


@pytest.fixture(scope="module")
def random_stand_ins(tmp_path_factory) -> dict[str, Path]:
    """One hourglass instead of four, so that a test takes a second."""
    from face_alignment.models import FAN

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("fan")
    points = FAN(1).eval()
    torch.save(points.state_dict(), folder / "random-2DFAN1.pth.tar")
    script = torch.jit.trace(points, torch.zeros(1, 3, 256, 256), check_trace=False)
    script.save(str(folder / "random-2DFAN1.zip"))
    return {
        "points": folder / "random-2DFAN1.pth.tar",
        "script": folder / "random-2DFAN1.zip",
    }


@pytest.fixture(scope="module")
def random_depth(random_stand_ins) -> dict[str, Path]:
    """The same with the network for depth, at full size."""
    from face_alignment.models import ResNetDepth

    path = random_stand_ins["points"].with_name("random-depth.pth.tar")
    weights = {f"module.{name}": value.half() for name, value in ResNetDepth().state_dict().items()}
    torch.save({"epoch": 1, "state_dict": weights}, path)
    return {**random_stand_ins, "depth": path}


def packages_own(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, *, depth: bool):
    """The package's class, with its downloads led to the stand-ins."""
    from face_alignment import FaceAlignment, LandmarksType, api, utils

    for name in ("_get_preds_fromhm", "transform_np"):  # as they are written: compiling them costs ten seconds
        monkeypatch.setattr(utils, name, getattr(utils, name).py_func)

    monkeypatch.setattr(api, "load_file_from_url", lambda url: str(files[url]))
    monkeypatch.setattr(api, "models_urls", {"2DFAN-1": "points", "3DFAN-1": "points", "depth": "depth"})
    kind = LandmarksType.THREE_D if depth else LandmarksType.TWO_D
    return FaceAlignment(kind, network_size=1, device="cpu", face_detector="folder", compile=False)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("depth", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["2d", "3d"])
def test_points_are_those_of_the_package_before_it_cuts_them_to_whole_pixels(
    random_stand_ins, request, monkeypatch, depth
):
    files = request.getfixturevalue("random_depth") if depth else random_stand_ins
    ours = FaceAlignment68(files["points"], files.get("depth"), min_confidence=NO_LIMIT)
    monkeypatch.setattr(torch, "load", _loading(torch.load))
    theirs = packages_own(files, monkeypatch, depth=depth)
    for image, box in list(zip(pictures(), BOXES, strict=True))[: 1 if depth else 3]:
        face = ours.locate(image, box)
        assert face is not None
        points, scores, _ = theirs.get_landmarks_from_image(
            image, detected_faces=[np.array(box)], return_landmark_score=True
        )
        whole = face.points[:, :2] + 0.5
        cut_off = (whole - points[0][:, :2]) * np.sign(whole)  # towards 0
        assert cut_off.min() > -1e-3
        assert cut_off.max() < 1 + 1e-3
        np.testing.assert_allclose(face.certainty, np.clip(scores[0] / 2, 0, 1), atol=1e-4)
        if depth:
            expected = points[0][:, 2]
            np.testing.assert_allclose(face.points[:, 2], expected - expected[IBUG_68.rigid].mean(), atol=0.05)


def _loading(real):
    """The package reads its file for depth with pickle; here it may not."""
    return lambda *given, **options: real(*given, **{**options, "weights_only": True})


def test_a_batch_gives_what_each_picture_gives_alone(random_stand_ins):
    images = pictures()
    alone = FaceAlignment68(random_stand_ins["points"], min_confidence=NO_LIMIT, batch_size=1)
    together = FaceAlignment68(random_stand_ins["points"], min_confidence=NO_LIMIT, batch_size=2)
    single = estimate_landmarks(images, BOXES, alone, LandmarkConfig())
    two = estimate_landmarks(images, BOXES, together, LandmarkConfig())
    np.testing.assert_allclose(two.raw, single.raw, atol=0.01)
    np.testing.assert_allclose(two.points, single.points, atol=0.01)
    assert single.points.shape == (3, 68, 3)
    assert len(np.unique(single.points[0, :, 2])) > 1, "each point has a certainty of its own"
    assert (single.points[..., 2] > 0).all()


def test_no_more_frames_are_held_than_are_read_at_once(random_stand_ins):
    taken = 0

    def frames():
        nonlocal taken
        for image in pictures():
            taken += 1
            yield image

    faces = FaceAlignment68(random_stand_ins["points"], min_confidence=NO_LIMIT, batch_size=2).locate_each(
        frames(), BOXES
    )
    next(faces)
    assert taken == 2


def test_nothing_is_downloaded_and_no_thread_is_left_behind(random_stand_ins, monkeypatch):
    import socket

    def refuse(*_: object) -> None:
        raise AssertionError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    torch.set_num_threads(2)
    network = FaceAlignment68(random_stand_ins["points"], min_confidence=NO_LIMIT)
    assert network.locate(pictures()[0], BOXES[0]) is not None
    assert torch.get_num_threads() == 2


def test_a_flat_heat_map_is_no_face(random_stand_ins):
    network = FaceAlignment68(random_stand_ins["points"], min_confidence=0.5)
    assert network.locate(pictures()[0], BOXES[0]) is None


# --- weights -------------------------------------------------------------------------------------------------------


def test_an_archive_with_code_is_run_only_if_somebody_vouches_for_it(random_stand_ins):
    script = random_stand_ins["script"]
    with pytest.raises(UsageError, match=r"TorchScript archive, which is a program"):
        FaceAlignment68(script)
    with pytest.raises(UsageError, match=r"TorchScript archive"):
        FaceAlignment68(script, trusted=["0" * 64])
    known = hashlib.sha256(script.read_bytes()).hexdigest()
    image, box = pictures()[0], BOXES[0]
    archived = FaceAlignment68(script, trusted=[known], min_confidence=NO_LIMIT).locate(image, box)
    plain = FaceAlignment68(random_stand_ins["points"], min_confidence=NO_LIMIT).locate(image, box)
    assert archived is not None
    assert plain is not None
    np.testing.assert_allclose(archived.points, plain.points, atol=0.01)


class _Trap:
    """What a hostile pickle does."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return time.sleep, (0,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"are not at .*put the file there"),
        (b"no weights", r"does not hold the weights of FAN"),
        ({"conv1.weight": torch.zeros(2)}, r"does not hold the weights of FAN .*state dict of its network"),
        ({"state_dict": {"a": _Trap()}}, r"does not hold the weights of FAN .*plain tensors"),
        ([1, 2], r"does not hold the weights of FAN"),
    ],
    ids=["missing", "text", "another network", "pickle", "list"],
)
def test_a_file_that_is_not_fan_is_refused_in_one_sentence(tmp_path, content, message):
    path = tmp_path / "own.pth.tar"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UsageError, match=message) as refused:
        FaceAlignment68(path)
    assert "\n" not in str(refused.value)
    assert "own.pth.tar" in str(refused.value)


def test_cuda_that_is_not_there_is_said(random_stand_ins, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=r"landmarks.fan_device is cuda, and torch finds no CUDA .* to cpu"):
        FaceAlignment68(random_stand_ins["points"], device="cuda")
