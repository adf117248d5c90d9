"""``anitalk train``: a run that was killed ends in the very weights, and mistakes are told before the first step."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flows import cli
from schemas.errors import EXIT_STOPPED, EXIT_USAGE
from tests.conftest import ROOT
from tests.helpers.pair_shards import numbered_release, shards_of
from training.data import AugmentConfig, PairsConfig, augment, pairs
from training.data.contract import REQUIRED, prepared
from training.data.draws import FramePairs
from training.engine.checkpoint import Store
from training.engine.feed import Feed, flat, held_out, held_out_domains
from training.engine.settings import read_settings

STEPS = 12
LENGTH = {"num_pairs": 2 * STEPS, "learning_rate": 0.001}
SETTINGS = {
    "model": {
        "preset": "tiny64",
        "image_px": 32,
        "network_px": 32,
        "base_channels": 4,
        "max_channels": 16,
        "appearance_blocks": 1,
        "generator_blocks": 1,
        "spade_channels": 4,
        "discriminator_blocks": 2,
    },
    "data": {"batch_size": 2, "pairs_per_clip": 2, "shuffle_pairs": 4},
    "losses": {"perceptual": {"weight": 0}, "expression": {"weight": 0}, "pixel": 100},
    "pretrain": LENGTH,
    "finetune": LENGTH,
    "average": 0.9,
    "num_validation_pairs": 6,
    "log_every": 1,
    "images_every": 6,
    "validate_every": 6,
    "save_every": 2,
}


pytestmark = pytest.mark.usefixtures("one_thread_in_torch")


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return numbered_release(tmp_path_factory.mktemp("release"), {"mesh": 4, "real": 4}, test={"mesh": 1, "real": 2})


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(yaml.safe_dump(SETTINGS))
    return path


@pytest.fixture(scope="module")
def first(release, config, tmp_path_factory):
    """The folder of a whole run of the first stage."""
    folder = tmp_path_factory.mktemp("first")
    assert cli.run(command(release, config, folder)) == 0
    return folder


def command(release, config, output, *more):
    places = ["--shards", str(release), "--config", str(config), "--output", str(output)]
    return ["train", "anytalk", *places, "--device", "cpu", *map(str, more)]


def last_of(folder):
    """Everything that the newest checkpoint of a run holds."""
    path = Store(folder / "checkpoints").latest()
    assert path is not None
    tensors = {file.name: load_file(file) for file in path.glob("*.safetensors")}
    assert {"model.safetensors", "average.safetensors", "discriminator_adam.safetensors"} <= tensors.keys()
    return path.name, {file.name: json.loads(file.read_text()) for file in path.glob("*.json")}, tensors


def same(first, second):
    (name, records, tensors), (name_too, records_too, tensors_too) = first, second
    equal = all(
        torch.equal(value, tensors_too[file][key]) for file, values in tensors.items() for key, value in values.items()
    )
    return (name, records) == (name_too, records_too) and tensors.keys() == tensors_too.keys() and equal


def ended(arguments, step, number):
    """Start a run in a process of its own and send it a signal once it told of ``step``; its exit code."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "anitalk", *arguments]
    with subprocess.Popen(line, env=env, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        lines = []
        for text in child.stderr:
            lines.append(text)
            if f" step {step}: " in text and "pairs/s" in text:
                child.send_signal(number)
        code = child.wait()
    assert any(f" step {step}: " in text for text in lines), "".join(lines)
    return code


# ---- going on --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_run_that_was_killed_and_told_to_end_ends_in_the_very_weights(stage, release, config, first, tmp_path):
    if stage == "pretrain":
        whole, more = first, []
    else:
        whole, more = tmp_path / "whole", ["--stage", stage, "--init", first]
        assert cli.run(command(release, config, whole, *more)) == 0
    arguments = command(release, config, tmp_path / "ended", *more)
    assert ended(arguments, 3, signal.SIGKILL) == -signal.SIGKILL
    assert ended([*arguments, "--resume"], 4, signal.SIGTERM) == EXIT_STOPPED
    stopped, records, _ = last_of(tmp_path / "ended")
    assert "step-000000004" <= stopped < f"step-{STEPS:09d}"
    assert records["rank-0.json"]["loader"]["batches"] == int(stopped.removeprefix("step-"))
    assert cli.run([*arguments, "--resume"]) == 0
    assert same(last_of(whole), last_of(tmp_path / "ended"))


def test_the_stages_draw_from_their_domains(release, config, first, tmp_path):
    assert last_of(first)[1]["rank-0.json"]["loader"]["made_with"]["domains"] == ["real"]
    one_step = ["--stage", "finetune", "--init", first, "--set", "finetune.num_pairs=2"]
    assert cli.run(command(release, config, tmp_path / "run", *one_step)) == 0
    assert last_of(tmp_path / "run")[1]["rank-0.json"]["loader"]["made_with"]["domains"] == ["mesh", "real"]


@pytest.mark.slow
def test_two_processes_under_torchrun_are_one_run(release, config, tmp_path):
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "anitalk"]
    arguments = command(release, config, tmp_path / "run", "--set", "pretrain.num_pairs=8")
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launch, *arguments], env=env, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("finished after step 2") == 1
    name, records, _ = last_of(tmp_path / "run")
    assert (name, records["state.json"]["processes"]) == ("step-000000002", 2)
    readers = [records[f"rank-{rank}.json"]["loader"]["readers"] for rank in range(2)]
    assert [list(domains) for domains in readers] == [["0"], ["1"]]


