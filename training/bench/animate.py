"""What a frame of animation costs, and what each way of being quicker is worth.

The networks have their true sizes and random weights, on which speed does not depend. All ways are measured in turns
within one run, so that a machine that slows down for a while slows all alike; each row adds one to those above it.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from schemas.errors import UsageError
from training.bench.parts import processor
from training.bench.train import bench_of
from training.engine.animator import AnimateConfig, Animator
from training.networks.inference import Captured
from training.recipes.base import Driver
from training.recipes.registry import DEFAULT_RECIPE, find_recipe

Step = Callable[[Tensor], Tensor]

_WARM_ROUNDS = 1


@dataclass(frozen=True, slots=True)
class AnimateFigures:
    """One run's figures.

    Attributes:
        preset: whose sizes the networks have.
        size_px: side of the pictures.
        machine: in words.
        num_rounds: how often each was measured.
        ms: least time per batch by (way, batch size), in the order of measuring.
    """

    preset: str
    size_px: int
    machine: str
    num_rounds: int
    ms: dict[tuple[str, int], float]

    def lines(self) -> list[str]:
        """As Markdown."""
        lines = ["| preset | batch | | ms per frame | frames/s | × first |", "| --- | --- | --- | --- | --- | --- |"]
        for (way, batch_size), ms in self.ms.items():
            first = next(value for (_, size), value in self.ms.items() if size == batch_size)
            cells = (self.preset, batch_size, way, f"{ms / batch_size:.2f}", f"{1000 * batch_size / ms:.2f}")
            lines.append(f"| {' | '.join(map(str, cells))} | {first / ms:.2f} |")
        lines += ["", f"{self.machine}; pictures of {self.size_px} px, 8-bit in and out on the device."]
        lines += [f"Fastest of {self.num_rounds} rounds; random weights, on which speed does not depend."]
        return lines


def measure_animate(
    preset: str,
    device: torch.device,
    *,
    batch_sizes: Sequence[int] = (1, 8),
    num_rounds: int = 10,
    recipe: str = DEFAULT_RECIPE,
) -> AnimateFigures:
    """Animate noise in every way there is on a device.

    Raises:
        UsageError: for a preset that there is none of, or nothing to measure.
    """
    bench = bench_of(find_recipe(recipe))
    if preset not in bench.presets:
        raise UsageError(f"there is no preset {preset!r}: choose from {', '.join(bench.presets)}")
    if not batch_sizes or min(batch_sizes) < 1 or num_rounds < 1:
        raise UsageError("at least one round with a batch of at least one frame has to be measured")
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # shapes are fixed, as they are in use
    torch.manual_seed(0)
    driver = bench.driver(preset, device)
    ms: dict[tuple[str, int], float] = {}
    for batch_size in batch_sizes:
        spent: defaultdict[str, list[float]] = defaultdict(list)
        frames = _noise(driver.image_px, batch_size, device)
        ways = dict(_ways(driver, frames))
        for number in range(_WARM_ROUNDS + num_rounds):
            for way, step in ways.items():
                took_ms = _timed(step, frames)
                if number >= _WARM_ROUNDS:
                    spent[way].append(took_ms)
        ms |= {(way, batch_size): min(times) for way, times in spent.items()}
    return AnimateFigures(preset, driver.image_px, machine(device), num_rounds, ms)


def _noise(image_px: int, count: int, device: torch.device) -> Tensor:
    shape = (count, 3, image_px, image_px)
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).to(device)


def _ways(driver: Driver, frames: Tensor) -> Iterator[tuple[str, Step]]:
    """Each with everything that the ones before it have."""
    usual, source = AnimateConfig(batch_size=len(frames)), frames[0]

    def anew(given: Tensor) -> Tensor:
        return torch.cat([Animator(driver, source, usual).step()(frame[None]) for frame in given])

    yield "source looked at for every frame", anew
    yield "source once", Animator(driver, source, usual).step()
    yield "norms folded", Animator(driver.faster(), source, usual).step()
    if frames.device.type != "cuda":
        yield "2D channels last", Animator(driver.faster(channels_last=True), source, usual).step()
        both = driver.faster(channels_last=True, channels_last_3d=True)
        yield "3D channels last", Animator(both, source, usual).step()
        return
    half = AnimateConfig(batch_size=len(frames), half=True)
    yield "bfloat16", Animator(driver.faster(half=True), source, half).step()
    flat = Animator(driver.faster(half=True, channels_last=True), source, half).step()
    yield "2D channels last", flat
    yield "recorded (CUDA graph)", Captured(flat, frames)
    both = driver.faster(half=True, channels_last=True, channels_last_3d=True)
    yield "3D channels last", Captured(Animator(both, source, half).step(), frames)


def _timed(step: Step, frames: Tensor) -> float:
    """Milliseconds of one batch; on a processor of its own time, which others on the machine do not lengthen."""
    if frames.device.type != "cuda":
        began = time.process_time()
        step(frames)
        return 1000 * (time.process_time() - began)
    torch.cuda.synchronize()
    began = time.perf_counter()
    step(frames)
    torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - began)


def machine(device: torch.device) -> str:
    """The device, what is counted where it is a processor, and the version of torch."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    threads = f"processor time of {torch.get_num_threads()} threads together"
    return f"{processor()}, {threads}, torch {torch.__version__}"
