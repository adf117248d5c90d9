"""The loop: a run that was ended goes on as if it had not been, and steps that go wrong do no harm."""

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from schemas.errors import CheckpointError, DataError, UsageError
from tests.conftest import ROOT
from tests.helpers import training_job
from tests.helpers.precision import double_precision
from tests.helpers.training_pairs import Pairs, pairs
from tests.helpers.training_runs import small_config, trainer
from training.data.contract import REQUIRED, check_labels, prepared
from training.engine.alarms import Alarms
from training.engine.loop import RunState
from training.losses.config import ExpressionLossConfig, PerceptualConfig
from training.losses.pixels import psnr_db
from training.recipes.anytalk.config import TINY
from training.recipes.anytalk.deformation import Deformation
from training.recipes.anytalk.learner import AnyTalkLearner
from training.recipes.anytalk.settings import AlarmConfig, AnyTalkConfig, LossConfig
from training.recipes.base import StageConfig

pytestmark = pytest.mark.usefixtures("one_thread_in_torch")


def tensors(path):
    """Everything in a checkpoint's files of tensors."""
    return {
        f"{file.stem}/{name}": value for file in path.glob("*.safetensors") for name, value in load_file(file).items()
    }


def ready(run, batch):
    return run.learner.prepare(batch, run.fabric.device)


def total(run, figures):
    """The generator's loss of a step."""
    return sum(weight * figures[name].item() for name, weight in run.learner.weights().items() if name in figures)


def drawn(count, seed=0, step=0, rank=0, size=1):
    return Deformation.drawn(seed, step, count, rank, size, torch.device("cpu"))


def limits(**changes):
    return AnyTalkLearner(small_config(1, 2, alarms=AlarmConfig(**changes))).limits()


def same(tensors, others):
    return tensors.keys() == others.keys() and all(torch.equal(tensors[name], others[name]) for name in tensors)


# ---- runs ------------------------------------------------------------------------------------------------------------


def test_both_stages_train_and_leave_what_they_should(tmp_path):
    first = trainer(small_config(2, 2), tmp_path / "one", [pairs(2, 99)])
    before = {name: value.clone() for name, value in first.learner.model.state_dict().items()}
    assert first.run(Pairs(2)) == "finished"
    after = first.learner.model.state_dict()
    still = [name for name, value in before.items() if torch.equal(value, after[name])]
    assert still == []
    path = first.store.latest()
    assert path.name == "step-000000002"
    assert json.loads((path / "state.json").read_text())["progress"]["score"] > 0

    second = trainer(small_config(2, 2, stage="finetune"), tmp_path / "two")
    with pytest.raises(CheckpointError, match="of stage pretrain and this run of finetune"):
        second.resume(path)
    turned = trainer(small_config(2, 2, model=TINY.model_copy(update={"euler_order": "zyx"})), tmp_path / "turned")
    with pytest.raises(CheckpointError, match="made with euler_order = xyz, and this run has zyx"):
        turned.begin_from(path)
    second.begin_from(path)
    assert same(second.learner.model.state_dict(), load_file(path / "model.safetensors"))
    assert second.run(Pairs(2)) == "finished"
    assert second.state.step == 2

    board = EventAccumulator(str(tmp_path / "one" / "board"), size_guidance={"images": 0}).Reload()
    names = {
        "train/pixel",
        "train/discriminator_loss",
        "train/model_gradient",
        "data/wait_ms",
        "validation/average/psnr_db",
    }
    assert names <= set(board.Tags()["scalars"])
    assert [event.step for event in board.Scalars("train/pixel")] == [1, 2]
    sheet = board.Images("step")[-1]
    assert (sheet.width, sheet.height) == (6 * 64, 2 * 64)


@pytest.mark.parametrize("stop", ["checkpoint", "signal"])
def test_a_run_that_was_ended_goes_on_bit_by_bit(tmp_path, stop):
    whole = trainer(small_config(4, 2), tmp_path / "whole")
    whole.run(Pairs(2))

    config = small_config(4, 2, save_every=2)
    ended, batches = trainer(config, tmp_path / "ended"), Pairs(2)
    if stop == "signal":
        step = ended.step

        def killed(batch):
            result = step(batch)
            if ended.state.step == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return result

        ended.step = killed
        assert ended.run(batches) == "stopped"
    else:
        ended.run(batches)
        path = ended.store.folder / "step-000000002"
        assert path.is_dir()
    path = ended.store.folder / "step-000000002"

    torch.manual_seed(77)
    later, batches = trainer(config.model_copy(update={"seed": 0}), tmp_path / "later"), Pairs(2)
    later.resume(path, batches)
    assert batches.number == 2
    assert later.run(batches) == "finished"
    assert same(tensors(whole.store.latest()), tensors(later.store.latest()))