# ---- what a run leaves -----------------------------------------------------------------------------------------------


def test_a_run_tells_what_it_does_and_leaves_pictures_and_figures(release, config, first, tmp_path, capsys):
    assert cli.run(command(release, config, tmp_path / "run", "--set", "pretrain.num_pairs=4")) == 0
    messages = capsys.readouterr().err
    assert "AnyTalk, pretrain: 0.38 M parameters" in messages
    assert "clips: 4 real (100%)" in messages
    assert "held out: 6 pairs of test (real)" in messages
    assert "finished after step 2; held out: made " in messages
    for name, rows in (("step", 2), ("held-out", 4)):
        for step in (6, 12):
            with Image.open(first / "pictures" / f"{name}-{step:09d}.png") as picture:
                assert picture.size == (6 * 32, rows * 32)
    board = EventAccumulator(str(first / "board")).Reload()
    names = {"data/pairs_s", "data/wait_share", "validation/average/psnr_db", "validation/average/psnr_source_db"}
    assert names <= set(board.Tags()["scalars"])
    assert 0 <= board.Scalars("data/wait_share")[-1].value <= 1
    assert json.loads((first / "run.json").read_text())["config"]["model"]["image_px"] == 32


# ---- batches ---------------------------------------------------------------------------------------------------------


def test_a_feed_gives_what_the_loader_gives_augmented(release):
    settings = PairsConfig(batch_size=3, shuffle_pairs=4)
    feed = Feed(pairs(release, settings), AugmentConfig(), torch.device("cpu"))
    loader = iter(pairs(release, settings))
    for table, batch in zip(feed, loader, strict=False):
        changed = augment(batch, AugmentConfig())
        assert table.keys() == REQUIRED.keys() | {"driving_face", "group"}
        prepared(table, 64)
        assert torch.equal(table["group"], changed.group)
        assert torch.equal(table["source"], changed.source.frames)
        assert torch.equal(table["driving_pose"], changed.driving.pose)
        assert torch.equal(table["driving_landmarks"], changed.driving.landmarks)
        if feed.loader.state_dict()["batches"] == 4:
            break
    assert flat(batch)["source"] is batch.source.frames


def test_held_out_pairs_are_fixed_differ_and_are_of_no_training_clip(release):
    config = read_settings(None, ["model.preset=tiny64", "num_validation_pairs=20", "pretrain.domains=[]"])
    assert held_out_domains(release, config) == ("test", ("mesh", "real"))
    tables, tables_again = (held_out(release, FramePairs(), config, "test", ("mesh", "real")) for _ in range(2))
    assert sum(len(table["source"]) for table in tables) == 20
    assert all(
        torch.equal(left[name], right[name]) for left, right in zip(tables, tables_again, strict=True) for name in left
    )
    for table in tables:
        assert (table["source"] != table["driving"]).flatten(1).any(dim=1).all()
    assert {int(value) for table in tables for value in table["domain"]} == {0, 1}
    clips = {int(value) for table in tables for value in table["source_pose"][:, 1]}  # labels begin with frame and clip
    assert clips <= {8, 9, 10}


def test_shards_without_a_release_hold_nothing_out(release):
    config = read_settings(None, ["model.preset=tiny64"])
    assert held_out_domains([str(path) for path in shards_of(release)], config) is None
    only = read_settings(None, ["model.preset=tiny64", "pretrain.domains=[disney_human]"])
    assert held_out_domains(str(release), only) is None


# ---- settings and mistakes -------------------------------------------------------------------------------------------


