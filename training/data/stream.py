"""One reader's endless stream of pairs of one domain.

Clips are opened when the first of their pairs comes up in the shuffled block, and the packets of their other pairs wait
for their turn; so nothing is read in a burst when a block begins, and going on in the middle of a block reads only what
is still to come.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from schemas.errors import DataError
from training.data.cache import DamagedShardError, ShardCache
from training.data.clips import CorruptError, OpenedClip, TarEntry, index_tar, open_clip
from training.data.config import PairsConfig
from training.data.decode import FrameDecoder
from training.data.order import BlockShape, PairRef, Purpose, block_of, draw_frames, generator
from training.data.remote import is_local
from training.data.shards import Shard
from training.data.video import FrameTable, Packets, read_packets, read_table

_MIN_SKIPPED = 16  # fewer say nothing about a share


@dataclass(slots=True)
class SkipCounts:
    """How many clips a reader opened, and how many of them or of their pairs it had to skip, by class.

    ``examples`` holds one sentence per class, of the first that was met.
    """

    opened: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pair:
    """One pair as read: numbers of its two frames, its clip with the labels, and its packets."""

    clip: OpenedClip
    frames: tuple[int, int]
    packets: Packets


@dataclass(slots=True)
class _ClipPairs:
    """A clip of the present block: its pairs' frames [pairs, 2], and how many of the pairs are still to come."""

    clip: OpenedClip
    packets: Packets
    frames: np.ndarray


