"""CPBD: which share of a picture's edges is too narrow for its blur to be seen (Narvekar and Karam, IEEE TIP 2011).

The paper leaves the edge detectors open, and figures differ with them. Here they are those of the Python package cpbd
1.0.7, whose Canny works on levels of 0 to 255 with thresholds meant for 0 to 1: nearly every block counts as one with
edges. Print the figure of real pictures beside it.
"""

import numpy as np
from jaxtyping import Bool, Float

from training.evaluation.metrics.filters import along, both_ways

Luma = Float[np.ndarray, "H W"]

_BLOCK_PX = 64
_EDGE_SHARE = 0.002  # of a block's pixels, above which it counts
_BETA = 3.6
_WIDE_PX, _NARROW_PX, _FLAT = 5.0, 3.0, 50  # width just noticed in blocks of contrast up to 50, and above
_LIMIT = 63.5  # hundredths of probability up to which blur is not noticed (the paper's 63 %, rounded as upstream)
_MAX_STEPS = 101  # to either side of an edge
_SMOOTHING, _SLOPE = np.array([1.0, 2.0, 1.0]), np.array([-1.0, 0.0, 1.0])  # Sobel's
_LOW, _HIGH = 0.1, 0.2  # Canny's thresholds


def cpbd(luma: Luma) -> float:
    """Share of edges whose blur is not noticed, 0 to 1; 0 also for a picture without any edge.

    Args:
        luma: 0 to 255, of 64 px and more either way; what reaches beyond whole blocks of 64 counts nothing.

    Raises:
        ValueError: for a smaller picture.
    """
    rows, columns = (size // _BLOCK_PX for size in luma.shape)
    if not rows or not columns:
        raise ValueError(f"CPBD needs pictures of {_BLOCK_PX} px and more, found {luma.shape[1]}×{luma.shape[0]}")
    luma = np.asarray(luma, np.float64)
    widths, strong = edge_widths(luma), canny(luma)
    total = narrow = 0
    for row, column in np.ndindex(rows, columns):
        block = np.s_[_BLOCK_PX * row : _BLOCK_PX * (row + 1), _BLOCK_PX * column : _BLOCK_PX * (column + 1)]
        if np.count_nonzero(strong[block]) <= _EDGE_SHARE * _BLOCK_PX**2:
            continue
        edges = widths[block][widths[block] > 0]
        just = _WIDE_PX if int(np.ptp(luma[block])) <= _FLAT else _NARROW_PX
        seen = 1 - np.exp(-((edges / just) ** _BETA))
        total += len(edges)
        narrow += np.count_nonzero(np.round(seen * 100) < _LIMIT)
    return narrow / total if total else 0.0


# ---- widths --------------------------------------------------------------------------------------------------------


def edge_widths(luma: Luma) -> Float[np.ndarray, "H W"]:
    """Width of every upright edge along its row in pixels, 0 elsewhere (Marziliano et al., ICIP 2002).

    An edge counts where the gradient is nearest to horizontal; its width is the number of steps to either side over
    which the row goes on falling or rising.
    """
    down, across = np.gradient(luma)
    # Upstream calls the angle 0 wherever nothing changes along the row.
    turn = np.where(across != 0, np.round(np.degrees(np.arctan2(down, across)) / 45), 0)
    inside = np.zeros(luma.shape, bool)
    inside[1:-1, 1:-1] = True
    edges = _upright_edges(luma) & inside
    widths = np.zeros(luma.shape)
    for sign, angles in ((1, (0,)), (-1, (4, -4))):
        row, column = np.nonzero(edges & np.isin(turn, angles))
        rising = sign * luma
        widths[row, column] = _run(rising[row, ::-1], luma.shape[1] - 1 - column, falling=True) + _run(
            rising[row], column, falling=False
        )
    return widths


def _run(lines: Float[np.ndarray, "N W"], start: np.ndarray, *, falling: bool) -> np.ndarray:
    """Steps from ``start`` to the right as long as each line goes on rising, or falling; at least 1."""
    width = lines.shape[1]
    steps = np.arange(1, _MAX_STEPS + 1)
    near, far = start[:, None] + steps, start[:, None] + steps + 1
    here = np.take_along_axis(lines, near.clip(max=width - 1), 1)
    next_ = np.take_along_axis(lines, far.clip(max=width - 1), 1)
    ends = (far >= width) | ((next_ >= here) if falling else (next_ <= here))
    return np.where(ends.any(axis=1), ends.argmax(axis=1) + 1, _MAX_STEPS)


def _upright_edges(luma: Luma) -> Bool[np.ndarray, "H W"]:
    """Local maxima, in their row or column, of the squared horizontal Sobel gradient above twice its mean's root."""
    smooth = along(luma, _SMOOTHING, 0, "symmetric")
    strength = np.square(along(smooth, _SLOPE, 1, "symmetric") / 8)
    strength[strength <= 2 * np.sqrt(strength.mean())] = 0
    around = np.pad(strength, 1)
    here = around[1:-1, 1:-1]
    across = (here > around[1:-1, :-2]) & (here > around[1:-1, 2:])
    return across | ((here > around[:-2, 1:-1]) & (here > around[2:, 1:-1]))


# ---- Canny ---------------------------------------------------------------------------------------------------------


def canny(luma: Luma) -> Bool[np.ndarray, "H W"]:
    """Edges by Canny (PAMI 8, 1986) with σ = 1 and thresholds of .1 and .2, as scikit-image finds them by default."""
    offsets = np.arange(-4, 5)
    taps = np.exp(-0.5 * offsets**2)
    taps /= taps.sum()
    # Outside is black; divided by the share of the window that lies inside.
    weight = both_ways(np.ones(luma.shape), taps, "constant")
    smooth = both_ways(luma, taps, "constant") / (weight + np.finfo(float).eps)
    down = along(along(smooth, _SLOPE, 0, "symmetric"), _SMOOTHING, 1, "symmetric")
    across = along(along(smooth, _SMOOTHING, 0, "symmetric"), _SLOPE, 1, "symmetric")
    strength = np.hypot(down, across)
    thin = _thinned(strength, down, across)
    return _connected(thin & (strength >= _LOW), thin & (strength >= _HIGH))


def _thinned(strength: np.ndarray, down: np.ndarray, across: np.ndarray) -> Bool[np.ndarray, "H W"]:
    """Where the strength is not below that on either side, between pixels along the gradient; not at the border."""
    thin = np.zeros(strength.shape, bool)
    middle = strength[1:-1, 1:-1]
    v, h = down[1:-1, 1:-1], across[1:-1, 1:-1]
    steep = np.abs(v) > np.abs(h)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(steep, np.abs(h) / np.abs(v), np.abs(v) / np.abs(h))
    same = np.sign(v) * np.sign(h) >= 0  # the gradient points down right or up left

    def shifted(rows: int, columns: int) -> np.ndarray:
        height, width = strength.shape
        return strength[1 + rows : height - 1 + rows, 1 + columns : width - 1 + columns]

    keeps = np.isfinite(share) & (middle > 0)
    for side in (1, -1):
        straight = np.where(steep, shifted(side, 0), shifted(0, side))
        slanted = np.where(same, shifted(side, side), np.where(steep, shifted(side, -side), shifted(-side, side)))
        keeps &= share * slanted + (1 - share) * straight <= middle
    thin[1:-1, 1:-1] = keeps
    return thin


def _connected(weak: np.ndarray, strong: np.ndarray) -> Bool[np.ndarray, "H W"]:
    """The weak pixels that touch a strong one, through other weak ones, diagonals included."""
    linked = strong
    while True:
        around = np.pad(linked, 1)
        wider = around[:, :-2] | around[:, 1:-1] | around[:, 2:]
        grown = (wider[:-2] | wider[1:-1] | wider[2:]) & weak
        if (grown == linked).all():
            return linked
        linked = grown
