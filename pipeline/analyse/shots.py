"""Find where shots begin and end in frames that arrive one by one.

The file is decoded once for every analysis, so nothing here opens it: PySceneDetect's detectors are fed
frame by frame and only *propose* cuts. Their scores also jump at flashes, whips and near black (hue is
noise there), so a proposal counts only if neither neighbouring frame is found again in the other. Fades
and dissolves, which frame differences miss, have finders of their own. A boundary is handed out once
nothing still pending can change it, a few seconds late; what is remembered is bounded by those seconds.
"""

import functools
import math
from collections import deque
from collections.abc import Callable, Iterable
from fractions import Fraction
from itertools import pairwise
from typing import Literal

import cv2
import numpy as np
from jaxtyping import UInt8

from pipeline.analyse.dissolves import DissolveFinder
from pipeline.analyse.fades import FadeFinder
from pipeline.analyse.looks import Look, RecentLooks, is_similar, look_at, similarity, tint_change
from schemas.base import FrameSpan
from schemas.config import ShotConfig
from schemas.media import Boundary, Shot

ShotStart = Literal["start", "cut", "fade", "dissolve", "limit"]


class _CutProposals:
    """Frames at which PySceneDetect sees a cut, by content or by histogram; too many rather than too few."""

    def __init__(self, config: ShotConfig, fps: Fraction) -> None:
        from scenedetect import FrameTimecode
        from scenedetect.detectors import AdaptiveDetector, HistogramDetector

        self._timecode_of = functools.partial(FrameTimecode, fps=fps)
        self._side_px, self._window = config.cut_side_px, config.adaptive_window
        # Length 1 while detecting: the default hides true cuts that follow another within 15 frames.
        self._adaptive = AdaptiveDetector(
            adaptive_threshold=config.adaptive_threshold,
            window_width=config.adaptive_window,
            min_content_val=config.min_content_val,
            min_scene_len=1,
        )
        self._histogram = HistogramDetector(threshold=config.histogram_threshold, min_scene_len=1)
        self._fed = 0
        self._first: int | None = None
        self._last: UInt8[np.ndarray, "h w 3"] | None = None

    def push(self, frame: int, image: UInt8[np.ndarray, "H W 3"]) -> list[int]:
        scale = min(1.0, self._side_px / max(image.shape[:2]))
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        self._last = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1.0 else image.copy()
        if self._first is None:
            # The adaptive window needs neighbours on both sides; a foreign first frame must not hide in its margin.
            self._first = frame - self._window
            for _ in range(self._window):
                self._feed(self._last)
        return self._feed(self._last)

    def finish(self) -> list[int]:
        return [] if self._last is None else [cut for _ in range(self._window) for cut in self._feed(self._last)]

    def _feed(self, image: UInt8[np.ndarray, "h w 3"]) -> list[int]:
        timecode = self._timecode_of(self._fed)
        self._fed += 1
        cuts = self._adaptive.process_frame(timecode, image) + self._histogram.process_frame(timecode, image)
        return [cut.frame_num + (self._first or 0) for cut in cuts]


