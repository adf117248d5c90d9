"""What a training step costs: time, arithmetic and memory, and what each lever changes.

Weights and pictures are random and nothing is read, since speed depends on sizes alone. Variants take turns within one
run, so that a machine that slows down for a while slows all of them alike.
"""

import resource
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from schemas.errors import UsageError
from training.bench.parts import PartTimes, arithmetic, known_peak, machine, measured_peak, now_s
from training.engine.launch import start
from training.engine.loop import Trainer
from training.engine.optimising import NoClock, part_names
from training.recipes.base import DataFacts, Recipe, RecipeBench, TrainConfig
from training.recipes.registry import DEFAULT_RECIPE, find_recipe

LEVERS = ("bf16", "channels_last", "compile", "batch")
_CPU_LEVERS = ("channels_last", "batch")  # bf16 is refused there, and compiling takes minutes
_WARM_STEPS = 2  # of each variant: allocators settle, algorithms are chosen, networks compiled
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class TrainBenchRequest:
    """What is measured.

    Attributes:
        preset: one of the recipe's; None: its large one on a GPU, its small one on a processor.
        batch_size: pairs of a step.
        levers: of ``LEVERS``, each on top of those before it; None: all on a GPU, the two that pay on a processor.
        rounds: turns of every variant.
        steps: of a turn; None: 10 on a GPU, 1 on a processor.
        accelerator: ``cpu``, ``cuda`` or ``auto``.
        peak_tflops: the machine's; None: by its name, or measured.
        recipe: its name.
    """

    preset: str | None = None
    batch_size: int = 8
    levers: tuple[str, ...] | None = None
    rounds: int = 3
    steps: int | None = None
    accelerator: str = "auto"
    peak_tflops: float | None = None
    recipe: str = DEFAULT_RECIPE


@dataclass(frozen=True, slots=True)
class Variant:
    """One row: the median step, the step by part, and memory of the device at most (0: a processor)."""

    name: str
    batch_size: int
    step_s: float
    parts_s: dict[str, float]
    memory_gib: float

    @property
    def pairs_s(self) -> float:
        """Pairs per second."""
        return self.batch_size / self.step_s


