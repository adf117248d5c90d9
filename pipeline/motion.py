"""Say how far the mouth, eyes and brows have moved, in terms that mean the same for every character.

A cartoon's open mouth is not a person's, so each channel runs over the character's own range in the clip. A face
that never moves has no range; a least range per channel keeps its noise from being blown up into motion.

Distances are taken between mesh points in three dimensions, in outer-eye-corner distances of the average head
fitted to the face's rigid points: turning, tilting or approaching the camera is not motion of the face.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64

from pipeline.models.canonical import RIGID_POINTS, align, canonical_face

# Mesh points that face each other across the inner lips: the middle and two on either side.
_LIP_PAIRS = ((13, 14), (82, 87), (312, 317), (81, 178), (311, 402))
_MOUTH_CORNERS = (61, 291)
_FOREHEAD, _CHIN = 10, 152
# Lids above and below, and corners, after Soukupová and Čech, "Real-time eye blink detection using facial
# landmarks" (CVWW 2016), equation 1. Left and right are the character's own: its left eye is at image right.
_LEFT_LIDS, _LEFT_CORNERS = ((385, 380), (387, 373)), (362, 263)
_RIGHT_LIDS, _RIGHT_CORNERS = ((160, 144), (158, 153)), (33, 133)
# Against the eye corners, which don't move when the eye blinks.
_LEFT_BROW, _RIGHT_BROW = (336, 296, 334, 293, 300), (107, 66, 105, 63, 70)

# Range in the clip that is always granted. Over eight clips, talking spans .06 to .4 (mouth), .05 to .2 (width), and
# brows .01 to .07; frame-to-frame noise lies under .006, .008 and .003.
_LEAST_MOUTH, _LEAST_WIDTH, _LEAST_BROW = 0.04, 0.05, 0.03
# A blink takes a third off the mesh's lid opening; without a blink in the clip that third is assumed.
_LEAST_CLOSURE = 1 / 3

# Percentiles that stand for the ends of the range. A blink of five frames is 2 % of ten seconds.
_LOW, _HIGH = 2.0, 98.0
_OPEN_EYE = 90.0  # eyes are open most of the time, and wide-open ones are no measure of it

Mesh = Float[np.ndarray, "468 3"]
Series = Float64[np.ndarray, "T"]


@dataclass(frozen=True, slots=True)
class MotionTrack:
    """One clip's motion.

    ``channels`` follows `MOTION_CHANNELS`: mouth opening, mouth width, closure of the character's own left and right
    eye, brow raise, each 0 to 1 over the clip's range, and the confidence. ``mouth_raw`` is the opening over the
    height of the face, not normalised to the clip, for comparison with sound. Frames without a face are 0.
    """

    channels: Float32[np.ndarray, "T 6"]
    mouth_raw: Float32[np.ndarray, "T"]


def estimate_motion(mesh: Float32[np.ndarray, "T 468 3"], confidence: Float32[np.ndarray, "T"]) -> MotionTrack:
    """Measure a clip's meshes and set each measure against its own range.

    Args:
        mesh: x, y, z in pixels.
        confidence: 0 where a frame has no face; such frames take no part in any range.
    """
    channels = np.zeros((len(mesh), 6), np.float32)
    mouth_raw = np.zeros(len(mesh), np.float32)
    seen = np.flatnonzero(confidence > 0)
    if len(seen) == 0:
        return MotionTrack(channels, mouth_raw)
    measures = np.array([_measures(mesh[t].astype(np.float64)) for t in seen])
    mouth_raw[seen] = [mouth_opening(mesh[t]) for t in seen]
    columns = (
        _from_rest(measures[:, 0], _LEAST_MOUTH),
        _between_ends(measures[:, 1], _LEAST_WIDTH),
        _closure(measures[:, 2]),
        _closure(measures[:, 3]),
        _between_ends(measures[:, 4], _LEAST_BROW),
        confidence[seen],
    )
    channels[seen] = np.stack(columns, axis=1)
    return MotionTrack(channels, mouth_raw)


def mouth_opening(mesh: Mesh) -> float:
    """Mean of the five inner-lip openings over the distance from forehead to chin, in the picture plane.

    In the plane because both shrink alike when the head nods; this is the curve that agreed with speech.
    """
    xy = mesh[:, :2].astype(np.float64)
    height = np.linalg.norm(xy[_FOREHEAD] - xy[_CHIN])
    return float(np.mean([np.linalg.norm(xy[a] - xy[b]) for a, b in _LIP_PAIRS]) / max(height, 1e-9))


def _measures(mesh: Mesh) -> tuple[float, float, float, float, float]:
    """Mouth opening, mouth width, left and right lid opening, brow height of one face, free of its size."""
    size = align(canonical_face()[RIGID_POINTS], mesh[RIGID_POINTS])[0]

    def gap(a: int, b: int) -> float:
        return float(np.linalg.norm(mesh[a] - mesh[b])) / size

    def lids(pairs: tuple[tuple[int, int], ...], corners: tuple[int, int]) -> float:
        return float(np.mean([gap(a, b) for a, b in pairs])) / gap(*corners)

    def brow(points: tuple[int, ...], corners: tuple[int, int]) -> float:
        return float(np.linalg.norm(mesh[list(points)].mean(axis=0) - mesh[list(corners)].mean(axis=0))) / size

    return (
        float(np.mean([gap(a, b) for a, b in _LIP_PAIRS])),
        gap(*_MOUTH_CORNERS),
        lids(_LEFT_LIDS, _LEFT_CORNERS),
        lids(_RIGHT_LIDS, _RIGHT_CORNERS),
        (brow(_LEFT_BROW, _LEFT_CORNERS) + brow(_RIGHT_BROW, _RIGHT_CORNERS)) / 2,
    )


def _from_rest(series: Series, least: float) -> Series:
    """0 at the clip's low end, which is rest; a series without range stays near 0."""
    low, high = np.percentile(series, [_LOW, _HIGH])
    return np.clip((series - low) / max(high - low, least), 0.0, 1.0)


def _between_ends(series: Series, least: float) -> Series:
    """0 and 1 at the clip's ends; rest may lie anywhere, so a series without range stays near the middle."""
    low, high = np.percentile(series, [_LOW, _HIGH])
    return np.clip(0.5 + (series - (low + high) / 2) / max(high - low, least), 0.0, 1.0)


def _closure(opening: Series) -> Series:
    """0 for the clip's open eye, 1 for its most closed one, or for the depth of a blink where it has none."""
    wide, low = np.percentile(opening, [_OPEN_EYE, _LOW])
    return np.clip((wide - opening) / max(wide - low, _LEAST_CLOSURE * wide, 1e-9), 0.0, 1.0)
