"""Samples of shards that are open: where the members of each lie, in its own tar and in those beside it."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from schemas.errors import DataError
from schemas.uri import redact
from training.data.cache import DamagedShardError, ShardCache
from training.data.clips import ClipInfo, CorruptError, TarEntry, index_tar, parse_info, read_member
from training.data.shards import Shard


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of a shard, the ``index``-th.

    ``members`` holds, by series, the descriptor of the open tar and where the sample's members lie in it; they are
    good until the shard's files are let go.
    """

    key: str
    shard: Shard
    index: int
    members: Mapping[str, tuple[int, TarEntry]]


def sample_info(sample: Sample) -> ClipInfo:
    """What a sample says of itself.

    Raises:
        CorruptError: when it does not.
        DataError: for another schema version or pose convention.
    """
    descriptor, entry = sample.members["visual"]
    if "json" not in entry.members:
        raise CorruptError("missing", f"{entry.key}.json is not in the shard")
    return parse_info(read_member(descriptor, entry, "json"), entry.key)


class ShardFiles:
    """Open shards of one user, and the tables of their samples.

    Args:
        cache: where shards come from.
        max_open: tars that are open at once; None: as many as ``keep`` leaves.
    """

    def __init__(self, cache: ShardCache, max_open: int | None = None) -> None:
        self._cache, self._max_open = cache, max_open
        self._descriptors: dict[str, int] = {}  # by name, the longest unused first
        self._entries: dict[str, list[TarEntry]] = {}
        self._by_key: dict[str, dict[str, TarEntry]] = {}  # of tars that are joined
        self._damaged: dict[str, CorruptError] = {}

    def sample(self, shard: Shard, index: int) -> Sample:
        """A sample by its place in its shard.

        Raises:
            CorruptError: when a shard is damaged, or one beside it lacks the sample.
            DataError: when one cannot be reached.
        """
        descriptor = self._opened(shard)
        entry = self._entries[shard.name][index]
        members = {"visual": (descriptor, entry)}
        for series, companion in shard.companions.items():
            members[series] = self._joined(series, companion, entry.key)
        return Sample(entry.key, shard, index, members)

    def samples(self, shard: Shard) -> list[str]:
        """Keys of all samples of a shard, in their order.

        Raises:
            CorruptError, DataError: as ``sample`` does.
        """
        self._opened(shard)
        return [entry.key for entry in self._entries[shard.name]]

    def keep(self, shards: Iterable[Shard]) -> None:
        """Let go of the files of all other shards."""
        names = {own.name for shard in shards for own in shard.every}
        for name in self._descriptors.keys() - names:
            os.close(self._descriptors.pop(name))

    def fetch_ahead(self, shards: Iterable[Shard]) -> None:
        """Begin to fetch shards that will be wanted; returns at once."""
        self._cache.fetch_ahead([own for shard in shards for own in shard.every])

    def close(self) -> None:
        """Let go of all files."""
        self.keep(())

    def _opened(self, shard: Shard) -> int:
        if shard.name in self._damaged:
            raise self._damaged[shard.name]
        try:
            if shard.name not in self._descriptors:
                self._make_room()
                self._descriptors[shard.name] = self._cache.open(shard)
            if shard.name not in self._entries:
                self._entries[shard.name] = index_tar(self._descriptors[shard.name], shard.num_clips or None)
        except (DamagedShardError, CorruptError) as error:
            self._damaged[shard.name] = CorruptError("shard", f"{shard.name}: {error}")
            raise self._damaged[shard.name] from error
        descriptor = self._descriptors[shard.name] = self._descriptors.pop(shard.name)  # the last to be let go
        return descriptor

    def _make_room(self) -> None:
        while self._max_open is not None and len(self._descriptors) >= self._max_open:
            os.close(self._descriptors.pop(next(iter(self._descriptors))))

    def _joined(self, series: str, companion: Shard, key: str) -> tuple[int, TarEntry]:
        descriptor = self._opened(companion)
        if companion.name not in self._by_key:
            self._by_key[companion.name] = {entry.key: entry for entry in self._entries[companion.name]}
        entry = self._by_key[companion.name].get(key)
        if entry is not None:
            return descriptor, entry
        if series == "sidecar":
            raise DataError(
                f"the sidecar {redact(companion.uri)} lacks the clip {key}: write it again for this release"
            )
        raise CorruptError("missing", f"{key} is not in {companion.name}")
