"""Detectors with weights files: their boxes, their errors, and that nothing is ever fetched for them."""

import socket
import subprocess
import sys
from fractions import Fraction
from types import SimpleNamespace

import cv2
import numpy as np
import onnxruntime
import pytest

from pipeline.analyse.windows import WHOLE
from pipeline.bench.models import asset_models
from pipeline.build.results import Results
from pipeline.models.detector_table import build_detectors, detector_files
from pipeline.models.face_networks import AnimeCascade, Scrfd, YuNet
from pipeline.models.identity import ArcFace
from pipeline.models.onnx_session import execution_providers, open_session
from schemas.config import EMBEDDED_DOMAINS, BuildConfig
from schemas.detectors import STANDARD_DETECTORS, DetectorChoice, OnnxDetectorConfig
from schemas.errors import UsageError
from schemas.media import Video
from tests.helpers.onnx_files import constant_answers, random_arcface
from tests.helpers.release_items import make_source

MODELS = ("scrfd_500m", "scrfd_2.5g", "yunet", "anime_cascade")
STILLS = {"t1.jpg": 6, "aflw-test-grid3x3.jpg": 9, "twogirls.jpg": 2, "grass.jpg": 0}


@pytest.fixture(scope="module")
def build(assets):
    """Builds a detector by name with the files of the assets."""

    def built(model, min_score=0.5, input_px=None):
        choice = DetectorChoice(model=model, min_score=min_score, input_px=input_px)
        return build_detectors([choice], asset_models(assets).file)[0]

    return built


def still(assets, name):
    image = cv2.imread(str(assets / "stills" / name))
    scale = min(1.0, 640 / max(image.shape))
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


# --- choices and keys ------------------------------------------------------------------------------------

VIDEO = Video(
    source_id="film", sha256="0" * 64, num_bytes=1, container="mov", codec="h264", pixel_format="yuv420p",
    stream_index=0, time_base=Fraction(1, 25), average_fps=Fraction(25), start_s=0.0, stop_s=4.0, coded_width_px=640,
    coded_height_px=360, sample_aspect_ratio=Fraction(1), rotation_deg=0, interlaced=False, width_px=640,
    height_px=360, colorspace="bt709", audio=None,
)  # fmt: skip
# As they were before detectors could have an input size or be the user's own: whoever built then must not build again.
EMBEDDED_KEYS = {
    "real": "fe537c07fff83fe31bbbb542e7b307ec5706b2383c501063934edea17742b366",
    "disney_human": "ba604afdcb8af23a6837cc61a82b21e216168fcd7c9b78df9944949b28c79512",
    "disney_animal": "4dc87ee3d1467203332a6631e9bb35c23d1b262cb2f33e701b89cd6405fd5d0b",
    "mesh": "fe537c07fff83fe31bbbb542e7b307ec5706b2383c501063934edea17742b366",
}


def analyse_key(config, domain):
    return Results(SimpleNamespace(), config).analyse_key(make_source(domain=domain), VIDEO, WHOLE)


def with_detectors(*choices):
    domain = EMBEDDED_DOMAINS["real"].model_copy(update={"detectors": choices})
    return BuildConfig(domains={"real": domain})


@pytest.mark.parametrize("domain", EMBEDDED_DOMAINS)
def test_keys_of_the_embedded_profile_have_not_changed(domain):
    assert analyse_key(BuildConfig(), domain) == EMBEDDED_KEYS[domain]


def test_a_plain_choice_is_stored_as_it_always_was():
    choice = DetectorChoice(model="blazeface_short", min_score=0.5)
    assert choice.model_dump_json() == '{"model":"blazeface_short","min_score":0.5}'
    sized = DetectorChoice(model="yunet", min_score=0.5, input_px=480)
    for written in (choice, sized):
        assert DetectorChoice.model_validate_json(written.model_dump_json()) == written


def test_a_users_file_counts_by_its_content_and_settings(tmp_path):
    def key(name, score, **changes):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        path = constant_answers(tmp_path / name, {"output0": np.full((1, 5, 84), score)})
        own = OnnxDetectorConfig(path=str(path), width_px=64, height_px=64, layout="yolo_face", **changes)
        return analyse_key(with_detectors(DetectorChoice(model="mine", min_score=0.5, onnx=own)), "real")

    first = key("a.onnx", 0.1)
    assert key("moved/a.onnx", 0.1) == first
    assert key("a.onnx", 0.2) != first
    assert key("a.onnx", 0.1, scale=0.5) != first
    own = OnnxDetectorConfig(path=str(tmp_path / "c.onnx"), width_px=64, height_px=64, layout="yolo_face")
    with pytest.raises(UsageError, match="does not exist"):
        analyse_key(with_detectors(DetectorChoice(model="mine", min_score=0.5, onnx=own)), "real")


