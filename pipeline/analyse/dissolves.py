"""Find the dissolves: stretches in which every pixel goes straight from one scene to the other.

A dissolve doesn't show in the difference of neighbouring frames, which is what cut detectors look at; motion makes
pixels step instead. The finder also says how far a dissolve reaches, because a clip must hold no frame of it.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Float64

from pipeline.analyse.looks import (
    RecentLooks,
    is_similar,
    overlap_similarity,
    shares_of,
    straightness,
    tint_change,
)
from schemas.config import ShotConfig
from schemas.media import Boundary


def ramp_ends(shares: Float64[np.ndarray, "T"]) -> tuple[float, float] | None:
    """Where a line through the middle of a rise from 0 to 1 meets 0 and 1, in indices; None where nothing rises."""
    above = np.flatnonzero(shares >= 0.5)
    below = np.flatnonzero(shares < 0.5)
    if above.size == 0 or below.size == 0:
        return None
    # Walk outward from the middle crossing; further away the scenes' own motion shows.
    last = middle = int(above[above > below[0]][0]) if (above > below[0]).any() else -1
    if middle < 0:
        return None
    first = middle - 1
    while first > 0 and shares[first] > 0.12:
        first -= 1
    while last < shares.size - 1 and shares[last] < 0.88:
        last += 1
    index = np.arange(first, last + 1)
    slope, offset = np.polyfit(index, shares[first : last + 1], 1)
    if slope <= 0:
        return None
    return float(-offset / slope), float((1.0 - offset) / slope)


@dataclass(frozen=True, slots=True)
class _Window:
    """A stretch of frames whose middle is a mix of its ends."""

    start: int
    stop: int
    score: float


class DissolveFinder:
    """Finds stretches whose frames are mixes of the stretch's two ends, the share rising from 0 to 1.

    The ends must show different scenes: a slow change of light is straight too.
    """

    def __init__(self, config: ShotConfig, fps: Fraction, looks: RecentLooks) -> None:
        self._config, self._looks = config, looks
        longest = config.max_dissolve_s * fps
        # Each window length is about 1.4 times the next shorter one; a dissolve needs one that covers it, loosely.
        self._lengths = sorted({max(4, round(longest / 2 ** (k / 2))) for k in range(8)})
        self._margin = max(4, math.ceil(config.plateau_s * fps))
        self._floor: int | None = None
        self._best: _Window | None = None

    def step(self, frame: int, *, is_cut: bool) -> list[Boundary]:
        """Take the next frame, whose cut is settled; return the dissolve that ended, if one did."""
        flat = self._looks[frame].contrast < self._config.flat_contrast
        boundaries: list[Boundary] = []
        if self._floor is None or is_cut or flat:
            boundaries = self._end(frame)
            self._floor = frame + 1 if flat else frame
        for length in self._moved(frame):
            if frame - length < self._floor:  # an end has moved it
                break
            best = self._best
            is_next = best is not None and frame - length >= best.stop
            # A stretch that cannot replace the best one, and ends nothing, need not be judged.
            score = self._score(frame - length, frame, above=0.0 if best is None or is_next else best.score)
            if score > 0 and is_next:
                boundaries += self._end(frame)
            if score > 0 and (self._best is None or score > self._best.score):
                self._best = _Window(start=frame - length, stop=frame, score=score)
        if self._best and frame - self._best.stop >= self._lengths[-1] // 2:
            boundaries += self._end(frame)
        return boundaries

    def finish(self) -> list[Boundary]:
        """The run of frames ended."""
        return self._end(self._looks.last + 1)

    def _moved(self, frame: int) -> list[int]:
        """The lengths of the stretches up to ``frame`` whose ends differ enough, all compared at once."""
        lengths = [length for length in self._lengths if frame - length >= (self._floor or 0)]
        if not lengths:
            return []
        change = np.stack([self._looks[frame - length].small for length in lengths]) - self._looks[frame].small
        squares = np.einsum("lp,lp->l", change, change) / change.shape[1]
        return [
            length
            for length, square in zip(lengths, squares, strict=True)
            if square >= self._config.min_dissolve_step**2
        ]

    def _score(self, start: int, stop: int, above: float) -> float:
        """Distance between the ends, less what the mix leaves unexplained; 0 for no dissolve, or one not ``above``."""
        config, looks = self._config, self._looks
        a, b = looks[start].small, looks[stop].small
        distance = float(np.sqrt(np.mean(np.square(b - a))))
        middle = looks[(start + stop) // 2].small
        if not 0.25 <= float((middle - a) @ (b - a)) / (distance * distance * a.size) <= 0.75:
            return 0.0
        stack = np.stack([look.small for look in looks.between(start, stop + 1)])
        straight = straightness(stack)
        if straight < config.min_straightness or distance * straight <= above:
            return 0.0
        if np.diff(shares_of(stack, a, b)).max() > config.max_dissolve_jump:
            return 0.0
        ends = looks[start], looks[stop]
        alike = overlap_similarity(*ends) >= config.same_view or is_similar(*ends, config.same_scene_dissolved)
        if alike and not self._is_new_tint(start, stop):
            return 0.0
        return distance * straight

    def _is_new_tint(self, start: int, stop: int) -> bool:
        """Whether look-alike framings change their room: another colour in the same light, and no colour moves outside.

        A fade changes colours along with the light, and a pan changes them before and after the stretch as well.
        """
        looks, config = self._looks, self._config
        dark, light = sorted((looks[start].level, looks[stop].level))
        if tint_change(looks[start], looks[stop]) < config.new_tint or dark < config.same_level * light:
            return False
        outside = [(start - 3, start), (stop, stop + 3)]
        return all(
            looks.first <= a and b <= looks.last and tint_change(looks[a], looks[b]) < config.calm_tint
            for a, b in outside
        )

    def _end(self, frame: int) -> list[Boundary]:
        """Measure the best stretch's true extent; the scene after it lasts until ``frame`` at least."""
        best, self._best = self._best, None
        if best is None:
            return []
        floor = max(self._floor or 0, self._looks.first)
        start, stop = self._grown(best, floor, frame - 1)
        looks = self._looks.between(max(floor, start - self._margin), min(frame, stop + self._margin + 1))
        stack = np.stack([look.small for look in looks])
        ends = ramp_ends(shares_of(stack, self._looks[start].small, self._looks[stop].small))
        if ends is None:
            return []
        first = max(looks[0].frame, looks[0].frame + math.floor(ends[0]) + 1)
        last = min(looks[-1].frame + 1, looks[0].frame + math.ceil(ends[1]))
        if last <= first:
            return []
        self._floor = max(floor, last)
        return [Boundary(frame=(first + last) // 2, kind="dissolve", start_frame=first, stop_frame=last)]

    def _grown(self, best: _Window, floor: int, ceiling: int) -> tuple[int, int]:
        """Move the ends while the step between them grows more than the change bends.

        Scenes in motion bend a long dissolve, so that only a part of it was straight enough to be found.
        """
        start, stop, score = best.start, best.stop, best.score
        moves = [(sign * k, 0) for k in (8, 4, 2, 1) for sign in (-1, 1)]
        moves += [(0, shift) for shift, _ in moves]
        longest = 2 * (stop - start)  # further growth would be motion after the dissolve
        improved = True
        while improved:
            improved = False
            for left, right in moves:
                a, b = start + left, stop + right
                if not (floor <= a and a + 3 <= b <= ceiling and b - a <= longest):
                    continue
                stack = np.stack([look.small for look in self._looks.between(a, b + 1)])
                straight = straightness(stack)
                moved = float(np.sqrt(np.mean(np.square(stack[-1] - stack[0])))) * straight
                if straight >= self._config.min_straightness_grown and moved > score * 1.005:
                    start, stop, score, improved = a, b, moved, True
        return start, stop
