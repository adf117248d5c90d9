"""Correlation of grey pictures with a few taps, along one axis, for the measures that look at pictures alone."""

from typing import Literal

import numpy as np
from jaxtyping import Float

# Beyond the border: black, the last pixel again and again, or the picture mirrored with its last pixel.
Border = Literal["constant", "edge", "symmetric"]


def along(
    values: Float[np.ndarray, "H W"], taps: Float[np.ndarray, " N"], axis: int, border: Border
) -> Float[np.ndarray, "H W"]:
    """Each pixel's neighbours weighed by ``taps``; an even number of taps gives the value between it and the next."""
    before, after = (len(taps) - 1) // 2, len(taps) // 2
    pad = [(0, 0), (0, 0)]
    pad[axis] = (before, after)
    padded = np.pad(values, pad, mode=border)
    size = values.shape[axis]
    total = np.zeros(values.shape)
    for at, tap in enumerate(taps):
        if tap:
            total += tap * (padded[at : at + size] if axis == 0 else padded[:, at : at + size])
    return total


def both_ways(
    values: Float[np.ndarray, "H W"], taps: Float[np.ndarray, " N"], border: Border
) -> Float[np.ndarray, "H W"]:
    """Along columns, then rows."""
    return along(along(values, taps, 0, border), taps, 1, border)
