"""Expression: the picture a network gets can be made again from the record alone, and both forms of weights are read.

All weights here are random stand-ins in the real files' layouts.
"""

import io
import json
import tarfile

import av
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from pydantic import ValidationError
from safetensors.torch import save_file
from torch.nn import functional

from pipeline.clip.expression import ExpressionTap
from pipeline.models.expression import ExpressionNetwork, prepare
from pipeline.models.files.model_file import sha256_of
from pipeline.models.resnet import NUM_FEATURES, ResNet50
from pipeline.release.verify import verify_release
from schemas.errors import UsageError
from schemas.expression import EMOTIONS, ExpressionInput
from tests.helpers import films as films_module
from tests.helpers.films import TALKER, build, write_manifest
from tests.helpers.release_items import make_clip

films = films_module.films  # fixture
SMALL = ExpressionInput(size_px=64)


def random_resnet(path, **changes):
    """A random stand-in in the layout of torchvision's ResNet-50 with eight outputs."""
    torch.manual_seed(0)
    state = ResNet50(8).state_dict() | changes
    save_file({name: value for name, value in state.items() if value is not None}, path)
    return path


def random_onnx(path, outputs=("logits", "features"), batch="N", num_classes=8):
    """A random stand-in: mean colour, five features, eight logits."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(3, 5)), "v": rng.normal(size=(5, num_classes))}
    nodes = [
        helper.make_node("ReduceMean", ["picture"], ["colour"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["colour", "w"], ["features"]),
        helper.make_node("MatMul", ["features", "v"], ["logits"]),
    ]
    widths = {"logits": num_classes, "features": 5}
    graph = helper.make_graph(
        nodes,
        "stand-in",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, [batch, 3, 64, 64])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, widths[name]]) for name in outputs],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return path


@pytest.fixture(scope="module")
def resnet(tmp_path_factory) -> ExpressionNetwork:
    path = tmp_path_factory.mktemp("weights") / "random-stand-in.safetensors"
    return ExpressionNetwork(random_resnet(path), SMALL)


def picture(size: int = 200) -> np.ndarray:
    rng = np.random.default_rng(4)
    small = rng.integers(0, 255, (size // 8, size // 8, 3)).astype(np.uint8)
    return small.repeat(8, axis=0).repeat(8, axis=1)


# --- the picture ---


def remade(crop: np.ndarray, face, given: ExpressionInput) -> torch.Tensor:
    """What the record's three steps say, in torch alone, as a trainer would write it."""
    half = given.scale * max(face[2] - face[0], face[3] - face[1]) / 2
    x, y = (face[0] + face[2]) / 2, (face[1] + face[3]) / 2
    x0, x1 = max(0, round(x - half)), min(crop.shape[1], round(x + half))
    y0, y1 = max(0, round(y - half)), min(crop.shape[0], round(y + half))
    cut = torch.from_numpy(crop[y0:y1, x0:x1].copy()).permute(2, 0, 1)[None].float() / 255
    cut = functional.interpolate(cut, (given.size_px, given.size_px), mode="bilinear", align_corners=False)
    return (cut - torch.tensor(given.mean).view(1, 3, 1, 1)) / torch.tensor(given.spread).view(1, 3, 1, 1)