class ShotDetector:
    """Fed every frame of one run in order; boundaries come out, in order, when they are certain.

    A fade from or to a flat picture that reaches the run's first or last frame divides nothing; its
    boundary lies on that end (``frame`` is the first frame, or one past the last) and carries its extent.
    """

    def __init__(self, config: ShotConfig, fps: Fraction) -> None:
        self._config = config
        self.side_px = config.cut_side_px  # long side of the pictures it needs; larger ones only cost time
        self._flash = max(3, math.ceil(config.flash_s * fps))
        fade, dissolve = math.ceil(config.max_fade_s * fps), math.ceil(config.max_dissolve_s * fps)
        # A boundary waits until a fade or a dissolve around it would have shown.
        self._hold = fade + 2 * dissolve
        # Cuts are judged this many frames late: the adaptive window, then the frames that would betray a flash.
        self._delay = config.adaptive_window + self._flash
        self._touch = math.ceil(config.plateau_s * fps)
        self._looks = RecentLooks(length=self._hold + self._delay + 2)
        self._proposals = _CutProposals(config, fps)
        self._fades = FadeFinder(config, fps, self._looks, self._flash)
        self._dissolves = DissolveFinder(config, fps, self._looks)
        self._proposed: set[int] = set()
        self._undelivered: deque[Boundary] = deque()
        self._faded: list[Boundary] = []  # handed out lately
        self._next = 0  # first frame that is not judged yet

    @property
    def num_remembered(self) -> int:
        """Frames of which a thumbnail is kept; bounded by the configured lengths, not by the film's."""
        return len(self._looks)

    def push(self, frame: int, time_s: float, image: UInt8[np.ndarray, "H W 3"]) -> list[Boundary]:
        """Take the next frame (BGR, long side ``side_px`` or more) and return the boundaries that became certain.

        Raises:
            ValueError: if ``frame`` does not follow the last one.
        """
        del time_s  # boundaries are frames; presentation times are put in by shots_between
        if not self._looks:
            self._next = frame
        self._looks.append(look_at(frame, image))
        self._proposed.update(self._proposals.push(frame, image))
        self._settle(frame - self._delay)
        return self._release(self._next - self._hold)

    def finish(self) -> list[Boundary]:
        """End the run and return every boundary that was still held."""
        if not self._looks:
            return []
        self._proposed.update(self._proposals.finish())
        self._settle(self._looks.last)
        self._undelivered.extend(self._fades.finish())
        self._add(self._dissolves.finish())
        return self._release(self._looks.last + 2)

    def _settle(self, upto: int) -> None:
        """Judge every frame up to ``upto`` (inclusive), in order: first as a cut, then for the gradual finders."""
        for frame in range(self._next, upto + 1):
            is_cut = frame in self._proposed and self._is_cut(frame)
            self._proposed.discard(frame)
            if is_cut:
                self._undelivered.append(Boundary(frame=frame, kind="cut", start_frame=frame, stop_frame=frame))
            self._undelivered.extend(self._fades.step(frame, is_cut=is_cut))
            self._add(self._dissolves.step(frame, is_cut=is_cut))
        self._next = max(self._next, upto + 1)

    def _add(self, dissolves: list[Boundary]) -> None:
        """Keep dissolves; one that begins where the last one ended is the rest of it."""
        for new in dissolves:
            touching = [
                b for b in self._undelivered if b.kind == "dissolve" and new.start_frame - b.stop_frame <= self._touch
            ]
            for old in touching:
                self._undelivered.remove(old)
            start = min([new.start_frame, *(b.start_frame for b in touching)])
            middle = (start + new.stop_frame) // 2
            self._undelivered.append(
                Boundary(frame=middle, kind="dissolve", start_frame=start, stop_frame=new.stop_frame)
            )

    def _is_cut(self, frame: int) -> bool:
        looks, config = self._looks, self._config
        if frame <= looks.first:
            return False
        before, after = looks[frame - 1], looks[frame]
        if min(before.contrast, after.contrast) < config.flat_contrast:
            return False  # to or from a flat picture: the fade finder tells a step from a ramp
        found_again = similarity(before, after)
        alike = found_again >= config.same_scene and not (found_again < config.same_scene_calm and self._is_calm(frame))
        if alike and not self._is_new_tint(frame):
            return False
        # A flash shows the same scene again: behind its beginning, or before its end.
        for distance in range(1, self._flash + 1):
            if frame + distance <= looks.last and self._is_same(before, looks[frame + distance]):
                return False
            start = frame - 1 - distance
            if start >= looks.first and self._is_same(looks[start], after):
                return False
        return True

    def _is_new_tint(self, frame: int) -> bool:
        """Whether most of the picture changed colour at once; in a fade every frame changes it by as much."""
        looks = self._looks
        jump = tint_change(looks[frame - 1], looks[frame])
        pairs = [(frame - 3, frame - 1), (frame, frame + 2)]
        creep = max(
            (tint_change(looks[a], looks[b]) / 2 for a, b in pairs if looks.first <= a and b <= looks.last), default=0.0
        )
        return jump >= self._config.new_tint and jump >= 3 * creep

    def _is_same(self, a: Look, b: Look) -> bool:
        config = self._config
        return is_similar(a, b, config.same_after_flash) and tint_change(a, b) < config.new_tint

    def _is_calm(self, frame: int) -> bool:
        """Whether nothing moves on either side: then a smaller jump is a cut. Every second frame may be a copy."""
        looks = self._looks
        pairs = [(frame - 3, frame - 1), (frame, frame + 2)]
        return all(
            looks.first <= a and b <= looks.last and is_similar(looks[a], looks[b], self._config.calm) for a, b in pairs
        )

    def _release(self, horizon: int) -> list[Boundary]:
        """Boundaries before ``horizon`` that no pending transition can reach, in order, none overlapping."""
        pending = self._fades.pending_since
        horizon = horizon if pending is None else min(horizon, pending)
        ready = sorted((b for b in self._undelivered if max(b.frame, b.stop_frame) < horizon), key=_order)
        self._undelivered = deque(b for b in self._undelivered if max(b.frame, b.stop_frame) >= horizon)
        # The rise out of black is itself nearly a dissolve; the fade knows its extent better.
        fades = [b for b in (*self._faded, *ready, *self._undelivered) if b.kind == "fade"]
        self._faded = [b for b in fades if b.stop_frame >= horizon - self._hold]
        return [b for b in ready if b.kind != "dissolve" or not any(_overlap(b, fade) for fade in fades)]


