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


class SpeakerScore(Record):
    """Whether this face makes the sound, by a speaker network; all numbers None when ``status`` is unknown.

    ``score``, -1 to 1, is ``share`` × ``following``: the mean probability that the face speaks while somebody is
    heard, and the correlation of the network's logit with the loudness of speech, at the best small lag. ``z`` and
    ``p`` place ``following`` among the same face with sounds shifted by a second or more.
    """

    status: Literal["known", "unknown"]
    score: float | None = None
    share: float | None = None
    following: float | None = None
    z: float | None = None
    p: float | None = None
    why: str = ""

    @model_validator(mode="after")
    def _numbers_when_known(self) -> Self:
        numbers = (self.score, self.share, self.following, self.z, self.p)
        if any((number is None) == (self.status == "known") for number in numbers):
            raise ValueError(f"the speaker is {self.status}, so its numbers must be given together or not at all")
        if self.status == "unknown" and not self.why:
            raise ValueError("the speaker is unknown: say why")
        return self
