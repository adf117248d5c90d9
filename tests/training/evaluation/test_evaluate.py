"""``anitalk evaluate``: the same inputs give the same bytes, and what is missing is told before the first frame."""

import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from flows import cli
from schemas.errors import DataError
from tests.helpers.pair_shards import numbered_release, read_numbers, shards_of
from tests.helpers.precision import double_precision
from training.data.config import PairsConfig
from training.data.stills import Stills
from training.engine.checkpoint import Parts, Store
from training.engine.trained import load_driver
from training.evaluation.metrics.table import METRICS, Views
from training.networks import fan
from training.networks.arcface import ArcFace, aligned, five_points
from training.networks.backbones import AlexNet, EmocaResNet, ExpressionResNet
from training.networks.fan import FaceAlignment
from training.networks.inception import Inception
from training.recipes.anytalk.config import TINY
from training.recipes.anytalk.model import AnyTalk
from training.recipes.base import Driving

PLAIN = ("l1", "psnr", "ssim", "cpbd")  # need no weights
SMALL = ("--set", "num_frames=3", "--set", "num_pairs=2", "--set", "batch_size=2")


pytestmark = pytest.mark.usefixtures("one_thread_in_torch")


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    return numbered_release(folder, {"mesh": 2, "real": 2}, test={"mesh": 2, "real": 3}, strangers=True)


def stand_in(folder, **changes):
    """A checkpoint of random weights."""
    torch.manual_seed(0)
    small = {"base_channels": 4, "max_channels": 16, "appearance_blocks": 1, "generator_blocks": 1, "spade_channels": 4}
    config = TINY.model_copy(update=small | changes)
    model = AnyTalk(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return Store(folder / "checkpoints").save(7, Parts({"model": model, "average": model}), config, {"score": 1.0})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    stand_in(folder)
    return folder


def command(release, run, output, protocol, *more):
    places = ["--checkpoint", run, "--release", release, "--output", output, "--protocol", protocol]
    return ["evaluate", "anytalk", *map(str, [*places, "--device", "cpu", *SMALL, *more])]


def refused(capsys, arguments, code=2):
    assert cli.run(arguments) == code
    sentence = capsys.readouterr().err
    assert sentence.count("\n") == 1
    return sentence


# ---- what comes out --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "groups"),
    [
        ("same-identity", {("mesh", "mesh"), ("real", "real")}),
        ("cross-identity", {("mesh", "mesh"), ("real", "real")}),
        ("cross-domain", {("mesh", "real"), ("real", "mesh")}),
    ],
)
def test_every_protocol_is_measured_twice_with_the_same_bytes(protocol, groups, release, run, tmp_path):
    names = PLAIN if protocol == "same-identity" else ("cpbd",)
    chosen = ("--metrics", ",".join(names))
    first, second = tmp_path / "one", tmp_path / "other"
    assert cli.run(command(release, run, first, protocol, *chosen)) == 0
    listed = ("--pairs", first / "pairs.jsonl", "--set", "seed=9")
    assert cli.run(command(release, run, second, protocol, *chosen, *listed)) == 0
    for file in ("results.json", "results.md", "pairs.jsonl", "pictures.png"):
        assert (first / file).read_bytes() == (second / file).read_bytes(), file
    results = json.loads((first / "results.json").read_text())
    assert {(group["driving_domain"], group["source_domain"]) for group in results["groups"]} == groups
    for group in results["groups"]:
        assert (group["num_pairs"], group["num_frames"], group["num_real_frames"]) == (2, 6, 6)
        assert set(group["rows"]["made"]) == set(names)
        assert all(figure["count"] == 6 for row in group["rows"].values() for figure in row.values())
    with Image.open(first / "pictures.png") as grid:
        assert grid.size == (3 * 64, 4 * 64)


