"""Quality scores of a clip, gathered frame by frame so that memory does not grow with its length."""

import cv2
import numpy as np
from jaxtyping import UInt8

from schemas.face import XYXY

# A frame repeats the one before when no part of it changed by more than this (0 to 1): encoder noise stays under
# it, and a mouth that moves in a still picture does not.
_SAME_FRAME = 0.02
_THUMB_PX = 64
_BINS = 16  # per channel
_BIN = np.minimum(np.arange(256) * _BINS // 255, _BINS - 1)
_CHANNEL = np.tile(np.arange(3) * _BINS, _THUMB_PX * _THUMB_PX)


class QualityTap:
    """Feed every output frame of a clip in order, then read the scores.

    sharpness: median variance of the Laplacian of luma (0 to 255) inside the face box at 256 px crop size.
    exposure: mean luma of the face, 0 to 1. motion: mean absolute difference of neighbouring frames, 0 to 1.
    internal_cut: the largest change between neighbouring frames over the usual change, scaled so that 1
    is where a cut begins. duplicate_frame_ratio: frames that repeat the one before. hold_frames: the
    usual number of output frames that one drawing is held ("on twos" gives 2).
    """

    def __init__(self) -> None:
        self._sharpness: list[float] = []
        self._exposure: list[float] = []
        self._changes: list[float] = []
        self._largest_changes: list[float] = []
        self._histogram_changes: list[float] = []
        self._thumb: np.ndarray | None = None
        self._histogram: np.ndarray | None = None

    def add(self, frame: UInt8[np.ndarray, "H W 3"], face: XYXY) -> None:
        """Measure one RGB frame; ``face`` is the face box on it."""
        side = frame.shape[0]
        gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        x0, y0, x1, y1 = (int(min(max(v, 0), side)) for v in face)
        patch = gray[y0:y1, x0:x1]
        if patch.size == 0:
            patch = gray
        # At one size for all clips: the Laplacian of a 512 px crop and of a 256 px one are not comparable.
        factor = 256 / side
        small = cv2.resize(patch, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) if factor < 1 else patch
        self._sharpness.append(float(cv2.Laplacian(small, cv2.CV_32F).var()))
        self._exposure.append(float(patch.mean()) / 255)
        self._compare(frame)

    def _compare(self, frame: UInt8[np.ndarray, "H W 3"]) -> None:
        levels = np.asarray(cv2.resize(frame, (_THUMB_PX, _THUMB_PX), interpolation=cv2.INTER_AREA), np.uint8)
        histogram = np.bincount(_BIN[levels].ravel() + _CHANNEL, minlength=3 * _BINS) / levels.size
        thumb = levels.astype(np.float32) / 255
        if self._thumb is not None and self._histogram is not None:
            change = np.abs(thumb - self._thumb)
            self._changes.append(float(change.mean()))
            self._largest_changes.append(float(change.max()))
            self._histogram_changes.append(float(np.abs(histogram - self._histogram).sum() / 2))
        self._thumb, self._histogram = thumb, histogram

    @property
    def sharpness(self) -> float:
        """Median variance of the Laplacian inside the face."""
        return float(np.median(self._sharpness))

    @property
    def exposure(self) -> float:
        """Mean luma of the face, 0 to 1."""
        return float(np.mean(self._exposure))

    @property
    def motion(self) -> float:
        """Mean absolute difference of neighbouring frames, 0 to 1."""
        return float(np.mean(self._changes)) if self._changes else 0.0

    @property
    def internal_cut(self) -> float:
        """Evidence for a cut inside the clip; 1 is where a cut begins.

        Both the picture and its colours must change at once: a fast head turn moves pixels but keeps colours.
        """
        if not self._changes:
            return 0.0
        changes = np.array(self._changes)
        usual = max(float(np.percentile(changes, 90)), 0.02)
        picture = changes / (4 * usual)
        colours = np.array(self._histogram_changes) / 0.25
        return float(np.minimum(picture, colours).max())

    @property
    def duplicate_frame_ratio(self) -> float:
        """Part of the frames that repeat the one before, 0 to 1."""
        return float(np.mean(np.array(self._largest_changes) < _SAME_FRAME)) if self._changes else 0.0

    @property
    def hold_frames(self) -> float:
        """Median number of frames for which a picture is held."""
        fresh = np.flatnonzero(np.array([1.0, *self._largest_changes]) >= _SAME_FRAME)
        return float(np.median(np.diff(fresh))) if len(fresh) > 1 else float(len(self._changes) + 1)
