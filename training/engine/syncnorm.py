"""Batch norm over the batches of all processes, as if they were one.

On accelerators torch has it. For processors it has none, and without one a run of several processes could not be
compared with a run of one where there is no accelerator.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def synchronised(module: nn.Module, device: torch.device) -> nn.Module:
    """The module with every batch norm taking its statistics over all processes; tensors keep their names."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return module
    if device.type != "cpu":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm):
                norm = SyncedNorm(child.num_features, child.eps, child.momentum)
                norm.load_state_dict(child.state_dict())
                setattr(parent, name, norm)
    return module


class SyncedNorm(_BatchNorm):
    """Batch norm of any number of axes over all processes."""

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002
        del input

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, D102
        if not self.training:
            return super().forward(input)
        x = input
        axes = [axis for axis in range(x.dim()) if axis != 1]
        count = x.new_full((1,), x.numel() / x.shape[1])
        total = _Summed.apply(torch.cat([x.sum(axes), x.square().sum(axes), count]))
        count, width = total[-1], self.num_features
        mean = total[:width] / count
        variance = total[width : 2 * width] / count - mean**2
        self._remember(mean.detach(), variance.detach() * count / (count - 1))
        shape = (1, -1, *[1] * (x.dim() - 2))
        scale = (variance + self.eps).rsqrt() * self.weight
        return (x - mean.view(shape)) * scale.view(shape) + self.bias.view(shape)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        share = 0.1 if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)
        self.num_batches_tracked.add_(1)


class _Summed(torch.autograd.Function):
    """The sum over processes, whose gradient is the sum over processes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ARG004
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total