def test_figures_are_those_of_the_pictures(release, run, tmp_path):
    """The source row knows nothing of the model: frame 0 of each clip beside its others, by hand."""
    arguments = command(release, run, tmp_path, "same-identity", "--metrics", "l1", "--source-domain", "mesh")
    assert cli.run(arguments) == 0
    (group,) = json.loads((tmp_path / "results.json").read_text())["groups"]
    pairs = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    with Stills(str(release), PairsConfig(split="test", size_px=64)) as stills:
        expected = [
            np.abs(stills.frames(pair["source_clip"], (0, frame)).float().diff(dim=0).numpy()).mean() / 255
            for pair in pairs
            for frame in pair["driving_frames"]
        ]
    assert group["rows"]["source"]["l1"]["value"] == pytest.approx(np.mean(expected), rel=1e-5)
    with Image.open(tmp_path / "pictures.png") as grid:
        pixels = np.asarray(grid)
    shown, _ = read_numbers(torch.from_numpy(pixels[:64, 64:128].copy()).permute(2, 0, 1)[None].numpy())
    assert shown == pairs[0]["driving_frames"][1]


def test_the_table_says_what_the_figures_are_worth(release, run, tmp_path, capsys):
    arguments = command(release, run, tmp_path, "same-identity", "--metrics", "l1,cpbd", "--split", "train")
    assert cli.run(arguments) == 0
    table = (tmp_path / "results.md").read_text()
    assert table in capsys.readouterr().out
    assert "**These clips are of the split `train`" in table
    assert "| *AnyTalk, published* | 0.0387 | 0.265 |" in table
    assert "| the source itself | 0." in table
    assert "| real frames | – | 0." in table
    assert "cpbd (the package cpbd 1.0.7)" in table


def write_stand_ins(folder):
    """Files of random weights for every metric that needs one; settings that name them."""
    torch.manual_seed(0)
    landmarker = FaceAlignment()
    with torch.no_grad():
        landmarker.get_submodule("l0").bias.fill_(0.9)  # sure of everything
    emoca = EmocaResNet().state_dict()
    head = {f"linear.{part}": torch.randn(10, *emoca.pop(f"fc.{part}").shape[1:]) for part in ("weight", "bias")}
    networks = {
        "fid": Inception().state_dict() | {"fc.weight": torch.zeros(1008, 2048)},
        "points": landmarker.state_dict(),
        "identity.file": ArcFace("iresnet50").state_dict(),
        "expression.file": {f"backbone.{name}": value for name, value in emoca.items()} | head,
        "lpips.file": AlexNet().state_dict(),
        "lpips.heads": {
            f"lin{index}.model.1.weight": torch.rand(1, width, 1, 1)
            for index, width in enumerate((64, 192, 384, 256, 256))
        },
        "niqe": {"mu_pris_param": torch.zeros(36), "cov_pris_param": torch.eye(36)},
    }
    settings = ["metrics.identity.network=iresnet50", "metrics.expression.network=emoca_resnet50"]
    for name, tensors in networks.items():
        save_file({key: value.half() for key, value in tensors.items()}, folder / f"{name}.safetensors")
        settings.append(f"metrics.{name}.path={folder / name}.safetensors")
    return [part for setting in settings for part in ("--set", setting)]


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    monkeypatch.setattr(fan, "_NUM_HOURGLASSES", 1)  # four of them are most of the time
    return write_stand_ins(tmp_path)


def test_every_metric_is_computed_with_networks_of_random_weights(release, stand_ins, tmp_path):
    larger = stand_in(tmp_path / "larger", image_px=192, network_px=192)
    few = ("--set", "num_pairs=1", "--set", "num_frames=2", "--source-domain", "real")
    arguments = command(release, larger, tmp_path / "out", "same-identity", *stand_ins, *few)
    assert cli.run(arguments) == 0
    (group,) = json.loads((tmp_path / "out" / "results.json").read_text())["groups"]
    assert set(group["rows"]["made"]) == {metric.name for metric in METRICS}
    for row, figures in group["rows"].items():
        for name, figure in figures.items():
            assert figure["count"] == (1 if (row, name) == ("truth", "fid") else 2), (row, name)
            assert (figure["value"] is None) == ((row, name) == ("truth", "fid")), (row, name)
    assert "†" in (tmp_path / "out" / "results.md").read_text()


# ---- laws of the table -----------------------------------------------------------------------------------------------


def sights(seed, count=5):
    rng = np.random.default_rng(seed)
    sizes = {"inception": (16,), "points": (68, 2), "identity": (8,), "expression": (8,), "emotion": (8,)}
    return {name: rng.normal(size=(count, *size)) for name, size in sizes.items()} | {
        name: rng.random(count) for name in ("cpbd", "niqe")
    }


