"""Which of a landmarker's points lies where on the face, so that one code measures 468 points and 68 alike.

Stages that read pose, motion or likeness from points ask the layout instead of numbering points themselves. A
landmarker whose points nobody named has no layout: its points are stored, and nothing is read from them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from pipeline.models.canonical import RIGID_POINTS, Points, align, canonical_face

NUM_IBUG_POINTS = 68

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

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class FacePoints:
    """One face: ``points`` in pixels of the image that was given, ``confidence`` 0 to 1 that a face is there.

    Pixel centres lie at whole numbers. z is in pixels too (weak perspective: the scale of x and y), 0 near the head's
    centre, negative towards the camera. ``certainty``, where a landmarker gives it, is 0 to 1 per point.
    """

    points: Float32[np.ndarray, "P 3"]
    confidence: float
    certainty: Float32[np.ndarray, "P"] | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the points of one kind of landmarker lie. Left and right are the character's own: left is at image right.

    ``average`` gives the canonical face in these points; ``rigid`` are those that lie on bone. ``height`` is a pair
    of points above each other, and ``height_share`` the part of the distance from forehead to chin between them.
    Lids are the pairs of Soukupová and Čech, CVWW 2016, equation 1.
    """

    num_points: int
    average: Callable[[], Points]
    rigid: Int64[np.ndarray, "R"]
    lips: tuple[Pair, ...]  # across the inner lips: the middle and pairs on either side
    mouth_corners: Pair
    height: Pair
    height_share: float
    left_lids: tuple[Pair, ...]
    left_eye: Pair
    right_lids: tuple[Pair, ...]
    right_eye: Pair
    left_brow: tuple[int, ...]
    right_brow: tuple[int, ...]
    outer_eyes: Pair
    nose_base: int
    chin: int
    to_ibug68: Callable[[Float[np.ndarray, "P 3"]], Float32[np.ndarray, "68 2"]]


def to_ibug68(mesh: Float[np.ndarray, "468 3"]) -> Float32[np.ndarray, "68 2"]:
    """Convert a face mesh to the 68 points of iBUG: x, y in the mesh's own units.

    Figures on three labelled photographs are in `tests/test_landmarks.py`.
    """
    return _chosen68(mesh[:, :2]).astype(np.float32)


def _chosen68(mesh: Float[np.ndarray, "468 D"]) -> Float[np.ndarray, "68 D"]:
    left = _resample(mesh[list(_JAW_LEFT_TO_CHIN)], _NUM_JAW_HALF)
    right = _resample(mesh[list(_JAW_CHIN_TO_RIGHT)], _NUM_JAW_HALF)
    brows = (mesh[list(_BROW_UPPER)] + mesh[list(_BROW_LOWER)]) / 2
    return np.concatenate([left, right[1:], brows, mesh[list(_SINGLE)]])


def _resample(line: Float[np.ndarray, "N D"], num: int) -> Float[np.ndarray, "M D"]:
    """Place ``num`` points at equal arc lengths along a line of points, both ends included."""
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    wanted = np.linspace(0.0, length[-1], num)
    return np.stack([np.interp(wanted, length, line[:, axis]) for axis in range(line.shape[1])], axis=1)


@lru_cache(maxsize=1)
def _average68() -> Float64[np.ndarray, "68 3"]:
    points = _chosen68(canonical_face())
    points.setflags(write=False)  # cached and shared
    return points


FACE_MESH_468 = Layout(
    num_points=468,
    average=canonical_face,
    rigid=RIGID_POINTS,
    lips=((13, 14), (82, 87), (312, 317), (81, 178), (311, 402)),
    mouth_corners=(61, 291),
    height=(10, 152),
    height_share=1.0,
    left_lids=((385, 380), (387, 373)),
    left_eye=(362, 263),
    right_lids=((160, 144), (158, 153)),
    right_eye=(33, 133),
    left_brow=(336, 296, 334, 293, 300),
    right_brow=(107, 66, 105, 63, 70),
    outer_eyes=(33, 263),
    nose_base=2,
    chin=152,
    to_ibug68=to_ibug68,
)

IBUG_68 = Layout(
    num_points=NUM_IBUG_POINTS,
    average=_average68,
    rigid=np.array([27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 39, 42, 45], dtype=np.int64),
    lips=((62, 66), (61, 67), (63, 65)),
    mouth_corners=(48, 54),
    height=(27, 8),
    height_share=0.725,  # of the canonical face, in the picture plane
    left_lids=((43, 47), (44, 46)),
    left_eye=(42, 45),
    right_lids=((37, 41), (38, 40)),
    right_eye=(36, 39),
    left_brow=(22, 23, 24, 25, 26),
    right_brow=(17, 18, 19, 20, 21),
    outer_eyes=(36, 45),
    nose_base=33,
    chin=8,
    to_ibug68=lambda points: points[:, :2].astype(np.float32),
)

_DEPTH_ROUNDS = 40  # of alternating fits; on rendered heads the angles settle within .01° after 30


def with_depth(xy: Float[np.ndarray, "P 2"], layout: Layout) -> Float64[np.ndarray, "P 3"]:
    """Give points that lie in the picture alone the depth they have on the average face in their pose.

    The pose is the scaled orthographic one whose rigid points lie closest to those seen, found by turns: the depth
    that the fitted face has, then the face that fits points of that depth. Each turn lessens the distance in the
    picture. Depth is of the average face, so a pout or a long nose is not in it.

    Returns:
        x and y as given, z in the same unit, away from the viewer, 0 at the centre of the rigid points.
    """
    average = layout.average()
    bones = average[layout.rigid]
    seen = np.concatenate([xy[layout.rigid], np.zeros((len(layout.rigid), 1))], axis=1).astype(np.float64)
    scale, rotation, _ = align(bones, seen)
    for _ in range(_DEPTH_ROUNDS):
        seen[:, 2] = scale * bones @ rotation[2]
        scale, rotation, _ = align(bones, seen)
    depth = scale * average @ rotation[2]
    return np.concatenate([xy, (depth - depth[layout.rigid].mean())[:, None]], axis=1)
