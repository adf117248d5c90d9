"""What a training step costs: time, arithmetic and memory, and what each lever changes.

Weights and pictures are random and nothing is read, since speed depends on sizes alone. Variants take turns within one
run, so that a machine that slows down for a while slows all of them alike.
"""

import resource
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from schemas.errors import UsageError
from training.bench.parts import PARTS, Clock, arithmetic, known_peak, machine, measured_peak, now_s
from training.data.config import PairsConfig
from training.data.contract import prepared
from training.engine.config import TrainConfig
from training.engine.launch import start
from training.engine.loop import Trainer
from training.losses.config import ExpressionLossConfig, LossConfig, PerceptualConfig
from training.networks.backbones import ExpressionResNet, SqueezeNet, Vgg19
from training.networks.frozen import FrozenFile
from training.recipes.anytalk.config import PRESETS
from training.recipes.anytalk.recipe import AnyTalkRecipe, Batch

LEVERS = ("bf16", "channels_last", "compile", "batch")
_CPU_LEVERS = ("channels_last", "batch")  # bf16 is refused there, and compiling takes minutes
_WARM_STEPS = 2  # of each variant: allocators settle, algorithms are chosen, networks compiled
_SMALL_PX = 128  # pictures below it are too small for VGG19 at four scales
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class TrainBench:
    """What is measured.

    Attributes:
        preset: a name of ``PRESETS``; None: 256 on a GPU, tiny64 on a processor.
        batch_size: pairs of a step.
        levers: of ``LEVERS``, each on top of those before it; None: all on a GPU, the two that pay on a processor.
        rounds: turns of every variant.
        steps: of a turn; None: 10 on a GPU, 1 on a processor.
        accelerator: ``cpu``, ``cuda`` or ``auto``.
        peak_tflops: the machine's; None: by its name, or measured.
    """

    preset: str | None = None
    batch_size: int = 8
    levers: tuple[str, ...] | None = None
    rounds: int = 3
    steps: int | None = None
    accelerator: str = "auto"
    peak_tflops: float | None = None


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
        preset: what was trained.
        machine: on what.
        frozen: the networks that judged, by name.
        flops: of a pair, by part.
        variants: the plain one first, then each lever on top of those before it.
        peak_tflops: of the machine.
        peak_source: where that is from.
        memory_gib: of the process at most.
    """

    preset: str
    machine: str
    frozen: str
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
        told = [
            f"AnyTalk {self.preset} on {self.machine}.",
            f"Random weights of the true size and random pictures, nothing is read; {self.frozen}.",
            "",
            "| variant | batch | ms per step | pairs/s | × row above | TFLOP/s | of peak | device GiB |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for before, one in zip((None, *self.variants), self.variants, strict=False):
            ratio = "" if before is None else f"{one.pairs_s / before.pairs_s:.2f}"
            speed = self.pair_tflop * one.pairs_s
            memory = f"{one.memory_gib:.1f}" if one.memory_gib else ""
            figures = f"{1000 * one.step_s:.1f} | {one.pairs_s:.3g} | {ratio} | {speed:.3g} "
            told.append(f"| {one.name} | {one.batch_size} | {figures}| {speed / self.peak_tflops:.1%} | {memory} |")
        told += ["", f"| ms by part | GFLOP per pair |{''.join(f' {one.name} |' for one in self.variants)}"]
        told.append("| --- | --- |" + " --- |" * len(self.variants))
        for part in PARTS:
            count = f"{self.flops[part] / 1e9:.4g}" if part in self.flops else ""
            times = "".join(f" {1000 * one.parts_s.get(part, 0.0):.1f} |" for one in self.variants)
            told.append(f"| {part} | {count} |{times}")
        peak = f"peak: {self.peak_tflops:.3g} TFLOP/s, {self.peak_source}"
        memory = f"the process took {self.memory_gib:.1f} GiB of memory at most"
        return [*told, "", f"{self.pair_tflop:.3g} TFLOP per pair; {peak}; {memory}."]


def measure_training(asked: TrainBench) -> TrainFigures:
    """Train random networks on random pictures, variant by variant in turns.

    Raises:
        UsageError: for an unknown preset or lever, one named twice, or one that the machine has not.
    """
    on_gpu = asked.accelerator == "cuda" or (asked.accelerator == "auto" and torch.cuda.is_available())
    preset = asked.preset or ("256" if on_gpu else "tiny64")
    levers = (LEVERS if on_gpu else _CPU_LEVERS) if asked.levers is None else asked.levers
    _check(preset, levers)
    with stand_ins(preset) as losses, tempfile.TemporaryDirectory() as folder:
        plain = TrainConfig(model=PRESETS[preset], losses=losses, data=PairsConfig(batch_size=asked.batch_size))
        configs = list(_variants(plain, levers))
        runs = [
            _Run(name, config, asked.accelerator, Path(folder, str(index)))
            for index, (name, config) in enumerate(configs)
        ]
        for _ in range(asked.rounds):
            for run in runs:
                run.turn(asked.steps or (10 if on_gpu else 1))
        device = runs[0].trainer.fabric.device
        flops = pair_flops(plain)
    peak = (asked.peak_tflops, "as given") if asked.peak_tflops else known_peak(device) or measured_peak(device)
    frozen = [f"{losses.perceptual.backbone} at {losses.perceptual.num_scales} scales"]
    frozen += ["expression_resnet50"] if losses.expression.weight else []
    return TrainFigures(
        preset=preset,
        machine=machine(device),
        frozen=f"judged by {' and '.join(frozen)} with random weights",
        flops=flops,
        variants=tuple(run.figures() for run in runs),
        peak_tflops=peak[0],
        peak_source=peak[1],
        memory_gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GIB,
    )


def pair_flops(config: TrainConfig) -> dict[str, float]:
    """FLOPs of training on one pair, by part; nothing is computed."""
    recipe = AnyTalkRecipe(config)
    recipe.to(torch.device("meta"))
    for network in (recipe.model, recipe.discriminator):
        network.to("meta")
    batch = {name: value.to("meta") for name, value in random_batch(1, config.model.image_px).items()}
    return arithmetic(recipe, batch)


def random_batch(count: int, image_px: int) -> Batch:
    """Prepared pairs of noise whose labels are believed."""
    generator = torch.Generator().manual_seed(0)
    pose = torch.zeros(count, 7)
    pose[:, 6] = 1.0
    batch = {"domain": torch.zeros(count, dtype=torch.long)}
    for side in ("source", "driving"):
        batch |= {
            side: torch.randint(256, (count, 3, image_px, image_px), generator=generator, dtype=torch.uint8),
            f"{side}_pose": pose,
            f"{side}_landmarks": torch.zeros(count, 68, 3),
            f"{side}_valid": torch.ones(count, dtype=torch.bool),
        }
    return prepared(batch, image_px)


@contextmanager
def stand_ins(preset: str) -> Iterator[LossConfig]:
    """The paper's losses with random weights for the networks that judge; small pictures get a small one, alone."""
    small = PRESETS[preset].image_px < _SMALL_PX
    with tempfile.TemporaryDirectory() as folder:

        def file(network: nn.Module) -> FrozenFile:
            path = Path(folder, f"{type(network).__name__}.safetensors")
            save_file(network.state_dict(), path)
            return FrozenFile(path=str(path))

        if small:
            perceptual = PerceptualConfig(backbone="squeezenet1_1", num_scales=2, file=file(SqueezeNet()))
            yield LossConfig(perceptual=perceptual, expression=ExpressionLossConfig(weight=0))
        else:
            expression = ExpressionLossConfig(file=file(ExpressionResNet()))
            yield LossConfig(perceptual=PerceptualConfig(file=file(Vgg19())), expression=expression)


def _check(preset: str, levers: Sequence[str]) -> None:
    if preset not in PRESETS:
        raise UsageError(f"there is no preset {preset!r}: choose from {', '.join(PRESETS)}")
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

    def __init__(self, name: str, config: TrainConfig, accelerator: str, folder: Path) -> None:
        self.name, self.config = name, config
        held = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0  # by the variants before
        self.trainer = Trainer(start(config, accelerator), AnyTalkRecipe(config), config, folder)
        self.device = self.trainer.fabric.device
        batch = random_batch(config.data.batch_size, config.model.image_px)
        self._batch = {name: value.to(self.device) for name, value in batch.items()}
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
        clock = Clock(self.trainer)
        self._take(1)
        step_s = statistics.median(self._steps_s)
        return Variant(self.name, self.config.data.batch_size, step_s, dict(clock.spent_s), self._memory_gib)

    def _take(self, steps: int) -> Sequence[float]:
        taken = []
        for _ in range(steps):
            began = now_s(self.device)
            self.trainer.step(self._batch)
            taken.append(now_s(self.device) - began)
        return taken
