"""What stands between a video and its clips: analysed runs and the plan made from them."""

from schemas.base import Id, Record
from schemas.clip import ClipPlan
from schemas.face import FaceTrack
from schemas.media import Boundary, Shot


class AnalysisRun(Record):
    """Shots and face tracks of one bounded run of a video. Indices count from the run's beginning.

    ``next_start_s`` is the time of the first frame after the run and ``ended_by`` the boundary there; both are
    None where the video ends. The
    presentation time of every frame lies beside the record (``times.npy``, float64 seconds).
    """

    source_id: Id
    start_frame: int
    stop_frame: int
    next_start_s: float | None
    ended_by: Boundary | None
    shots: tuple[Shot, ...]
    tracks: tuple[FaceTrack, ...]
    num_detections: int


class Refusal(Record):
    """Why a shot or a track yields no clip: the number and the limit it missed. ``item`` lies below the source."""

    item: str
    reason: str
    measured: float
    limit: float


class SourcePlan(Record):
    """All clips that a source yields, and what it does not yield and why."""

    source_id: Id
    num_shots: int
    num_tracks: int
    clips: tuple[ClipPlan, ...]
    refusals: tuple[Refusal, ...]
