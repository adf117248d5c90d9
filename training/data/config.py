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
    """Split of the release that pairs are drawn from."""
    domains: tuple[str, ...] = ()
    """Domains that pairs are drawn from; none named: every domain of the split."""
    seed: NonNegativeInt = 0
    """Seed of the draw."""
    batch_size: PositiveInt = 32
    """Pairs per batch and rank; the reference's global batch."""
    epoch_batches: PositiveInt | None = None
    """Batches after which iteration pauses, on every rank alike; None: never."""
    num_workers: NonNegativeInt = 0
    """Processes per rank that read and decode; 0: the rank's own."""
    alpha: NonNegativeFloat = 0.5
    """Domains are mixed by clips ** alpha * weight: 1 is as they come, 0 is evenly."""
    weights: dict[str, NonNegativeFloat] = {}
    """Weights of domains in that mix, by their names; 1 where nothing is said."""
    pairs_per_clip: PositiveInt = 4
    """Pairs drawn from each opened clip; opening one costs a seventh of decoding four pairs."""
    clips_per_shard: PositiveInt = 64
    """Clips drawn from a shard before the next; a shard of 256 MiB has about a hundred."""
    shuffle_pairs: PositiveInt = 1024
    """Pairs that wait to be shuffled, per domain and worker; they wait as packets, 12 kB each at 256 px."""
    faces_only: bool = True
    """Whether only frames are drawn in which a face was seen."""
    size_px: PositiveInt | None = None
    """Side in pixels that frames and labels are scaled to; None: as stored."""
    max_skipped_ratio: float = Field(default=0.1, ge=0.0, le=1.0)
    """Part of the opened clips that may be damaged and skipped; counts once 16 were skipped; chosen."""
    check_sums: bool = True
    """Whether every shard is compared with its release's SHA-256 when a process first opens it."""
    cache_dir: str | None = None
    """Folder of fetched shards, which others may share; None: the user's cache folder."""
    cache_bytes: PositiveInt = 64 * GIB
    """Bytes that the folder of fetched shards may hold."""
    num_attempts: PositiveInt = 6
    """How often a part of a shard is asked for that does not come."""
    backoff_s: NonNegativeFloat = 1.0
    """Seconds before the second attempt; doubles, at most 30."""

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
    """Share of pairs that are mirrored."""
    time_flip: float = Field(default=0.5, ge=0.0, le=1.0)
    """Share of pairs whose source and driving frame change places."""
    brightness: float = Field(default=0.1, ge=0.0, le=1.0)
    """Largest change of brightness: a factor of 1 ± this."""
    contrast: float = Field(default=0.1, ge=0.0, le=1.0)
    """Largest change of contrast: a factor of 1 ± this."""
    saturation: float = Field(default=0.1, ge=0.0, le=1.0)
    """Largest change of saturation: a factor of 1 ± this."""
    hue: float = Field(default=0.1, ge=0.0, le=0.5)
    """Largest change of hue in turns, ± this."""
