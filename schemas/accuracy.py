"""Lines of the accuracy bench: what a model made of media with known truth, and what it cost."""

from pydantic import Field, PositiveInt

from schemas.base import Record


class SyncRow(Record):
    """One way to tell whether a mouth and a sound belong together, on one talking clip.

    ``rank`` is the place of the clip's own sound among ``num_sounds``: its own and those of other talkers. ``score``,
    ``z`` and ``p`` are those of its own sound, as the model defines them; None where it gives no answer, which ranks
    last. ``ms_per_s`` is processor time of one core per second of the clip, on top of reading its frames and points.
    """

    model: str
    domain: str
    media: str
    num_frames: PositiveInt
    num_sounds: PositiveInt
    rank: PositiveInt
    score: float | None
    z: float | None
    p: float | None
    ms_per_s: float = Field(ge=0)
