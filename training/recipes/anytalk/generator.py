"""G: from the warped feature volume to a picture; with SPADE (Park et al., CVPR 2019) or plain."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from training.networks.blocks import LEAK, Conv, EnlargedConv, Residual, Up
from training.networks.geometry import sample
from training.recipes.anytalk.config import ModelConfig
from training.recipes.anytalk.dense_motion import DenseMotion


class Generator(nn.Module):
    """Warp, flatten, dim what is not seen, decode (supplement, Fig. 1e)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.widths(1 + config.feature_levels)[-1]
        self.flatten = nn.Sequential(
            Conv(config.depth * config.feature_channels, width, leak=LEAK), nn.Conv2d(width, width, 1)
        )
        self.decode = (SpadeDecoder if config.generator == "spade" else PlainDecoder)(config)

    def forward(  # noqa: D102
        self, features: Float[Tensor, "B C D H W"], motion: DenseMotion
    ) -> Float[Tensor, "B 3 S S"]:
        warped = sample(features, motion.grid).flatten(1, 2)
        return self.decode(self.flatten(warped) * motion.occlusion)


class Spade(nn.Module):
    """Instance norm whose scale and shift are read off a map, per pixel."""

    def __init__(self, width: int, map_width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(width)
        self.shared = EnlargedConv(map_width, hidden)
        self.scale = nn.Conv2d(hidden, width, 3, padding=1)
        self.shift = nn.Conv2d(hidden, width, 3, padding=1)

    def forward(self, x: Float[Tensor, "B C H W"], given: Float[Tensor, "B M h w"]) -> Tensor:  # noqa: D102
        hidden = functional.relu(self.shared(given, x.shape[-1] // given.shape[-1]))
        return self.norm(x) * (1 + self.scale(hidden)) + self.shift(hidden)


class SpadeBlock(nn.Module):
    """Residual block of two SPADE convolutions, under spectral norm; a third bends the shortcut to a new width."""

    def __init__(self, width_in: int, width: int, map_width: int, hidden: int) -> None:
        super().__init__()
        inner = min(width_in, width)
        self.norms = nn.ModuleList([Spade(width_in, map_width, hidden), Spade(inner, map_width, hidden)])
        convs = (nn.Conv2d(width_in, inner, 3, padding=1), nn.Conv2d(inner, width, 3, padding=1))
        self.convs = nn.ModuleList(map(spectral_norm, convs))
        self.bent = width_in != width
        if self.bent:
            self.short_norm = Spade(width_in, map_width, hidden)
            self.short_conv = spectral_norm(nn.Conv2d(width_in, width, 1, bias=False))

    def forward(self, x: Tensor, given: Tensor) -> Tensor:  # noqa: D102
        short = self.short_conv(self.short_norm(x, given)) if self.bent else x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = conv(functional.leaky_relu(norm(x, given), LEAK))
        return short + x


class SpadeDecoder(nn.Module):
    """Blocks at the feature plane's size, then those that double it; at 512 px a pixel shuffle doubles once more."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        widths = config.widths(1 + config.feature_levels)
        narrow, width = widths[0], widths[-1]
        wide, hidden = 2 * width, config.spade_channels
        self.first = nn.Conv2d(width, wide, 3, padding=1)
        self.middle = nn.ModuleList([SpadeBlock(wide, wide, width, hidden) for _ in range(config.generator_blocks)])
        self.up = nn.ModuleList([SpadeBlock(*pair, width, hidden) for pair in pairwise((wide, *widths[:1:-1], narrow))])
        self.last = nn.Conv2d(narrow, 3 * config.upscale**2, 3, padding=1)
        self.shuffle = nn.PixelShuffle(config.upscale)

    def forward(self, given: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 3 S S"]:  # noqa: D102
        x = self.first(given)
        for block in self.middle:
            x = block(x, given)
        for block in self.up:
            x = block(functional.interpolate(x, scale_factor=2, mode="nearest"), given)
        return torch.sigmoid(self.shuffle(self.last(functional.leaky_relu(x, LEAK))))


class PlainDecoder(nn.Module):
    """Residual blocks, then convolutions that each double the size (face-vid2vid's own)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        widths = config.widths(1 + config.feature_levels)
        self.body = nn.Sequential(
            *(Residual(widths[-1], dims=2) for _ in range(config.generator_blocks)),
            *(Up(*pair) for pair in pairwise(reversed(widths))),
            nn.Conv2d(widths[0], 3 * config.upscale**2, 7, padding=3),
            nn.PixelShuffle(config.upscale),
        )

    def forward(self, given: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 3 S S"]:  # noqa: D102
        return torch.sigmoid(self.body(given))
