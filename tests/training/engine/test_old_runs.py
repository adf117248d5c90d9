"""Runs that were begun before there were recipes go on, and their checkpoints are AnyTalk's."""

import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.helpers.pair_shards import numbered_release
from tests.training.engine.test_train_cli import SETTINGS
from training.engine.checkpoint import Store
from training.engine.run import RunRequest, train
from training.engine.settings import read_settings
from training.engine.trained import find_checkpoint, load_driver
from training.recipes.anytalk.settings import RENAMED

pytestmark = pytest.mark.usefixtures("one_thread_in_torch")


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return numbered_release(tmp_path_factory.mktemp("release"), {"mesh": 4, "real": 4}, test={"mesh": 1, "real": 2})


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "small.yaml"
    settings = {**SETTINGS, "pretrain": {"num_pairs": 8, "domains": []}, "images_every": 9, "num_validation_pairs": 2}
    path.write_text(yaml.safe_dump(settings))
    return read_settings(path, ["losses.keypoint_prior=9"])


def trained(release, folder, config, **more):
    assert train(RunRequest((str(release),), folder, config, accelerator="cpu", **more), print)[0] == "finished"
    return Store(folder / "checkpoints").latest()


def as_before(folder):
    """Write a run's records as they were before: no recipe, no origin, other names of losses, one alarm that lasts."""
    path = folder / "run.json"
    record = json.loads(path.read_text())
    losses = record["config"]["losses"]
    for old, new in RENAMED.items():
        losses[old.partition(".")[2]] = losses.pop(new.partition(".")[2])
    assert losses["spread"] == 9
    path.write_text(json.dumps({"config": record["config"], "shards": record["shards"]}))
    for checkpoint in (folder / "checkpoints").glob("step-*"):
        state = json.loads((checkpoint / "state.json").read_text())
        for name in ("recipe", "made_from", "higher_is_better"):
            del state[name]
        del state["progress"]["past_since"]
        state["progress"]["accurate_since"] = 1
        (checkpoint / "state.json").write_text(json.dumps(state))


def test_an_old_run_goes_on_to_the_same_weights(release, config, tmp_path):
    whole = trained(release, tmp_path / "whole", config)
    shutil.copytree(tmp_path / "whole", tmp_path / "old")
    shutil.rmtree(tmp_path / "old" / "checkpoints" / whole.name)
    as_before(tmp_path / "old")
    assert find_checkpoint(tmp_path / "old").recipe == "anytalk"
    assert load_driver(tmp_path / "old", torch.device("cpu"), recipe="anytalk").image_px == 32
    later = trained(release, tmp_path / "old", config, resume=True)
    assert later.name == whole.name
    for file in whole.glob("*.safetensors"):
        values = load_file(later / file.name)
        assert all(torch.equal(value, values[name]) for name, value in load_file(file).items()), file.name
    state = json.loads((later / "state.json").read_text())
    assert (state["recipe"], state["progress"]["past_since"]) == ("anytalk", {})
    assert json.loads((tmp_path / "old" / "run.json").read_text())["recipe"] == "anytalk"


def test_weights_of_another_run_are_named_in_what_begins_with_them(release, config, tmp_path):
    first = trained(release, tmp_path / "first", config)
    finetune = config.model_copy(update={"stage": "finetune", "finetune": config.pretrain})
    second = trained(release, tmp_path / "second", finetune, init=tmp_path / "first")
    made_from = json.loads((second / "state.json").read_text())["made_from"]
    assert made_from == {"checkpoint": find_checkpoint(first).sha256}
    record = json.loads((tmp_path / "second" / "run.json").read_text())
    assert (record["made_from"], record["init"]) == (made_from, str(first))