def test_what_was_seen_alike_is_at_no_distance():
    same = sights(0)
    beside = {"l1": np.zeros(5), "lpips": np.zeros(5), "psnr": np.full(5, 40.0), "ssim": np.ones(5)}
    for metric in METRICS:
        value, count = metric.figure(Views(same, same, same, same, beside))
        assert count == 5
        if metric.name in {"fid", "l1", "lpips", "akd_l1", "akd_l2", "aed_arcface"}:
            assert value == pytest.approx(0, abs=1e-5)
        elif metric.name in {"csim", "ceim_feat", "ceim_logit", "ssim"}:
            assert value == pytest.approx(1)


def test_pictures_without_a_face_count_nothing_and_are_counted():
    rendered, real = sights(0), sights(1)
    rendered["points"][2] = np.nan
    real["points"][0, 5] = np.nan
    akd = next(metric for metric in METRICS if metric.name == "akd_l1")
    value, count = akd.figure(Views(rendered, real, real, real))
    assert count == 3
    assert value == pytest.approx(np.abs(rendered["points"][[1, 3, 4]] - real["points"][[1, 3, 4]]).mean())
    rendered["points"][:] = np.nan
    assert akd.figure(Views(rendered, real, real, real)) == (None, 0)


def test_fid_is_of_equally_many_pictures():
    fid = next(metric for metric in METRICS if metric.name == "fid")
    rendered, real = sights(0, count=9), sights(1, count=4)
    value, count = fid.figure(Views(rendered, None, rendered, real))
    thinned = {"inception": rendered["inception"][[1, 3, 5, 7]]}
    assert (value, count) == fid.figure(Views(thinned, None, rendered, real))
    assert count == 4


def test_a_source_is_moved_as_a_training_step_moves_it(run):
    with double_precision(), torch.no_grad():
        driver = load_driver(run, torch.device("cpu"))
        pictures = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        source, driving = pictures[:1], pictures[1:]
        rendered = driver.render(driver.look(source, "real"), driver.follow(Driving(pictures=driving), "real"))
        expected = driver.model(source.expand(3, -1, -1, -1).contiguous(), driving, driving).picture
    off, apart = (rendered - expected).abs().max(), (rendered[0] - rendered[1]).abs().max()
    assert rendered.dtype == torch.float64
    assert off < 1e-6 * apart  # another frame's would be as far away as the frames are apart


# ---- networks --------------------------------------------------------------------------------------------------------


def millions(network):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in network().parameters()) / 1e6


def test_networks_have_their_published_sizes():
    assert millions(Inception) == pytest.approx(21.8, abs=0.05)  # without the classifier's 2.1
    assert millions(lambda: ArcFace("iresnet50")) == pytest.approx(43.59, abs=0.01)
    assert millions(lambda: ArcFace("iresnet100")) == pytest.approx(65.16, abs=0.01)


def test_fan_is_the_network_of_its_package():
    models = pytest.importorskip("face_alignment.models", reason="needs the extra standard")
    mine, theirs = FaceAlignment().eval(), models.FAN(4).eval()
    theirs.load_state_dict(mine.state_dict())
    face = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(mine(face), theirs(face)[-1], atol=1e-6)


def test_points_of_a_mirrored_face_are_mirrored(monkeypatch):
    monkeypatch.setattr(fan, "_NUM_HOURGLASSES", 1)
    torch.manual_seed(0)
    network, box = FaceAlignment().eval(), torch.tensor([[0.1, 0.2, 0.9, 0.95]])
    face = torch.rand(1, 3, 256, 256)
    with torch.no_grad():
        points, mirrored = network.locate(face, box), network.locate(face.flip(-1), box)
    # chin, nose tip and the middle of the upper lip are their own mirror images; jaw ends and corners change places
    for index, twin in ((8, 8), (30, 30), (51, 51), (0, 16), (36, 45), (48, 54)):
        assert 255 - float(mirrored[0, index, 0]) == pytest.approx(float(points[0, twin, 0]), abs=0.01)
        assert float(mirrored[0, index, 1]) == pytest.approx(float(points[0, twin, 1]), abs=0.01)


