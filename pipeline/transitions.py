"""Measure how one picture becomes another: same scene or not, how long a ramp lasts, a mix or a move.

All of it works on tiny luma thumbnails. At that size grain and compression vanish, a frame costs
microseconds, and a few seconds of film fit into a few megabytes whatever the film's length. The
measures ignore gain where they can: a lamp switched on must not look like another place.
"""

import math
from collections import deque
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8

from schemas.config import ShotConfig
from schemas.media import Boundary

# Luma thumbnails are always this large, whatever the aspect ratio: (rows, columns).
THUMB_SHAPE = (36, 64)
_BLOCK = (12, 16)
_REACH = 6  # thumbnail pixels a block is searched in each direction: about a tenth of the width per frame


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What is remembered of one frame: ``luma`` is the thumbnail, ``small`` the same at half its size.

    ``level`` and ``contrast`` are the mean and the standard deviation of the thumbnail, 0 to 255.
    """

    frame: int
    luma: Float32[np.ndarray, "36 64"]
    small: Float32[np.ndarray, "576"]
    level: float
    contrast: float


def look_at(frame: int, image: UInt8[np.ndarray, "H W 3"]) -> Look:
    """Reduce one BGR frame to what is remembered of it."""
    rows, columns = THUMB_SHAPE
    thumb = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
    luma = cv2.cvtColor(thumb, cv2.COLOR_BGR2GRAY).astype(np.float32)
    small = luma.reshape(rows // 2, 2, columns // 2, 2).mean(axis=(1, 3)).ravel()
    return Look(frame=frame, luma=luma, small=small, level=float(luma.mean()), contrast=float(luma.std()))


def _blocks_found(a: Float32[np.ndarray, "36 64"], b: Float32[np.ndarray, "36 64"]) -> float:
    """How well the blocks of ``a`` are found again near their places in ``b``, weighted by their contrast."""
    rows, columns = THUMB_SHAPE
    found = total = 0.0
    for y in range(0, rows, _BLOCK[0]):
        for x in range(0, columns, _BLOCK[1]):
            block = a[y : y + _BLOCK[0], x : x + _BLOCK[1]]
            weight = float(block.std())
            if weight < 1.0:  # a flat block matches anything
                continue
            area = b[max(0, y - _REACH) : y + _BLOCK[0] + _REACH, max(0, x - _REACH) : x + _BLOCK[1] + _REACH]
            best = float(cv2.matchTemplate(area, block, cv2.TM_CCOEFF_NORMED).max())
            found += weight * max(0.0, best)
            total += weight
    return found / total if total else 0.0


def similarity(a: Look, b: Look) -> float:
    """How far two frames show the same scene, 0 to 1, whatever its gain and small movements.

    Twelve blocks of each frame are searched in the other by normalised cross-correlation, within a
    tenth of the width. Fast action measured 0.47 and more between neighbours, hard cuts 0.43 and less.
    """
    return min(_blocks_found(a.luma, b.luma), _blocks_found(b.luma, a.luma))


def overlap_similarity(a: Look, b: Look) -> float:
    """How far the middle of one frame is found in the other as a whole, -1 to 1.

    A pan further than the blocks' reach, or over large plain areas, shows here.
    """
    middle = (slice(6, 30), slice(10, 54))
    found = [
        float(cv2.matchTemplate(whole.luma, part.luma[middle], cv2.TM_CCOEFF_NORMED).max())
        for part, whole in ((a, b), (b, a))
    ]
    return max(found)


def ramp_length(strength: Float64[np.ndarray, "T"], patience: int, min_height: float) -> int | None:
    """Number of frames that lie between a flat picture and the full one.

    Args:
        strength: contrast (or level) of the frames next to the flat picture, nearest first.
        patience: frames without a new maximum after which the ramp is over.
        min_height: the full picture must reach this strength.

    Returns:
        0 for a step (a hard cut), None where no picture worth the name follows.
    """
    if strength.size == 0:
        return None
    peak = 0
    for index in range(strength.size):
        if strength[index] > strength[peak] * 1.01 + 0.2:
            peak = index
        elif index - peak >= patience:
            break
    height = float(np.median(strength[peak : peak + patience]))
    if height < min_height:
        return None
    if strength[0] >= 0.5 * height:
        return 0
    return max(1, _fitted_ramp(strength[: peak + 1 + patience], peak))


def _fitted_ramp(strength: Float64[np.ndarray, "T"], longest: int) -> int:
    """Length of the linear rise, then constant, that fits best; a slow drift after it doesn't count."""
    steps = np.arange(1, strength.size + 1, dtype=np.float64)
    best, best_error = longest, np.inf
    for length in range(1, longest + 1):
        model = np.minimum(steps / (length + 1), 1.0)
        height = float(strength @ model / (model @ model))
        error = float(np.square(strength - height * model).sum())
        if error < best_error:
            best, best_error = length, error
    # An eased fade is slower at its end than the line: it lasts until the picture stands.
    full = float(np.median(strength[best : best + 4])) if best < strength.size else float(strength[-1])
    while best < longest and strength[best] < 0.97 * full:
        best += 1
    return best


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


