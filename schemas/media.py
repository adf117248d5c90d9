"""What a file turned out to be (Video) and where its shots begin and end (Shot)."""

from typing import Literal

from schemas.base import FrameSpan, Id, Rate, Record


class AudioStream(Record):
    """The audio stream that goes with the chosen video stream."""

    index: int
    codec: str
    rate_hz: int
    num_channels: int
    start_s: float
    stop_s: float


class Video(Record):
    """A fetched, hashed, probed file. Times are seconds on the file's own clock (PTS × time base).

    ``width_px × height_px`` is the upright picture with square pixels: rotation and sample aspect
    ratio are already applied, and every box in this project lives in these pixels.
    """

    source_id: Id
    sha256: str
    num_bytes: int
    container: str
    codec: str
    pixel_format: str
    stream_index: int
    time_base: Rate
    average_fps: Rate
    start_s: float
    stop_s: float
    coded_width_px: int
    coded_height_px: int
    sample_aspect_ratio: Rate
    rotation_deg: Literal[0, 90, 180, 270]
    interlaced: bool
    width_px: int
    height_px: int
    colorspace: str
    audio: AudioStream | None

    @property
    def duration_s(self) -> float:
        """Length of the picture in seconds."""
        return self.stop_s - self.start_s


BoundaryKind = Literal["cut", "fade", "dissolve", "limit"]


class Boundary(Record):
    """Where one shot ends and the next begins.

    ``frame`` is the first frame that belongs to the next shot. ``start_frame`` up to ``stop_frame``
    (half-open) is the transition itself; it is empty at a hard cut. ``limit`` is no transition: a
    very long shot was divided so that work and memory stay bounded.
    """

    frame: int
    kind: BoundaryKind
    start_frame: int
    stop_frame: int


class Shot(Record):
    """The frames between two boundaries, with exact presentation times.

    ``clean`` is the part outside the transitions at either end (None when nothing is left).
    ``boundary`` names what began the shot: ``start`` for the file's first frame, else a boundary's kind.
    """

    span: FrameSpan
    start_s: float
    stop_s: float
    boundary: Literal["start", "cut", "fade", "dissolve", "limit"]
    clean: FrameSpan | None