def test_an_aligned_face_has_its_points_in_place():
    """Bright dots at five points land where ArcFace wants them, whatever turn and scale the face has."""
    from training.networks.arcface import _PLACES

    turn = 0.3
    rotation = 1.4 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    five = _PLACES @ rotation.T + np.array([60.0, 20.0])
    points = np.zeros((1, 68, 2))
    points[0, 36:42], points[0, 42:48], points[0, 30], points[0, 48], points[0, 54] = five
    assert five_points(points[0]) == pytest.approx(five)
    y, x = np.mgrid[:256, :256]
    dots = sum(np.exp(-((x - px) ** 2 + (y - py) ** 2) / 18) for px, py in five)
    face = aligned(torch.from_numpy(dots).float()[None, None].expand(1, 3, -1, -1), points)[0, 0].numpy()
    for px, py in _PLACES:
        window = face[int(py) - 4 : int(py) + 6, int(px) - 4 : int(px) + 6]
        row, column = np.unravel_index(window.argmax(), window.shape)
        assert (column + int(px) - 4, row + int(py) - 4) == (pytest.approx(px, abs=1), pytest.approx(py, abs=1))


def test_emocas_network_is_not_torchvisions_though_every_tensor_fits():
    emoca, torchvisions = EmocaResNet().eval(), ExpressionResNet().eval()
    torchvisions.load_state_dict(emoca.state_dict())
    face = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert not torch.allclose(emoca(face)[1], torchvisions(face)[1], atol=1e-4)
    head = {"linear.weight": torch.randn(11, 2048), "linear.bias": torch.arange(11.0)}
    given = {f"backbone.{name}": value for name, value in emoca.state_dict().items()} | head
    assert torch.equal(emoca.renamed(given)["fc.bias"], torch.arange(8.0))
    assert emoca.renamed(given).keys() == emoca.state_dict().keys()


# ---- stills ----------------------------------------------------------------------------------------------------------


def test_stills_gives_the_frames_that_are_named(release):
    with Stills(str(release), PairsConfig(split="test")) as stills:
        assert len(stills.clips) == 5
        for clip_id, clip in stills.clips.items():
            assert clip.seen == tuple(range(8))
            assert clip.face == pytest.approx((1 / 6, 1 / 6, 5 / 6, 5 / 6))
            frames, clips = read_numbers(stills.frames(clip_id, (5, 0, 2)).numpy())
            assert frames.tolist() == [5, 0, 2]
            assert set(clips) == {int(clip_id.rsplit("-", 1)[1])}
        with pytest.raises(DataError, match="no frame 8"):
            stills.frames("real-6", (8,))
        with pytest.raises(DataError, match="no clip real-2 in this split"):
            stills.frames("real-2", (0,))


# ---- mistakes --------------------------------------------------------------------------------------------------------


def test_all_missing_weights_are_told_at_once_with_what_would_be_left(release, run, tmp_path, capsys):
    sentence = refused(capsys, command(release, run, tmp_path / "out", "same-identity"))
    for setting in ("fid", "lpips.file", "lpips.heads", "points", "identity.file", "expression.file", "niqe"):
        assert f"metrics.{setting}.path is not set" in sentence
    assert "niqe (pictures of 192 px and more, and the model makes 64" in sentence
    assert sentence.rstrip().endswith("or leave them out by --metrics l1,psnr,ssim,cpbd")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--metrics", "nonsense"), "there is no 'nonsense': choose from fid, csim"),
        (("--metrics", "cpbd", "--split", "val"), "has no split 'val': choose from test, train"),
        (("--metrics", "cpbd", "--driving-domain", "fish"), "no clip with a face of the domain 'fish'"),
        (("--metrics", "fid", "--set", "metrics.fid.path=/nowhere.pth"), "/nowhere.pth is not there"),
        (("--metrics", "cpbd", "--set", "num_pairs=0"), "num_pairs"),
        (("--metrics", "cpbd", "--set", "nonsense=0"), "nonsense"),
        (("--metrics", "cpbd", "--pairs", "/nowhere.jsonl"), "cannot be read"),
        (("--metrics", "cpbd", "--pairs", "/nowhere.jsonl", "--source-domain", "real"), "leave --driving-domain"),
    ],
)
def test_mistakes_are_told_in_a_sentence(more, sentence, release, run, tmp_path, capsys):
    assert sentence in refused(capsys, command(release, run, tmp_path / "out", "same-identity", *more))
    assert not (tmp_path / "out").exists()


