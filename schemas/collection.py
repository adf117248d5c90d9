"""What only the whole collection can tell of its clips; none of it changes a clip or its scores."""

from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from schemas.base import Id, Record, is_absent
from schemas.scores import SyncScore

DuplicateKind = Literal["file", "picture", "sound"]


class DuplicateLink(Record):
    """Why two clips show the same take: what agrees besides their pictures, and how far apart they are in it.

    ``distance`` and its ``limit`` are 0 for the same: for ``file`` the part of time or square that the two do not
    share, for ``picture`` and ``sound`` 1 minus the correlation of movements and of sound prints.
    """

    clip_id: Id
    twin_id: Id
    kind: DuplicateKind
    distance: NonNegativeFloat
    limit: NonNegativeFloat


class DuplicateGroup(Record):
    """Clips that are connected by showing the same take, sorted, and every two of them that do, the surest first."""

    clip_ids: tuple[Id, ...]
    links: tuple[DuplicateLink, ...]

    @model_validator(mode="after")
    def _connected(self) -> Self:
        named = {name for link in self.links for name in (link.clip_id, link.twin_id)}
        if not self.links or named != set(self.clip_ids):
            raise ValueError(f"a group's links name {sorted(named)}, its clips are {sorted(self.clip_ids)}")
        return self


class Quantiles(Record):
    """How a score is distributed over the clips of a domain in which it is known."""

    n: PositiveInt
    p05: float
    p25: float
    p50: float
    p75: float
    p95: float


class Collection(Record):
    """Everything that was found out about one set of clips.

    identities: whose face a clip shows, by clip id; ids tell the people of one source apart and mean nothing across
    sources. ridge: how well the mouth follows the sound by a model fitted on all other sources. calibration: by
    domain and score. people: one name for all sources in which one person may be seen, by source id; only where clips
    have face embeddings, and only to keep such sources in one split.
    """

    identities: dict[str, Id]
    duplicates: tuple[DuplicateGroup, ...]
    ridge: dict[str, SyncScore]
    calibration: dict[str, dict[str, Quantiles]]
    people: dict[Id, Id] | None = Field(default=None, exclude_if=is_absent)
