"""Faces: detections, tracks, and what the per-frame arrays mean.

The conventions here are the contract with every reader of a release, so they are names in the
sample's json as well (``landmark_scheme``, ``pose_convention``, ``motion_channels``).
"""

from schemas.base import Record

# yaw + : the nose points to image left (300W-LP, Hopenet, FSA-Net). pitch + : up. roll + : clockwise on screen.
# R = Rz(roll) Ry(yaw) Rx(-pitch) in camera axes x right, y down, z forward. tx, ty: face centre in
# crop units (0 = left/top, 1 = right/bottom); tz: distance in inter-ocular-at-f=2w units; all with confidence last.
POSE_CONVENTION = "anitalk-1"
POSE_FIELDS = ("yaw_deg", "pitch_deg", "roll_deg", "tx", "ty", "tz", "confidence")

# Each channel runs from 0 to 1 over the character's own range in the clip; brow_raise likewise.
MOTION_CHANNELS = (
    "mouth_open",
    "mouth_width",
    "eye_closure_left",
    "eye_closure_right",
    "brow_raise",
    "confidence",
)

# Points per scheme; "none" has arrays of the ibug68 shape with confidence 0.
LANDMARK_SCHEMES = {"ibug68": 68, "none": 68}

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
