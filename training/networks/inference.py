"""Make trained networks faster without changing what they compute.

Spectral norm and batch norm are numbers once training is over and go into the weights beside them. On a GPU half
precision and a step that is recorded once spare arithmetic and the host's launches.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from jaxtyping import UInt8
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_eval

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)
_WARM_STEPS = 3  # cuDNN chooses its algorithms and the allocator settles before a step is recorded


def folded(model: nn.Module) -> nn.Module:
    """Put spectral norms, and batch norms that follow a convolution, into the weights, in place.

    A batch norm elsewhere (before a convolution, with a ReLU between) stays.
    """
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name)
        if isinstance(module, nn.Sequential):
            for first, second in pairwise(range(len(module))):
                conv, norm = module[first], module[second]
                if isinstance(conv, _CONVOLUTIONS) and isinstance(norm, _NORMS):
                    module[first], module[second] = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return model


@contextmanager
def halved(device: torch.device, *, on: bool) -> Iterator[None]:
    """Networks in bfloat16; what ``training.networks.precision`` keeps in single precision stays there."""
    # Casts of weights are not remembered: a recorded step would hold on to ones that are gone.
    with torch.autocast(device.type, torch.bfloat16, enabled=on, cache_enabled=False):
        yield


class Captured:
    """A step for one shape of frames, recorded as a CUDA graph: one launch instead of some thousand.

    Args:
        step: frames to pictures, without anything that depends on their values on the host.
        example: frames on the GPU.
    """

    def __init__(self, step: Callable[[Tensor], Tensor], example: UInt8[Tensor, "B 3 S S"]) -> None:
        self._given = example.clone()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_STEPS):
                step(self._given)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._result = step(self._given)

    def __call__(self, frames: UInt8[Tensor, "B 3 S S"]) -> UInt8[Tensor, "B 3 S S"]:
        """Play the step for other frames of the same shape."""
        self._given.copy_(frames)
        self._graph.replay()
        return self._result.clone()
