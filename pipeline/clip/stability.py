"""How steady a face stands in its clip: what trembles, not what moves.

A head that nods or a camera that pans moves smoothly for several frames; a badly cut or hand-held picture jumps to and
fro. So the face is followed from frame to frame by its picture alone (the same in every domain, and free of a
landmarker's own noise), and only what a parabola over a third of a second does not explain is counted.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from pipeline.clip.meter import Measurement, Meter, Reading
from schemas.clip import ClipPlan
from schemas.face import XYXY
from schemas.quality import QualityConfig

if TYPE_CHECKING:  # starts network runtimes
    from pipeline.models.registry import ModelSet

_PATCH_PX = 96
# A parabola through 9 frames (.36 s) lets movement up to about 3 Hz pass, which is what heads and hands do.
_WINDOW_FRAMES = 9
# Peak of the correlation below which two patches show nothing in common, and the shift between them is chance.
_MIN_RESPONSE = 0.05
# Of the face's height: the tremble at which stability is one half.
HALF_TREMBLE = 0.01


@lru_cache(maxsize=1)
def _fading() -> Float32[np.ndarray, "P P"]:
    """What fades a patch to its edges."""
    import cv2

    return np.asarray(cv2.createHanningWindow((_PATCH_PX, _PATCH_PX), cv2.CV_32F))


class StabilityMeter(Meter[QualityConfig]):
    """Adds ``stability``; shares the section ``quality``."""

    name = "quality"

    def start(self, models: "ModelSet", domain: str, plan: ClipPlan, frame_px: int) -> Measurement:  # noqa: D102
        del models, domain
        tap = StabilityTap(plan, frame_px)
        return Measurement(tap, lambda _: Reading(scores={"stability": round(tap.stability, 4)}))


class StabilityTap:
    """Feed every output frame of a clip in order, then read ``stability``.

    Args:
        plan: where the clip's one face box lies in its square.
        size_px: side of the frames.
    """

    def __init__(self, plan: ClipPlan, size_px: int) -> None:
        scale = size_px / plan.square.width_px
        face, left, top = plan.face, plan.square.x0, plan.square.y0
        edges = ((face.x0 - left), (face.y0 - top), (face.x1 - left), (face.y1 - top))
        x0, y0, x1, y1 = (min(max(round(edge * scale), 0), size_px) for edge in edges)
        # A plan may put its face beyond the picture's edge: then the whole picture stands for it.
        self._window = (x0, y0, x1, y1) if min(x1 - x0, y1 - y0) >= 2 else (0, 0, size_px, size_px)
        self._face_px = max(face.height_px * scale, 1.0)
        self._before: np.ndarray | None = None
        self._steps: list[tuple[float, float]] = []

    def add(self, frame: UInt8[np.ndarray, "H W 3"], face: XYXY) -> None:
        """One RGB frame; its own box is not looked at, since boxes tremble by themselves."""
        import cv2

        del face
        x0, y0, x1, y1 = self._window
        grey = cv2.cvtColor(np.ascontiguousarray(frame[y0:y1, x0:x1]), cv2.COLOR_RGB2GRAY)
        # Faded to its edges here: given the window, OpenCV's function would apply it to its inputs in place.
        patch = cv2.resize(grey, (_PATCH_PX, _PATCH_PX), interpolation=cv2.INTER_AREA) * _fading()
        if self._before is not None:
            (dx, dy), response = cv2.phaseCorrelate(self._before, patch)
            # Of two equal pictures it says 0 only nearly, and of two flat ones anything.
            known = response >= _MIN_RESPONSE and not np.array_equal(self._before, patch)
            self._steps.append((dx * (x1 - x0) / _PATCH_PX, dy * (y1 - y0) / _PATCH_PX) if known else (0.0, 0.0))
        self._before = patch

    @property
    def stability(self) -> float:
        """1 where nothing trembles, one half at a hundredth of the face's height, towards 0 beyond."""
        path = np.cumsum(np.array([(0.0, 0.0), *self._steps]), axis=0)
        return float(1 / (1 + tremble(path / self._face_px) / HALF_TREMBLE))


def tremble(path: Float64[np.ndarray, "T 2"]) -> float:
    """Typical distance of a path from its own smooth course, in its own unit.

    A step that is taken once in a while (a cut in the drawing, one lost frame) does not count: it is the median over
    the frames, of both axes together. Paths shorter than the filter's window do not tremble.
    """
    from scipy.signal import savgol_filter

    if len(path) < _WINDOW_FRAMES:
        return 0.0
    moved = np.flatnonzero(np.any(np.diff(path, axis=0, prepend=path[:1] - 1) != 0, axis=1))
    # Drawings that are held move in stairs: what lies between two of them is filled in.
    frames = np.arange(len(path))
    course = np.stack([np.interp(frames, moved, path[moved, axis]) for axis in range(path.shape[1])], axis=1)
    rest = course - np.asarray(savgol_filter(course, _WINDOW_FRAMES, 2, axis=0))
    return float(np.median(np.hypot(rest[:, 0], rest[:, 1])))
