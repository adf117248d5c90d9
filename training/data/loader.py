"""Endless batches for one rank, from any number of workers, with a position that can be saved.

Worker w of W makes batches w, w + W, …, so which batch comes next never depends on which worker is quicker. A reader
(worker of a rank) owns its shards and its random numbers; going on at batch b starts the workers turned by b, each at
the position that came with its last batch that was handed out.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Generic, overload

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from schemas.errors import AnitalkError, CheckpointError, UsageError
from schemas.expression import ExpressionInput
from training.data.batch import Batch, WindowBatch
from training.data.config import PairsConfig
from training.data.draws import Draw, FramePairs, Windows, order_of
from training.data.memory import OwnMemory, TurnMemory, shared_places
from training.data.plan import LoadingPlan, make_plan
from training.data.reader import BatchT, Delivery, Reader
from training.data.shards import Where

log = logging.getLogger(__name__)

_STATE_VERSION = 1
_PREFETCHED_BATCHES = 2  # per worker, of those that were asked for and not handed out
# Of each worker: DataLoader asks for batch n + 3 when it hands out n + 1, and then the frames of n were copied.
_NUM_PLACES = _PREFETCHED_BATCHES + 1


def pairs(
    shards: Where,
    config: PairsConfig | None = None,
    draw: FramePairs | None = None,
    *,
    rank: int | None = None,
    world_size: int | None = None,
    pin_memory: bool = False,
) -> "PairLoader":
    """Batches of frame pairs: ``open_batches`` for those who want nothing else."""
    return open_batches(shards, config, draw, rank=rank, world_size=world_size, pin_memory=pin_memory)


@overload
def open_batches(
    shards: Where,
    config: PairsConfig | None = None,
    draw: FramePairs | None = None,
    *,
    rank: int | None = None,
    world_size: int | None = None,
    pin_memory: bool = False,
) -> "BatchLoader[Batch]": ...


@overload
def open_batches(
    shards: Where,
    config: PairsConfig | None,
    draw: Windows,
    *,
    rank: int | None = None,
    world_size: int | None = None,
    pin_memory: bool = False,
) -> "BatchLoader[WindowBatch]": ...


def open_batches(
    shards: Where,
    config: PairsConfig | None = None,
    draw: Draw | None = None,
    *,
    rank: int | None = None,
    world_size: int | None = None,
    pin_memory: bool = False,
) -> "BatchLoader[Any]":
    """Batches from a release or from shards.

    Args:
        shards: the folder or URI of a release (its split is ``config.split``); or shards by path or URL, of which one
            may stand for many (``https://host/train-real-visual-{000000..000063}.tar``).
        config: which clips are drawn; by default of all domains of the training split, in this process.
        draw: what makes a row: by default a pair of frames (``Batch``); ``Windows`` gives ``WindowBatch``.
        rank: number of this process among ``world_size``; by default torch.distributed's, or 0 of 1.
        world_size: processes that train together, all with the same shards and settings.
        pin_memory: hand out batches in page-locked memory, from which they travel to a GPU while the host goes on.

    Raises:
        UsageError: when something was asked for that these shards cannot give: a split, a domain, so many readers.
        DataError: when shards cannot be reached, are cut off, or are of another version or convention.
    """
    config = config or PairsConfig()
    if rank is None or world_size is None:
        if (rank, world_size) != (None, None):
            raise UsageError("rank and world_size belong together: give both or neither")
        known = dist.is_available() and dist.is_initialized()
        rank, world_size = (dist.get_rank(), dist.get_world_size()) if known else (0, 1)
    if not 0 <= rank < world_size:
        raise UsageError(f"rank {rank} is not among the ranks 0 to {world_size - 1}")
    plan = make_plan(shards, config, world_size * max(config.num_workers, 1), draw)
    return BatchLoader(plan, rank, world_size, pin_memory=pin_memory)


class BatchLoader(Generic[BatchT]):
    """Iterates over batches; iterating again goes on where the last iteration stopped.

    Attributes:
        domains: what ``domain`` of a batch counts.
        groups: what ``group`` of a batch counts: the names of the quotas, or ``all``.
        skipped: samples and rows that could not be used, by class, as far as batches were handed out.
        wait_s: seconds that iterating has waited for data.
    """

    def __init__(self, plan: LoadingPlan, rank: int, world_size: int, *, pin_memory: bool = False) -> None:
        self.domains = tuple(plan.shards.by_domain)
        self.groups = tuple(group.name for group in plan.groups)
        self.skipped: Counter[str] = Counter()
        self.wait_s = 0.0
        self._plan, self._rank, self._world_size, self._pin_memory = plan, rank, world_size, pin_memory
        self._num_batches = 0
        self._positions: dict[int, dict[str, Any]] = {}
        self._running: Iterator[Any] | None = None
        self._memory = OwnMemory(plan.frames_shape)
        self._places: torch.Tensor | None = None  # of workers
        self._num_taken = 0  # batches from the present workers
        self._logged: set[str] = set()

    @property
    def clips(self) -> dict[str, int]:
        """Clips by domain, of all ranks."""
        return self._plan.shards.counts

    @property
    def expressions(self) -> Mapping[str, ExpressionInput | None]:
        """How each domain's emotion logits were made; None where it has none."""
        return self._plan.expressions

    @property
    def shares(self) -> dict[str, float]:
        """How often a row is of each domain."""
        shares = dict.fromkeys(self.domains, 0.0)
        for group in self._plan.groups:
            for number, chance in zip(group.domains, group.chances.tolist(), strict=True):
                shares[self.domains[number]] += chance * (group.rows / self._plan.config.batch_size)
        return shares

    @property
    def size_px(self) -> int:
        """Side of the frames, in which landmarks are."""
        return self._plan.layout.size_px

    @property
    def landmark_schemes(self) -> tuple[str, ...]:
        """What ``WindowBatch.scheme`` counts."""
        return self._plan.layout.schemes

    def __iter__(self) -> Iterator[BatchT]:
        per_epoch = self._plan.config.epoch_batches
        while True:
            yield self._next()
            if per_epoch and self._num_batches % per_epoch == 0:
                return

    def _next(self) -> BatchT:
        began = time.monotonic()
        if self._running is None:
            self._running = iter(self._started())
        delivery = next(self._running)
        if isinstance(delivery, _Failure):
            self._running = None
            raise delivery.error
        delivery = self._received(delivery)
        self.wait_s += time.monotonic() - began
        self._num_batches += 1
        self._positions[delivery.reader] = delivery.position
        self._log_skipped(delivery)
        return delivery.batch

    def _received(self, delivery: Delivery[BatchT]) -> Delivery[BatchT]:
        """With the frames that a worker left in the place whose turn it was."""
        if self._places is None:
            return delivery
        turn, worker = divmod(self._num_taken, len(self._places))
        self._num_taken += 1
        slot = self._places[worker, turn % _NUM_PLACES]
        if self._pin_memory:
            return delivery.with_frames(torch.empty(slot.shape, dtype=torch.uint8, pin_memory=True).copy_(slot))
        frames = self._memory.take()
        frames[:] = slot.numpy()
        return delivery.with_frames(torch.from_numpy(frames))

    def _started(self) -> DataLoader[Any]:
        config, self._places, self._num_taken = self._plan.config, None, 0
        if config.num_workers and isinstance(self._plan.draw, FramePairs):
            self._places = shared_places(config.num_workers, _NUM_PLACES, self._plan.frames_shape)
        readers = _Readers(self._plan, self._rank, self._num_batches, self._positions, self._places)
        return DataLoader(
            readers,
            batch_size=None,  # readers make whole batches
            num_workers=config.num_workers,
            prefetch_factor=_PREFETCHED_BATCHES if config.num_workers else None,
            pin_memory=self._pin_memory,
            generator=torch.Generator(),  # it would take one of the process's own random numbers, and nobody needs it
        )

    def _log_skipped(self, delivery: Delivery[BatchT]) -> None:
        """Keep count of what was skipped; the first of each class is logged."""
        for kind, example in delivery.examples.items():
            if kind not in self._logged:
                self._logged.add(kind)
                log.warning("skipped (%s): %s; more of this class is only counted", kind, example)
        self._count()

    def _count(self) -> None:
        self.skipped = Counter()
        for position in self._positions.values():
            self.skipped.update(position["skipped"])

    # ---- going on later --------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The position after the last batch that was handed out, of this rank; plain numbers, fit for JSON."""
        return {
            "version": _STATE_VERSION,
            "made_with": self._made_with(),
            "batches": self._num_batches,
            "readers": {str(reader): position for reader, position in sorted(self._positions.items())},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``: the next batch is the one that would have come next.

        Raises:
            CheckpointError: when it was saved with other shards, settings, ranks or workers, which draw otherwise.
        """
        if state.get("version") != _STATE_VERSION:
            raise CheckpointError(f"the saved position in the data has version {state.get('version')!r}, not 1")
        saved, own = state["made_with"], self._made_with()
        for name in dict.fromkeys([*own, *({"draw"} & saved.keys())]):
            if saved.get(name) != own.get(name):
                raise CheckpointError(
                    f"the saved position in the data was made with {name} = {saved.get(name)}, and this run has "
                    f"{own.get(name)}: go on with the same, or begin the data anew"
                )
        self._num_batches = int(state["batches"])
        self._positions = {int(reader): dict(position) for reader, position in state["readers"].items()}
        self._running = None
        self._count()

    def _made_with(self) -> dict[str, Any]:
        """What the order depends on, as JSON has it."""
        order = {name: value for name, value in self._plan.config.order().items() if name != "epoch_batches"}
        share = {"rank": self._rank, "world_size": self._world_size, "shards": self._plan.shards.fingerprint()}
        draw = order_of(self._plan.draw)
        return {**order, **share, "domains": list(self.domains), **({} if draw is None else {"draw": draw})}


PairLoader = BatchLoader[Batch]


class _Readers(IterableDataset[Any]):
    """One iterator per worker: the reader whose turn it is when this worker's turn comes."""

    def __init__(
        self,
        plan: LoadingPlan,
        rank: int,
        num_batches: int,
        positions: Mapping[int, Mapping[str, Any]],
        places: torch.Tensor | None,
    ) -> None:
        self._plan, self._rank, self._num_batches, self._positions = plan, rank, num_batches, positions
        self._places = places

    def __iter__(self) -> "Iterator[Delivery[Any] | _Failure]":
        worker = get_worker_info()
        num_workers = worker.num_workers if worker else 1
        turn = (self._num_batches + (worker.id if worker else 0)) % num_workers
        number = self._rank * num_workers + turn
        try:
            position = self._positions.get(number)
            if worker is None or self._places is None:
                yield from Reader(self._plan, number, position)
                return
            reader = Reader(self._plan, number, position, TurnMemory(self._places[worker.id]))
            yield from (delivery.with_frames(None) for delivery in reader)  # they lie where both processes see them
        except AnitalkError as error:
            yield _Failure(error)  # raised across processes it would be wrapped in the worker's traceback


class _Failure:
    """An error for the user on its way out of a worker."""

    def __init__(self, error: AnitalkError) -> None:
        self.error = error