def test_two_processes_are_one(tmp_path):
    """Same weights at the start and the same weights everywhere, bit for bit; steps differ by the order of sums alone.

    The job computes in 64 bits. Between two orders of adding, 32 bits were seen to leave 2e-3 of a gradient's norm, as
    every step of the chain makes what came before larger; 64 bits are finer by 2^29, so the same leaves 4e-12. A mean
    over the wrong number, a lost share or another draw would be off by a thousandth and more, whatever the precision.
    """
    training_job.main(tmp_path / "1", 2)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launch, training_job.__file__, str(tmp_path / "2"), "2"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    names = ("1/figures-0.json", "2/figures-0.json", "2/figures-1.json")
    alone, first, second = (json.loads((tmp_path / name).read_text()) for name in names)
    assert alone["start"] == first["start"] == second["start"]
    assert first["end"] == second["end"]
    assert first["end"] != first["start"]
    for of_one, of_two in zip(alone["steps"], first["steps"], strict=True):
        assert of_two == pytest.approx(of_one, rel=1e-9, abs=1e-12)

    of_one, of_two = (tensors(tmp_path / size / "checkpoints" / "step-000000002") for size in ("1", "2"))
    assert of_one.keys() - of_two.keys() == set()
    weights = [name for name in of_one if name.startswith(("model/", "average/", "discriminator/"))]
    assert any(name.endswith("running_var") for name in weights)
    for name in weights:
        # Adam divides a gradient by its own size: of one that is 0 but for its rounding, noise over epsilon is left.
        torch.testing.assert_close(of_two[name], of_one[name], rtol=1e-9, atol=training_job.LEARNING_RATE / 1000)


def learned_db(folder, seed):
    """How much nearer two pairs are made after 60 steps with them than what is no learning, in dB."""
    length = StageConfig(num_pairs=2 * 60, learning_rate=1e-3)
    losses = LossConfig(perceptual=PerceptualConfig(weight=0), expression=ExpressionLossConfig(weight=0), pixel=500.0)
    both = pairs(2)
    run = trainer(small_config(60, 2, losses=losses, pretrain=length, log_every=1000, seed=seed), folder)
    batch = ready(run, both)
    before = run.learner.validate(run.learner.model, batch)
    run.run([both])
    after = run.learner.validate(run.average.module, batch)["psnr_db"]
    with torch.no_grad():
        pictures = run.average.module(batch["source"], batch["driving"], batch["driving"]).picture
    swapped = psnr_db(pictures.flip(0), batch["driving"]).mean().item()  # a mean picture would be as good for either
    return {
        "the start": after - before["psnr_db"],
        "the sources": after - before["psnr_source_db"],
        "each other": after - swapped,
    }


def test_two_pairs_are_learned_by_heart_and_told_apart(tmp_path):
    """From one of three random starts: how far 60 steps lead from a start is a matter of its last bits, too."""
    wanted = {"the start": 5, "the sources": 2, "each other": 3}
    reached = []
    for seed in range(1, 4):
        reached.append(learned_db(tmp_path / str(seed), seed))
        if all(reached[-1][name] > least for name, least in wanted.items()):
            return
    pytest.fail(f"no start led to gains of {wanted} dB: {reached}")


# ---- levers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lever", "precision", "within"),
    [
        pytest.param("channels_last", double_precision, 1e-9, id="channels_last"),
        # The compiler takes a request for 32 bits at its word; but it calls the same kernels, in the same order.
        pytest.param("compile", contextlib.nullcontext, 1e-4, id="compile", marks=pytest.mark.slow),
    ],
)
def test_a_lever_changes_the_speed_and_not_the_loss(lever, precision, within, tmp_path, monkeypatch):
    # Compiled code is traced and taken apart as for the default backend, whose C++ alone would take minutes.
    monkeypatch.setattr(nn.Module, "compile", functools.partialmethod(nn.Module.compile, backend="aot_eager"))
    few = {"appearance_blocks": 1, "generator_blocks": 1, "motion_blocks": (1, 1, 1, 1), "discriminator_blocks": 2}
    plain = small_config(2, 2, model=TINY.model_copy(update=few))
    losses = []
    with precision():
        for index, config in enumerate((plain, plain.model_copy(update={lever: True}))):
            run = trainer(config, tmp_path / str(index))
            losses.append([total(run, run.step(ready(run, batch))[1]) for batch in (pairs(2), pairs(2, 1))])
            assert run.state.skipped == 0
    assert losses[1] == pytest.approx(losses[0], rel=within)


# ---- steps that go wrong ---------------------------------------------------------------------------------------------


def test_a_step_without_a_gradient_changes_no_weight_and_no_running_mean(tmp_path):
    run = trainer(small_config(9, 2), tmp_path)
    run.step(ready(run, pairs(2)))
    before = {name: value.clone() for name, value in run.learner.model.state_dict().items()}
    broken = ready(run, pairs(2))
    broken["driving"] = broken["driving"] * float("nan")
    run.step(broken)
    assert run.state.skipped == 1
    assert same(before, run.learner.model.state_dict())
    run.step(ready(run, pairs(2)))
    assert run.state.skipped == 1
    assert all(value.isfinite().all() for value in run.learner.model.state_dict().values())


