"""L_P: do two pictures look alike to a network that knows pictures, at several sizes?"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from schemas.errors import UsageError
from training.losses.config import PerceptualConfig
from training.networks.blocks import Shrink
from training.networks.frozen import load

Pictures = Float[Tensor, "B 3 S S"]


class PerceptualLoss(nn.Module):
    """Mean |Δ| of every tapped layer, summed over layers and over the picture's halves, quarters and so on.

    Args:
        backbone: pictures in [0, 1] to a list of features; frozen.
        num_scales: how many sizes.
    """

    def __init__(self, backbone: nn.Module, num_scales: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_scales = num_scales
        self.shrink = Shrink(2)

    def forward(self, generated: Pictures, real: Pictures) -> Float[Tensor, ""]:
        """The loss of ``generated``; ``real`` gets no gradient."""
        total = torch.zeros((), device=generated.device)
        for scale in range(self.num_scales):
            if scale:
                generated, real = self.shrink(generated), self.shrink(real)
            with torch.no_grad():
                wanted = self.backbone(real)
            for mine, theirs in zip(self.backbone(generated), wanted, strict=True):
                total = total + functional.l1_loss(mine.float(), theirs.float())
        return total


def perceptual_loss(config: PerceptualConfig, image_px: int) -> PerceptualLoss | None:
    """The loss that the configuration asks for; None for a weight of 0.

    Raises:
        UsageError: when its network's file cannot be used, or pictures become too small for it.
    """
    if config.weight == 0:
        return None
    backbone = load(config.backbone, config.file, key="losses.perceptual.file")
    smallest, least = image_px >> (config.num_scales - 1), getattr(backbone, "MIN_PX", 1)
    if smallest < least:
        raise UsageError(
            f"losses.perceptual.num_scales: {config.num_scales} sizes end at {smallest} px, and {config.backbone} "
            f"needs {least}: use fewer"
        )
    return PerceptualLoss(backbone, config.num_scales)
