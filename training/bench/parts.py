"""Where a training step's time and arithmetic go, and what the machine could do at best."""

import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode

from training.engine.optimising import without_gradients
from training.recipes.base import Batch, Learner, Moment, Step

# Dense bfloat16 TFLOP/s by NVIDIA's data sheets, by a part of the device's name; the first that fits.
_PEAKS_TFLOPS = {"H200": 989.4, "H100 PCIe": 756.0, "H100": 989.4, "A100": 311.9}
_T = TypeVar("_T")

_MATRIX = 1024  # side; large enough for all the arithmetic there is, small enough for a fraction of a second
_MATRIX_RUNS = 20


def arithmetic(learner: Learner, batch: Batch) -> dict[str, float]:
    """FLOPs of a step by part: convolutions and matrix products, a multiplication and an addition counted as two.

    Args:
        learner: whose networks lie on the meta device, so that nothing is computed.
        batch: prepared, on the meta device.
    """
    flops: dict[str, float] = {}

    def counted(name: str, call: Callable[[], _T]) -> _T:
        with FlopCounterMode(display=False) as counter:
            result = call()
        flops[name] = float(counter.get_total_flops())
        return result

    step = Step(batch, Moment(0, 0), learner.modules())
    for update in learner.updates():
        if not update.when(0):
            continue
        others = [module for name, module in learner.modules().items() if name not in update.modules]
        with without_gradients(others):
            loss = counted(f"{update.name}: forward, losses", partial(update.loss, step))
        counted(f"{update.name}: backward", loss.total.backward)
    return flops


class PartTimes:
    """The time of steps by part, as a trainer tells its parts; what parts inside others take counts for these alone.

    Waiting for the device at every part's end slows steps: whole steps are to be timed without one.

    Args:
        device: of the trainer.
    """

    def __init__(self, device: torch.device) -> None:
        self.spent_s: defaultdict[str, float] = defaultdict(float)
        self._device, self._open, self._since = device, list[str](), 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What is computed inside belongs to ``name``."""
        self._book()
        self._open.append(name)
        try:
            yield
        finally:
            self._book()
            self._open.pop()

    def _book(self) -> None:
        now = now_s(self._device)
        if self._open:
            self.spent_s[self._open[-1]] += now - self._since
        self._since = now


# ---- the machine ---------------------------------------------------------------------------------------------------


def now_s(device: torch.device) -> float:
    """Seconds once a GPU has done what it was told; of a single thread on a processor, its own, which others share."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.process_time() if _single(device) else time.perf_counter()


def _single(device: torch.device) -> bool:
    return device.type == "cpu" and torch.get_num_threads() == 1


def machine(device: torch.device) -> str:
    """Name of what trains, and the torch that drives it."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, CUDA {torch.version.cuda}"
    threads = "processor time of 1 thread" if _single(device) else f"{torch.get_num_threads()} threads"
    return f"{processor()}, {threads}, {os.cpu_count()} cores, torch {torch.__version__}"


def processor() -> str:
    """Its model by name."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 - no file of ours
            return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def known_peak(device: torch.device) -> tuple[float, str] | None:
    """Dense bfloat16 TFLOP/s of a GPU that is in the table, and where the number is from."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    known = next((peak for part, peak in _PEAKS_TFLOPS.items() if part in name), None)
    return None if known is None else (known, "dense bfloat16 by the data sheet")


def measured_peak(device: torch.device) -> tuple[float, str]:
    """TFLOP/s of one large matrix product, the best of some; single precision on a processor, bfloat16 on a GPU."""
    dtype, side = (torch.bfloat16, 8 * _MATRIX) if device.type == "cuda" else (torch.float32, _MATRIX)
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    best_s = float("inf")
    for _ in range(_MATRIX_RUNS):
        began = now_s(device)
        torch.mm(left, right)
        best_s = min(best_s, now_s(device) - began)
    return 2 * side**3 / best_s / 1e12, f"a {str(dtype).removeprefix('torch.')} matrix product of {side}² in this run"
