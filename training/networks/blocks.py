"""Layers that several networks share: convolutions with their norm, residual blocks, the hourglass, clean shrinking."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

LEAK = 0.2  # slope of every leaky ReLU


class Conv(nn.Sequential):
    """Convolution that keeps the size, batch norm, and a (leaky) ReLU; 2D or 3D."""

    def __init__(
        self, width_in: int, width: int, kernel: int = 3, *, dims: Literal[2, 3] = 2, leak: float = 0.0
    ) -> None:
        conv, norm = (nn.Conv2d, nn.BatchNorm2d) if dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
        activation = nn.LeakyReLU(leak) if leak else nn.ReLU()
        super().__init__(conv(width_in, width, kernel, padding=kernel // 2), norm(width), activation)


class Down(nn.Sequential):
    """A convolution, then means over 2 × 2 pixels; in 3D the depth stays."""

    def __init__(self, width_in: int, width: int, *, dims: Literal[2, 3] = 2) -> None:
        pool = nn.AvgPool2d(2) if dims == 2 else nn.AvgPool3d((1, 2, 2))
        super().__init__(*Conv(width_in, width, dims=dims), pool)


class Up(nn.Sequential):
    """Every pixel becomes 2 × 2, then a convolution: no checkerboard, unlike transposed convolutions."""

    def __init__(self, width_in: int, width: int, *, dims: Literal[2, 3] = 2) -> None:
        factor = 2 if dims == 2 else (1, 2, 2)
        super().__init__(nn.Upsample(scale_factor=factor, mode="nearest"), *Conv(width_in, width, dims=dims))


class ColumnConv(nn.Conv3d):
    """A 3D convolution that keeps the size; where its kernel spans the depth from every voxel, done as one in 2D.

    There a column of voxels is all that a column sees, so its voxels are channels. That leaves out what would read
    padding above and below, and small volumes under wide kernels are far slower in 3D (the gradient of the weights
    ten times, on a processor).
    """

    def __init__(self, width_in: int, width: int, kernel: int) -> None:
        super().__init__(width_in, width, kernel, padding=kernel // 2)

    def forward(self, input: Float[Tensor, "B C D H W"]) -> Float[Tensor, "B E D H W"]:  # noqa: A002, D102
        depth, reach = input.shape[2], self.kernel_size[0] // 2
        if reach < depth - 1:
            return super().forward(input)
        planes = [self.weight[:, :, reach - z : reach - z + depth] for z in range(depth)]
        flat = torch.stack(planes, dim=1).flatten(0, 1).flatten(1, 2)  # (E D, C D, kernel, kernel)
        bias = None if self.bias is None else self.bias.repeat_interleave(depth)
        return functional.conv2d(input.flatten(1, 2), flat, bias, padding=reach).unflatten(1, (-1, depth))


class EnlargedConv(nn.Conv2d):
    """A 3×3 convolution of a map that is enlarged first, every cell to ``factor``² equal pixels, without enlarging it.

    A pixel sees no more than two cells along an axis, and which of its three weights fall on which depends only on
    whether it is the first, a middle or the last one of its cell. So one convolution of 2×2 cells per kind of pixel
    gives the same numbers for 4/9 of the arithmetic when the map is doubled, and for 1/4 when it is quadrupled.
    """

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__(width_in, width, 3, padding=1)

    def forward(self, input: Float[Tensor, "B C h w"], factor: int = 1) -> Float[Tensor, "B E H W"]:  # noqa: A002, D102
        if factor == 1:
            return super().forward(input)
        kernels = [_pair_kernels(kernel, 3, factor) for kernel in _pair_kernels(self.weight, 2, factor)]
        kinds, (height, width) = len(kernels), input.shape[2:]
        every = torch.stack([kernel for row in kernels for kernel in row]).flatten(0, 1)
        bias = None if self.bias is None else self.bias.repeat(kinds**2)
        # Output i of a convolution of two cells sees the cells i - 1 and i: the last pixel of a cell looks ahead.
        planes = functional.conv2d(input, every, bias, padding=1).chunk(kinds**2, dim=1)
        offsets = [(0, 0), *[(1, 0)] * (factor - 2), (kinds - 1, 1)]
        rows = [
            torch.stack([planes[i * kinds + j][:, :, y : y + height, x : x + width] for j, x in offsets], dim=-1)
            for i, y in offsets
        ]
        return torch.stack(rows, dim=3).flatten(4, 5).flatten(2, 3)


def _pair_kernels(weight: Tensor, axis: int, factor: int) -> list[Tensor]:
    """Three weights along ``axis`` to two per kind of pixel: the first of its cell, those in the middle, the last."""
    before, here, after = weight.split(1, dim=axis)
    all_here = [torch.cat([torch.zeros_like(here), before + here + after], dim=axis)] if factor > 2 else []
    return [torch.cat([before, here + after], dim=axis), *all_here, torch.cat([before + here, after], dim=axis)]


class Residual(nn.Module):
    """x + two times (norm, ReLU, convolution); 2D or 3D."""

    def __init__(self, width: int, *, dims: Literal[2, 3]) -> None:
        super().__init__()
        conv, norm = (nn.Conv2d, nn.BatchNorm2d) if dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
        half = [(norm(width), nn.ReLU(), conv(width, width, 3, padding=1)) for _ in range(2)]
        self.body = nn.Sequential(*half[0], *half[1])

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return x + self.body(x)


class Hourglass(nn.Module):
    """Down and up again in 3D with the inputs of every level kept; the input itself is part of the output."""

    def __init__(self, width_in: int, widths: Sequence[int]) -> None:
        super().__init__()
        down = partial(Down, dims=3)
        self.down = nn.ModuleList(map(down, (width_in, *widths[:-1]), widths))
        kept, current, layers = (width_in, *widths[:-1]), widths[-1], []
        for width, skip in zip(reversed(widths), reversed(kept), strict=True):
            layers.append(Up(current, width // 2, dims=3))
            current = width // 2 + skip
        self.up = nn.ModuleList(layers)
        self.width = current

    def forward(self, x: Float[Tensor, "B C D H W"]) -> Float[Tensor, "B E D H W"]:  # noqa: D102
        kept = []
        for layer in self.down:
            kept.append(x)
            x = layer(x)
        for layer in self.up:
            x = torch.cat([layer(x), kept.pop()], dim=1)
        return x


class Shrink(nn.Module):
    """Blur, then keep the middle of every ``factor``² pixels.

    A Gaussian with σ = (factor - 1)/2, as the first order motion model has it, but sampled between pixels, so that
    pictures stay in place and mirrored ones stay mirrored.
    """

    kernel: Tensor

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor
        spread = (factor - 1) / 2
        half = round(4 * spread)
        taps = torch.exp(-0.5 * ((torch.arange(2 * half) - half + 0.5) / max(spread, 1e-6)) ** 2)
        self.register_buffer("kernel", taps / taps.sum(), persistent=False)
        self.margin = half - factor // 2

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:  # noqa: D102
        if self.factor == 1:
            return x
        channels, margin, stride = x.shape[1], self.margin, self.factor
        x = functional.pad(x, (margin,) * 4, mode="replicate")
        taps = self.kernel.to(x.dtype)
        down = taps.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
        across = taps.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
        x = functional.conv2d(x, down, stride=(stride, 1), groups=channels)
        return functional.conv2d(x, across, stride=(1, stride), groups=channels)