def test_a_users_own_detector_is_on_the_card(tmp_path):
    path = constant_answers(tmp_path / "a.onnx", {"output0": np.zeros((1, 5, 84))})
    own = OnnxDetectorConfig(path=str(path), width_px=64, height_px=64, layout="yolo_face")
    config = with_detectors(DetectorChoice(model="mine", min_score=0.5, onnx=own))
    cards = {card.name: card for card in Results(SimpleNamespace(), config).model_files.cards({"real"})}
    [mine] = [card for name, card in cards.items() if name.startswith("a-")]
    assert mine.file == "a.onnx"
    assert mine.commercial_use is None
    assert len(mine.sha256) == 64


@pytest.mark.parametrize("model", ["blazeface_short", "cat_cascade", "anime_cascade"])
def test_an_input_size_is_refused_where_there_is_no_choice(model):
    with pytest.raises(UsageError, match="leave out input_px"):
        build_detectors([DetectorChoice(model=model, min_score=0.5, input_px=480)])


def test_importing_the_table_loads_no_network_package():
    code = (
        "import sys, pipeline.models.registry, pipeline.models.detector_table; "
        "print(sorted({'insightface', 'onnxruntime', 'onnx', 'skimage'} & set(sys.modules)))"
    )
    listed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert listed.stdout.strip() == "[]"


def test_cuda_is_never_replaced_quietly(monkeypatch):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    assert execution_providers("cpu") == ["CPUExecutionProvider"]
    with pytest.raises(UsageError, match="no CUDA: install onnxruntime-gpu"):
        execution_providers("cuda")
    monkeypatch.setattr(
        "onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    assert execution_providers("cuda")[0] == "CUDAExecutionProvider"


@pytest.mark.parametrize("load", [open_session, ArcFace])
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_runtime_with_cuda_that_falls_back_to_the_cpu_is_refused(load, tmp_path, monkeypatch):
    """As the package for GPUs does on a machine without one."""
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("has CUDA")
    path = random_arcface(tmp_path / "random-standin.onnx")
    load(path, "cpu")
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(UsageError, match=r"cannot run random-standin.onnx on CUDA here: .* or choose the CPU"):
        load(path, "cuda")


# --- bad files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Scrfd, YuNet, AnimeCascade])
@pytest.mark.parametrize("content", [None, b"", b"not a model"])
def test_a_missing_or_damaged_file_is_a_usage_error(kind, content, tmp_path):
    path = tmp_path / "weights.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"weights\.onnx") as error:
        kind(path)
    assert "\n" not in str(error.value)


def test_a_folder_without_models_is_refused_before_insightface_would_fetch_one(tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "none"):
        with pytest.raises(UsageError, match=r"no ONNX file|is missing"):
            Scrfd(path)
    (tmp_path / "weights.bin").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"ending \.onnx"):
        Scrfd(tmp_path / "weights.bin")


@pytest.mark.assets
@pytest.mark.parametrize(
    ("kind", "file", "match"),
    [
        (Scrfd, "yunet_n_640_640.onnx", "no SCRFD.*12 outputs"),
        (Scrfd, "pfld.onnx", "should be a model for face detection"),
        (Scrfd, "fsanet-1x1-iter-688590.onnx", "should be a model for face detection"),
        (YuNet, "scrfd_500m_kps.onnx", "no YuNet"),
        (YuNet, "pfld.onnx", "no YuNet"),
        (AnimeCascade, "yunet_n_640_640.onnx", "no cascade"),
    ],
)
def test_another_network_is_refused(assets, kind, file, match):
    with pytest.raises(UsageError, match=match):
        kind(assets / "weights" / file)


@pytest.mark.assets
def test_a_folder_of_detector_less_models_is_refused(tmp_path):
    random_arcface(tmp_path / "random_standin_arcface.onnx")
    with pytest.raises(UsageError, match="no face detector"):
        Scrfd(tmp_path)


@pytest.mark.assets
def test_a_fixed_scrfd_takes_no_other_size(assets):
    path = assets / "weights" / "scrfd_500m_kps.onnx"
    with pytest.raises(UsageError, match="640×640 pixels and no others: set input_px to 640"):
        Scrfd(path, input_px=480)


# --- what they find --------------------------------------------------------------------------------------


@pytest.mark.assets
@pytest.mark.parametrize(("model", "input_px"), [("scrfd_500m", None), ("yunet", None), ("yunet", 480)])
@pytest.mark.parametrize("name", STILLS)
def test_every_face_of_the_stills_is_found(assets, build, model, input_px, name):
    assert len(build(model, 0.5, input_px).detect(still(assets, name))) == STILLS[name]


