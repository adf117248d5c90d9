"""What a file turned out to be (Video) and where its shots begin and end (Shot)."""

from typing import Literal

from pydantic import Field

from schemas.base import FrameSpan, Id, Rate, Record, is_absent
from schemas.languages import same_language


class AudioStream(Record):
    """The audio stream that goes with the chosen video stream.

    ``language`` is the file's own tag, and is there only where it was chosen by it among several streams.
    """

    index: int
    codec: str
    rate_hz: int
    num_channels: int
    start_s: float
    stop_s: float
    language: str | None = Field(default=None, exclude_if=is_absent)


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
    # As probed: further tracks that may take its place, none of them a commentary or a description of the picture.
    other_audio: tuple[AudioStream, ...] | None = Field(default=None, exclude_if=is_absent)

    def in_language(self, language: str | None) -> "Video":
        """The video with the track of a language, where the file tags one so, else with the one that players take.

        Only where another track was chosen does the record differ from that of a file with one track.
        """
        default = self.audio
        others = () if default and same_language(default.language, language) else self.other_audio or ()
        chosen = next((track for track in others if same_language(track.language, language)), None)
        plain = default and default.model_copy(update={"language": None})
        return (
            self
            if self.other_audio is None
            else self.model_copy(update={"audio": chosen or plain, "other_audio": None})
        )

    @property
    def duration_s(self) -> float:
        """Length of the picture in seconds."""
        return self.stop_s - self.start_s

    def missing_language(self, language: str | None) -> str | None:
        """A sentence where a language was asked for, the file's several tracks are tagged, and none so."""
        tag = self.audio.language if self.audio else None
        if not language or self.other_audio is None or not tag or same_language(tag, language):
            return None
        chosen = self.in_language(language).audio
        if chosen is not None and chosen.language:
            return None
        return f"no track is tagged {language!r}: the default one, tagged {tag!r}, is used"


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