class PairStream:
    """Pairs of one domain for one reader, from a position on.

    Args:
        shards: the reader's own of this domain.
        reader: number of the reader among all of all ranks.
        domain: number of the domain.
        position: block and place in it, as ``position`` gave it.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        config: PairsConfig,
        cache: ShardCache,
        counts: SkipCounts,
        *,
        reader: int,
        domain: int,
        position: tuple[int, int] = (0, 0),
    ) -> None:
        self._shards, self._config, self._cache, self._counts = shards, config, cache, counts
        self._reader, self._domain = reader, domain
        self._shape = BlockShape(config.pairs_per_clip, config.clips_per_shard, config.shuffle_pairs)
        self._is_remote = not all(is_local(shard.uri) for shard in shards)
        self._sizes = [shard.num_clips for shard in shards]
        self._descriptors: dict[int, int] = {}
        self._entries: dict[int, list[TarEntry]] = {}
        self._tables: dict[tuple[int, int], FrameTable] = {}  # 2 kB per clip
        self._bad_shards: dict[int, CorruptError] = {}
        self._number, self._place = position
        self._begin_block()

    @property
    def position(self) -> tuple[int, int]:
        """Block, and place in it, of the next pair."""
        return self._number, self._place

    def take(self) -> Pair:
        """The next pair whose clip can be used.

        Raises:
            DataError: when too much has to be skipped, or a shard cannot be fetched.
        """
        while True:
            if self._place == len(self._block):
                self._number, self._place = self._number + 1, 0
                self._begin_block()
            opened = self._opened(ref := self._block[self._place])
            self._place += 1
            if opened is not None:
                source, driving = (int(number) for number in opened.frames[ref.slot])
                return Pair(opened.clip, (source, driving), opened.packets)

    def skip(self, error: CorruptError) -> None:
        """Count what had to be skipped.

        Raises:
            DataError: when it is too much.
        """
        counts = self._counts
        counts.skipped[error.kind] += 1
        counts.examples.setdefault(error.kind, str(error))
        num_skipped = counts.skipped.total()
        if num_skipped >= _MIN_SKIPPED and num_skipped > self._config.max_skipped_ratio * counts.opened:
            raise DataError(
                f"{num_skipped} of {counts.opened} opened clips had to be skipped, more than max_skipped_ratio "
                f"{self._config.max_skipped_ratio:g} allows ({error}): verify the release"
            )

    # ---- blocks and clips ------------------------------------------------------------------------------------------

    def _refs(self, number: int) -> list[PairRef]:
        numbers = generator(self._config.seed, self._reader, Purpose.BLOCK, self._domain, number)
        return block_of(self._shape, self._sizes, numbers)

    def _begin_block(self) -> None:
        self._block = self._refs(self._number)
        self._first: dict[tuple[int, int], int] = {}  # by opening: place of its first pair,
        self._last: dict[tuple[int, int], int] = {}  # and of its last, after which it is let go
        for place, ref in enumerate(self._block):
            self._first.setdefault((ref.visit, ref.clip), place)
            self._last[ref.visit, ref.clip] = place
        self._clips: dict[tuple[int, int], _ClipPairs | None] = {}
        needed = {ref.shard for ref in self._block}
        for shard in self._descriptors.keys() - needed:
            os.close(self._descriptors.pop(shard))
        if self._is_remote:
            ahead = dict.fromkeys(ref.shard for ref in self._refs(self._number + 1))
            self._cache.fetch_ahead(self._shards[shard] for shard in ahead)

    def _opened(self, ref: PairRef) -> _ClipPairs | None:
        """The clip of a pair, opened at its first one; None when it cannot be used."""
        key = ref.visit, ref.clip
        is_first = self._first[key] == self._place  # or it was opened, and counted, before the run was interrupted
        self._counts.opened += is_first
        if key not in self._clips:
            try:
                self._clips[key] = self._open(ref)
            except CorruptError as error:
                self._clips[key] = None
                if is_first:
                    self.skip(error)
        return self._clips.pop(key) if self._last[key] == self._place else self._clips[key]

    def _open(self, ref: PairRef) -> _ClipPairs:
        entry = self._entry(ref)
        descriptor = self._descriptors[ref.shard]
        clip = open_clip(descriptor, entry)
        valid = clip.labels["valid.npy"]
        usable = np.flatnonzero(valid) if self._config.faces_only else np.arange(len(valid))
        if len(usable) < 2:
            raise CorruptError("faces", f"{entry.key} has {len(usable)} frames with a face, and a pair needs two")
        position = (self._domain, self._number, ref.visit, ref.clip)
        numbers = generator(self._config.seed, self._reader, Purpose.FRAMES, *position)
        frames = draw_frames(usable, self._config.pairs_per_clip, numbers)
        if (ref.shard, ref.clip) not in self._tables:
            self._tables[ref.shard, ref.clip] = read_table(descriptor, entry, clip.info)
        table = self._tables[ref.shard, ref.clip]
        packets = read_packets(descriptor, entry, table, [int(number) for number in frames.ravel()])
        return _ClipPairs(clip, packets, frames)

    def _entry(self, ref: PairRef) -> TarEntry:
        if ref.shard in self._bad_shards:
            raise self._bad_shards[ref.shard]
        shard = self._shards[ref.shard]
        try:
            if ref.shard not in self._descriptors:
                self._descriptors[ref.shard] = self._cache.open(shard)
            if ref.shard not in self._entries:
                self._entries[ref.shard] = index_tar(self._descriptors[ref.shard], shard.num_clips)
        except (DamagedShardError, CorruptError) as error:
            self._bad_shards[ref.shard] = CorruptError("shard", f"{shard.name}: {error}")
            raise self._bad_shards[ref.shard] from error
        return self._entries[ref.shard][ref.clip]

    def close(self) -> None:
        """Let go of all files."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])


def decode_pair(decoder: FrameDecoder, pair: Pair, into: np.ndarray) -> None:
    """Write both frames of a pair into ``into`` [2, S, S, 3].

    Raises:
        CorruptError: when one of them is damaged.
    """
    for place, frame in enumerate(pair.frames):
        try:
            decoder.decode(pair.packets.setup, pair.packets.by_frame[frame], into[place])
        except CorruptError as error:
            raise CorruptError(error.kind, f"{pair.clip.info.clip_id}: frame {frame} {error}") from error
