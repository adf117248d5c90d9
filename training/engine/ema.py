"""A slow copy of the model: what is evaluated, kept as best, and used."""

import copy

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """Exponential moving average of a module's parameters, with its buffers as they are.

    Args:
        module: to copy.
        decay: share of the old value that stays at every step.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self._average = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move towards ``module`` by one step."""
        self._average(list(self.module.parameters()), list(module.parameters()), 1)
        for ours, now in zip(self.module.buffers(), module.buffers(), strict=True):
            ours.copy_(now)

    @torch.no_grad()
    def restore_buffers(self, module: nn.Module) -> None:
        """Take back what a step that failed did to the running means of ``module``."""
        for ours, now in zip(self.module.buffers(), module.buffers(), strict=True):
            now.copy_(ours)
