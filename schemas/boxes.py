"""Geometry of axis-aligned xyxy boxes, once for detections, tracks, crops and copies.

Keys and stored plans depend on the last bit of ``box_iou``: whoever changes the order of its operations changes them.
"""

import numpy as np
from jaxtyping import Float

from schemas.face import XYXY

Boxes = Float[np.ndarray, "N 4"]


def box_iou(a: XYXY, b: XYXY) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def pairwise_iou(a: Boxes, b: Boxes) -> Float[np.ndarray, "N M"]:
    """Intersection over union of every box of ``a`` [N, 4] with every box of ``b`` [M, 4]; their type is kept."""
    overlap = pairwise_overlap(a, b)
    union = areas(a)[:, None] + areas(b)[None, :] - overlap
    return overlap / np.maximum(union, 1e-9)


def areas(boxes: Boxes) -> Float[np.ndarray, " N"]:
    """Area of every box, in the square of its unit."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def pairwise_overlap(a: Boxes, b: Boxes) -> Float[np.ndarray, "N M"]:
    """Area that every box of ``a`` shares with every box of ``b``."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.prod(np.maximum(high - low, 0), axis=2)
