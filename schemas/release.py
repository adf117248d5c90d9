"""An immutable list of shards and checksums, by split and domain."""

from typing import Literal

from schemas.base import Id, Record
from schemas.sample import Series

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class ShardRecord(Record):
    """One tar of a release; ``path`` is relative to the release."""

    path: str
    series: Series
    split: Split
    domain: str
    num_samples: int
    num_bytes: int
    sha256: str


class ReleaseSource(Record):
    """Origin and rights of one source that a release draws on."""

    source_id: Id
    uri: str
    title: str
    domain: str
    license: str
    credit: str
    sha256: str


class Release(Record):
    """The record of a release (``release.json``), written last: where it is, the release is complete."""

    format_version: Literal[1] = 1
    name: Id
    tool_version: str
    config_hash: str
    num_clips: int
    duration_s: float
    counts: dict[str, dict[str, int]]
    requested: dict[str, dict[str, int]]
    shards: tuple[ShardRecord, ...]
    sources: tuple[ReleaseSource, ...]
    models: dict[str, str]
    files: dict[str, str]
    with_identity: bool
