"""LPIPS: how different two pictures look to a network (Zhang et al., CVPR 2018), version 0.1 of its heads."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from training.networks.frozen import FrozenFile, fill, load, read

_WIDTHS = {"squeezenet1_1": (64, 128, 256, 384, 384, 512, 512), "alexnet": (64, 192, 384, 256, 256)}


class _Head(nn.Module):
    """One weight per channel, under the name that the published files give it (after a dropout, hence 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Identity(), nn.Conv2d(width, 1, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class Lpips(nn.Module):
    """Distance per pair of pictures, RGB in [0, 1]; 0 for equal ones.

    Args:
        backbone: whose features are compared; papers report AlexNet, SqueezeNet is the smallest.
        file: its weights.
        heads: the weights per channel, as the authors publish them.

    Raises:
        UsageError: when a file cannot be used.
    """

    def __init__(self, backbone: Literal["alexnet", "squeezenet1_1"], file: FrozenFile, heads: FrozenFile) -> None:
        super().__init__()
        self.backbone = load(backbone, file, key="metrics.lpips.file")
        weights = nn.ModuleDict({f"lin{index}": _Head(width) for index, width in enumerate(_WIDTHS[backbone])})
        key = "metrics.lpips.heads"
        self.heads = fill(weights, read(heads, key=key), name=f"the LPIPS heads of {backbone}", key=key)

    @torch.no_grad()
    def forward(self, generated: Float[Tensor, "B 3 H W"], real: Float[Tensor, "B 3 H W"]) -> Float[Tensor, " B"]:
        """The distances."""
        total = torch.zeros(len(generated), device=generated.device)
        for head, mine, theirs in zip(
            self.heads.children(), self.backbone(generated), self.backbone(real), strict=True
        ):
            difference = (functional.normalize(mine, eps=1e-10) - functional.normalize(theirs, eps=1e-10)).square()
            total = total + head(difference).mean(dim=(1, 2, 3))
        return total
