"""One reader's endless stream of rows of one domain: of pairs or of windows, whichever way its clips are opened.

Clips are opened when the first of their rows comes up in the shuffled block, and wait for their other rows; so nothing
is read in a burst when a block begins, and going on in the middle of a block reads only what is still to come.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from schemas.errors import DataError
from training.data.clips import CorruptError
from training.data.config import PairsConfig
from training.data.opening import Sample, ShardFiles
from training.data.order import BlockShape, Purpose, RowRef, block_of, generator
from training.data.remote import is_local
from training.data.shards import Shard

_MIN_SKIPPED = 16  # fewer say nothing about a share
# Classes of clips that are whole and hold too little for what is asked, however many there are.
UNFIT = ("short", "reference")
_MAX_UNFIT_PER_CLIP = 16  # a reader that has opened each of its clips this often without a row has none to give

RowT = TypeVar("RowT")
OpenedT = TypeVar("OpenedT")
RowT_co = TypeVar("RowT_co", covariant=True)


@dataclass(slots=True)
class SkipCounts:
    """How many clips a reader opened, and how many of them or of their rows it had to skip, by class.

    ``examples`` holds one sentence per class, of the first that was met.
    """

    opened: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def damaged(self) -> int:
        """How many were skipped that should not have been there."""
        return self.skipped.total() - sum(self.skipped[kind] for kind in UNFIT)


class ClipRows(Protocol[OpenedT, RowT_co]):
    """How the rows of a draw come out of a clip."""

    def open(self, sample: Sample, position: tuple[int, ...]) -> OpenedT:
        """What is read once of a clip for all of its rows.

        Args:
            sample: where it lies.
            position: of this opening in the reader's streams; random numbers are drawn by it.

        Raises:
            CorruptError: when the clip cannot be used.
        """
        ...

    def row(self, opened: OpenedT, slot: int) -> RowT_co:
        """Row ``slot`` of an opened clip.

        Raises:
            CorruptError: when this row cannot be used.
        """
        ...


class ClipStream(Generic[RowT]):
    """Rows of one domain for one reader, from a position on.

    Args:
        shards: the reader's own of this domain.
        files: of this stream alone.
        rows: how a clip is opened and its rows are made.
        counts: of the reader.
        reader: number of the reader among all of all ranks.
        domain: number of the domain.
        position: block and place in it, as ``position`` gave it.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        config: PairsConfig,
        files: ShardFiles,
        rows: ClipRows[Any, RowT],
        counts: SkipCounts,
        *,
        reader: int,
        domain: int,
        position: tuple[int, int] = (0, 0),
    ) -> None:
        self._shards, self._config, self._files, self._rows, self._counts = shards, config, files, rows, counts
        self._reader, self._domain = reader, domain
        self._shape = BlockShape(config.pairs_per_clip, config.clips_per_shard, config.shuffle_pairs)
        self._is_remote = not all(is_local(own.uri) for shard in shards for own in shard.every)
        self._sizes = [shard.num_clips for shard in shards]
        self._num_unfit = 0  # clips in turn
        self._number, self._place = position
        self._begin_block()

    @property
    def position(self) -> tuple[int, int]:
        """Block, and place in it, of the next row."""
        return self._number, self._place

    def take(self) -> RowT:
        """The next row that can be used.

        Raises:
            DataError: when too much has to be skipped, or a shard cannot be fetched.
        """
        while True:
            opened, slot = self._next()
            try:
                row = self._rows.row(opened, slot)
            except CorruptError as error:
                self.skip(error)
            else:
                self._num_unfit = 0
                return row

    def skip(self, error: CorruptError) -> None:
        """Count what had to be skipped.

        Raises:
            DataError: when it is too much.
        """
        counts = self._counts
        counts.skipped[error.kind] += 1
        counts.examples.setdefault(error.kind, str(error))
        if error.kind in UNFIT:
            self._count_unfit(error)
            return
        num_skipped = counts.damaged()
        if num_skipped >= _MIN_SKIPPED and num_skipped > self._config.max_skipped_ratio * counts.opened:
            raise DataError(
                f"{num_skipped} of {counts.opened} opened clips had to be skipped, more than max_skipped_ratio "
                f"{self._config.max_skipped_ratio:g} allows ({error}): verify the release"
            )

    def _count_unfit(self, error: CorruptError) -> None:
        self._num_unfit += 1
        if self._num_unfit > _MAX_UNFIT_PER_CLIP * sum(self._sizes):
            raise DataError(
                f"none of the {sum(self._sizes)} clips of {self._shards[0].domain!r} that one reader has can be used "
                f"({error}): ask for shorter windows, leave the domain out, or use fewer readers"
            )

    # ---- blocks and clips ------------------------------------------------------------------------------------------

    def _refs(self, number: int) -> list[RowRef]:
        numbers = generator(self._config.seed, self._reader, Purpose.BLOCK, self._domain, number)
        return block_of(self._shape, self._sizes, numbers)

    def _begin_block(self) -> None:
        self._block = self._refs(self._number)
        self._first: dict[tuple[int, int], int] = {}  # by opening: place of its first row,
        self._last: dict[tuple[int, int], int] = {}  # and of its last, after which it is let go
        for position, ref in enumerate(self._block):
            self._first.setdefault((ref.visit, ref.clip), position)
            self._last[ref.visit, ref.clip] = position
        self._clips: dict[tuple[int, int], Any] = {}  # opened; None where that failed
        self._files.keep([self._shards[shard] for shard in {ref.shard for ref in self._block}])
        if self._is_remote:
            ahead = dict.fromkeys(ref.shard for ref in self._refs(self._number + 1))
            self._files.fetch_ahead([self._shards[shard] for shard in ahead])

    def _next(self) -> tuple[Any, int]:
        """The clip of the next row, and which of its rows that is."""
        while True:
            if self._place == len(self._block):
                self._number, self._place = self._number + 1, 0
                self._begin_block()
            ref = self._block[self._place]
            opened = self._opened(ref)
            self._place += 1
            if opened is not None:
                return opened, ref.slot

    def _opened(self, ref: RowRef) -> Any | None:
        """The clip of a row, opened at its first one; None when it cannot be used."""
        key = ref.visit, ref.clip
        is_first = self._first[key] == self._place  # or it was opened, and counted, before the run was interrupted
        self._counts.opened += is_first
        if key not in self._clips:
            try:
                sample = self._files.sample(self._shards[ref.shard], ref.clip)
                position = (self._domain, self._number, ref.visit, ref.clip)
                self._clips[key] = self._rows.open(sample, position)
            except CorruptError as error:
                self._clips[key] = None
                if is_first:
                    self.skip(error)
        return self._clips.pop(key) if self._last[key] == self._place else self._clips[key]
