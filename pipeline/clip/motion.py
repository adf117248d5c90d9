"""Say how far the mouth, eyes and brows have moved, in terms that mean the same for every character.

A cartoon's open mouth is not a person's, so each channel runs over the character's own range in the clip. A face
that never moves has no range; a least range per channel keeps its noise from being blown up into motion.

Distances are taken between mesh points in three dimensions, in outer-eye-corner distances of the average head
fitted to the face's rigid points: turning, tilting or approaching the camera is not motion of the face.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64

from pipeline.models.canonical import align
from pipeline.models.layouts import FACE_MESH_468, Layout, Pair

# Range in the clip that is always granted. Over eight clips, talking spans .06 to .4 (mouth), .05 to .2 (width), and
# brows .01 to .07; frame-to-frame noise lies under .006, .008 and .003.
_LEAST_MOUTH, _LEAST_WIDTH, _LEAST_BROW = 0.04, 0.05, 0.03
# A blink takes a third off the mesh's lid opening; without a blink in the clip that third is assumed.
_LEAST_CLOSURE = 1 / 3

# Percentiles that stand for the ends of the range. A blink of five frames is 2 % of ten seconds.
_LOW, _HIGH = 2.0, 98.0
_OPEN_EYE = 90.0  # eyes are open most of the time, and wide-open ones are no measure of it

Face = Float[np.ndarray, "P 3"]
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


def estimate_motion(
    points: Float32[np.ndarray, "T P 3"], confidence: Float32[np.ndarray, "T"], layout: Layout = FACE_MESH_468
) -> MotionTrack:
    """Measure a clip's faces and set each measure against its own range.

    Args:
        points: x, y, z in pixels.
        confidence: 0 where a frame has no face; such frames take no part in any range.
        layout: where the points lie on the face.
    """
    channels = np.zeros((len(points), 6), np.float32)
    mouth_raw = np.zeros(len(points), np.float32)
    seen = np.flatnonzero(confidence > 0)
    if len(seen) == 0:
        return MotionTrack(channels, mouth_raw)
    measures = np.array([_measures(points[t].astype(np.float64), layout) for t in seen])
    mouth_raw[seen] = [mouth_opening(points[t], layout) for t in seen]
    columns = (
        from_rest(measures[:, 0]),
        _between_ends(measures[:, 1], _LEAST_WIDTH),
        _closure(measures[:, 2]),
        _closure(measures[:, 3]),
        _between_ends(measures[:, 4], _LEAST_BROW),
        confidence[seen],
    )
    channels[seen] = np.stack(columns, axis=1)
    return MotionTrack(channels, mouth_raw)


def mouth_opening(face: Face, layout: Layout = FACE_MESH_468) -> float:
    """Mean of the inner-lip openings over the distance from forehead to chin, in the picture plane.

    In the plane because both shrink alike when the head nods; this is the curve that agreed with speech.
    """
    xy = face[:, :2].astype(np.float64)
    top, bottom = layout.height
    height = np.linalg.norm(xy[top] - xy[bottom]) / layout.height_share
    return float(np.mean([np.linalg.norm(xy[a] - xy[b]) for a, b in layout.lips]) / max(height, 1e-9))


def _measures(face: Face, layout: Layout) -> tuple[float, float, float, float, float]:
    """Mouth opening, mouth width, left and right lid opening, brow height of one face, free of its size."""
    size = align(layout.average()[layout.rigid], face[layout.rigid])[0]

    def gap(a: int, b: int) -> float:
        return float(np.linalg.norm(face[a] - face[b])) / size

    def lids(pairs: tuple[Pair, ...], corners: Pair) -> float:
        return float(np.mean([gap(a, b) for a, b in pairs])) / gap(*corners)

    # Against the eye corners, which don't move when the eye blinks.
    def brow(points: tuple[int, ...], corners: Pair) -> float:
        return float(np.linalg.norm(face[list(points)].mean(axis=0) - face[list(corners)].mean(axis=0))) / size

    return (
        float(np.mean([gap(a, b) for a, b in layout.lips])),
        gap(*layout.mouth_corners),
        lids(layout.left_lids, layout.left_eye),
        lids(layout.right_lids, layout.right_eye),
        (brow(layout.left_brow, layout.left_eye) + brow(layout.right_brow, layout.right_eye)) / 2,
    )


def from_rest(series: Series, least: float = _LEAST_MOUTH) -> Series:
    """A series [T] as the mouth's channel: 0 at its low end, which is rest, 1 at its high one.

    One without range stays near 0: ``least`` is the range that is granted, in the unit of ``series``.
    """
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
