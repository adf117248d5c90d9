"""One reader: the batches of one worker of one rank, each with the position from which the next would be read.

The position travels with the batch, since a worker reads ahead of the training: what was not handed out is read again.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from training.data.augment import FLIPPABLE_SCHEMES
from training.data.batch import Batch, Side
from training.data.cache import ShardCache
from training.data.clips import LABELS, CorruptError
from training.data.decode import FrameDecoder
from training.data.memory import OwnMemory, TurnMemory
from training.data.order import Purpose, deal, generator, mixture
from training.data.plan import LoadingPlan
from training.data.stream import Pair, PairStream, SkipCounts, decode_pair


@dataclass(frozen=True, slots=True)
class Delivery:
    """A batch, the reader's position after it, and what it has skipped since it began (``SkipCounts``)."""

    batch: Batch
    reader: int
    position: dict[str, Any]
    skipped: dict[str, int]
    examples: dict[str, str]

    def pin_memory(self) -> "Delivery":
        """The name that torch's DataLoader looks for."""
        return replace(self, batch=self.batch.pin_memory())

    def with_frames(self, frames: torch.Tensor | None) -> "Delivery":
        """The same with other frames [2, B, S, S, 3] of both sides, or without any."""
        batch = self.batch
        one, other = [torch.empty(0)] * 2 if frames is None else frames.permute(0, 1, 4, 2, 3)
        source, driving = replace(batch.source, frames=one), replace(batch.driving, frames=other)
        return replace(self, batch=replace(batch, source=source, driving=driving))


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
        self._chances = mixture(plan.shards.counts, plan.config.weights, plan.config.alpha)
        self._decoder = FrameDecoder()
        self._memory = memory or OwnMemory(plan.frames_shape)
        cache = ShardCache(plan.config)
        self._streams: list[PairStream] = []
        for number, (domain, shards) in enumerate(plan.shards.by_domain.items()):
            hand = deal([shard.num_clips for shard in shards], plan.num_readers)[reader]
            block, place = at["streams"].get(domain, (0, 0))
            self._streams.append(
                PairStream(
                    [shards[index] for index in hand],
                    plan.config,
                    cache,
                    self._counts,
                    reader=reader,
                    domain=number,
                    position=(block, place),
                )
            )

    def __iter__(self) -> Iterator[Delivery]:
        while True:
            batch = self._next_batch()
            yield Delivery(
                batch, self._reader, self._position(), dict(self._counts.skipped), dict(self._counts.examples)
            )

    def _position(self) -> dict[str, Any]:
        streams = zip(self._plan.shards.by_domain, self._streams, strict=True)
        return {
            "batches": self._num_batches,
            "opened": self._counts.opened,
            "skipped": dict(self._counts.skipped),
            "streams": {domain: list(stream.position) for domain, stream in streams},
        }

    def _next_batch(self) -> Batch:
        config, layout = self._plan.config, self._plan.layout
        mix = generator(config.seed, self._reader, Purpose.MIX, self._num_batches)
        domains = mix.choice(len(self._chances), size=config.batch_size, p=self._chances)
        streams = [self._streams[domain] for domain in domains]
        # All clips first, all frames then: a decoder leaves nothing of other code in the processor's caches.
        taken = [self._take(stream) for stream in streams]
        frames = self._memory.take()
        pairs = [self._decoded(*both, frames[:, row]) for row, both in enumerate(zip(streams, taken, strict=True))]
        augment = generator(config.seed, self._reader, Purpose.AUGMENT, self._num_batches)
        self._num_batches += 1
        return Batch(
            source=self._side(frames[0], pairs, 0),
            driving=self._side(frames[1], pairs, 1),
            domain=torch.from_numpy(domains.astype(np.int64)),
            face=_as_tensor([pair.clip.info.plan.face_in_crop() for pair in pairs]),
            has_emotion=_as_tensor([layout.with_emotion and "emotion.npy" in pair.clip.labels for pair in pairs]),
            flippable=_as_tensor([pair.clip.info.landmark_scheme in FLIPPABLE_SCHEMES for pair in pairs]),
            frame=_as_tensor([pair.frames for pair in pairs]),
            clip_ids=tuple(pair.clip.info.clip_id for pair in pairs),
            seed=int(augment.integers(1 << 62)),
        )

    def _take(self, stream: PairStream) -> Pair:
        """The stream's next pair that fits."""
        while True:
            pair = stream.take()
            try:
                self._check_layout(pair)
            except CorruptError as error:
                stream.skip(error)
            else:
                return pair

    def _decoded(self, stream: PairStream, pair: Pair, into: np.ndarray) -> Pair:
        """The pair, or the stream's next one that decodes, its frames in ``into`` [2, S, S, 3]."""
        while True:
            try:
                decode_pair(self._decoder, pair, into)
            except CorruptError as error:
                stream.skip(error)
                pair = self._take(stream)
            else:
                return pair

    def _check_layout(self, pair: Pair) -> None:
        info, layout = pair.clip.info, self._plan.layout
        num_points = pair.clip.labels["landmarks.npy"].shape[1]
        if num_points != layout.num_points or (self._plan.config.size_px is None and info.size_px != layout.size_px):
            raise CorruptError(
                "layout",
                f"{info.clip_id} has {num_points} points in {info.size_px} px, the others {layout.num_points} in "
                f"{layout.size_px} px (size_px scales them)",
            )

    def _side(self, frames: np.ndarray, pairs: Sequence[Pair], place: int) -> Side:
        emotion = _stack(pairs, place, "emotion.npy") if self._plan.layout.with_emotion else None
        pose, landmarks, motion, valid = (_stack(pairs, place, suffix) for suffix in LABELS[:4])
        sizes_px = np.array([pair.clip.info.size_px for pair in pairs], np.float32)
        _scale(pose, landmarks, sizes_px, self._plan.layout.size_px)
        return Side(
            frames=torch.from_numpy(frames).permute(0, 3, 1, 2),  # a view: channels stay last in memory
            pose=torch.from_numpy(pose),
            landmarks=torch.from_numpy(landmarks),
            motion=torch.from_numpy(motion),
            valid=torch.from_numpy(valid),
            emotion=None if emotion is None else torch.from_numpy(emotion),
        )


def _as_tensor(rows: list[Any]) -> torch.Tensor:
    return torch.from_numpy(np.array(rows))  # torch.tensor reads a list ten times as slowly


def _stack(pairs: Sequence[Pair], place: int, suffix: str) -> np.ndarray:
    """One row per pair of a label; zeros where a clip has no emotion."""
    rows = [pair.clip.labels[suffix][pair.frames[place]] if suffix in pair.clip.labels else None for pair in pairs]
    some = next((row for row in rows if row is not None), np.zeros(8, np.float32))
    stacked = np.zeros((len(rows), *some.shape), some.dtype)
    for number, row in enumerate(rows):
        if row is not None:
            stacked[number] = row
    return stacked


def _scale(pose: np.ndarray, landmarks: np.ndarray, sizes_px: np.ndarray, to_px: int) -> None:
    """Carry labels from frames of ``sizes_px`` [B] to frames of ``to_px``, pixel centres at whole numbers in both."""
    if (sizes_px == to_px).all():
        return
    scale = to_px / sizes_px
    seen = landmarks[..., 2] > 0
    moved = (landmarks[..., :2] + 0.5) * scale[:, None, None] - 0.5
    landmarks[..., :2] = np.where(seen[..., None], moved, landmarks[..., :2])
    shift = 0.5 / sizes_px - 0.5 / to_px
    pose[:, 3:5] += np.where(pose[:, 6] > 0, shift, 0.0)[:, None]
