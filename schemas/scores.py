"""Scores that several stages share."""

from typing import Literal, Self

from pydantic import model_validator

from schemas.base import Record


class SyncScore(Record):
    """How well the mouth follows the sound; all numbers None when ``status`` is unknown, and ``why`` says why."""

    status: Literal["known", "unknown"]
    score: float | None = None
    lag_frames: int | None = None
    z: float | None = None
    p: float | None = None
    why: str = ""

    @model_validator(mode="after")
    def _numbers_when_known(self) -> Self:
        numbers = (self.score, self.lag_frames, self.z, self.p)
        if any((number is None) == (self.status == "known") for number in numbers):
            raise ValueError(f"sync is {self.status}, so score, lag, z and p must be given together or not at all")
        if self.status == "unknown" and not self.why:
            raise ValueError("sync is unknown: say why")
        return self
