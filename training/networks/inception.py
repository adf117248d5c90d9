"""Inception-v3 as FID looks with it: TensorFlow's network of 2015, under torchvision's tensor names.

It differs from torchvision's: averages leave the padding out, and the very last block takes a maximum in their place,
which is how the network was published and what every FID since was computed with (Heusel et al., NeurIPS 2017).
"""

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

_INPUT_PX = 299
_ACROSS, _DOWN = (1, 7), (7, 1)


class _Conv(nn.Module):
    def __init__(self, width_in: int, width: int, side: int | tuple[int, int] = 1, stride: int = 1) -> None:
        super().__init__()
        high, wide = (side, side) if isinstance(side, int) else side
        padding = (high // 2, wide // 2) if stride == 1 else (0, 0)
        self.conv = nn.Conv2d(width_in, width, (high, wide), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(width, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


class _Block(nn.Module):
    """Chains of convolutions side by side on one input. Names that end in ``a`` and ``b`` fork the chain's end.

    Args:
        pool: of the input, before the chain ``pool``; without such a chain its result stands beside the others.
        chains: each convolution by its name.
    """

    def __init__(self, pool: Callable[[Tensor], Tensor], *chains: dict[str, _Conv]) -> None:
        super().__init__()
        self._pool = pool
        self._chains = [
            [f"branch{name}" if name[0].isdigit() else f"branch_{name}" for name in chain] for chain in chains
        ]
        for chain, names in zip(chains, self._chains, strict=True):
            for name, convolution in zip(names, chain.values(), strict=True):
                self.add_module(name, convolution)

    def forward(self, x: Tensor) -> Tensor:
        pooled, ends = self._pool(x), []
        for names in self._chains:
            end = pooled if names == ["branch_pool"] else x
            forks = [name for name in names if name[-1] in "ab"]
            for name in names[: len(names) - len(forks)]:
                end = self.get_submodule(name)(end)
            ends += [self.get_submodule(name)(end) for name in forks] or [end]
        return torch.cat(ends if ["branch_pool"] in self._chains else [*ends, pooled], dim=1)


_average = partial(functional.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
_maximum = partial(functional.max_pool2d, kernel_size=3, stride=1, padding=1)
_halving = partial(functional.max_pool2d, kernel_size=3, stride=2)


def _wide(width: int, pooled: int) -> _Block:
    return _Block(
        _average,
        {"1x1": _Conv(width, 64)},
        {"5x5_1": _Conv(width, 48), "5x5_2": _Conv(48, 64, 5)},
        {"3x3dbl_1": _Conv(width, 64), "3x3dbl_2": _Conv(64, 96, 3), "3x3dbl_3": _Conv(96, 96, 3)},
        {"pool": _Conv(width, pooled)},
    )


def _first_reduction(width: int) -> _Block:
    return _Block(
        _halving,
        {"3x3": _Conv(width, 384, 3, 2)},
        {"3x3dbl_1": _Conv(width, 64), "3x3dbl_2": _Conv(64, 96, 3), "3x3dbl_3": _Conv(96, 96, 3, 2)},
    )


def _crossed(inner: int) -> _Block:
    width = 768
    lines = [_Conv(inner, inner, side) for side in (_DOWN, _ACROSS, _DOWN)]
    double = [_Conv(width, inner), *lines, _Conv(inner, 192, _ACROSS)]
    return _Block(
        _average,
        {"1x1": _Conv(width, 192)},
        {"7x7_1": _Conv(width, inner), "7x7_2": _Conv(inner, inner, _ACROSS), "7x7_3": _Conv(inner, 192, _DOWN)},
        {f"7x7dbl_{number}": line for number, line in enumerate(double, 1)},
        {"pool": _Conv(width, 192)},
    )


def _second_reduction(width: int) -> _Block:
    lines = [_Conv(width, 192), _Conv(192, 192, _ACROSS), _Conv(192, 192, _DOWN), _Conv(192, 192, 3, 2)]
    return _Block(
        _halving,
        {"3x3_1": _Conv(width, 192), "3x3_2": _Conv(192, 320, 3, 2)},
        {f"7x7x3_{number}": line for number, line in enumerate(lines, 1)},
    )


def _forked(width: int, pool: Callable[[Tensor], Tensor]) -> _Block:
    def fork(name: str) -> dict[str, _Conv]:
        return {f"{name}a": _Conv(384, 384, (1, 3)), f"{name}b": _Conv(384, 384, (3, 1))}

    return _Block(
        pool,
        {"1x1": _Conv(width, 320)},
        {"3x3_1": _Conv(width, 384), **fork("3x3_2")},
        {"3x3dbl_1": _Conv(width, 448), "3x3dbl_2": _Conv(448, 384, 3), **fork("3x3dbl_3")},
        {"pool": _Conv(width, 192)},
    )


class Inception(nn.Module):
    """Pictures in [0, 1] to the 2048 numbers before the classifier (pool3)."""

    UNUSED: ClassVar[tuple[str, ...]] = ("fc.",)

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Conv(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = _unpadded(32, 32)
        self.Conv2d_2b_3x3 = _Conv(32, 64, 3)
        self.Conv2d_3b_1x1 = _Conv(64, 80)
        self.Conv2d_4a_3x3 = _unpadded(80, 192)
        blocks = {
            **{f"5{name}": _wide(*widths) for name, widths in {"b": (192, 32), "c": (256, 64), "d": (288, 64)}.items()},
            "6a": _first_reduction(288),
            **{f"6{name}": _crossed(inner) for name, inner in {"b": 128, "c": 160, "d": 160, "e": 192}.items()},
            "7a": _second_reduction(768),
            "7b": _forked(1280, _average),
            "7c": _forked(2048, _maximum),
        }
        self._blocks = [f"Mixed_{name}" for name in blocks]
        for name, block in zip(self._blocks, blocks.values(), strict=True):
            self.add_module(name, block)

    def forward(self, pictures: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 2048"]:
        """Features; pictures are first scaled to 299 px without anti-aliasing, as pytorch-fid does."""
        x = functional.interpolate(pictures, (_INPUT_PX, _INPUT_PX), mode="bilinear", align_corners=False)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(2 * x - 1)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(_halving(x)))
        x = _halving(x)
        for name in self._blocks:
            x = self.get_submodule(name)(x)
        return x.mean(dim=(2, 3))


def _unpadded(width_in: int, width: int) -> _Conv:
    conv = _Conv(width_in, width, 3)
    conv.conv.padding = (0, 0)
    return conv
