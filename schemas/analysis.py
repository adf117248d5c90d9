"""What stands between a video and its clips: analysed runs and the plan made from them."""

from schemas.base import Id, Record
from schemas.clip import ClipPlan
from schemas.face import FacePath, FaceTrack
from schemas.media import Boundary, Shot


class AnalysisRun(Record):
    """What one bounded run of a video shows. Frames count from the run's own first frame.

    A boundary belongs to the run if any of it lies there, so one at an edge is told by both neighbours; its numbers
    may then be negative, or reach beyond ``num_frames``. ``stop_s`` is the time of the first frame after the run, or
    the video's end. Beside the record lie the presentation time of every frame (``times.npy``, float64 seconds) and
    the faces seen (``detections.npy``, rows of ``schemas.face.DETECTION_ROW``).
    """

    source_id: Id
    num_frames: int
    stop_s: float
    boundaries: tuple[Boundary, ...]
    num_detections: int


class Refusal(Record):
    """Why a shot or a track yields no clip: the number and the limit it missed. ``item`` lies below the source."""

    item: str
    reason: str
    measured: float
    limit: float


class PlannedClip(Record):
    """Where a clip is cut, and the face that is followed in it: all that cutting it needs beside the video."""

    plan: ClipPlan
    face: FacePath


class SourcePlan(Record):
    """A video's shots and tracks, all clips that it yields, and what it does not yield and why."""

    source_id: Id
    shots: tuple[Shot, ...]
    tracks: tuple[FaceTrack, ...]
    clips: tuple[PlannedClip, ...]
    refusals: tuple[Refusal, ...]
