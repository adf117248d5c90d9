"""Find the fades from and to a flat picture: a ramp of contrast beside frames without any.

A fade doesn't show in the difference of neighbouring frames, which is what cut detectors look at. The finder also says
how far it reaches, because a clip must hold no frame of it.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Float64

from pipeline.analyse.looks import (
    Look,
    RecentLooks,
    is_similar,
)
from schemas.config import ShotConfig
from schemas.media import Boundary


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

    def __init__(self, config: ShotConfig, fps: Fraction, looks: RecentLooks, flash: int) -> None:
        self._config, self._looks, self._flash = config, looks, flash
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
        look = self._looks[frame]
        self._first = frame if self._first is None else self._first
        self._last = frame
        flat = look.contrast < self._config.flat_contrast
        dark = flat and look.level < self._config.dark_level
        boundaries: list[Boundary] = []
        if is_cut:
            boundaries += self._resolve(frame, self._closed)
            self._floor = frame
        boundaries += self._resolve(frame, [run for run in self._closed if frame - run.stop >= self._reach])
        if self._run and (not flat or dark != self._run.dark):
            self._close(frame, flat)
        if flat and not self._run:
            # The picture before this run has ended: what waits for its ramp has seen all of it.
            boundaries += self._resolve(frame, [run for run in self._closed if dark or not run.dark])
            self._open(frame, dark)
        if self._run:
            self._run.extend(frame, _strength(look, dark=self._run.dark))
        return boundaries

    def finish(self) -> list[Boundary]:
        """The run of frames ended."""
        boundaries = self._resolve(self._last + 1, self._closed)
        if self._run:
            run, self._run = self._run, None
            run.stop = self._last + 1
            boundaries += self._boundaries(run, after=None, at_end=True)
        return boundaries

    def _open(self, frame: int, dark: bool) -> None:
        floor = max(self._floor, self._flat_floor[dark], frame - self._reach)
        before = self._strength(floor, frame, dark)[::-1]
        length = ramp_length(before, self._patience, self._config.min_fade_height)
        slid = not dark and frame == self._flat_floor[True] and frame != self._first and not self._jumps(frame)
        self._run = _FlatRun(start=frame, dark=dark, before=length, at_start=frame == self._first, slid=slid)

    def _close(self, frame: int, flat: bool) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        run.stop = frame
        self._flat_floor[run.dark] = frame
        # A flat picture that slides into black, or out of it, is a part of the fade around it.
        if run.dark or not (run.slid or (flat and not self._jumps(frame))):
            self._closed.append(run)

    def _jumps(self, frame: int) -> bool:
        return abs(self._looks[frame].level - self._looks[frame - 1].level) >= self._config.min_flat_jump

    def _resolve(self, frame: int, runs: list[_FlatRun]) -> list[Boundary]:
        """Decide ``runs``, whose picture afterwards lasts until ``frame``."""
        boundaries: list[Boundary] = []
        for run in list(runs):
            self._closed.remove(run)
            strength = self._strength(run.stop, min(frame, run.stop + self._reach), run.dark)
            after = ramp_length(strength, self._patience, self._config.min_fade_height)
            boundaries += self._boundaries(run, after=after, at_end=False)
        return boundaries

    def _strength(self, start: int, stop: int, dark: bool) -> Float64[np.ndarray, "T"]:
        return np.array([_strength(look, dark=dark) for look in self._looks.between(start, stop)])

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
        if last - first > 2 * self._flash or first - 1 < self._looks.first or last > self._looks.last:
            return False
        return is_similar(self._looks[first - 1], self._looks[last], self._config.same_after_flash)


def _strength(look: Look, *, dark: bool) -> float:
    """How much picture there is: above black its light counts, above any other colour only its contrast."""
    return math.hypot(look.level, look.contrast) if dark else look.contrast


def _fade(frame: int, start: int, stop: int) -> Boundary:
    return Boundary(frame=frame, kind="fade", start_frame=start, stop_frame=stop)


def _cuts(frame: int | None) -> list[Boundary]:
    return [] if frame is None else [Boundary(frame=frame, kind="cut", start_frame=frame, stop_frame=frame)]