def test_a_metric_that_needs_the_frame_that_should_come_out_is_refused_elsewhere(release, run, tmp_path, capsys):
    sentence = refused(capsys, command(release, run, tmp_path, "cross-domain", "--metrics", "psnr"))
    assert "psnr compares with the frame that should have come out, which cross-domain does not have" in sentence


def test_what_is_no_checkpoint_and_no_release_is_told(release, run, tmp_path, capsys):
    chosen = ("--metrics", "cpbd")
    sentence = refused(capsys, command(release, tmp_path / "none", tmp_path / "out", "cross-domain", *chosen))
    assert "is no checkpoint and no folder of a run" in sentence
    sentence = refused(capsys, command(release, tmp_path, tmp_path / "out", "cross-domain", *chosen), code=1)
    assert "is no checkpoint of this trainer" in sentence
    sentence = refused(capsys, command(tmp_path, run, tmp_path / "out", "cross-domain", *chosen))
    assert "no finished release" in sentence
    shard = shards_of(release, "test")[0]
    assert "is a shard" in refused(capsys, command(shard, run, tmp_path / "out", "cross-domain", *chosen))


def test_a_list_of_pairs_of_other_clips_is_refused_before_the_first_frame(release, run, tmp_path, capsys):
    chosen = ("--metrics", "cpbd")
    assert cli.run(command(release, run, tmp_path / "train", "cross-domain", *chosen, "--split", "train")) == 0
    capsys.readouterr()
    listed = ("--pairs", tmp_path / "train" / "pairs.jsonl")
    sentence = refused(capsys, command(release, run, tmp_path / "out", "cross-domain", *chosen, *listed))
    assert "is not in this split of the release" in sentence


def test_a_model_that_makes_no_pictures_is_told(release, tmp_path, capsys):
    config = TINY.model_copy(update={"base_channels": 4, "max_channels": 16})
    model = AnyTalk(config)
    torch.nn.init.constant_(
        model.appearance.get_parameter(next(iter(dict(model.appearance.named_parameters())))), np.nan
    )
    path = Store(tmp_path / "checkpoints").save(1, Parts({"model": model, "average": model}), config, {})
    sentence = refused(capsys, command(release, path, tmp_path / "out", "cross-domain", "--metrics", "cpbd"), code=1)
    assert "pictures that are no numbers" in sentence


def test_results_of_another_evaluation_are_not_written_over(release, run, tmp_path, capsys):
    arguments = command(release, run, tmp_path, "cross-domain", "--metrics", "cpbd")
    assert cli.run(arguments) == 0
    before = (tmp_path / "results.json").read_bytes()
    assert cli.run(arguments) == 0
    capsys.readouterr()
    assert "holds the results of another evaluation" in refused(capsys, [*arguments, "--set", "seed=1"])
    assert (tmp_path / "results.json").read_bytes() == before


@pytest.mark.parametrize("damage", ["cut", "frame", "label"])
def test_a_damaged_release_is_told_and_nothing_is_left_out(damage, run, tmp_path, capsys):
    folder = numbered_release(tmp_path / "release", {"mesh": 2}, test={"mesh": 1, "real": 1}, min_shards=1)
    (shard, *_) = shards_of(folder, "test")
    data = bytearray(shard.read_bytes())
    with tarfile.open(shard) as tar:
        places = {member.name.partition(".")[2]: (member.offset_data, member.size) for member in tar}
    if damage == "cut":
        shard.write_bytes(data[: len(data) // 2])
    else:
        start, size = places["mp4" if damage == "frame" else "pose.npy"]
        data[start : start + size] = bytes(size)
        shard.write_bytes(data)
    sentence = refused(capsys, command(folder, run, tmp_path / "out", "same-identity", "--metrics", "cpbd"), code=1)
    assert shard.name in sentence
    assert not (tmp_path / "out").exists()
