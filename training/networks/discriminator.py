"""A patch discriminator at one or more scales: real or made, for every patch, with its features."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from training.networks.blocks import LEAK, Shrink

_MAX_GROWTH = 8  # the widest layer has eight times the channels of the first


class Judgement(NamedTuple):
    """Scores of patches, higher for real, and the features of every block."""

    scores: Float[Tensor, "B 1 h w"]
    features: tuple[Float[Tensor, "B C h w"], ...]


class PatchDiscriminator(nn.Module):
    """4×4 convolutions without padding under spectral norm; means over 2 × 2 pixels between blocks.

    Args:
        base_channels: of the first block; they double from block to block.
        num_blocks: how many.
    """

    def __init__(self, base_channels: int, num_blocks: int) -> None:
        super().__init__()
        widths = [min(base_channels << level, _MAX_GROWTH * base_channels) for level in range(num_blocks)]
        blocks, width_in = [], 3
        for level, width in enumerate(widths):
            layers: list[nn.Module] = [spectral_norm(nn.Conv2d(width_in, width, 4))]
            layers += [nn.InstanceNorm2d(width, affine=True)] if level else []
            layers += [nn.LeakyReLU(LEAK)]
            layers += [nn.AvgPool2d(2)] if level < num_blocks - 1 else []
            blocks.append(nn.Sequential(*layers))
            width_in = width
        self.blocks = nn.ModuleList(blocks)
        self.head = spectral_norm(nn.Conv2d(width_in, 1, 1))

    def forward(self, pictures: Float[Tensor, "B 3 S S"]) -> Judgement:  # noqa: D102
        features = []
        for block in self.blocks:
            pictures = block(pictures)
            features.append(pictures)
        return Judgement(self.head(pictures), tuple(features))


class Discriminator(nn.Module):
    """A patch discriminator per scale: the picture, half of it, and so on.

    Args:
        base_channels: of each one's first block.
        num_blocks: of each.
        num_scales: how many there are.
    """

    def __init__(self, base_channels: int, num_blocks: int, num_scales: int = 1) -> None:
        super().__init__()
        self.scales = nn.ModuleList([PatchDiscriminator(base_channels, num_blocks) for _ in range(num_scales)])
        self.shrink = Shrink(2)

    def forward(self, pictures: Float[Tensor, "B 3 S S"]) -> list[Judgement]:  # noqa: D102
        judgements = []
        for index, scale in enumerate(self.scales):
            pictures = self.shrink(pictures) if index else pictures
            judgements.append(scale(pictures))
        return judgements
