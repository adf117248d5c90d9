"""Lines of the accuracy bench: what a model made of media with known truth, and what it cost."""

from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from schemas.base import Record


class DetectionRow(Record):
    """One model under one setting on the labelled media of one domain.

    ``hits`` of ``num_faces`` labelled things were found (faces, or whatever the bench asks for); ``false_alarms`` were
    told in ``num_frames`` looked-at frames without being there. ``ms_per_frame`` is processor time of one core.
    ``real_weights`` is False where random numbers stood in for weights: such a row says that the code runs, and
    nothing about accuracy.
    """

    domain: str
    model: str
    settings: str
    hits: NonNegativeInt
    num_faces: NonNegativeInt
    false_alarms: NonNegativeInt
    num_frames: NonNegativeInt
    ms_per_frame: float = Field(ge=0)
    real_weights: bool

    @model_validator(mode="after")
    def _no_more_than_there_are(self) -> Self:
        if self.hits > self.num_faces:
            raise ValueError(f"{self.hits} hits of {self.num_faces} faces")
        return self

    @property
    def recall(self) -> float:
        """Share of the labelled faces that were found; 1 where there was none to find."""
        return self.hits / self.num_faces if self.num_faces else 1.0


class StillRow(Record):
    """Faces that one model under one setting tells in one photograph, which holds ``num_faces``."""

    photograph: str
    model: str
    settings: str
    num_faces: NonNegativeInt
    num_found: NonNegativeInt
    ms_per_frame: float = Field(ge=0)


class ShotRow(Record):
    """One way to find shot boundaries on one film.

    ``num_hits`` of ``num_true`` known transitions were met by one of ``num_found`` boundaries each; boundaries where
    the labels are in doubt are in neither number. ``ms_per_frame`` is processor time with decoding.
    """

    media: str
    truth: str  # who says where the transitions are
    detector: str
    num_true: NonNegativeInt
    num_found: NonNegativeInt
    num_hits: NonNegativeInt
    ms_per_frame: float = Field(ge=0)

    @model_validator(mode="after")
    def _one_to_one(self) -> Self:
        if self.num_hits > min(self.num_true, self.num_found):
            raise ValueError(f"{self.num_hits} hits of {self.num_true} transitions by {self.num_found} boundaries")
        return self

    @property
    def precision(self) -> float | None:
        """Share of the boundaries that meet a transition; None without boundaries."""
        return round(self.num_hits / self.num_found, 3) if self.num_found else None

    @property
    def recall(self) -> float | None:
        """Share of the transitions that are met; None where there are none."""
        return round(self.num_hits / self.num_true, 3) if self.num_true else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of both, 2 · hits / (true + found); None where there is nothing to find and nothing found."""
        both = self.num_true + self.num_found
        return round(2 * self.num_hits / both, 3) if both else None


class LandmarkRow(Record):
    """One landmarker on some faces.

    ``nme_68`` and ``nme_51`` (without the jaw) are mean distances to the reference, as a share of the distance between
    the outer eye corners, over the ``num_found`` of ``num_faces`` in which a face was found; None where no points are
    known for the media. ``ms_per_face`` is processor time of one core, from a box.
    """

    domain: str
    media: str
    reference: str  # who says where the points are
    landmarker: str
    num_faces: NonNegativeInt
    num_found: NonNegativeInt
    nme_68: float | None = Field(default=None, ge=0)
    nme_51: float | None = Field(default=None, ge=0)
    ms_per_face: float = Field(ge=0)


class PoseRow(Record):
    """One way to the head's angles: a landmarker, and what reads the angles.

    Errors are mean absolute differences in degrees on ``num_heads`` rendered heads of known pose; jitter is the median
    absolute second difference in degrees over a talking clip of ``num_frames``. ``ms_per_frame`` is processor time and
    on top of the landmarker.
    """

    landmarker: str
    pose: str
    num_heads: NonNegativeInt
    yaw_error_deg: float = Field(ge=0)
    pitch_error_deg: float = Field(ge=0)
    roll_error_deg: float = Field(ge=0)
    num_frames: NonNegativeInt
    yaw_jitter_deg: float = Field(ge=0)
    pitch_jitter_deg: float = Field(ge=0)
    roll_jitter_deg: float = Field(ge=0)
    ms_per_frame: float = Field(ge=0)


class MouthRow(Record):
    """The motion channel ``mouth_open`` of one landmarker on a rendered talker whose mouth is known.

    Both curves run from 0 to 1 over their own range in the clip, as the channel is defined. ``num_seen`` of
    ``num_frames`` have landmarks; the others count for neither figure. None where fewer than two have.
    """

    domain: str
    media: str
    landmarker: str
    num_frames: PositiveInt
    num_seen: NonNegativeInt
    correlation: float | None = Field(ge=-1, le=1)
    mean_abs_error: float | None = Field(ge=0, le=1)


class RouterRow(Record):
    """What the domain router makes of takes (up to five frames of one face) that it was not fitted to.

    ``family`` is the film, or films that share people or makers: all of them were left out together. ``likeliest``
    counts takes by the likeliest domain of the evidence alone, ``flagged`` by the domain that a manifest might claim:
    under its own domain a flag is a false alarm, under another one it is right.
    """

    domain: str
    family: str
    num_takes: PositiveInt
    likeliest: dict[str, NonNegativeInt]
    flagged: dict[str, NonNegativeInt]


class SyncRow(Record):
    """One way to tell whether a mouth and a sound belong together, on one talking clip.

    ``rank`` is the place of the clip's own sound among the ``num_sounds`` of its pool: its own and those of other
    talkers. ``shift_rank`` is its place among itself and ``num_shifts`` copies of it, moved by 1.5 s or more.
    ``score``, ``z``, ``p`` and ``lag_frames`` (positive where the picture comes later) are those of its own sound, as
    the model defines them; None where it gives no such answer, and without a score it ranks last. ``best_other`` and
    ``best_shift`` are the highest scores of what does not belong. ``true_lag_frames`` is known where the talker was
    rendered. ``ms_per_s`` is processor time of one core per second of the clip, on top of reading its frames and
    points.
    """

    model: str
    pool: Literal["filmed", "rendered"]
    domain: str
    media: str
    num_frames: PositiveInt
    num_sounds: PositiveInt
    rank: PositiveInt
    num_shifts: NonNegativeInt
    shift_rank: PositiveInt
    score: float | None
    best_other: float | None
    best_shift: float | None
    z: float | None
    p: float | None
    lag_frames: int | None
    true_lag_frames: float | None
    ms_per_s: float = Field(ge=0)


class SyncSummary(Record):
    """How often a model ranks the own sound first, by domain; ``median_z`` is None for models without one."""

    model: str
    pool: Literal["filmed", "rendered"]
    domain: str
    num_clips: PositiveInt
    first_of_sounds: NonNegativeInt
    first_of_shifts: NonNegativeInt
    median_z: float | None