@pytest.mark.assets
@pytest.mark.parametrize("shape", [(2, 640), (32, 640), (33, 640), (480, 32), (640, 2)])
def test_narrow_pictures_give_the_same_every_time(assets, build, shape):
    image = cv2.resize(still(assets, "t1.jpg"), shape[::-1])
    answers = []
    for _ in range(4):
        detector = build("yunet", 0.3)
        answers += [detector.detect(image), detector.detect(image)]
    assert all(answer == answers[0] for answer in answers)


@pytest.mark.assets
def test_the_input_size_is_the_one_that_was_asked_for(assets, build):
    """A head of 80 px in a picture of 640 has 20 px for a side of 160: too few."""
    image = np.full((360, 640, 3), 128, np.uint8)
    image[100:180, 300:380] = cv2.resize(still(assets, "aflw-test.jpg"), (80, 80), interpolation=cv2.INTER_AREA)
    assert [len(build("yunet", 0.5, side).detect(image)) for side in (None, 320, 160)] == [1, 1, 0]


@pytest.mark.assets
def test_the_large_scrfd_finds_the_group(assets, build):
    assert len(build("scrfd_2.5g").detect(still(assets, "t1.jpg"))) == 6


@pytest.mark.assets
def test_the_cascade_finds_drawn_faces(assets, build):
    drawn = build("anime_cascade")
    assert len(drawn.detect(still(assets, "hysts_input.jpg"))) > 10
    assert len(drawn.detect(still(assets, "t1.jpg"))) <= 1  # of six photographed ones


@pytest.mark.assets
@pytest.mark.parametrize("model", ["scrfd_500m", "yunet"])
def test_boxes_follow_scale_and_place(assets, build, model):
    detector = build(model)
    image = still(assets, "aflw-test.jpg")
    (face,) = detector.detect(image)
    wide = cv2.copyMakeBorder(image, 30, 0, 100, 200, cv2.BORDER_REPLICATE)
    (other,) = detector.detect(wide)
    assert np.array(other.box) - [100, 30, 100, 30] == pytest.approx(face.box, abs=0.06 * (face.box[2] - face.box[0]))
    (double,) = detector.detect(cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC))
    assert np.array(double.box) / 2 == pytest.approx(face.box, abs=0.06 * (face.box[2] - face.box[0]))


@pytest.mark.assets
@pytest.mark.parametrize("model", MODELS)
def test_answers_are_sorted_repeatable_and_from_the_minimum_score(assets, build, model):
    image = still(assets, "hysts_input.jpg" if model == "anime_cascade" else "t1.jpg")
    low = build(model, 0.3)
    faces = low.detect(image)
    assert faces == low.detect(image)
    scores = [face.score for face in faces]
    assert scores == sorted(scores, reverse=True)
    middle = scores[len(scores) // 2] + 1e-6
    assert build(model, middle).detect(image) == [face for face in faces if face.score >= middle]


@pytest.mark.assets
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("shape", [(1, 1), (2, 640), (1000, 100)])
def test_any_size_is_accepted(build, model, shape):
    assert build(model).detect(np.full((*shape, 3), 90, np.uint8)) == []


# --- InsightFace's folders, without a network ------------------------------------------------------------


@pytest.mark.assets
def test_a_folder_of_models_works_without_a_network(assets, tmp_path, monkeypatch):
    def refuse(*_args, **_named):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    from insightface.app import FaceAnalysis

    folder = tmp_path / "pack"
    folder.mkdir()
    (folder / "det_500m.onnx").symlink_to(assets / "weights" / "scrfd_500m_kps.onnx")
    random_arcface(folder / "random_standin_w600k.onnx")
    app = FaceAnalysis(name=str(folder), providers=["CPUExecutionProvider"])
    app.prepare(ctx_id=-1, det_size=(640, 640))
    image = still(assets, "t1.jpg")
    faces = app.get(image)
    assert len(faces) == 6
    assert all(face.embedding.shape == (512,) for face in faces)
    own = Scrfd(folder).detect(image)
    assert [face.box for face in own] == [tuple(float(edge) for edge in face.bbox) for face in faces]


# --- what the standard choices must reach ----------------------------------------------------------------


def test_every_domain_has_standard_detectors_that_exist():
    assert set(STANDARD_DETECTORS) == set(EMBEDDED_DOMAINS)
    for plan in STANDARD_DETECTORS.values():
        for choice in plan.detectors:
            assert detector_files(choice)
