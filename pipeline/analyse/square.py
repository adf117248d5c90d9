"""The square around a face that moves: one per clip.

Detections jitter by a pixel or two and a moving crop would teach a model the crop's motion instead
of the head's, so the box path is filtered and then a single square per clip is cut around it.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from schemas.base import Box, TimeSpan
from schemas.config import CropConfig
from schemas.face import XYXY, FaceTrack

BoxPath = Float64[np.ndarray, "N 4"]


def smooth_path(boxes: Sequence[XYXY], window: int) -> BoxPath:
    """Median-filter centre and size of a box path over ``window`` sightings; edges repeat."""
    from scipy.ndimage import median_filter

    path = np.array(boxes, dtype=np.float64)
    middle = (path[:, :2] + path[:, 2:]) / 2
    size = path[:, 2:] - path[:, :2]
    both = np.concatenate([middle, size], axis=1)
    odd = min(window, len(both) - (len(both) + 1) % 2)
    if odd >= 3:
        both = median_filter(both, size=(odd, 1), mode="nearest")
    return np.concatenate([both[:, :2] - both[:, 2:] / 2, both[:, :2] + both[:, 2:] / 2], axis=1)


def square_around(path: BoxPath, picture_px: tuple[int, int], config: CropConfig) -> tuple[Box, float]:
    """One square, in even source pixels, that holds the whole path; and the padded part of its area.

    Video stores colour for pairs of pixels: an even square is cut from the stored picture without dividing any.

    Its side is ``scale`` times the usual face, or as much as the path's extent needs. Where the picture
    is smaller than that (sources that were cropped to a face before), the square shrinks to the picture,
    but not below ``min_scale``. It is moved back into the picture as far as the faces allow; what still
    reaches beyond the picture is padding.

    Args:
        path: boxes of the face.
        picture_px: width and height of the upright picture.
        config: how much is seen around a face.
    """
    low, high = path[:, :2].min(axis=0), path[:, 2:].max(axis=0)
    sizes = path[:, 2:] - path[:, :2]
    face_px = float(np.median(sizes.max(axis=1)))
    extent_px = float((high - low).max())
    extent_px = max(1.05 * extent_px, extent_px + 2)  # so that whole pixels still hold all of it
    side = max(config.scale * face_px, extent_px)
    picture = (picture_px[0] // 2 * 2, picture_px[1] // 2 * 2)
    side = max(min(side, *picture), config.min_scale * face_px, extent_px)
    side = math.ceil(side / 2) * 2
    centre = (low + high) / 2 + np.array([0.0, config.y_offset * side])
    corner = centre - side / 2
    for axis, limit in enumerate(picture):
        inside = min(max(corner[axis], min(0, limit - side)), max(0, limit - side))
        # The face keeps a twentieth of the side as margin where it can, or the crop would cut it off-centre.
        margin = min(0.05 * side, (side - (high - low)[axis]) / 2)
        # What a detector claims beyond the picture is not there to be kept.
        last, first = min(high[axis] + margin, max(limit, side)), max(low[axis] - margin, min(0, limit - side))
        corner[axis] = 2 * np.round(min(max(inside, last - side), first) / 2)
    x0, y0 = (float(v) for v in corner)
    square = Box(x0=x0, y0=y0, x1=x0 + side, y1=y0 + side)
    covered_x = max(0.0, min(square.x1, picture_px[0]) - max(square.x0, 0))
    covered_y = max(0.0, min(square.y1, picture_px[1]) - max(square.y0, 0))
    return square, 1 - covered_x * covered_y / square.area


def count_neighbours(
    track: FaceTrack, others: Sequence[FaceTrack], square: Box, span: TimeSpan, max_area_ratio: float
) -> int:
    """Other faces of the span whose centre lies in the square and that are more than a share of the main face.

    Only frames in which both are seen count: a track that goes on where another ended is the same face.
    """
    together = set(track.frames)
    main = float(np.median([(b[2] - b[0]) * (b[3] - b[1]) for b in track.boxes]))
    count = 0
    for other in others:
        sightings = zip(other.frames, other.times_s, other.boxes, strict=True)
        seen = [box for frame, t, box in sightings if frame in together and span.start_s <= t < span.stop_s]
        inside = [
            (b[2] - b[0]) * (b[3] - b[1]) / main
            for b in seen
            if square.x0 <= (b[0] + b[2]) / 2 <= square.x1 and square.y0 <= (b[1] + b[3]) / 2 <= square.y1
        ]
        # A single stray sighting is a false alarm more often than a person.
        if len(inside) >= 3 and float(np.median(inside)) > max_area_ratio:
            count += 1
    return count
