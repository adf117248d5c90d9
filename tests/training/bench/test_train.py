"""The training bench counts the arithmetic that is listed, and its figures are about whole steps."""

import math

import pytest
import torch

from flows.cli import application as cli
from schemas.errors import UsageError
from tests.helpers.training_runs import small_config, trainer
from training.bench.parts import PartTimes, measured_peak
from training.bench.train import (
    TrainBenchRequest,
    TrainFigures,
    Variant,
    measure_training,
    pair_flops,
)
from training.engine.optimising import part_names
from training.recipes.anytalk import RECIPE

pytestmark = pytest.mark.usefixtures("one_thread_in_torch")


def test_a_pairs_arithmetic_is_the_listed_one():
    # Listed with maps enlarged before SPADE convolves them; forward and both gradients of that are saved.
    doubled, quadrupled = (3 * 2 * side**2 * 9 * 256 * 128 / 1e12 for side in (128, 256))
    saved = 3 * (doubled * 5 / 9 + quadrupled * 3 / 4)
    with RECIPE.bench.config("256", 1) as (config, _):
        flops = pair_flops(RECIPE, config)
    assert sum(flops.values()) / 1e12 == pytest.approx(4.2 - saved, rel=0.02)


def test_a_gradient_costs_up_to_two_forward_passes():
    with RECIPE.bench.config("tiny64", 1) as (config, _):
        flops = pair_flops(RECIPE, config)
    forward, backward, judge, judge_backward = flops.values()
    assert 1.5 < backward / forward < 2
    assert 1.5 < judge_backward / judge < 2


def test_parts_add_up_to_the_step(tmp_path):
    run = trainer(small_config(1, 2), tmp_path)
    run.clock = clock = PartTimes(run.fabric.device)
    parts = part_names(run.optimising.updates)
    batch = run.learner.prepare(RECIPE.bench.batch(2, run.config), run.fabric.device)
    run.step(batch)
    assert set(clock.spent_s) == set(parts)
    before = dict(clock.spent_s)
    run.step(batch)
    assert all(clock.spent_s[part] > before[part] for part in parts)


def test_figures_are_ratios_of_what_was_measured():
    part = "model: forward, losses"
    plain = Variant("plain", 8, 0.5, {part: 0.3}, 0.0)
    faster = Variant("+ bf16", 8, 0.25, {part: 0.1}, 12.0)
    figures = TrainFigures(
        title="AnyTalk",
        preset="256",
        machine="one GPU",
        frozen="judged by chance",
        parts=(part,),
        flops={part: 2e12},
        variants=(plain, faster),
        peak_tflops=128.0,
        peak_source="given",
        memory_gib=1.0,
    )
    lines = figures.lines()
    assert "| plain | 8 | 500.0 | 16 |  | 32 | 25.0% |  |" in lines
    assert "| + bf16 | 8 | 250.0 | 32 | 2.00 | 64 | 50.0% | 12.0 |" in lines
    assert f"| {part} | 2000 | 300.0 | 100.0 |" in lines


def test_a_processors_peak_is_measured_beside_the_steps():
    peak_tflops, source = measured_peak(torch.device("cpu"))
    assert 0 < peak_tflops < math.inf
    assert "float32" in source


def test_the_command_prints_the_tables_and_says_what_is_wrong(capsys):
    few = ["bench", "train", "--batch-size", "2", "--rounds", "1", "--device", "cpu"]
    assert cli.run([*few, "--lever", "channels_last", "--peak-tflops", "0.1"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("AnyTalk tiny64 on ")
    assert "nothing is read; judged by squeezenet1_1 at 2 scales with random weights." in out
    assert "| + channels_last | 2 | " in out
    assert "peak: 0.1 TFLOP/s, as given" in out
    assert cli.run([*few, "--lever", "bf16"]) == 2
    assert "precision 'bf16' needs an accelerator" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (TrainBenchRequest(preset="1024"), "there is no preset '1024'"),
        (TrainBenchRequest(levers=("fp8",), accelerator="cpu"), "there is no lever 'fp8'"),
        (TrainBenchRequest(levers=("batch", "batch"), accelerator="cpu"), "a lever is named twice"),
    ],
)
def test_what_there_is_not_is_refused(asked, sentence):
    with pytest.raises(UsageError, match=sentence):
        measure_training(asked)
