"""Follow one face through a clip and write down its points, raw and smoothed.

Frames stream through one at a time; what is kept is numbers. The smoothed copy looks forwards as far as it looks
back: a causal filter would move the points behind the picture, and a model trained on them would learn the delay.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, UInt8

from pipeline.models.landmarkers import Landmarker
from pipeline.models.layouts import FacePoints, Layout
from schemas.config import LandmarkConfig
from schemas.face import XYXY, num_points

_LEAST_CERTAINTY = 0.001
_KERNEL_SIGMAS = 4.0  # beyond, a Gaussian weighs less than 0.04 %

Track = Float32[np.ndarray, "T P 3"]


@dataclass(frozen=True, slots=True)
class LandmarkTrack:
    """One clip's points. Where no face was found everything is 0, the confidence too; never NaN.

    ``points`` and ``smoothed`` are in the landmarker's stored scheme: x, y in pixels of the frames and a confidence,
    the frame's for all of them where the landmarker gives none per point. ``raw`` holds x, y, z in pixels as the
    landmarker gave them, unsmoothed, in the order of ``layout``.
    """

    points: Track
    smoothed: Track
    raw: Float32[np.ndarray, "T Q 3"]
    confidence: Float32[np.ndarray, "T"]
    layout: Layout | None

    @property
    def readable(self) -> Float32[np.ndarray, "T"]:
        """The confidence for whoever reads the face from the points: 0 throughout where no layout names them."""
        return self.confidence if self.layout else np.zeros_like(self.confidence)

    def scaled(self, factor: float) -> "LandmarkTrack":
        """The same points on frames ``factor`` times as large; pixel centres lie at whole numbers on both."""

        def moved(points: Float32[np.ndarray, "T P 3"], num_axes: int) -> Float32[np.ndarray, "T P 3"]:
            larger = points.copy()
            there = self.confidence > 0
            larger[there, :, :num_axes] *= factor
            larger[there, :, :2] += (factor - 1) / 2
            return larger

        points, smoothed, raw = moved(self.points, 2), moved(self.smoothed, 2), moved(self.raw, 3)
        return LandmarkTrack(points, smoothed, raw, self.confidence, self.layout)


def estimate_landmarks(
    frames: Iterable[UInt8[np.ndarray, "H W 3"]],
    boxes: Iterable[XYXY],
    landmarker: Landmarker,
    config: LandmarkConfig,
    fps: float = 25.0,
) -> LandmarkTrack:
    """Run a landmarker through a clip from its first frame.

    Args:
        frames: RGB, in order; read once, and no more at a time than the landmarker reads at once.
        boxes: per frame, where the face is expected, xyxy in pixels of that frame.
        landmarker: forgets earlier clips here, so the result depends on this clip alone.
        config: how the copy is smoothed.
        fps: frames per second; the smoothing is set in Hz.

    Raises:
        ValueError: for more boxes than frames, or more frames than boxes.
    """
    layout, stored = landmarker.layout, num_points(landmarker.scheme)
    faces = list(landmarker.locate_each(frames, boxes))
    raw = np.zeros((len(faces), layout.num_points if layout else stored, 3), np.float32)
    points = np.zeros((len(faces), stored, 3), np.float32)
    confidence = np.array([0.0 if face is None else face.confidence for face in faces], np.float32)
    for t, face in enumerate(faces):
        if face is not None and face.confidence > 0:
            raw[t] = face.points
            points[t, :, :2] = layout.to_ibug68(face.points) if layout else face.points[:, :2]
            points[t, :, 2] = _certainty(face)
    return LandmarkTrack(points, smooth_points(points, fps, config), raw, confidence, layout)


def _certainty(face: FacePoints) -> Float[np.ndarray, "..."] | float:
    """What stands beside each stored point; never 0, which would mean that the frame has no face."""
    return face.confidence if face.certainty is None else np.maximum(face.certainty, _LEAST_CERTAINTY)


def smooth_points(points: Track, fps: float, config: LandmarkConfig) -> Track:
    """Smooth x and y in time; confidence and frames without a face stay as they are.

    Each frame gets the value at its own time of a line fitted to its neighbours with Gaussian weights (local linear
    regression; Cleveland, JASA 74, 1979, with another kernel). Frames without a face weigh nothing, and steady
    motion is not delayed, neither at the ends of the clip nor beside a gap.
    """
    smoothed = points.copy()
    seen = np.flatnonzero(points[:, 0, 2] > 0)
    sigma = config.smoothing_sigma_s * fps  # in frames
    for t in seen if sigma > 0 else ():
        near = seen[np.abs(seen - t) <= _KERNEL_SIGMAS * sigma]
        offsets = (near - t).astype(np.float64)
        weights = _weights_at_zero(offsets, np.exp(-0.5 * (offsets / sigma) ** 2))
        smoothed[t, :, :2] = np.tensordot(weights, points[near, :, :2].astype(np.float64), axes=1)
    return smoothed


def _weights_at_zero(offsets: Float[np.ndarray, "N"], kernel: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    """How much each sample counts in the value at offset 0 of the weighted least-squares line; the sum is 1."""
    total, first, second = kernel.sum(), (kernel * offsets).sum(), (kernel * offsets**2).sum()
    determinant = total * second - first**2
    if determinant < 1e-9:  # one frame alone
        return kernel / total
    return kernel * (second - first * offsets) / determinant
