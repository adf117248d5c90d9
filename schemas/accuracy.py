"""One line of the accuracy bench: what a model found on hand-labelled media, and what it cost."""

from typing import Self

from pydantic import Field, NonNegativeInt, model_validator

from schemas.base import Record


class Row(Record):
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
