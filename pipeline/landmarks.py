"""Follow one face through a clip and write down its points, raw and smoothed.

Frames stream through one at a time; what is kept is numbers. The smoothed copy looks forwards as far as it looks
back: a causal filter would move the points behind the picture, and a model trained on them would learn the delay.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, UInt8

from pipeline.models.landmarkers import NUM_MESH_POINTS, Landmarker
from schemas.config import LandmarkConfig
from schemas.face import XYXY

NUM_POINTS = 68

# Which mesh points make the 68 of iBUG (Sagonas et al., 300-W, 2013). The 68 are numbered from image left on a
# face that looks at the camera. The mesh's jaw line has its own spacing, so it is resampled by arc length.
_JAW_LEFT_TO_CHIN = (127, 234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152)
_JAW_CHIN_TO_RIGHT = (152, 377, 400, 378, 379, 365, 397, 288, 361, 323, 454, 356)
_NUM_JAW_HALF = 9  # the chin belongs to both halves: 17 points
# iBUG marks the middle of the brow's hair; the mesh has its upper and its lower edge.
_BROW_UPPER = (70, 63, 105, 66, 107, 336, 296, 334, 293, 300)
_BROW_LOWER = (46, 53, 52, 65, 55, 285, 295, 282, 283, 276)
_NOSE = (168, 197, 5, 4, 75, 97, 2, 326, 305)
_EYES = (33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380)
_OUTER_LIPS = (61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91)
_INNER_LIPS = (78, 82, 13, 312, 308, 317, 14, 87)
_SINGLE = (*_NOSE, *_EYES, *_OUTER_LIPS, *_INNER_LIPS)

_KERNEL_SIGMAS = 4.0  # beyond, a Gaussian weighs less than 0.04 %

Points68 = Float32[np.ndarray, "T 68 3"]


@dataclass(frozen=True, slots=True)
class LandmarkTrack:
    """One clip's points. Where no face was found everything is 0, the confidence too; never NaN.

    ``points`` and ``smoothed`` hold x, y in pixels of the frames and the confidence; the network gives one
    confidence per frame, so the 68 share it. ``mesh`` holds x, y, z in pixels, unsmoothed.
    """

    points: Points68
    smoothed: Points68
    mesh: Float32[np.ndarray, "T 468 3"]
    confidence: Float32[np.ndarray, "T"]

    def scaled(self, factor: float) -> "LandmarkTrack":
        """The same points on frames ``factor`` times as large; pixel centres lie at whole numbers on both."""

        def moved(points: Float32[np.ndarray, "T P 3"], num_axes: int) -> Float32[np.ndarray, "T P 3"]:
            larger = points.copy()
            there = self.confidence > 0
            larger[there, :, :num_axes] *= factor
            larger[there, :, :2] += (factor - 1) / 2
            return larger

        return LandmarkTrack(moved(self.points, 2), moved(self.smoothed, 2), moved(self.mesh, 3), self.confidence)


def estimate_landmarks(
    frames: Iterable[UInt8[np.ndarray, "H W 3"]],
    boxes: Iterable[XYXY],
    landmarker: Landmarker,
    config: LandmarkConfig,
    fps: float = 25.0,
) -> LandmarkTrack:
    """Run a landmarker through a clip from its first frame.

    Args:
        frames: RGB, in order; read once, one at a time.
        boxes: per frame, where the face is expected, xyxy in pixels of that frame.
        landmarker: reset here, so the result depends on this clip alone.
        config: how the copy is smoothed.
        fps: frames per second; the smoothing is set in Hz.

    Raises:
        ValueError: for more boxes than frames, or more frames than boxes.
    """
    landmarker.reset()
    meshes: list[Float32[np.ndarray, "468 3"]] = []
    flags: list[float] = []
    for frame, box in zip(frames, boxes, strict=True):
        face = landmarker.locate(frame, box)
        meshes.append(np.zeros((NUM_MESH_POINTS, 3), np.float32) if face is None else face.points)
        flags.append(0.0 if face is None else face.confidence)
    mesh = np.array(meshes, np.float32).reshape(-1, NUM_MESH_POINTS, 3)
    confidence = np.array(flags, np.float32)
    points = np.zeros((len(mesh), NUM_POINTS, 3), np.float32)
    for t in np.flatnonzero(confidence > 0):
        points[t, :, :2] = to_ibug68(mesh[t])
        points[t, :, 2] = confidence[t]
    return LandmarkTrack(points, smooth_points(points, fps, config), mesh, confidence)


def to_ibug68(mesh: Float[np.ndarray, "468 3"]) -> Float32[np.ndarray, "68 2"]:
    """Convert a face mesh to the 68 points of iBUG: x, y in the mesh's own units.

    Figures on three labelled photographs are in `tests/test_landmarks.py`.
    """
    xy = mesh[:, :2]
    left = _resample(xy[list(_JAW_LEFT_TO_CHIN)], _NUM_JAW_HALF)
    right = _resample(xy[list(_JAW_CHIN_TO_RIGHT)], _NUM_JAW_HALF)
    brows = (xy[list(_BROW_UPPER)] + xy[list(_BROW_LOWER)]) / 2
    return np.concatenate([left, right[1:], brows, xy[list(_SINGLE)]]).astype(np.float32)


def _resample(line: Float[np.ndarray, "N 2"], num: int) -> Float[np.ndarray, "M 2"]:
    """Place ``num`` points at equal arc lengths along a line of points, both ends included."""
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    wanted = np.linspace(0.0, length[-1], num)
    return np.stack([np.interp(wanted, length, line[:, axis]) for axis in range(2)], axis=1)


def smooth_points(points: Points68, fps: float, config: LandmarkConfig) -> Points68:
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
