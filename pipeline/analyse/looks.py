"""What is remembered of a frame, and whether two frames show the same scene.

Everything works on tiny luma thumbnails. At that size grain and compression vanish, a frame costs
microseconds, and a few seconds of film fit into a few megabytes whatever the film's length. The
measures ignore gain where they can: a lamp switched on must not look like another place.
"""

import math
from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8
from numpy.lib.stride_tricks import sliding_window_view

# Luma thumbnails are always this large, whatever the aspect ratio: (rows, columns).
THUMB_SHAPE = (36, 64)
_BLOCK = (12, 16)
_FLAT_NORM = math.sqrt(_BLOCK[0] * _BLOCK[1])  # of a block's pixels about their mean: a standard deviation of 1
_REACH = 6  # thumbnail pixels a block is searched in each direction: about a tenth of the width per frame


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What is remembered of one frame: ``luma`` is the thumbnail, ``small`` the same at half its size.

    ``chroma`` is the colour without lightness (a*, b*, one per unit of Lab) in 9 × 16 cells.
    ``level`` and ``contrast`` are the mean and the standard deviation of the thumbnail, 0 to 255.
    """

    frame: int
    luma: Float32[np.ndarray, "36 64"]
    small: Float32[np.ndarray, "576"]
    chroma: Float32[np.ndarray, "9 16 2"]
    level: float
    contrast: float


def look_at(frame: int, image: UInt8[np.ndarray, "H W 3"]) -> Look:
    """Reduce one BGR frame to what is remembered of it."""
    rows, columns = THUMB_SHAPE
    thumb = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
    luma = cv2.cvtColor(thumb, cv2.COLOR_BGR2GRAY).astype(np.float32)
    small = luma.reshape(rows // 2, 2, columns // 2, 2).mean(axis=(1, 3)).ravel()
    lab = cv2.cvtColor(cv2.resize(thumb, (16, 9), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2LAB)
    chroma = lab[..., 1:].astype(np.float32)
    return Look(frame, luma, small, chroma, level=float(luma.mean()), contrast=float(luma.std()))


def _blocks_found(a: Float32[np.ndarray, "36 64"], b: Float32[np.ndarray, "36 64"]) -> float:
    """How well the blocks of ``a`` are found again near their places in ``b``, weighted by their contrast.

    Normalised cross-correlation, multiplied out: OpenCV's matchTemplate transforms these tiny pictures to the
    frequency domain and back, which takes four times as long.
    """
    rows, columns = THUMB_SHAPE[0] // _BLOCK[0], THUMB_SHAPE[1] // _BLOCK[1]
    blocks = a.reshape(rows, _BLOCK[0], columns, _BLOCK[1]).swapaxes(1, 2).reshape(rows * columns, -1)
    blocks = blocks - blocks.mean(axis=1, keepdims=True)
    norms = np.sqrt(np.einsum("kp,kp->k", blocks, blocks))
    places, spread = sliding_window_view(b, _BLOCK), _spreads(b)
    matched = total = 0.0
    for k in np.flatnonzero(norms >= _FLAT_NORM):  # a flat block matches anything
        y, x = k // columns * _BLOCK[0], k % columns * _BLOCK[1]
        near = slice(max(0, y - _REACH), y + _REACH + 1), slice(max(0, x - _REACH), x + _REACH + 1)
        likeness = (places[near].reshape(-1, blocks.shape[1]) @ blocks[k]) / spread[near].ravel()
        matched += max(0.0, float(likeness.max()))  # times the norm, its weight
        total += float(norms[k])
    return matched / total if total else 0.0


def _spreads(luma: Float32[np.ndarray, "36 64"]) -> Float32[np.ndarray, "25 49"]:
    """The norm of every block-sized window about its own mean; at least 1, since a flat window resembles nothing."""
    sums, squares = (_window_sums(table) for table in cv2.integral2(luma, sqdepth=cv2.CV_64F))
    variance = np.maximum(squares - sums * sums / (_BLOCK[0] * _BLOCK[1]), 1.0)
    return np.sqrt(variance).astype(np.float32)


def _window_sums(table: Float64[np.ndarray, "37 65"]) -> Float64[np.ndarray, "25 49"]:
    rows, columns = _BLOCK
    return table[rows:, columns:] - table[:-rows, columns:] - table[rows:, :-columns] + table[:-rows, :-columns]


def similarity(a: Look, b: Look) -> float:
    """How far two frames show the same scene, 0 to 1, whatever its gain and small movements.

    Twelve blocks of each frame are searched in the other by normalised cross-correlation, within a
    tenth of the width. Fast action measured 0.47 and more between neighbours, hard cuts 0.43 and less.
    """
    return min(_blocks_found(a.luma, b.luma), _blocks_found(b.luma, a.luma))


def is_similar(a: Look, b: Look, least: float) -> bool:
    """Whether ``similarity`` is at least this; where one direction says no, the other is not asked."""
    return _blocks_found(a.luma, b.luma) >= least and _blocks_found(b.luma, a.luma) >= least


def tint_change(a: Look, b: Look) -> float:
    """How far the colours of most of the picture changed, in Lab units: the median over all cells.

    Two talking heads in the middle of their pictures look alike in luma; their rooms rarely share a colour.
    Fast action measured 7.5 and less between neighbours, cuts between look-alike framings 11 and more.
    """
    return float(np.median(np.linalg.norm(a.chroma - b.chroma, axis=-1)))


def overlap_similarity(a: Look, b: Look) -> float:
    """How far the middle of one frame is found in the other as a whole, -1 to 1.

    A pan further than the blocks' reach, or over large plain areas, shows here.
    """
    middle = (slice(6, 30), slice(10, 54))
    correlations = [
        float(cv2.matchTemplate(whole.luma, part.luma[middle], cv2.TM_CCOEFF_NORMED).max())
        for part, whole in ((a, b), (b, a))
    ]
    return max(correlations)


def straightness(stack: Float32[np.ndarray, "T 576"]) -> float:
    """Part of all change in time, over all pixels, that is a straight line per pixel: 1 for a linear dissolve.

    A moving edge crosses each pixel in a step, at a different time for each: one half or less. Heads turning
    and pans measured 0.63 and less, dissolves over moving scenes 0.83 and more.
    """
    time = np.arange(len(stack), dtype=np.float32) - np.float32((len(stack) - 1) / 2)
    centred = stack - stack.mean(axis=0)
    total = float(np.square(centred).sum())
    slope = time @ centred
    return float(slope @ slope) / float(time @ time) / total if total > 0 else 0.0


def shares_of(
    stack: Float32[np.ndarray, "T 576"], a: Float32[np.ndarray, "576"], b: Float32[np.ndarray, "576"]
) -> Float64[np.ndarray, "T"]:
    """Share of ``b`` in every frame of ``stack``."""
    step = b - a
    return ((stack - a) @ step / float(step @ step)).astype(np.float64)


class RecentLooks:
    """The last ``length`` looks, by frame number."""

    def __init__(self, length: int) -> None:
        self._looks: deque[Look] = deque(maxlen=length)

    def append(self, look: Look) -> None:
        """Remember the next frame.

        Raises:
            ValueError: if its number doesn't follow the last one.
        """
        if self._looks and look.frame != self.last + 1:
            raise ValueError(f"frames must come in order: expected {self.last + 1}, found {look.frame}")
        self._looks.append(look)

    @property
    def first(self) -> int:
        """Oldest frame still remembered."""
        return self._looks[0].frame

    @property
    def last(self) -> int:
        """Newest frame."""
        return self._looks[-1].frame

    def __len__(self) -> int:
        return len(self._looks)

    def __getitem__(self, frame: int) -> Look:
        if not self.first <= frame <= self.last:
            raise IndexError(f"frame {frame} is not among the remembered {self.first} to {self.last}")
        return self._looks[frame - self.first]

    def between(self, start: int, stop: int) -> list[Look]:
        """Looks of ``start`` up to ``stop`` (half-open), as far as they are remembered."""
        start, stop = max(start, self.first), min(stop, self.last + 1)
        return [self._looks[frame - self.first] for frame in range(start, stop)]
