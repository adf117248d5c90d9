"""Take a learner's updates: one Adam each, clipped gradients, and no harm from one that is no number."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Protocol, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from training.engine.ema import Average
from training.engine.syncnorm import synchronised
from training.recipes.base import Learner, Loss, Scalars, Step, TrainConfig, Update


class Clock(Protocol):
    """Told which part of a step is being computed."""

    def part(self, name: str) -> AbstractContextManager[object]:
        """What is computed inside belongs to ``name``, but for what parts inside it take."""
        ...


AVERAGE_PART, REST_PART = "average", "the rest"


def part_names(updates: Sequence[Update]) -> tuple[str, ...]:
    """The parts of a step in order, as a :class:`Clock` is told them."""
    parts = [f"{update.name}: {part}" for update in updates for part in ("forward, losses", "backward", "update")]
    return (*parts, AVERAGE_PART, REST_PART)


class NoClock:
    """Measures nothing."""

    def part(self, name: str) -> AbstractContextManager[object]:
        """Nothing."""
        del name
        return nullcontext()


class Optimising:
    """The trained modules of one process, wrapped, with their optimisers and their slow copy.

    Args:
        fabric: launched.
        learner: whose modules are put on the device and changed in place.
        config: of the run.

    Attributes:
        adams: by update.
        average: the slow copy of the module that the learner wants averaged.
    """

    def __init__(self, fabric: Fabric, learner: Learner, config: TrainConfig) -> None:
        self._fabric, self._learner, self._config = fabric, learner, config
        self._modules, self.updates = learner.modules(), tuple(learner.updates())
        trained = dict.fromkeys(name for update in self.updates for name in update.modules)
        self._wrapped: dict[str, nn.Module] = {}
        for name, module in self._modules.items():
            synchronised(module, fabric.device)
            if config.channels_last:
                _put_channels_last(module)
            if config.compile:
                module.compile()
            self._wrapped[name] = fabric.setup_module(module) if name in trained else module.to(fabric.device)
        self._weights = {
            update.name: [weight for name in update.modules for weight in self._modules[name].parameters()]
            for update in self.updates
        }
        rate = config.length.learning_rate
        self.adams: dict[str, Optimizer] = {
            name: cast("Optimizer", fabric.setup_optimizers(Adam(weights, rate, betas=config.betas)))
            for name, weights in self._weights.items()
        }
        self.average = Average(self._modules[learner.averaged()], config.average)

    def take(self, step: Step, rate: float, clock: Clock) -> tuple[Scalars, bool]:
        """All updates of a step, until one goes wrong.

        Args:
            step: with the batch.
            rate: of learning.
            clock: told of the parts.

        Returns:
            What updates told, with the norm of each one's gradient; and whether all went well.
        """
        averaged, figures = self._learner.averaged(), Scalars()
        sound, moved = True, False
        for update in self.updates:
            if not update.when(step.moment.step):
                continue
            for group in self.adams[update.name].param_groups:
                group["lr"] = rate * update.rate
            loss, norm = self._update(update, step, clock)
            figures |= {**loss.figures, f"{update.name}_gradient": norm}
            sound = bool(norm.isfinite())
            moved |= sound and averaged in update.modules
            if not sound:
                break
        if moved:
            with clock.part(AVERAGE_PART):
                self.average.update(self._modules[averaged])
        return figures, sound

    def _update(self, update: Update, step: Step, clock: Clock) -> tuple[Loss, Tensor]:
        """One optimiser step, unless the gradient is no number; every process sees the same gradient."""
        networks = {
            name: self._wrapped[name] if name in update.modules else module for name, module in self._modules.items()
        }
        others = [module for name, module in self._modules.items() if name not in update.modules]
        restore = self._buffers_kept()
        with clock.part(f"{update.name}: forward, losses"), without_gradients(others), self._fabric.autocast():
            loss = update.loss(replace(step, networks=networks))
        optimiser, weights = self.adams[update.name], self._weights[update.name]
        with clock.part(f"{update.name}: update"):
            optimiser.zero_grad()
            with clock.part(f"{update.name}: backward"):
                self._fabric.backward(loss.total)
            norm = torch.nn.utils.clip_grad_norm_(weights, self._config.clip)
            if norm.isfinite():
                optimiser.step()
            else:
                restore()
        return loss, norm.detach()

    def _buffers_kept(self) -> Callable[[], None]:
        """What takes back changes of running means; the averaged module's are in its slow copy already."""
        averaged = self._learner.averaged()
        kept = [
            (buffer, buffer.clone())
            for name, module in self._modules.items()
            if name != averaged
            for buffer in module.buffers()
        ]

        def restore() -> None:
            self.average.restore_buffers(self._modules[averaged])
            for buffer, value in kept:
                buffer.copy_(value)

        return restore


@contextmanager
def without_gradients(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Nothing computed inside gives a gradient to weights of these modules."""
    weights = [weight for module in modules for weight in module.parameters() if weight.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


def _put_channels_last(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