def test_the_discriminator_learns_from_its_own_half_alone(tmp_path):
    run = trainer(small_config(9, 2), tmp_path)
    batch = ready(run, pairs(2))
    run.learner.discriminator.requires_grad_(False)
    generated = run.learner.generate(run.learner.model, run.learner.discriminator, batch, drawn(2))
    generated.loss.backward()
    assert all(value.grad is None for value in run.learner.discriminator.parameters())
    assert all(value.grad is not None for value in run.learner.model.parameters())
    for value in run.learner.model.parameters():
        value.grad = None
    run.learner.discriminator.requires_grad_(True)
    run.learner.judge(run.learner.discriminator, batch, generated.rendered).total.backward()
    assert all(value.grad is not None for value in run.learner.discriminator.parameters())
    assert all(value.grad is None for value in run.learner.model.parameters())


def test_bfloat16_keeps_losses_near_and_is_refused_where_it_would_crash(tmp_path):
    run = trainer(small_config(9, 2), tmp_path)
    batch, terms = ready(run, pairs(2)), []
    for half in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            generated = run.learner.generate(run.learner.model, run.learner.discriminator, batch, drawn(2))
        assert generated.rendered.driving_points.dtype == torch.float32
        terms.append({name: value.item() for name, value in generated.terms.items()})
    assert terms[1] == pytest.approx(terms[0], rel=0.25, abs=0.1)
    with pytest.raises(UsageError, match="bf16"):
        trainer(small_config(9, 2, precision="bf16"), tmp_path)


def test_what_a_step_draws_depends_on_its_number_and_a_part_draws_its_part():
    whole = drawn(4, 3, 5)
    assert torch.equal(whole.affine[2:], drawn(2, 3, 5, rank=1, size=2).affine)
    assert not torch.equal(whole.affine, drawn(4, 3, 6).affine)
    assert not torch.equal(whole.affine, drawn(4, 4, 5).affine)


def test_the_rate_drops_once_near_the_end():
    config = AnyTalkConfig(pretrain=StageConfig(num_pairs=1000, learning_rate=2e-4))
    assert [config.rate(pairs) for pairs in (0, 899, 900, 999)] == pytest.approx([2e-4, 2e-4, 2e-5, 2e-5])
    assert AnyTalkConfig(stage="finetune").rate(0) == 5e-5


# ---- alarms ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fine", "wrong"),
    [
        ("distance", 0.03, 0.029),
        ("entropy", 1.0, 0.99),
        ("occlusion", 0.98, 0.981),
        ("occlusion", 0.02, 0.019),
        ("spread_of_deformation", 1e-4, 0.9e-4),
    ],
)
def test_alarms_ring_past_their_limit(name, fine, wrong):
    alarms = Alarms(limits())
    assert alarms.look(1, {name: fine}) == {}
    assert list(alarms.look(1, {name: wrong})) == [name]


def test_a_discriminator_that_is_right_for_long_has_won():
    alarms = Alarms(limits(accurate_steps=10))
    assert not alarms.look(100, {"accuracy": 0.96})
    assert not alarms.look(109, {"accuracy": 0.99})
    assert "since step 100" in alarms.look(110, {"accuracy": 0.96})["accuracy"]
    assert not alarms.look(111, {"accuracy": 0.95})
    assert not alarms.look(121, {"accuracy": 0.96})
    assert alarms.past_since == {"accuracy": 121}


def test_a_checkpoint_of_before_says_since_when_the_discriminator_was_right():
    before = {"stage": "pretrain", "step": 3, "pairs": 6, "skipped": 0, "score": None}
    assert RunState.read({**before, "accurate_since": 2}).past_since == {"accuracy": 2}
    assert RunState.read({**before, "accurate_since": None}).past_since == {}


# ---- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_field_is_named(name):
    batch = pairs(2)
    del batch[name]
    with pytest.raises(DataError, match=f"no {name}"):
        prepared(batch, 64)


def test_other_shapes_sizes_and_labels_are_refused():
    with pytest.raises(DataError, match=r"driving_pose of a batch has shape \(2, 6\), expected \(2, 7\)"):
        prepared(pairs(2) | {"driving_pose": torch.zeros(2, 6)}, 64)
    with pytest.raises(DataError, match="64×64 px and the model makes 256"):
        prepared(pairs(2), 256)
    batch = pairs(2)
    batch["driving_pose"][1, 2] = float("nan")
    with pytest.raises(DataError, match="driving_pose of pair 1"):
        check_labels(batch)
    batch["driving_pose"][1, 6] = 0  # a label that nobody believes
    check_labels(batch)


def test_bytes_become_shares_and_shares_stay():
    ready = prepared(pairs(1), 64)
    assert 0 <= ready["source"].min() < ready["source"].max() <= 1
    assert torch.equal(prepared(ready, 64)["source"], ready["source"])


def test_no_batches_is_an_error_and_not_an_endless_wait(tmp_path):
    with pytest.raises(DataError, match="no batches"):
        trainer(small_config(2, 2), tmp_path).run([])
