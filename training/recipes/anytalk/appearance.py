"""E_a: what the source looks like, as a volume of features."""

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from training.networks.blocks import Conv, Down, Residual
from training.recipes.anytalk.config import ModelConfig


class AppearanceEncoder(nn.Module):
    """Source picture to its feature volume f_s (AnyTalk, supplement, Fig. 1a)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        widths = config.widths(1 + config.feature_levels)
        self.depth = config.depth
        self.flat = nn.Sequential(
            Conv(3, widths[0], config.appearance_kernel),
            *(Down(*pair) for pair in pairwise(widths)),
            nn.Conv2d(widths[-1], config.depth * config.feature_channels, 1),
        )
        blocks = [Residual(config.feature_channels, dims=3) for _ in range(config.appearance_blocks)]
        self.solid = nn.Sequential(*blocks)

    def forward(self, source: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B C D H W"]:  # noqa: D102
        return self.solid(self.flat(source).unflatten(1, (-1, self.depth)))
