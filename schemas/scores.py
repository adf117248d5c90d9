"""Scores that several stages share."""

from typing import Literal

from schemas.base import Record


class SyncScore(Record):
    """How well the mouth follows the sound; all numbers None when ``status`` is unknown, and ``why`` says why."""

    status: Literal["known", "unknown"]
    score: float | None = None
    lag_frames: int | None = None
    z: float | None = None
    p: float | None = None
    why: str = ""
