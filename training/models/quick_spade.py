"""SPADE blocks for inference: the same numbers from fewer and smaller convolutions.

A block's norms read one map, so their first convolutions are one, and so are each one's scale and shift; norms of the
same input share its instance norm. Where the map is enlarged by repeating its cells, a 3×3 convolution sees the same
cell several times: per position inside a cell its weights add up to 2×2 or fewer, which leaves 4/9 of the operations at
twice the size and 1/6 at four times. All of it is exact but for rounding.
"""

from itertools import product
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from training.models.blocks import LEAK
from training.models.generator import Spade, SpadeBlock, SpadeDecoder


def quicken(decoder: SpadeDecoder) -> None:
    """Replace the blocks of a decoder, in place."""
    for number, block in enumerate(decoder.middle):
        decoder.middle[number] = QuickSpadeBlock(block, 1)  # type: ignore[arg-type]
    for number, block in enumerate(decoder.up):
        decoder.up[number] = QuickSpadeBlock(block, 2 << number)  # type: ignore[arg-type]


class QuickSpadeBlock(nn.Module):
    """What ``SpadeBlock`` computes.

    Args:
        block: trained.
        factor: how many times larger its input is than the map.
    """

    def __init__(self, block: SpadeBlock, factor: int) -> None:
        super().__init__()
        norms: list[Spade] = [*block.norms, *([block.short_norm] if block.bent else [])]  # type: ignore[list-item]
        self.shared = RepeatedConv([norm.shared for norm in norms], factor)
        self.styles = nn.ModuleList([_side_by_side([norm.scale, norm.shift]) for norm in norms])
        self.convs, self.bent = block.convs, block.bent
        if block.bent:
            self.short_conv = block.short_conv

    def forward(self, x: Float[Tensor, "B C H W"], given: Float[Tensor, "B M h w"]) -> Tensor:  # noqa: D102
        hidden = functional.relu(self.shared(given)).chunk(len(self.styles), dim=1)
        normed = functional.instance_norm(x)
        short = self.short_conv(self._styled(normed, hidden, 2)) if self.bent else x
        x = self.convs[0](functional.leaky_relu(self._styled(normed, hidden, 0), LEAK))
        x = self.convs[1](functional.leaky_relu(self._styled(functional.instance_norm(x), hidden, 1), LEAK))
        return short + x

    def _styled(self, normed: Tensor, hidden: tuple[Tensor, ...], number: int) -> Tensor:
        scale, shift = self.styles[number](hidden[number]).chunk(2, dim=1)
        return normed * (1 + scale) + shift


class RepeatedConv(nn.Module):
    """3×3 convolutions of one map whose cells are first repeated ``factor`` × ``factor`` times.

    Along an axis the first position inside a cell sees the cell before once and its own twice, the last one its own
    twice and the next once, and those between see their own alone.
    """

    def __init__(self, convs: list[nn.Conv2d], factor: int) -> None:
        super().__init__()
        whole = _side_by_side(convs)
        self.factor = factor
        self.parts = nn.ModuleList()
        self.places: list[tuple[slice, slice]] = []  # inside a cell: down, across
        for down, across in product(_positions(factor), repeat=2):
            sums = (position.sums.to(whole.weight) for position in (down, across))
            weight = torch.einsum("oiyx,ay,bx->oiab", whole.weight, *sums)
            part = nn.Conv2d(whole.in_channels, whole.out_channels, (weight.shape[2], weight.shape[3]))
            part.weight, part.bias = nn.Parameter(weight, requires_grad=False), whole.bias
            self.parts.append(nn.Sequential(nn.ZeroPad2d((*across.margin, *down.margin)), part))
            self.places.append((down.place, across.place))

    def forward(self, given: Float[Tensor, "B M h w"]) -> Float[Tensor, "B N H W"]:  # noqa: D102
        pieces = [part(given) for part in self.parts]
        if self.factor == 1:
            return pieces[0]
        count, width, height_px, width_px = pieces[0].shape
        made = pieces[0].new_empty(count, width, height_px, self.factor, width_px, self.factor)
        for piece, (down, across) in zip(pieces, self.places, strict=True):
            made[:, :, :, down, :, across] = piece[:, :, :, None, :, None]
        return made.view(count, width, height_px * self.factor, width_px * self.factor)


class _Position(NamedTuple):
    """Of a place inside a cell: which places, how the three weights add up per cell, and the cells seen beyond."""

    place: slice
    sums: Float[Tensor, "A 3"]
    margin: tuple[int, int]


def _positions(factor: int) -> list[_Position]:
    if factor == 1:
        return [_Position(slice(0, 1), torch.eye(3), (1, 1))]
    first = _Position(slice(0, 1), torch.tensor([[1.0, 0, 0], [0, 1, 1]]), (1, 0))
    between = _Position(slice(1, factor - 1), torch.ones(1, 3), (0, 0))
    last = _Position(slice(factor - 1, factor), torch.tensor([[1.0, 1, 0], [0, 0, 1]]), (0, 1))
    return [first, between, last] if factor > 2 else [first, last]


def _side_by_side(convs: list[nn.Conv2d]) -> nn.Conv2d:
    """One convolution whose outputs are those of several, one after the other."""
    one = convs[0]
    whole = nn.Conv2d(one.in_channels, sum(conv.out_channels for conv in convs), 3, padding=1)
    whole.weight = nn.Parameter(torch.cat([conv.weight for conv in convs]), requires_grad=False)
    whole.bias = nn.Parameter(torch.cat([conv.bias for conv in convs]), requires_grad=False)  # type: ignore[arg-type]
    return whole
