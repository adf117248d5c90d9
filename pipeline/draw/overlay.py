"""Draw one frame's points and head pose over it.

Lines are drawn on an enlarged copy and averaged down, so they lie at sub-pixel places: a jitter of half a
pixel, which a model would learn, can be seen.
"""

import cv2
import numpy as np
from jaxtyping import Float32, Int64

from pipeline.draw.page import RGB

_OVERSAMPLED = 2  # overlays are drawn larger and averaged down: smooth lines at sub-pixel places
_SHIFT = 3  # OpenCV takes coordinates in eighths of a pixel

# The outlines of the 68 points as annotated in 300-W (Sagonas et al., 2013): first, last, closed.
_OUTLINES = (
    (0, 16, False),
    (17, 21, False),
    (22, 26, False),
    (27, 30, False),
    (31, 35, False),
    (36, 41, True),
    (42, 47, True),
    (48, 59, True),
    (60, 67, True),
)
BONES = tuple(
    (a, b)
    for first, last, closed in _OUTLINES
    for a, b in [(k, k + 1) for k in range(first, last)] + ([(last, first)] if closed else [])
)

_NUM_JOINED = 68

UNSURE_RGB, SURE_RGB = (255, 106, 61), (64, 240, 200)
# Columns: the head's right-hand side of the image, its crown and its nose, in camera axes (x right, y down, z away).
_HEAD_AXES = np.diag([1.0, -1.0, -1.0])
AXES_RGB = {"right": (235, 60, 60), "up": (70, 200, 80), "nose": (70, 120, 255)}
# Of the tile. The nose points at the viewer most of the time, so its arrow needs length to be seen at all.
_AXIS_LENGTHS = np.array([[0.19], [0.19], [0.30]])


def overlaid(
    frame: RGB,
    landmarks: Float32[np.ndarray, "P 3"] | None,
    pose: Float32[np.ndarray, " 7"] | None,
    size_px: int,
) -> RGB:
    """A square frame at ``size_px`` with its points and pose axes on it.

    Points and their lines go from orange (confidence 0) to mint (1); points of confidence 0 are left out. Lines
    join the 68 points of iBUG only.
    """
    side = size_px * _OVERSAMPLED
    shrinks = frame.shape[0] > side
    tile = cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    if landmarks is not None:
        _draw_points(tile, landmarks * np.array([side / frame.shape[1], side / frame.shape[0], 1.0]))
    if pose is not None:
        _draw_axes(tile, pose)
    return cv2.resize(tile, (size_px, size_px), interpolation=cv2.INTER_AREA)


def head_axes(pose: Float32[np.ndarray, " 7"]) -> np.ndarray:
    """Where the head's own axes point on the image: [3 axes (right, up, nose), 2 (x right, y down)], length 0 to 1.

    Orthographic; the rotation is ``schemas.face.POSE_CONVENTION``: R = Rz(roll) Ry(yaw) Rx(-pitch).
    """
    yaw, pitch, roll = np.radians(pose[:3].astype(np.float64))
    about_z = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    return (about_z @ about_y @ about_x @ _HEAD_AXES)[:2].T


def _draw_points(tile: RGB, points: np.ndarray) -> None:
    there = np.isfinite(points).all(axis=1) & (points[:, 2] > 0)
    sure = np.clip(np.where(there, points[:, 2], 0), 0, 1)[:, None]
    colors = ((1 - sure) * np.array(UNSURE_RGB) + sure * np.array(SURE_RGB)).tolist()
    weight = tile.shape[0] / 512  # line widths were chosen on this size
    thickness, radius = max(1, round(2 * weight)), round((3 << _SHIFT) * weight)
    places = _fixed_point(np.where(there[:, None], points[:, :2], 0.0))
    for a, b in BONES if len(points) == _NUM_JOINED else ():
        if there[a] and there[b]:
            color = colors[a] if sure[a] < sure[b] else colors[b]
            cv2.line(tile, places[a], places[b], color, thickness, cv2.LINE_AA, _SHIFT)
    for k in np.flatnonzero(there):
        cv2.circle(tile, places[k], radius, colors[k], cv2.FILLED, cv2.LINE_AA, _SHIFT)


def _draw_axes(tile: RGB, pose: np.ndarray) -> None:
    if not np.isfinite(pose).all() or pose[6] <= 0:
        return
    side = tile.shape[0]
    centre = pose[3:5] * side
    tips = centre + head_axes(pose) * side * _AXIS_LENGTHS
    (start,) = _fixed_point(centre[None])
    for tip, color in zip(_fixed_point(tips), AXES_RGB.values(), strict=True):
        cv2.arrowedLine(tile, start, tip, (20, 20, 20), 6, cv2.LINE_AA, _SHIFT, 0.16)
        cv2.arrowedLine(tile, start, tip, color, 3, cv2.LINE_AA, _SHIFT, 0.16)
    cv2.circle(tile, start, 5 << _SHIFT, (20, 20, 20), cv2.FILLED, cv2.LINE_AA, _SHIFT)
    cv2.circle(tile, start, 4 << _SHIFT, AXES_RGB["nose"], cv2.FILLED, cv2.LINE_AA, _SHIFT)


def _fixed_point(points: np.ndarray) -> list[tuple[int, int]]:
    # A wild estimate must not overflow OpenCV's integers; off the tile is off the tile.
    eighths: Int64[np.ndarray, "N 2"] = np.clip(points * (1 << _SHIFT), -(2**20), 2**20).round().astype(np.int64)
    return [(int(x), int(y)) for x, y in eighths]
