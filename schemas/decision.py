"""Why a clip is kept or not; by filter or by reviewer."""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from schemas.base import Id, Record, is_absent


class RejectReason(StrEnum):
    """Why something did not become part of a release. The value is what tables and the card show."""

    NO_FACE = "no_face"
    FACE_TOO_SMALL = "face_too_small"
    SHOT_TOO_SHORT = "shot_too_short"
    TRACK_TOO_SHORT = "track_too_short"
    SEVERAL_FACES = "several_faces"
    LOW_RESOLUTION = "low_resolution"
    PADDING = "padding"
    FACE_MISSING = "face_missing"
    NOT_SPEAKING = "not_speaking"
    NO_AUDIO = "no_audio"
    OUT_OF_SYNC = "out_of_sync"
    NOT_THE_SPEAKER = "not_the_speaker"
    EXTREME_POSE = "extreme_pose"
    STILL = "still"
    BLURRED = "blurred"
    EXPOSURE = "exposure"
    INTERNAL_CUT = "internal_cut"
    UNSTEADY = "unsteady"
    NOT_IN_FILE = "not_in_file"
    LICENSE = "license"
    FORGOTTEN = "forgotten"
    DUPLICATE = "duplicate"
    NOT_REQUESTED = "not_requested"
    OCCLUDED = "occluded"
    BAD_LANDMARKS = "bad_landmarks"
    OVERLAY = "overlay"
    REVIEWER = "reviewer"


class Decision(Record):
    """Keep or reject one clip. A rejection carries the number that caused it and the limit it missed.

    ``measured`` is None where the clip has no such number (no audio, sync unknown) or the reason is none.
    ``overrules`` is what the filters would have rejected a clip for that a reviewer keeps; the numbers are then that
    reason's. ``who`` and ``at`` (ISO 8601, UTC) belong to reviewers: filters are pure and repeat themselves.
    """

    clip_id: Id
    keep: bool
    by: Literal["filter", "reviewer"] = "filter"
    reason: RejectReason | None = None
    measured: float | None = None
    limit: float | None = None
    note: str = ""
    who: str = ""
    at: str = ""
    overrules: RejectReason | None = Field(default=None, exclude_if=is_absent)
