"""A build with networks of the user's own, by the command line and a settings file, on a filmed talker."""

import hashlib
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from flows.cli import application as cli
from pipeline.models.onnx_detector import STRIDES
from pipeline.release.verify import verify_release
from tests.helpers.films import build, write_manifest
from tests.helpers.onnx_files import constant_answers

pytestmark = pytest.mark.assets
TALKER, SIDE_PX = "tps_driving.mp4", 640
# Its head stays there throughout, xyxy in its 410 × 412 px.
HEAD = (110.0, 80.0, 300.0, 345.0)
YUNET = {"file": "yunet_n_640_640.onnx", "layout": "yunet", "channels": "bgr", "max_iou": 0.3}
SCRFD = {"file": "scrfd_500m_kps.onnx", "layout": "scrfd", "mean": [127.5] * 3, "scale": 1 / 128}


def stand_in_yolo(folder: Path) -> Path:
    """A stand-in in the layout of YOLO's face networks: it was not trained, and tells the head's place of this film."""
    num_cells = sum((SIDE_PX // stride) ** 2 for stride in STRIDES)
    rows = np.zeros((1, 5, num_cells), np.float32)
    x0, y0, x1, y1 = (edge * SIDE_PX / 412 for edge in HEAD)
    rows[0, :, 0] = ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, 0.9)
    return constant_answers(folder / "stand_in_yolo_face.onnx", {"output0": rows}, (SIDE_PX, SIDE_PX))


def settings(path: Path, detector: dict[str, object], **landmarker: object) -> Path:
    """A settings file that names one detector of the user's, and perhaps a landmarker."""
    real = {"detectors": [{"model": "mine", "min_score": 0.5, "onnx": detector}]}
    path.write_text(yaml.safe_dump({"domains": {"real": {**real, **landmarker}}}))
    return path


def network(assets: Path, known: dict[str, object], **changes: object) -> dict[str, object]:
    described = {**known, "path": str(assets / "weights" / str(known["file"])), "width_px": 640, "height_px": 640}
    return {name: value for name, value in {**described, **changes}.items() if name != "file"}


def talker(assets: Path, folder: Path) -> Path:
    film = {"id": "talker", "uri": str(assets / "video" / TALKER)}
    return write_manifest(folder / "manifest.yaml", [film])


@pytest.mark.parametrize("layout", ["yunet", "scrfd", "yolo_face"])
def test_a_talker_found_by_a_users_detector_and_landmarker_becomes_a_clip_that_names_them(assets, tmp_path, layout):
    if layout == "yolo_face":
        own = {"path": str(stand_in_yolo(tmp_path)), "width_px": 640, "height_px": 640, "layout": layout}
    else:
        own = network(assets, YUNET if layout == "yunet" else SCRFD)
    points = {"path": str(assets / "weights" / "pfld.onnx"), "input_px": 112, "box_y_offset": 0.05}
    config = settings(tmp_path / "config.yaml", own, landmarker=points)
    done = build(talker(assets, tmp_path), tmp_path / "ws", "--config", str(config), "--release", "first")
    assert done == 0
    release = tmp_path / "ws" / "releases" / "first"
    assert not verify_release(str(release))
    with tarfile.open(next(release.glob("*/real/*visual*.tar"))) as tar:
        [info] = [json.loads(tar.extractfile(member).read()) for member in tar.getnames() if member.endswith(".json")]
    assert info["provenance"]["detector"] == "mine"
    assert info["scores"]["landmark_ratio"] > 0.9
    recorded = json.loads((release / "release.json").read_text())["models"]
    card = (release / "README.md").read_text()
    for path in (Path(str(own["path"])), Path(points["path"])):
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        [name] = [name for name, checksum in recorded.items() if checksum == sha256]
        assert name == f"{path.stem}-{sha256[:12]}"
        assert info["provenance"]["models"][name] == sha256
        assert f"| `{name}` | `{path.name}` |" in card
    published = b"".join(path.read_bytes() for path in release.rglob("*") if path.is_file())
    assert str(tmp_path).encode() not in published, "a release tells no folder of this machine"


@pytest.mark.parametrize(
    ("known", "changes", "match"),
    [
        (YUNET, {"layout": "scrfd"}, "expected one output of [12800, 1]"),
        (SCRFD, {"layout": "yunet"}, "expected an output cls_8"),
        (SCRFD, {"layout": "yolo_face"}, "expected one output"),
        (YUNET, {"width_px": 320, "height_px": 320}, "does not take a picture of 320×320"),
        ({**SCRFD, "file": "face_expression_model.bin"}, {}, "no network that ONNX Runtime can run"),
        ({**YUNET, "file": "pfld.onnx"}, {}, "does not take a picture of 640×640"),
        ({**YUNET, "file": "nobody.onnx"}, {}, "nobody.onnx does not exist"),
    ],
)
def test_a_detector_that_does_not_fit_is_one_sentence_before_any_work(assets, tmp_path, capsys, known, changes, match):
    config = settings(tmp_path / "config.yaml", network(assets, known, **changes))
    refused(assets, tmp_path, config, capsys, match)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"input_px": 96}, "domains.real.landmarker"),
        ({"num_points": 98}, "expected 98 points"),
        ({"units": "pixels"}, "units to 'crop'"),
        ({"path": "yunet_n_640_640.onnx"}, "domains.real.landmarker"),
    ],
)
def test_a_landmarker_that_does_not_fit_is_one_sentence_before_any_work(assets, tmp_path, capsys, changes, match):
    points = {"path": "pfld.onnx", "input_px": 112, **changes}
    points["path"] = str(assets / "weights" / str(points["path"]))
    config = settings(tmp_path / "config.yaml", network(assets, YUNET), landmarker=points)
    refused(assets, tmp_path, config, capsys, match)


def refused(assets: Path, tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str], match: str) -> None:
    arguments = ["build", str(talker(assets, tmp_path)), "-w", str(tmp_path / "ws"), "--inline"]
    assert cli.run([*arguments, "--config", str(config)]) == 2
    sentence = capsys.readouterr().err
    print(sentence)
    assert match in " ".join(sentence.split())
    assert "Traceback" not in sentence
    assert len(sentence.strip().splitlines()) == 1
    assert not (tmp_path / "ws").exists()