def _order(boundary: Boundary) -> tuple[int, int]:
    return boundary.frame, boundary.start_frame


def _overlap(a: Boundary, b: Boundary) -> bool:
    return a.start_frame < b.stop_frame and b.start_frame < a.stop_frame


def shots_between(boundaries: Iterable[Boundary], span: FrameSpan, time_s: Callable[[int], float]) -> list[Shot]:
    """Turn boundaries into the shots between them, which together are exactly ``span``.

    Args:
        boundaries: in any order; those that lie on or outside the ends of ``span`` divide nothing, but the
            extent of their transition still counts.
        span: frames of the file, or of one run of it.
        time_s: presentation time in seconds of a frame; also called with ``span.stop``, for the end.

    Returns:
        The shots in order. ``clean`` is the longest part of a shot that touches no transition's extent.
    """
    ordered = sorted(boundaries, key=lambda b: (b.frame, b.kind == "limit", b.start_frame, b.stop_frame))
    begun: dict[int, ShotStart] = {span.start: "start"}
    for boundary in ordered:
        if span.start < boundary.frame < span.stop:
            begun.setdefault(boundary.frame, boundary.kind)
    extents = [(b.start_frame, b.stop_frame) for b in ordered if b.start_frame < b.stop_frame]
    return [
        Shot(
            span=FrameSpan(start=start, stop=stop),
            start_s=time_s(start),
            stop_s=time_s(stop),
            boundary=begun[start],
            clean=_longest_outside(extents, start, stop),
        )
        for start, stop in pairwise([*begun, span.stop])
    ]


def _longest_outside(extents: list[tuple[int, int]], start: int, stop: int) -> FrameSpan | None:
    free: list[tuple[int, int]] = []
    at = start
    for first, last in sorted(extents):
        if at < min(first, stop):
            free.append((at, min(first, stop)))
        at = max(at, last)
    if at < stop:
        free.append((at, stop))
    if not free:
        return None
    longest = max(free, key=lambda part: part[1] - part[0])
    return FrameSpan(start=longest[0], stop=longest[1])
