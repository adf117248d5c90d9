"""A cropped, re-encoded span of one track: where it was cut (ClipPlan), and all that was measured on it (Clip)."""

from pydantic import Field

from schemas.base import Box, Id, Record, TimeSpan, is_absent
from schemas.face import FacePath
from schemas.router import RouterScore
from schemas.scores import SpeakerScore, SyncScore


class ClipPlan(Record):
    """Where a clip is cut: a span of time and one fixed square, both on the source.

    ``square`` is in source pixels and may reach beyond the picture; ``padding`` is the part of its
    area that does. ``face`` is the median face box. ``num_frames`` counts output frames: frame k shows
    the source frame nearest to ``span.start_s + k / fps`` that belongs to the span.
    """

    clip_id: Id
    source_id: Id
    shot_index: int
    track_index: int
    span: TimeSpan
    num_frames: int
    fps: int
    square: Box
    face: Box
    padding: float
    native_crop_px: float
    face_ratio: float
    num_neighbours: int

    def face_in_crop(self) -> tuple[float, float, float, float]:
        """The face box in the clip's own frames: xyxy as shares of their side."""
        face, left, top, side = self.face, self.square.x0, self.square.y0, self.square.width_px
        return (face.x0 - left) / side, (face.y0 - top) / side, (face.x1 - left) / side, (face.y1 - top) / side


class Scores(Record):
    """What selection looks at; every value stays stored whatever the limits are. None: not measurable here.

    Ratios are 0 to 1. ``sharpness`` is the variance of the Laplacian of luma (0 to 255) inside the face box.
    ``motion`` is the mean absolute difference of neighbouring frames (0 to 1). ``internal_cut`` is the
    largest frame-to-frame change over its usual size, scaled so that 1 is where a cut begins. ``stability`` is 1 where
    the face does not tremble and one half where it does by a hundredth of its height; ``overlay`` counts the strokes of
    the longest line of writing that stands still beside the face. ``colourfulness`` is Hasler and Süsstrunk's: 0 is
    grey, 33 moderately and 59 quite colourful.
    """

    native_crop_px: float
    padding: float
    face_ratio: float
    face_px: float
    num_neighbours: int
    landmark_ratio: float | None
    landmark_confidence: float | None
    yaw_abs_median_deg: float | None
    yaw_range_deg: float | None
    speech_ratio: float | None
    audio_rms: float | None
    sync: SyncScore
    sharpness: float
    exposure: float
    motion: float
    internal_cut: float
    duplicate_frame_ratio: float
    hold_frames: float
    track_purity: float
    speaker: SpeakerScore | None = Field(default=None, exclude_if=is_absent)  # where a speaker network is configured
    stability: float | None = Field(default=None, exclude_if=is_absent)  # these two where ``quality`` is configured
    overlay: float | None = Field(default=None, exclude_if=is_absent)
    router: RouterScore | None = Field(default=None, exclude_if=is_absent)  # where the domain router is configured
    colourfulness: float | None = Field(default=None, exclude_if=is_absent)  # where ``colour`` is configured


class Provenance(Record):
    """Which code and models made a clip; hashes name exact files."""

    tool_version: str
    profile: str
    models: dict[str, str]
    native_fps: str
    detector: str


class Clip(Record):
    """A finished clip. The arrays and media lie beside it in the workspace (see ``schemas.sample``)."""

    plan: ClipPlan
    face: FacePath
    domain: str
    landmark_scheme: str
    scores: Scores
    provenance: Provenance
    flags: tuple[str, ...]
    files: dict[str, str]

    @property
    def clip_id(self) -> str:
        """The key of the clip's samples."""
        return self.plan.clip_id

    @property
    def duration_s(self) -> float:
        """Length in seconds at the output rate."""
        return self.plan.num_frames / self.plan.fps
