"""Find where shots begin and end in frames that arrive one by one.

The file is decoded once for every analysis, so nothing here opens it: PySceneDetect's detectors are fed
frame by frame and only *propose* cuts. Their scores also jump at flashes, whips and near black (hue is
noise there), so a proposal counts only if neither neighbouring frame is found again in the other. Fades
and dissolves, which frame differences miss, have finders of their own. A boundary is handed out once
nothing still pending can change it, a few seconds late; what is remembered is bounded by those seconds.
"""

import math
from collections import deque
from fractions import Fraction

import cv2
import numpy as np
from jaxtyping import UInt8
from scenedetect import FrameTimecode
from scenedetect.detectors import AdaptiveDetector, HistogramDetector

from pipeline.transitions import DissolveFinder, FadeFinder, Film, look_at, similarity
from schemas.base import FrameSpan
from schemas.config import ShotConfig
from schemas.media import Boundary, Shot


class _CutProposals:
    """Frames at which PySceneDetect sees a cut, by content or by histogram; too many rather than too few."""

    def __init__(self, config: ShotConfig, fps: Fraction) -> None:
        self._fps, self._side_px, self._window = fps, config.cut_side_px, config.adaptive_window
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
        timecode = FrameTimecode(self._fed, fps=self._fps)
        self._fed += 1
        found = self._adaptive.process_frame(timecode, image) + self._histogram.process_frame(timecode, image)
        return [cut.frame_num + (self._first or 0) for cut in found]


class ShotDetector:
    """Fed every frame of one run in order; boundaries come out, in order, when they are certain.

    A fade from or to a flat picture that reaches the run's first or last frame divides nothing; its
    boundary lies on that end (``frame`` is the first frame, or one past the last) and carries its extent.
    """

    def __init__(self, config: ShotConfig, fps: Fraction) -> None:
        self._config = config
        self._flash = max(3, math.ceil(config.flash_s * fps))
        fade, dissolve = math.ceil(config.max_fade_s * fps), math.ceil(config.max_dissolve_s * fps)
        # A boundary waits until a fade or a dissolve around it would have shown.
        self._hold = fade + 2 * dissolve
        # Cuts are judged this many frames late: the adaptive window, then the frames that would betray a flash.
        self._delay = config.adaptive_window + self._flash
        self._film = Film(length=self._hold + self._delay + 2)
        self._proposals = _CutProposals(config, fps)
        self._fades = FadeFinder(config, fps, self._film, self._flash)
        self._dissolves = DissolveFinder(config, fps, self._film)
        self._proposed: set[int] = set()
        self._found: deque[Boundary] = deque()
        self._next: int | None = None

    def push(self, frame: int, time_s: float, image: UInt8[np.ndarray, "H W 3"]) -> list[Boundary]:
        """Take the next frame (BGR, long side at most 640 px) and return the boundaries that became certain.

        Raises:
            ValueError: if ``frame`` does not follow the last one.
        """
        del time_s  # boundaries are frames; presentation times are put in by shots_between
        self._film.append(look_at(frame, image))
        self._next = frame if self._next is None else self._next
        self._proposed.update(self._proposals.push(frame, image))
        self._settle(frame - self._delay)
        return self._release(self._next - self._hold)

    def finish(self) -> list[Boundary]:
        """End the run and return every boundary that was still held."""
        if self._next is None:
            return []
        self._proposed.update(self._proposals.finish())
        self._settle(self._film.last)
        self._found.extend(self._fades.finish())
        self._found.extend(self._dissolves.finish())
        return self._release(self._film.last + 2)

    def _settle(self, upto: int) -> None:
        """Judge every frame up to ``upto`` (inclusive), in order: first as a cut, then for the gradual finders."""
        assert self._next is not None
        while self._next <= upto:
            frame = self._next
            is_cut = frame in self._proposed and self._is_cut(frame)
            self._proposed.discard(frame)
            if is_cut:
                self._found.append(Boundary(frame=frame, kind="cut", start_frame=frame, stop_frame=frame))
            self._found.extend(self._fades.step(frame, is_cut=is_cut))
            self._found.extend(self._dissolves.step(frame, is_cut=is_cut))
            self._next += 1

    def _is_cut(self, frame: int) -> bool:
        film, config = self._film, self._config
        if frame <= film.first:
            return False
        before, after = film[frame - 1], film[frame]
        if min(before.contrast, after.contrast) < config.flat_contrast:
            return False  # to or from a flat picture: the fade finder tells a step from a ramp
        if similarity(before, after) >= config.same_scene:
            return False
        # A flash shows the same scene again: behind its beginning, or before its end.
        for distance in range(1, self._flash + 1):
            if frame + distance <= film.last and similarity(before, film[frame + distance]) >= config.same_after_flash:
                return False
            start = frame - 1 - distance
            if start >= film.first and similarity(film[start], after) >= config.same_after_flash:
                return False
        return True

    def _release(self, horizon: int) -> list[Boundary]:
        """Boundaries before ``horizon`` that no pending transition can reach, in order, none overlapping."""
        pending = self._fades.pending_since
        horizon = horizon if pending is None else min(horizon, pending)
        ready = sorted((b for b in self._found if max(b.frame, b.stop_frame) < horizon), key=_order)
        self._found = deque(b for b in self._found if max(b.frame, b.stop_frame) >= horizon)
        fades = [b for b in (*ready, *self._found) if b.kind == "fade"]
        return [b for b in ready if b.kind != "dissolve" or not any(_overlap(b, fade) for fade in fades)]


def _order(boundary: Boundary) -> tuple[int, int]:
    return boundary.frame, boundary.start_frame


def _overlap(a: Boundary, b: Boundary) -> bool:
    return a.start_frame < b.stop_frame and b.start_frame < a.stop_frame