def test_settings_lie_over_one_another(config):
    read = read_settings(config, ["model.num_keypoints=5", "data.weights.real=2", "pretrain.num_pairs=7"], "finetune")
    assert (read.model.num_keypoints, read.model.image_px, read.model.depth) == (5, 32, 4)
    assert (read.stage, read.pretrain.num_pairs, read.pretrain.learning_rate) == ("finetune", 7, 0.001)
    assert read.loading.weights == {"real": 2.0}
    assert read.loading.size_px == 32
    assert read_settings().model.image_px == 256
    assert read_settings(None, ["model.preset=512"]).model.image_px == 512


MISTAKES = {
    "no such release": (["--shards", "/nowhere"], "no finished release at /nowhere"),
    "two releases": (["--shards", "/one", "--shards", "/two"], "/one is no shard: name one release alone"),
    "stage": (
        ["--stage", "finetune"],
        "begins with the weights of the stage pretrain: name a checkpoint of it by --init",
    ),
    "no checkpoint": (["--init", "/nowhere"], "--init: /nowhere is no checkpoint of this trainer"),
    "frozen": (["--set", "losses.perceptual.weight=1"], "losses.perceptual.file.path is not set"),
    "frozen file": (
        ["--set", "losses.expression={weight: 1, file: {path: /nowhere/net.bin}}"],
        "losses.expression.file.path: /nowhere/net.bin is not there",
    ),
    "workers": (["--set", "data.num_workers=3"], "the domain 'real' has 2 shards for 3 readers"),
    "domain": (["--set", "pretrain.domains=[disney_human]"], "there is no domain 'disney_human' in the split 'train'"),
    "renamed": (["--set", "losses.spread=1"], "losses.spread is called losses.keypoint_prior now: rename it"),
    "setting": (["--set", "losses.pixels=1"], "losses.pixels: there is no such setting; did you mean pixel?"),
    "value": (["--set", "clip=-1"], "clip: Input should be greater than 0, found -1"),
    "size": (["--set", "data.size_px=64"], "data.size_px 64 is not the model's 32"),
    "preset": (["--set", "model.preset=128"], "there is no '128': choose from 256, 256-plain, 512, tiny64"),
    "no setting": (["--set", "clip"], "--set takes key=value"),
    "no config": (["--config", "/nowhere.yaml"], "cannot read the configuration /nowhere.yaml"),
    "precision": (["--set", "precision=bf16"], "precision 'bf16' needs an accelerator"),
    "no GPU": (["--device", "cuda"], "there are 0 GPUs here for 1 processes"),
    "no place": (["--output", "/proc/run"], "--output: the folder /proc/run cannot be made"),
    "a file as output": (["--output", "/proc/version"], "--output: /proc/version is no folder"),
    "no run": (["--resume"], "to resume: leave --resume out to begin one"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_sentence_before_anything_is_written(mistake, release, config, tmp_path, capsys):
    changes, sentence = MISTAKES[mistake]
    if mistake == "no GPU" and torch.cuda.is_available():
        pytest.skip("there is one")
    arguments = command(release, config, tmp_path / "run")
    if "--shards" in changes:
        del arguments[2:4]
    assert cli.run([*arguments, *changes]) == EXIT_USAGE
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("anitalk: ")]
    assert sentence in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ([], "holds a run already: go on with it by --resume"),
        (["--resume", "--stage", "finetune"], "holds a run of the stage pretrain, and this one is finetune"),
        (
            ["--resume", "--set", "betas=[0.9, 0.99]"],
            "was begun with betas = [0.5, 0.999], and this one has [0.9, 0.99]",
        ),
        (["--resume", "--set", "data.batch_size=4"], "was begun with data.batch_size = 2, and this one has 4"),
    ],
)
def test_another_run_does_not_go_on_in_a_folder(changes, sentence, release, config, first, capsys):
    before = last_of(first)
    assert cli.run(command(release, config, first, *changes)) == 2
    assert sentence in capsys.readouterr().err
    assert same(before, last_of(first))


def test_weights_of_other_networks_are_refused(release, config, first, tmp_path, capsys):
    others = ["--stage", "finetune", "--init", first, "--set", "model.num_keypoints=9"]
    assert cli.run(command(release, config, tmp_path / "run", *others)) == 2
    assert "was made with num_keypoints = 8, and this run has 9" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_is_told_and_kept_may_change_when_a_run_goes_on(release, config, first):
    before = last_of(first)
    assert cli.run(command(release, config, first, "--resume", "--set", "log_every=7")) == 0
    assert same(before, last_of(first))


def test_help_needs_no_torch():
    code = "import sys, flows.cli; sys.exit('torch' in sys.modules or 'lightning_fabric' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