@pytest.mark.parametrize("face", [(40.2, 30.7, 160.4, 170.1), (-20.0, 10.0, 90.0, 240.0), (90.0, 90.0, 110.0, 112.0)])
@pytest.mark.parametrize("scale", [1.0, 1.37])
def test_a_trainers_copy_agrees_within_a_thousandth(resnet, face, scale):
    given = ExpressionInput(size_px=64, scale=scale)
    ours, theirs = prepare(picture(), face, given), remade(picture(), face, given)
    np.testing.assert_allclose(ours, theirs[0].numpy(), atol=1e-4)
    for one, other in zip(resnet.look(ours[None]), resnet.look(theirs.numpy()), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_the_square_stays_where_it_is_whatever_the_faces_own_boxes_do(resnet):
    plan = make_clip().plan
    one, other = (ExpressionTap(resnet, plan, 200) for _ in range(2))
    for step in range(3):
        one.add(picture(), (0.0, 0.0, 50.0, 50.0))
        other.add(picture(), (10.0 * step, 0.0, 150.0, 150.0))
    for a, b in zip(one.finish(), other.finish(), strict=True):
        assert np.array_equal(a, b)


def test_frames_in_batches_give_the_numbers_of_single_frames(resnet):
    meter = ExpressionTap(resnet, make_clip().plan, 200)
    pictures = [np.roll(picture(), 7 * k, axis=1) for k in range(17)]
    for one in pictures:
        meter.add(one, (0.0, 0.0, 1.0, 1.0))
    logits, features = meter.finish()
    assert logits.shape == (17, 8)
    assert features.shape == (17, NUM_FEATURES)
    last = ExpressionTap(resnet, make_clip().plan, 200)
    last.add(pictures[16], (0.0, 0.0, 1.0, 1.0))
    np.testing.assert_allclose(logits[16:], last.finish()[0], atol=1e-4)


def test_classes_come_out_in_affectnets_order(tmp_path):
    path = random_onnx(tmp_path / "random-stand-in.onnx")
    own = ExpressionNetwork(path, SMALL)
    turned = ExpressionNetwork(path, SMALL.model_copy(update={"classes": EMOTIONS[::-1]}))
    pictures = prepare(picture(), (0.0, 0.0, 200.0, 200.0), SMALL)[None]
    np.testing.assert_array_equal(own.look(pictures)[0], turned.look(pictures)[0][:, ::-1])
    assert own.look(pictures)[1].shape == (1, 5)
    with pytest.raises(ValidationError, match="must be anger, contempt"):
        ExpressionInput(classes=("happy",))


# --- weights ---

SEVEN = {"fc.bias": torch.zeros(7)}


def test_the_resnet_is_as_large_as_torchvisions():
    state = ResNet50(1000).state_dict()
    parameters = sum(value.numel() for name, value in state.items() if not name.endswith(("mean", "var", "tracked")))
    assert parameters == 25_557_032  # as torchvision documents ResNet50_Weights
    assert len(state) == 320


@pytest.mark.parametrize(
    ("name", "make", "sentence"),
    [
        ("none.onnx", lambda _: None, "is not there: set expression.weights"),
        ("weights.pth", lambda path: path.write_bytes(b"x"), "is neither .onnx nor .safetensors"),
        ("text.onnx", lambda path: path.write_text("text"), "no network that ONNX Runtime can run"),
        ("text.safetensors", lambda path: path.write_text("text"), "no readable safetensors file"),
        ("seven.safetensors", lambda path: random_resnet(path, **SEVEN), r"fc.bias \(expected \(8,\)"),
        ("short.safetensors", lambda path: random_resnet(path, **{"conv1.weight": None}), "conv1.weight .*found none"),
        ("one.onnx", lambda path: random_onnx(path, ("logits",)), "expected one"),
        ("fixed.onnx", lambda path: random_onnx(path, batch=1), "a free number of pictures"),
        ("seven.onnx", lambda path: random_onnx(path, num_classes=7), "expected one"),
    ],
)  # fmt: skip
def test_other_weights_are_refused_in_one_sentence(tmp_path, name, make, sentence):
    make(tmp_path / name)
    with pytest.raises(UsageError, match=sentence):
        ExpressionNetwork(tmp_path / name, SMALL)


def test_converted_weights_may_lack_the_counters_of_training(tmp_path):
    counters = {name: None for name in ResNet50(8).state_dict() if name.endswith("tracked")}
    ExpressionNetwork(random_resnet(tmp_path / "random-stand-in.safetensors", **counters), SMALL)


# --- from a film to a release ---


def test_a_release_carries_the_numbers_and_says_how_to_ask_again(films, tmp_path):
    """With a random stand-in; the network asked again of the released video answers nearly the same."""
    weights = random_onnx(tmp_path / "random-stand-in.onnx")
    source = {
        "id": "talker",
        "uri": str(films / "talker.mp4"),
        "domain": "real",
        "license": TALKER.license,
        "title": "x",
    }
    manifest = write_manifest(tmp_path / "manifest.yaml", [source])
    settings = ["--set", f"expression.weights={weights}", "--set", "expression.input.size_px=64"]
    assert build(manifest, tmp_path / "ws", "--release", "first", *settings) == 0
    release = tmp_path / "ws" / "releases" / "first"
    assert not verify_release(str(release))
    with tarfile.open(next(release.glob("*/real/*visual*.tar"))) as tar:
        members = {name.partition(".")[2]: tar.extractfile(name).read() for name in tar.getnames()}
    info = json.loads(members["json"])
    logits, features = (
        np.load(io.BytesIO(members[name]), allow_pickle=False) for name in ("emotion.npy", "emotion_feat.npy")
    )
    assert logits.shape == (info["num_frames"], 8)
    assert features.shape == (info["num_frames"], 5)
    assert sha256_of(weights) in info["provenance"]["models"].values()
    given = ExpressionInput.model_validate(info["expression"])
    plan, scale = info["plan"], info["size_px"] / (info["plan"]["square"]["x1"] - info["plan"]["square"]["x0"])
    face = [(plan["face"][side] - plan["square"][f"{side[0]}0"]) * scale for side in ("x0", "y0", "x1", "y1")]
    with av.open(io.BytesIO(members["mp4"])) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    again = ExpressionNetwork(weights, given).look(
        np.concatenate([remade(frame, face, given).numpy() for frame in frames])
    )
    assert np.abs(again[0] - logits).max() < 0.1 * np.ptp(logits), "encoding is all that lies between"
    speech = next(release.glob("*/real/*speech*.tar"))
    with tarfile.open(speech) as tar:
        assert not [name for name in tar.getnames() if "emotion" in name]


def test_cuda_that_is_not_there_is_said(tmp_path, monkeypatch):
    weights = random_resnet(tmp_path / "random-stand-in.safetensors")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=r"expression.device is cuda, and torch finds no CUDA .* to cpu"):
        ExpressionNetwork(weights, SMALL, "cuda")
