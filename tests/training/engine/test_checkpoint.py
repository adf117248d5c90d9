"""Checkpoints: what was saved comes back to the bit; nothing half written counts, nothing foreign is read."""

import json
import threading

import pytest
import torch
from torch import nn

from schemas.errors import CheckpointError
from training.engine.checkpoint import Parts, Store, Team, fill, read_config, restore
from training.engine.ema import Average
from training.recipes.anytalk.config import TINY, ModelConfig


def run(steps=3, seed=0):
    """A small model that took some Adam steps."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(model.parameters(), 1e-3, betas=(0.5, 0.999))
    parts = Parts({"model": model, "ema": Average(model, 0.9).module}, {"optimiser": optimiser})
    for _ in range(steps):
        step(parts)
    return parts


def step(parts):
    parts.optimisers["optimiser"].zero_grad()
    parts.modules["model"](torch.rand(2, 3, 8, 8)).square().mean().backward()
    parts.optimisers["optimiser"].step()


def weights(parts):
    return [value.clone() for module in parts.modules.values() for value in module.state_dict().values()]


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_what_goes_on_ends_where_it_would_have(tmp_path):
    first = run()
    path = Store(tmp_path).save(3, first, TINY, {"pairs": 24}, {"batches": 3})
    step(first)
    later = run(steps=0, seed=9)
    later.optimisers["optimiser"].param_groups[0]["lr"] = 5.0
    progress, loader = restore(path, later, TINY)
    assert (progress, loader) == ({"pairs": 24, "step": 3}, {"batches": 3})
    step(later)
    assert equal(weights(first), weights(later))


def test_the_newest_and_the_best_stay(tmp_path):
    store, parts = Store(tmp_path, keep_last=2), run(0)
    assert store.latest() is None
    for number, score in enumerate((1.0, 5.0, 2.0, 3.0, 4.0)):
        store.save(number, parts, TINY, {"score": score})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000001", "step-000000003", "step-000000004"]
    assert store.latest().name == "step-000000004"
    assert store.best().name == "step-000000001"


def test_a_checkpoint_that_was_not_finished_is_not_seen(tmp_path, monkeypatch):
    store, parts = Store(tmp_path), run()
    store.save(1, parts, TINY, {})

    def full(*args):
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("training.engine.checkpoint._write_json", full)
        with pytest.raises(OSError, match="no space"):
            store.save(2, parts, TINY, {})
    assert store.latest().name == "step-000000001"
    store.save(2, parts, TINY, {})
    assert store.latest().name == "step-000000002"
    assert not list(tmp_path.glob(".*"))


def test_saving_a_step_again_replaces_it(tmp_path):
    store = Store(tmp_path)
    store.save(1, run(), TINY, {"pairs": 1})
    store.save(1, run(), TINY, {"pairs": 2})
    assert restore(store.latest(), run(), TINY)[0]["pairs"] == 2


def test_every_process_has_its_own_place_in_the_data(tmp_path):
    barrier = threading.Barrier(2)
    parts = run()
    places = [Team(rank, 2, barrier.wait) for rank in range(2)]

    def save(team):
        Store(tmp_path, team=team).save(1, parts, TINY, {}, {"rank": team.rank})

    threads = [threading.Thread(target=save, args=(team,)) for team in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    path = Store(tmp_path).latest()
    assert [restore(path, run(), TINY, team)[1] for team in places] == [{"rank": 0}, {"rank": 1}]
    with pytest.raises(CheckpointError, match="saved by 2 processes, and this run has 1"):
        restore(path, run(), TINY)


# ---- refusals --------------------------------------------------------------------------------------------------------


def refusal(path, parts=None, config=TINY):
    with pytest.raises(CheckpointError) as caught:
        restore(path, parts or run(), config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_another_configuration_is_refused_by_its_first_difference(tmp_path):
    path = Store(tmp_path).save(1, run(), TINY, {})
    other = TINY.model_copy(update={"num_keypoints": 9})
    assert "made with num_keypoints = 8, and this run has 9" in refusal(path, config=other)
    assert read_config(path, ModelConfig) == TINY


def test_a_foreign_file_is_refused_without_being_read(tmp_path):
    torch.save({"generator": {}}, tmp_path / "00000189-checkpoint.pth.tar")
    assert "no checkpoint of this trainer" in refusal(tmp_path / "00000189-checkpoint.pth.tar")
    assert "no checkpoint of this trainer" in refusal(tmp_path / "nowhere")


def test_damaged_and_unfitting_ones_are_refused(tmp_path):
    path = Store(tmp_path).save(1, run(), TINY, {})
    with pytest.raises(CheckpointError, match=r"0\.bias \(expected \(5,\), found \(4,\)\)"):
        fill(nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)), path, "model")
    whole = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(whole[:100])
    assert "missing or damaged" in refusal(path)
    (path / "model.safetensors").write_bytes(whole)
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps(state | {"config": {**state["config"], "novel": 1}}))
    with pytest.raises(CheckpointError, match="such as novel"):
        read_config(path, ModelConfig)
    (path / "state.json").write_text(json.dumps(state | {"version": 2}))
    assert "checkpoint version 1" in refusal(path)
    (path / "state.json").write_text("{")
    assert "missing or damaged" in refusal(path)


# ---- the slow copy ---------------------------------------------------------------------------------------------------


def test_the_average_follows_weights_and_copies_running_means():
    model = nn.BatchNorm1d(1)
    average = Average(model, 0.75)
    with torch.no_grad():
        model.weight.fill_(5.0)
        model.running_mean.fill_(3.0)
    average.update(model)
    assert average.module.weight.item() == pytest.approx(0.75 * 1 + 0.25 * 5)
    assert average.module.running_mean.item() == 3
    assert not average.module.training
    model.running_mean.fill_(float("nan"))
    average.restore_buffers(model)
    assert model.running_mean.item() == 3
