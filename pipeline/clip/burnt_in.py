"""Writing that was laid over the picture: subtitles, channel logos, watermarks.

What is burnt in stands still while the scene moves, so the thin bright and dark strokes that are there in every frame
are kept and all others forgotten. A still background keeps strokes too (the stars of a flag, the slats of a blind),
therefore only those count that stand in a line as letters do.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from pipeline.clip.meter import Measurement, Meter, Reading
from schemas.clip import ClipPlan
from schemas.face import XYXY
from schemas.quality import QualityConfig

if TYPE_CHECKING:  # starts network runtimes
    from pipeline.models.registry import ModelSet

_SIDE_PX = 256  # of the picture that sizes below refer to; smaller crops are enlarged to it
_STROKE_PX = 9  # thicker strokes are no letters
_CONTRASTS = (16, 32)  # levels above or below the surroundings; faint marks need the first, busy scenes the second
_MIN_LETTER_PX, _MAX_LETTER_PX, _MAX_WORD_PX = 4, 48, 90
_GAPS_PX = (5, 9, 15)  # between letters, from small print to titles
_MIN_LINE_PX = 5
_MAX_LINE_GAPS = 3.0  # a line is at most so many gaps high: wider gaps join what is no line
_MIN_ASPECT = 2.0
_FILL = (0.2, 0.8)  # part of a line that its strokes cover
_DENSITY = (0.5, 2.5)  # strokes within the line's own height; letters have one to two


@lru_cache(maxsize=1)
def _stroke() -> UInt8[np.ndarray, "K K"]:
    import cv2

    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_STROKE_PX, _STROKE_PX)), np.uint8)


class BurntInMeter(Meter[QualityConfig]):
    """Adds ``overlay``; shares the section ``quality``."""

    name = "quality"

    def start(self, models: "ModelSet", domain: str, plan: ClipPlan, frame_px: int) -> Measurement:  # noqa: D102
        tap = BurntInTap(plan, frame_px, self.settings_where_on(models.config, domain))
        return Measurement(tap, lambda _: Reading(scores={"overlay": tap.overlay}))


class BurntInTap:
    """Feed every output frame of a clip in order, then read ``overlay``.

    Args:
        plan: where the clip's one face box lies in its square; nothing is looked for there.
        size_px: side of the frames.
        config: how many frames to look at.
    """

    def __init__(self, plan: ClipPlan, size_px: int, config: QualityConfig) -> None:
        scale = _SIDE_PX / plan.square.width_px
        face, left, top = plan.face, plan.square.x0, plan.square.y0
        edges = (face.x0 - left, face.y0 - top, face.x1 - left, face.y1 - top)
        self._face = tuple(min(max(round(edge * scale), 0), _SIDE_PX) for edge in edges)
        self._size_px = size_px
        count = min(config.num_overlay_frames, plan.num_frames)
        self._wanted = frozenset(round(float(k)) for k in np.linspace(0, plan.num_frames - 1, count))
        self._number = 0
        self._static: list[UInt8[np.ndarray, "S S"]] = []

    def add(self, frame: UInt8[np.ndarray, "H W 3"], face: XYXY) -> None:
        """One RGB frame; its own box is not looked at."""
        import cv2

        del face
        if self._number in self._wanted:
            grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
            if self._size_px != _SIDE_PX:
                grey = cv2.resize(grey, (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_LINEAR)
            strokes = [cv2.morphologyEx(grey, how, _stroke()) for how in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT)]
            # Least over time of either kind: what moves on leaves none behind.
            pairs = zip(self._static, strokes, strict=True) if self._static else ()
            self._static = [np.minimum(before, now) for before, now in pairs] or strokes
        self._number += 1

    @property
    def overlay(self) -> float:
        """Strokes in the longest line of still writing outside the face; 0 where there is none.

        A letter has one to two strokes: a short logo measures about 5, a line of a subtitle 20 to 40.
        """
        x0, y0, x1, y1 = self._face
        longest = 0.0
        for strokes in self._static:
            for contrast in _CONTRASTS:
                seen = (strokes >= contrast).astype(np.uint8)
                seen[y0:y1, x0:x1] = 0
                longest = max([longest, *_lines(_letters(seen))])
        return longest


def _letters(seen: UInt8[np.ndarray, "S S"]) -> UInt8[np.ndarray, "S S"]:
    """What is as large as a letter or a word, and no filled block."""
    import cv2

    _, labels, stats, _ = cv2.connectedComponentsWithStats(seen, connectivity=8)
    width, height, area = (stats[:, column] for column in (cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT, cv2.CC_STAT_AREA))
    good = (height >= _MIN_LETTER_PX) & (height <= _MAX_LETTER_PX) & (width <= _MAX_WORD_PX)
    good &= (area >= 2 * _MIN_LETTER_PX) & (area < 0.92 * width * height)
    good[0] = False  # the background
    return np.take(good, np.asarray(labels, np.int32)).astype(np.uint8)


def _lines(letters: UInt8[np.ndarray, "S S"]) -> Iterator[float]:
    """Strokes of every line of writing."""
    import cv2

    for gap in _GAPS_PX:
        joined = cv2.morphologyEx(letters, cv2.MORPH_CLOSE, np.ones((1, gap), np.uint8))
        _, labels, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
        for label, (x, y, width, height, _) in enumerate(stats):
            if label == 0 or height < _MIN_LINE_PX or height > _MAX_LINE_GAPS * gap or width < _MIN_ASPECT * height:
                continue
            line = letters[y : y + height, x : x + width] * (labels[y : y + height, x : x + width] == label)
            rows = np.pad(line, ((0, 0), (1, 1))).astype(np.int8)[height // 5 : height - height // 5]
            num_strokes = float(np.median((np.diff(rows, axis=1) == 1).sum(axis=1)))
            density = num_strokes * height / width
            if _FILL[0] <= line.mean() <= _FILL[1] and _DENSITY[0] <= density <= _DENSITY[1]:
                yield num_strokes