class Film:
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


@dataclass(slots=True)
class _FlatRun:
    """Frames of one flat colour. ``before`` and ``after`` are ramp lengths (0 a step, None nothing there)."""

    start: int
    dark: bool
    before: int | None
    at_start: bool
    slid: bool
    stop: int = -1
    least: float = math.inf  # strength of its emptiest frames, and where those lie
    core: tuple[int, int] = (-1, -1)

    @property
    def since(self) -> int:
        return self.start - (self.before or 0)

    def extend(self, frame: int, strength: float) -> None:
        """The picture counts as flat a little before it is empty; a fade lasts until it is."""
        if strength < self.least - 0.5:
            self.least, self.core = strength, (frame, frame)
        if strength <= self.least + 0.5:
            self.core = (self.core[0], frame + 1)


class FadeFinder:
    """Finds flat pictures and the ramps or steps at their edges.

    A dip through a flat colour with ramps at both sides is one boundary in the middle of the flat
    frames (PySceneDetect's convention); a ramp at one side and a step at the other are two, since the
    flat frames between them belong to neither scene.
    """

    def __init__(self, config: ShotConfig, fps: Fraction, film: Film, flash: int) -> None:
        self._config, self._film, self._flash = config, film, flash
        self._reach = math.ceil(config.max_fade_s * fps)
        self._patience = max(3, math.ceil(config.plateau_s * fps))
        self._run: _FlatRun | None = None
        self._closed: list[_FlatRun] = []
        self._first: int | None = None
        self._last = -1
        self._floor = 0  # no ramp reaches back over a cut
        self._flat_floor = {True: 0, False: 0}  # nor over the last flat picture of its sort

    @property
    def pending_since(self) -> int | None:
        """First frame of the oldest transition that is not decided yet."""
        runs = [*self._closed, *([self._run] if self._run else [])]
        return min((run.since for run in runs), default=None)

    def step(self, frame: int, *, is_cut: bool) -> list[Boundary]:
        """Take the next frame, whose cut is settled; return the transitions that ended."""
        look = self._film[frame]
        self._first = frame if self._first is None else self._first
        self._last = frame
        flat = look.contrast < self._config.flat_contrast
        dark = flat and look.level < self._config.dark_level
        found: list[Boundary] = []
        if is_cut:
            found += self._resolve(frame, self._closed)
            self._floor = frame
        found += self._resolve(frame, [run for run in self._closed if frame - run.stop >= self._reach])
        if self._run and (not flat or dark != self._run.dark):
            self._close(frame, flat)
        if flat and not self._run:
            # The picture before this run has ended: what waits for its ramp has seen all of it.
            found += self._resolve(frame, [run for run in self._closed if dark or not run.dark])
            self._open(frame, dark)
        if self._run:
            self._run.extend(frame, _strength(look, dark=self._run.dark))
        return found

    def finish(self) -> list[Boundary]:
        """The run of frames ended."""
        found = self._resolve(self._last + 1, self._closed)
        if self._run:
            run, self._run = self._run, None
            run.stop = self._last + 1
            found += self._boundaries(run, after=None, at_end=True)
        return found

    def _open(self, frame: int, dark: bool) -> None:
        floor = max(self._floor, self._flat_floor[dark], frame - self._reach)
        before = self._strength(floor, frame, dark)[::-1]
        length = ramp_length(before, self._patience, self._config.min_fade_height)
        slid = not dark and frame == self._flat_floor[True] and frame != self._first and not self._jumps(frame)
        self._run = _FlatRun(start=frame, dark=dark, before=length, at_start=frame == self._first, slid=slid)

    def _close(self, frame: int, flat: bool) -> None:
        run, self._run = self._run, None
        assert run is not None
        run.stop = frame
        self._flat_floor[run.dark] = frame
        # A flat picture that slides into black, or out of it, is a part of the fade around it.
        if run.dark or not (run.slid or (flat and not self._jumps(frame))):
            self._closed.append(run)

    def _jumps(self, frame: int) -> bool:
        return abs(self._film[frame].level - self._film[frame - 1].level) >= self._config.min_flat_jump

    def _resolve(self, frame: int, runs: list[_FlatRun]) -> list[Boundary]:
        """Decide ``runs``, whose picture afterwards lasts until ``frame``."""
        found: list[Boundary] = []
        for run in list(runs):
            self._closed.remove(run)
            strength = self._strength(run.stop, min(frame, run.stop + self._reach), run.dark)
            after = ramp_length(strength, self._patience, self._config.min_fade_height)
            found += self._boundaries(run, after=after, at_end=False)
        return found

    def _strength(self, start: int, stop: int, dark: bool) -> Float64[np.ndarray, "T"]:
        return np.array([_strength(look, dark=dark) for look in self._film.between(start, stop)])

    def _boundaries(self, run: _FlatRun, *, after: int | None, at_end: bool) -> list[Boundary]:
        before = run.before
        first, last = run.start - (before or 0), run.stop + (after or 0)
        start, stop = run.core[0] if before else run.start, run.core[1] if after else run.stop
        if run.at_start and at_end:
            return []
        if run.at_start:
            return [_fade(start, start, last)] if after else _cuts(stop if after == 0 else None)
        if at_end:
            return [_fade(stop, first, stop)] if before else _cuts(start if before == 0 else None)
        if self._is_flash(first, last):
            return []
        if before and after:
            return [_fade((start + stop) // 2, first, last)]
        if stop - start <= self._config.min_flat_frames and before is not None and after is not None:
            # Too short to be a picture of its own: one boundary, and the flat frames are its extent.
            return (
                [_fade(stop if before or not after else start, first, last)]
                if before or after
                else [Boundary(frame=stop, kind="cut", start_frame=start, stop_frame=stop)]
            )
        return [
            *([_fade(start, first, start)] if before else _cuts(start if before == 0 else None)),
            *([_fade(stop, stop, last)] if after else _cuts(stop if after == 0 else None)),
        ]

    def _is_flash(self, first: int, last: int) -> bool:
        if last - first > 2 * self._flash or first - 1 < self._film.first or last > self._film.last:
            return False
        return similarity(self._film[first - 1], self._film[last]) >= self._config.same_after_flash


def _strength(look: Look, *, dark: bool) -> float:
    """How much picture there is: above black its light counts, above any other colour only its contrast."""
    return math.hypot(look.level, look.contrast) if dark else look.contrast


def _fade(frame: int, start: int, stop: int) -> Boundary:
    return Boundary(frame=frame, kind="fade", start_frame=start, stop_frame=stop)


def _cuts(frame: int | None) -> list[Boundary]:
    return [] if frame is None else [Boundary(frame=frame, kind="cut", start_frame=frame, stop_frame=frame)]


@dataclass(frozen=True, slots=True)
class _Window:
    """A stretch of frames whose middle is a mix of its ends."""

    start: int
    stop: int
    score: float


class DissolveFinder:
    """Finds stretches whose frames are mixes of the stretch's two ends, the share rising from 0 to 1.

    The ends must show different scenes: a slow change of light is a perfect mix too.
    """

    def __init__(self, config: ShotConfig, fps: Fraction, film: Film) -> None:
        self._config, self._film = config, film
        longest = config.max_dissolve_s * fps
        # Each window length is about 1.4 times the next shorter one; a dissolve needs one that covers it, loosely.
        self._lengths = sorted({max(4, round(longest / 2 ** (k / 2))) for k in range(8)})
        self._margin = max(4, math.ceil(config.plateau_s * fps))
        self._floor: int | None = None
        self._best: _Window | None = None

    def step(self, frame: int, *, is_cut: bool) -> list[Boundary]:
        """Take the next frame, whose cut is settled; return the dissolve that ended, if one did."""
        flat = self._film[frame].contrast < self._config.flat_contrast
        found: list[Boundary] = []
        if self._floor is None or is_cut or flat:
            found = self._end(frame)
            self._floor = frame + 1 if flat else frame
        for length in self._lengths:
            if frame - length < self._floor:
                break
            score = self._score(frame - length, frame)
            if score > 0 and self._best and frame - length >= self._best.stop:
                found += self._end(frame)
            if score > 0 and (self._best is None or score > self._best.score):
                self._best = _Window(start=frame - length, stop=frame, score=score)
        if self._best and frame - self._best.stop >= self._lengths[-1] // 2:
            found += self._end(frame)
        return found

    def finish(self) -> list[Boundary]:
        """The run of frames ended."""
        return self._end(self._film.last + 1)

    def _score(self, start: int, stop: int) -> float:
        """Distance between the ends, less what the mix leaves unexplained; 0 where it is no dissolve."""
        config, film = self._config, self._film
        a, b = film[start].small, film[stop].small
        distance = float(np.sqrt(np.mean(np.square(b - a))))
        if distance < config.min_dissolve_step:
            return 0.0
        middle = film[(start + stop) // 2].small
        if not 0.25 <= float((middle - a) @ (b - a)) / (distance * distance * a.size) <= 0.75:
            return 0.0
        stack = np.stack([look.small for look in film.between(start, stop + 1)])
        straight = straightness(stack)
        if straight < config.min_straightness or np.diff(shares_of(stack, a, b)).max() > config.max_dissolve_jump:
            return 0.0
        ends = film[start], film[stop]
        if similarity(*ends) >= config.same_scene_dissolved or overlap_similarity(*ends) >= config.same_view:
            return 0.0
        return distance * straight

    def _end(self, frame: int) -> list[Boundary]:
        """Measure the best stretch's true extent; the scene after it lasts until ``frame`` at least."""
        best, self._best = self._best, None
        if best is None:
            return []
        floor = max(self._floor or 0, self._film.first)
        start, stop = self._grown(best, floor, frame - 1)
        looks = self._film.between(max(floor, start - self._margin), min(frame, stop + self._margin + 1))
        stack = np.stack([look.small for look in looks])
        ends = ramp_ends(shares_of(stack, self._film[start].small, self._film[stop].small))
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
        longest = round(1.2 * self._lengths[-1])
        improved = True
        while improved:
            improved = False
            for left, right in moves:
                a, b = start + left, stop + right
                if not (floor <= a and a + 3 <= b <= ceiling and b - a <= longest):
                    continue
                stack = np.stack([look.small for look in self._film.between(a, b + 1)])
                straight = straightness(stack)
                moved = float(np.sqrt(np.mean(np.square(stack[-1] - stack[0])))) * straight
                if straight >= self._config.min_straightness_grown and moved > score * 1.005:
                    start, stop, score, improved = a, b, moved, True
        return start, stop
