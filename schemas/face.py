"""Faces: detections, tracks, and what the per-frame arrays mean.

The conventions here are the contract with every reader of a release, so they are names in the
sample's json as well (``landmark_scheme``, ``pose_convention``, ``motion_channels``).
"""

import re

import numpy as np

from schemas.base import Record

# Degrees: yaw + when the nose points to image left, pitch + up, roll + clockwise on screen (the signs of 300W-LP,
# Hopenet and FSA-Net). R = Rz(roll) Ry(yaw) Rx(-pitch) carries an upright face that looks at the camera, in axes
# x image right, y down, z away from the viewer, to the pose seen. tx, ty: the centre of the head's rigid points as
# a share of the crop's width and height (0 = left, top; 1 = right, bottom). tz: its distance in distances between the
# outer eye corners, for a focal length of two crop widths. The confidence is the landmarker's; 0 means all are 0.
POSE_CONVENTION = "anitalk-1"
POSE_FIELDS = ("yaw_deg", "pitch_deg", "roll_deg", "tx", "ty", "tz", "confidence")

# Each from 0 to 1 over the character's own range in the clip (of a trimmed one: in the clip that it was cut from): lips
# closed to widest open; lips narrowest to widest;
# eyes open to closed (the character's own left and right: its left eye is at image right when it faces the camera);
# brows lowest to highest. A channel that hardly moves stays near 0 (mouth_open, closures) or .5 (the other two).
# confidence is the landmarker's; where it is 0 all are 0.
MOTION_CHANNELS = (
    "mouth_open",
    "mouth_width",
    "eye_closure_left",
    "eye_closure_right",
    "brow_raise",
    "confidence",
)

# Points per scheme, each x, y in crop pixels (centres at whole numbers) and a confidence from 0 to 1. ibug68 is the
# order of 300-W. "none" has arrays of the ibug68 shape with confidence 0. pointsN, such as points98, are N points of a
# landmarker of the user's, in its own order.
LANDMARK_SCHEMES = {"ibug68": 68, "none": 68}
_OWN_SCHEME = re.compile(r"points([1-9]\d{0,3})")


def own_scheme(count: int) -> str:
    """The scheme of a landmarker whose points nobody named."""
    return f"points{count}"


def num_points(scheme: str) -> int:
    """Points of a landmark scheme.

    Raises:
        KeyError: for an unknown one.
    """
    own = _OWN_SCHEME.fullmatch(scheme)
    return int(own[1]) if own else LANDMARK_SCHEMES[scheme]


XYXY = tuple[float, float, float, float]


class Detection(Record):
    """One face in one frame. ``box`` is xyxy in source pixels, ``score`` 0 to 1 as the detector gives it.

    ``appearance`` is a short unit vector that tells faces of one shot apart; it means nothing across shots.
    """

    frame: int
    time_s: float
    box: XYXY
    score: float
    detector: str
    appearance: tuple[float, ...]


class FaceTrack(Record):
    """One face through one shot: parallel tuples over the frames where it was seen.

    ``purity`` is the mean appearance similarity between neighbouring sightings (1 = the same patch).
    """

    track_index: int
    shot_index: int
    frames: tuple[int, ...]
    times_s: tuple[float, ...]
    boxes: tuple[XYXY, ...]
    scores: tuple[float, ...]
    detector: str
    purity: float


class FacePath(Record):
    """The part of a track that one clip needs: sightings inside its span, and the nearest one on either side.

    ``times_s`` are seconds on the source's clock, ``boxes`` xyxy in source pixels.
    """

    times_s: tuple[float, ...]
    boxes: tuple[XYXY, ...]
    detector: str
    purity: float


APPEARANCE_SIZE = 52

# One detection in ``detections.npy``: frame of its run, seconds, xyxy in source pixels, score, detector, appearance.
DETECTION_ROW = np.dtype(
    [
        ("frame", "<i4"),
        ("time_s", "<f8"),
        ("box", "<f8", (4,)),
        ("score", "<f8"),
        ("detector", "<U32"),
        ("appearance", "<f4", (APPEARANCE_SIZE,)),
    ]
)