@dataclass(frozen=True, slots=True)
class TrainFigures:
    """One run's figures.

    Attributes:
        title: of the recipe.
        preset: what was trained.
        machine: on what.
        frozen: the networks that judged, by name.
        parts: of a step, in order.
        flops: of a pair, by part.
        variants: the plain one first, then each lever on top of those before it.
        peak_tflops: of the machine.
        peak_source: where that is from.
        memory_gib: of the process at most.
    """

    title: str
    preset: str
    machine: str
    frozen: str
    parts: tuple[str, ...]
    flops: dict[str, float]
    variants: tuple[Variant, ...]
    peak_tflops: float
    peak_source: str
    memory_gib: float

    @property
    def pair_tflop(self) -> float:
        """TFLOP of a pair."""
        return sum(self.flops.values()) / 1e12

    def lines(self) -> list[str]:
        """As Markdown."""
        lines = [
            f"{self.title} {self.preset} on {self.machine}.",
            f"Random weights of the true size and random pictures, nothing is read; {self.frozen}.",
            "",
            "| variant | batch | ms per step | pairs/s | × row above | TFLOP/s | of peak | device GiB |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for before, variant in zip((None, *self.variants), self.variants, strict=False):
            ratio = "" if before is None else f"{variant.pairs_s / before.pairs_s:.2f}"
            speed = self.pair_tflop * variant.pairs_s
            memory = f"{variant.memory_gib:.1f}" if variant.memory_gib else ""
            cells = f"{1000 * variant.step_s:.1f} | {variant.pairs_s:.3g} | {ratio} | {speed:.3g} "
            share = f"{speed / self.peak_tflops:.1%}"
            lines.append(f"| {variant.name} | {variant.batch_size} | {cells}| {share} | {memory} |")
        lines += ["", f"| ms by part | GFLOP per pair |{''.join(f' {variant.name} |' for variant in self.variants)}"]
        lines.append("| --- | --- |" + " --- |" * len(self.variants))
        for part in self.parts:
            count = f"{self.flops[part] / 1e9:.4g}" if part in self.flops else ""
            times = "".join(f" {1000 * variant.parts_s.get(part, 0.0):.1f} |" for variant in self.variants)
            lines.append(f"| {part} | {count} |{times}")
        peak = f"peak: {self.peak_tflops:.3g} TFLOP/s, {self.peak_source}"
        memory = f"the process took {self.memory_gib:.1f} GiB of memory at most"
        return [*lines, "", f"{self.pair_tflop:.3g} TFLOP per pair; {peak}; {memory}."]


def measure_training(request: TrainBenchRequest) -> TrainFigures:
    """Train random networks on random pictures, variant by variant in turns.

    Raises:
        UsageError: for an unknown preset or lever, one named twice, or one that the machine has not.
    """
    on_gpu = request.accelerator == "cuda" or (request.accelerator == "auto" and torch.cuda.is_available())
    recipe = find_recipe(request.recipe)
    bench = bench_of(recipe)
    preset = request.preset or (bench.gpu_preset if on_gpu else bench.cpu_preset)
    levers = (LEVERS if on_gpu else _CPU_LEVERS) if request.levers is None else request.levers
    _check(bench, preset, levers)
    with bench.config(preset, request.batch_size) as (plain, note), tempfile.TemporaryDirectory() as folder:
        runs = [
            _Run(name, recipe, config, request.accelerator, Path(folder, str(index)))
            for index, (name, config) in enumerate(_variants(plain, levers))
        ]
        for _ in range(request.rounds):
            for run in runs:
                run.turn(request.steps or (10 if on_gpu else 1))
        device = runs[0].trainer.fabric.device
        flops = pair_flops(recipe, plain)
    peak = (request.peak_tflops, "as given") if request.peak_tflops else known_peak(device) or measured_peak(device)
    return TrainFigures(
        title=recipe.title,
        preset=preset,
        machine=machine(device),
        frozen=note,
        parts=part_names(runs[0].trainer.optimising.updates),
        flops=flops,
        variants=tuple(run.figures() for run in runs),
        peak_tflops=peak[0],
        peak_source=peak[1],
        memory_gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GIB,
    )


def pair_flops(recipe: Recipe, config: TrainConfig) -> dict[str, float]:
    """FLOPs of training on one pair, by part; nothing is computed."""
    learner, meta = recipe.learner(config, DataFacts()), torch.device("meta")
    for network in (*learner.frozen(), *learner.modules().values()):
        network.to(meta)
    # Prepared on the host, where values can be looked at.
    batch = learner.prepare(bench_of(recipe).batch(1, config), torch.device("cpu"))
    return arithmetic(learner, {name: value.to(meta) for name, value in batch.items()})


def bench_of(recipe: Recipe) -> RecipeBench:
    """What a recipe's speed is measured with.

    Raises:
        UsageError: when there is nothing.
    """
    if recipe.bench is None:
        raise UsageError(f"there is no bench of the recipe {recipe.name}: choose another")
    return recipe.bench


def _check(bench: RecipeBench, preset: str, levers: Sequence[str]) -> None:
    if preset not in bench.presets:
        raise UsageError(f"there is no preset {preset!r}: choose from {', '.join(bench.presets)}")
    for lever in levers:
        if lever not in LEVERS:
            raise UsageError(f"there is no lever {lever!r}: choose from {', '.join(LEVERS)}")
    if len(set(levers)) != len(levers):
        raise UsageError(f"a lever is named twice: {', '.join(levers)}")


def _variants(config: TrainConfig, levers: Sequence[str]) -> Iterator[tuple[str, TrainConfig]]:
    yield "plain", config
    for lever in levers:
        name, changes = f"+ {lever}", dict[str, object]({lever: True})
        if lever == "bf16":
            changes = {"precision": "bf16"}
        elif lever == "batch":
            data = config.data
            name, changes = "+ twice the batch", {"data": data.model_copy(update={"batch_size": 2 * data.batch_size})}
        config = config.model_copy(update=changes)
        yield name, config


class _Run:
    """A variant, warm and ready to take its turns."""

    def __init__(self, name: str, recipe: Recipe, config: TrainConfig, accelerator: str, folder: Path) -> None:
        self.name, self.config = name, config
        held = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0  # by the variants before
        learner = recipe.learner(config, DataFacts())
        self.trainer = Trainer(start(config, accelerator), learner, config, folder)
        self.device = self.trainer.fabric.device
        self._batch = learner.prepare(bench_of(recipe).batch(config.data.batch_size, config), self.device)
        self._take(_WARM_STEPS)
        self._steps_s: list[float] = []
        self._memory_gib = 0.0
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self._take(1)
            self._memory_gib = (torch.cuda.max_memory_allocated(self.device) - held) / _GIB

    def turn(self, steps: int) -> None:
        """Take a few steps."""
        self._steps_s += self._take(steps)

    def figures(self) -> Variant:
        """What came out, with one step by part at the end."""
        clock = PartTimes(self.device)
        self.trainer.clock = clock
        self._take(1)
        self.trainer.clock = NoClock()
        step_s = statistics.median(self._steps_s)
        return Variant(self.name, self.config.data.batch_size, step_s, dict(clock.spent_s), self._memory_gib)

    def _take(self, steps: int) -> Sequence[float]:
        taken = []
        for _ in range(steps):
            began = now_s(self.device)
            self.trainer.step(self._batch)
            taken.append(now_s(self.device) - began)
        return taken
