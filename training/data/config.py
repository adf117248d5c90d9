"""Every setting of the loader and of its augmentation; each default says its unit and where it comes from."""

from typing import Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from schemas.base import Record
from schemas.release import Split

GIB = 1024**3


class PairsConfig(Record):
    """Which pairs are drawn, in which order, and how shards come here.

    The batches depend on all of it but the last five fields, which only say how bytes travel.
    """

    split: Split = "train"
    domains: tuple[str, ...] = ()  # () is every domain of the split
    seed: NonNegativeInt = 0
    batch_size: PositiveInt = 32  # per rank; the reference's global batch
    epoch_batches: PositiveInt | None = None  # iteration pauses after so many, on every rank alike; None: never
    num_workers: NonNegativeInt = 0  # processes per rank that read and decode; 0: in this one
    alpha: NonNegativeFloat = 0.5  # domains are mixed by clips ** alpha * weight: 1 is as they come, 0 is evenly
    weights: dict[str, NonNegativeFloat] = {}  # by domain; 1 where nothing is said
    pairs_per_clip: PositiveInt = 4  # of each opened clip; opening one costs a seventh of decoding four pairs
    clips_per_shard: PositiveInt = 64  # drawn from a shard before the next: a shard of 256 MiB has about a hundred
    shuffle_pairs: PositiveInt = 1024  # per domain and worker; they wait as packets, 12 kB each at 256 px
    faces_only: bool = True  # draw only frames in which a face was seen
    size_px: PositiveInt | None = None  # frames and labels are scaled to it; None: as stored
    max_skipped_ratio: float = Field(default=0.1, ge=0.0, le=1.0)  # of opened clips, once 16 were skipped; mine
    check_sums: bool = True  # compare every shard with its release's sha256 when a process first opens it
    cache_dir: str | None = None  # of fetched shards; None: the user's cache folder. Others may share it.
    cache_bytes: PositiveInt = 64 * GIB
    num_attempts: PositiveInt = 6  # at a part of a shard that does not come
    backoff_s: NonNegativeFloat = 1.0  # before the second attempt; doubles, at most 30

    @model_validator(mode="after")
    def _some_weight(self) -> Self:
        if len(set(self.domains)) != len(self.domains):
            raise ValueError(f"domains: {', '.join(self.domains)} names one twice")
        return self

    def order(self) -> dict[str, object]:
        """The settings that the batches depend on."""
        travel = {"check_sums", "cache_dir", "cache_bytes", "num_attempts", "backoff_s"}
        return self.model_dump(mode="json", exclude=travel)


class AugmentConfig(Record):
    """Shares of pairs that are flipped, and the largest change of colour: 0.1 each, as in the reference's training."""

    flip: float = Field(default=0.5, ge=0.0, le=1.0)
    time_flip: float = Field(default=0.5, ge=0.0, le=1.0)
    brightness: float = Field(default=0.1, ge=0.0, le=1.0)  # factor 1 ± this
    contrast: float = Field(default=0.1, ge=0.0, le=1.0)  # factor 1 ± this
    saturation: float = Field(default=0.1, ge=0.0, le=1.0)  # factor 1 ± this
    hue: float = Field(default=0.1, ge=0.0, le=0.5)  # turns, ± this
