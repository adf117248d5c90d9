"""One reader: the batches of one worker of one rank, each with the position from which the next would be read.

The position travels with the batch, since a worker reads ahead of the training: what was not handed out is read again.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import torch

from training.data.batch import Batch, RowFacts, WindowBatch
from training.data.cache import ShardCache
from training.data.draws import FramePairs
from training.data.frame_pairs import PairRows
from training.data.memory import OwnMemory, TurnMemory
from training.data.opening import ShardFiles
from training.data.order import Purpose, deal, draw_domains, generator
from training.data.plan import LoadingPlan
from training.data.stream import ClipStream, SkipCounts
from training.data.windows import WindowRows

BatchT = TypeVar("BatchT", bound=Batch | WindowBatch)


@dataclass(frozen=True, slots=True)
class Delivery(Generic[BatchT]):
    """A batch, the reader's position after it, and what it has skipped since it began (``SkipCounts``)."""

    batch: BatchT
    reader: int
    position: dict[str, Any]
    skipped: dict[str, int]
    examples: dict[str, str]

    def pin_memory(self) -> "Delivery[BatchT]":
        """The name that torch's DataLoader looks for."""
        return replace(self, batch=self.batch.pin_memory())

    def with_frames(self, frames: torch.Tensor | None) -> "Delivery[BatchT]":
        """The same with other frames [2, B, S, S, 3] of both sides, or without any."""
        batch = self.batch
        if not isinstance(batch, Batch):
            return self
        source, driving = [torch.empty(0)] * 2 if frames is None else frames.permute(0, 1, 4, 2, 3)
        sides = {"source": replace(batch.source, frames=source), "driving": replace(batch.driving, frames=driving)}
        return replace(self, batch=replace(batch, **sides))


class Reader:
    """Batches of one reader, from a position on."""

    def __init__(
        self,
        plan: LoadingPlan,
        reader: int,
        position: Mapping[str, Any] | None = None,
        memory: OwnMemory | TurnMemory | None = None,
    ) -> None:
        self._plan, self._reader = plan, reader
        at = position or {"batches": 0, "opened": 0, "skipped": {}, "streams": {}}
        self._num_batches = int(at["batches"])
        self._counts = SkipCounts(int(at["opened"]), Counter(at["skipped"]))
        self._rows_per_draw = plan.draw.pairs_per_frames if isinstance(plan.draw, FramePairs) else 1
        cache = ShardCache(plan.config)
        self._rows = _rows(plan, reader, memory, cache)
        self._streams: list[ClipStream[Any]] = []
        for number, (domain, shards) in enumerate(plan.shards.by_domain.items()):
            hand = deal([shard.num_clips for shard in shards], plan.num_readers)[reader]
            block, position_in_block = at["streams"].get(domain, (0, 0))
            self._streams.append(
                ClipStream(
                    [shards[index] for index in hand],
                    plan.config,
                    ShardFiles(cache),
                    self._rows,
                    self._counts,
                    reader=reader,
                    domain=number,
                    position=(block, position_in_block),
                )
            )

    def __iter__(self) -> Iterator[Delivery[Any]]:
        while True:
            batch = self._next_batch()
            skipped, examples = dict(self._counts.skipped), dict(self._counts.examples)
            yield Delivery(batch, self._reader, self._position(), skipped, examples)

    def _position(self) -> dict[str, Any]:
        streams = zip(self._plan.shards.by_domain, self._streams, strict=True)
        return {
            "batches": self._num_batches,
            "opened": self._counts.opened,
            "skipped": dict(self._counts.skipped),
            "streams": {domain: list(stream.position) for domain, stream in streams},
        }

    def _next_batch(self) -> Batch | WindowBatch:
        seed = self._plan.config.seed
        mix = generator(seed, self._reader, Purpose.MIX, self._num_batches)
        domain, group = draw_domains(self._plan.groups, self._rows_per_draw, mix)
        augment = generator(seed, self._reader, Purpose.AUGMENT, self._num_batches)
        facts = RowFacts(domain, group, int(augment.integers(1 << 62)))
        batch = self._rows.batch([self._streams[number] for number in domain[:: self._rows_per_draw]], facts)
        self._num_batches += 1
        return batch


def _rows(
    plan: LoadingPlan, reader: int, memory: OwnMemory | TurnMemory | None, cache: ShardCache
) -> PairRows | WindowRows:
    if isinstance(plan.draw, FramePairs):
        return PairRows(plan, plan.draw, reader, memory)
    return WindowRows(plan, plan.draw, reader, cache)
