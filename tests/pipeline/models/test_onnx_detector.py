"""A user's own detector: what a layout means, and what is refused when it is loaded."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.models.detector_table import build_detectors
from pipeline.models.files.weights import WeightsStore
from pipeline.models.onnx_detector import STRIDES, OnnxDetector, _centres
from schemas.boxes import pairwise_iou
from schemas.detectors import DetectorChoice, OnnxDetectorConfig
from schemas.errors import UsageError
from tests.helpers.onnx_files import constant_answers

SIDE = 64
NUM_CELLS = sum((SIDE // stride) ** 2 for stride in STRIDES)


def config(path, layout="yolo_face", width=SIDE, height=SIDE, **changes) -> OnnxDetectorConfig:
    return OnnxDetectorConfig(path=str(path), width_px=width, height_px=height, layout=layout, **changes)


def yolo(path, *faces, num_rows=5):
    """``faces``: centre, size and score, one per cell from the first on."""
    rows = np.zeros((1, num_rows, NUM_CELLS))
    for cell, face in enumerate(faces):
        rows[0, : len(face), cell] = face
    return constant_answers(path, {"output0": rows})


def scrfd_answers(side=SIDE, score=0.0):
    answers = {}
    for kind, columns in (("score", 1), ("box", 4), ("points", 10)):
        for stride in STRIDES:
            answers[f"{kind}{stride}"] = np.full((2 * (side // stride) ** 2, columns), score if columns == 1 else 1.0)
    return answers


def yunet_answers(side=SIDE, cls=0.0, obj=0.0):
    answers = {}
    for stride in STRIDES:
        num = (side // stride) ** 2
        answers[f"cls_{stride}"] = np.full((1, num, 1), cls)
        answers[f"obj_{stride}"] = np.full((1, num, 1), obj)
        answers[f"bbox_{stride}"] = np.zeros((1, num, 4))
    return answers


BLANK = np.full((SIDE, SIDE, 3), 90, np.uint8)


# --- laws ------------------------------------------------------------------------------------------------


@given(st.sampled_from([32, 64, 96, 640]), st.sampled_from([32, 64, 96, 640]), st.integers(1, 2))
def test_every_cell_has_its_corner(width, height, anchors):
    for stride in STRIDES:
        corners = _centres(width, height, stride, anchors)
        assert len(corners) == anchors * (width // stride) * (height // stride)
        assert corners.max(axis=0).tolist() == [width - stride, height - stride]
        cells = {tuple(corner) for corner in corners.tolist()}
        assert len(cells) * anchors == len(corners)
        if width > stride:
            assert corners[anchors].tolist() == [stride, 0]  # along the rows first


@pytest.mark.parametrize(("width", "height", "scale"), [(64, 64, 1), (128, 64, 2), (64, 256, 4), (32, 16, 0.5)])
def test_boxes_come_back_in_pixels_of_the_picture(tmp_path, width, height, scale):
    detector = OnnxDetector("mine", config(yolo(tmp_path / "a.onnx", (20, 24, 10, 16, 0.9))), 0.5)
    (face,) = detector.detect(np.zeros((height, width, 3), np.uint8))
    assert face.box == pytest.approx([15 * scale, 16 * scale, 25 * scale, 32 * scale])
    assert face.score == pytest.approx(0.9)


@pytest.mark.parametrize(("score", "num"), [(0.49, 0), (0.5, 1), (0.51, 1)])
def test_the_minimum_score_is_inclusive(tmp_path, score, num):
    path = yolo(tmp_path / "a.onnx", (20, 24, 10, 16, score))
    assert len(OnnxDetector("mine", config(path), 0.5).detect(BLANK)) == num


@pytest.mark.parametrize(("shift", "num"), [(2.0, 1), (10.0, 2)])
def test_boxes_of_one_face_become_the_best(tmp_path, shift, num):
    path = yolo(tmp_path / "a.onnx", (20, 24, 10, 16, 0.7), (20 + shift, 24, 10, 16, 0.9))
    faces = OnnxDetector("mine", config(path), 0.5).detect(BLANK)
    assert [round(face.score, 3) for face in faces] == [0.9, 0.7][:num]


def test_the_box_grows_to_the_convention(tmp_path):
    path = yolo(tmp_path / "a.onnx", (20, 24, 10, 16, 0.9))
    grown = config(path, grow_top=0.25, grow_bottom=0.125, grow_sides=-0.1)
    (face,) = OnnxDetector("mine", grown, 0.5).detect(BLANK)
    assert face.box == pytest.approx([16, 12, 24, 34])


def test_a_scrfd_box_is_its_edges_distances_in_strides(tmp_path):
    answers = scrfd_answers()
    answers["score16"][2 * 5] = 0.8  # the first anchor of cell (1, 1) on a 4 × 4 grid
    answers["box16"][2 * 5] = [0.5, 1.0, 1.5, 2.0]
    detector = OnnxDetector("mine", config(constant_answers(tmp_path / "a.onnx", answers), "scrfd"), 0.5)
    (face,) = detector.detect(BLANK)
    assert face.box == pytest.approx([16 - 8, 16 - 16, 16 + 24, 16 + 32])


def test_a_yunet_score_is_the_root_of_the_product(tmp_path):
    answers = yunet_answers()
    answers["cls_32"][0, 3], answers["obj_32"][0, 3] = 0.9, 0.4
    answers["bbox_32"][0, 3] = [0.5, 0.25, np.log(0.5), np.log(0.25)]
    detector = OnnxDetector("mine", config(constant_answers(tmp_path / "a.onnx", answers), "yunet"), 0.5)
    (face,) = detector.detect(BLANK)
    assert face.score == pytest.approx(0.6)
    assert face.box == pytest.approx([48 - 8, 40 - 4, 48 + 8, 40 + 4])


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_the_picture_is_normalised_as_described(tmp_path, channels):
    detector = OnnxDetector(
        "mine", config(yolo(tmp_path / "a.onnx"), channels=channels, mean=(10, 20, 30), scale=0.5), 0.5
    )
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[...] = (40, 60, 90)  # blue, green, red
    blob, _ = detector._blob(image)
    ordered = (90, 60, 40) if channels == "rgb" else (40, 60, 90)
    assert blob[0, :, 5, 5].tolist() == [(value - mean) / 2 for value, mean in zip(ordered, (10, 20, 30), strict=True)]


# --- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "layout", "match"),
    [
        ({"output0": np.zeros((1, 5, NUM_CELLS - 1))}, "yolo_face", rf"1, 5 or more, {NUM_CELLS}.*found \[1, 5, 83\]"),
        ({"output0": np.zeros((1, 4, NUM_CELLS))}, "yolo_face", "5 or more"),
        ({"output0": np.zeros((1, NUM_CELLS, 5))}, "yolo_face", "set layout, width_px and height_px"),
        (scrfd_answers(), "yolo_face", "expected one output"),
        (scrfd_answers(), "yunet", "expected an output cls_8, found score8"),
        (yunet_answers(), "scrfd", r"expected one output of \[128, 1\]"),
        (scrfd_answers(side=96), "scrfd", r"expected one output of \[128, 1\]"),
        ({"output0": np.full((1, 5, NUM_CELLS), np.nan)}, "yolo_face", "NaN or infinity: check mean and scale"),
        ({"output0": np.full((1, 5, NUM_CELLS), 1.01)}, "yolo_face", "scores from 1.01 to 1.01, expected 0 to 1"),
        ({"output0": np.full((1, 5, NUM_CELLS), -0.01)}, "yolo_face", "scores from -0.01"),
        (scrfd_answers(score=-4.0), "scrfd", "with the logistic at its end"),
        (yunet_answers(cls=-4.0, obj=-2.0), "yunet", "scores from -4 to -2"),
    ],
)
def test_a_network_that_does_not_fit_is_refused_in_one_sentence(tmp_path, answers, layout, match):
    path = constant_answers(tmp_path / "a.onnx", answers)
    with pytest.raises(UsageError, match=match) as error:
        OnnxDetector("mine", config(path, layout), 0.5)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("top", [0.999, 1.0, 1.0005])
def test_scores_up_to_one_are_scores(tmp_path, top):
    path = constant_answers(tmp_path / "a.onnx", {"output0": np.full((1, 5, NUM_CELLS), top)})
    assert OnnxDetector("mine", config(path), 0.5).name == "mine"


def test_another_input_size_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"does not take a picture of 96×64 .*set width_px and height_px"):
        OnnxDetector("mine", config(yolo(tmp_path / "a.onnx"), width=96), 0.5)


def test_a_missing_or_damaged_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match="missing"):
        OnnxDetector("mine", config(tmp_path / "none.onnx"), 0.5)
    (tmp_path / "bad.onnx").write_bytes(b"not a network")
    with pytest.raises(UsageError, match="no network that ONNX Runtime can run"):
        OnnxDetector("mine", config(tmp_path / "bad.onnx"), 0.5)


def test_a_choice_builds_it_under_its_own_name(tmp_path):
    choice = DetectorChoice(model="mine", min_score=0.5, onnx=config(yolo(tmp_path / "a.onnx", (20, 24, 10, 16, 0.9))))
    (detector,) = build_detectors([choice])
    assert detector.name == "mine"
    assert len(detector.detect(BLANK)) == 1
    with pytest.raises(UsageError, match="'yunet' is a detector of this project"):
        build_detectors([choice.model_copy(update={"model": "yunet"})])


@pytest.mark.parametrize("side", [31, 33, 63])
def test_sides_are_multiples_of_32(side):
    with pytest.raises(ValidationError):
        config("a.onnx", width=side)
    with pytest.raises(ValidationError):
        DetectorChoice(model="yunet", min_score=0.5, input_px=side)


# --- against other readers of the same files -------------------------------------------------------------


@pytest.mark.assets
@pytest.mark.parametrize(
    ("layout", "file", "reader", "settings"),
    [
        ("yunet", "yunet_n_640_640.onnx", "yunet", {"channels": "bgr", "max_iou": 0.3}),
        ("scrfd", "scrfd_500m_kps.onnx", "scrfd_500m", {"mean": (127.5, 127.5, 127.5), "scale": 1 / 128}),
    ],
)
def test_a_layout_reads_what_the_library_reads(assets, layout, file, reader, settings):
    path = assets / "weights" / file
    image = cv2.imread(str(assets / "stills" / "t1.jpg"))
    image = cv2.resize(image, (640, round(640 * image.shape[0] / image.shape[1])), interpolation=cv2.INTER_AREA)
    own = OnnxDetector("mine", config(path, layout, 640, 640, **settings), 0.5).detect(image)
    theirs = build_detectors([DetectorChoice(model=reader, min_score=0.5)], lambda _: WeightsStore().model(str(path)))[
        0
    ].detect(image)
    assert len(own) == len(theirs) == 6
    overlap = pairwise_iou(np.array([face.box for face in own]), np.array([face.box for face in theirs]))
    assert overlap.max(axis=1).min() > 0.97
    assert [face.score for face in own] == pytest.approx([face.score for face in theirs], abs=0.01)
