"""Rows that are pairs of frames: how they come out of a clip, and how a batch is made of them.

Every frame of a clip is a key frame, so the frames of waiting rows wait as packets, and are decoded into the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from training.data.augment import FLIPPABLE_SCHEMES
from training.data.batch import Batch, RowFacts, Side
from training.data.clips import LABELS, CorruptError, OpenedClip, open_clip
from training.data.decode import FrameDecoder
from training.data.draws import FramePairs
from training.data.layout import scale_points, scale_pose
from training.data.memory import OwnMemory, TurnMemory
from training.data.opening import Sample
from training.data.order import Purpose, draw_frames, generator
from training.data.plan import LoadingPlan
from training.data.stream import ClipStream
from training.data.video import FrameTable, Packets, read_packets, read_table


@dataclass(frozen=True, slots=True)
class FramePair:
    """One pair as read: numbers of its two frames, its clip with the labels, and its packets."""

    clip: OpenedClip
    frames: tuple[int, int]
    packets: Packets


@dataclass(slots=True)
class ClipPairs:
    """A clip of the present block with its pairs' frames [pairs, 2]."""

    clip: OpenedClip
    packets: Packets
    frames: np.ndarray


class PairRows:
    """Opens clips for one reader, and makes batches.

    Args:
        plan: of the run.
        draw: whether both directions of a decoded pair are used.
        reader: number of the reader.
        memory: where frames are decoded to.
    """

    def __init__(
        self, plan: LoadingPlan, draw: FramePairs, reader: int, memory: OwnMemory | TurnMemory | None = None
    ) -> None:
        self._config, self._layout, self._reader = plan.config, plan.layout, reader
        self._directions = draw.pairs_per_frames
        self._decoder = FrameDecoder()
        self._memory = memory or OwnMemory(plan.frames_shape)
        self._tables: dict[tuple[str, int], FrameTable] = {}  # 2 kB per clip

    def open(self, sample: Sample, position: tuple[int, ...]) -> ClipPairs:
        """The labels of a clip, and the packets of all its pairs.

        Raises:
            CorruptError: when it cannot be used.
        """
        descriptor, entry = sample.members["visual"]
        clip = open_clip(descriptor, entry)
        valid = clip.labels["valid.npy"]
        usable = np.flatnonzero(valid) if self._config.faces_only else np.arange(len(valid))
        if len(usable) < 2:
            raise CorruptError("faces", f"{entry.key} has {len(usable)} frames with a face, and a pair needs two")
        numbers = generator(self._config.seed, self._reader, Purpose.FRAMES, *position)
        frames = draw_frames(usable, self._config.pairs_per_clip, numbers)
        address = sample.shard.name, sample.index
        if address not in self._tables:
            self._tables[address] = read_table(descriptor, entry, clip.info)
        packets = read_packets(descriptor, entry, self._tables[address], [int(number) for number in frames.ravel()])
        return ClipPairs(clip, packets, frames)

    def row(self, opened: ClipPairs, slot: int) -> FramePair:
        """One of the clip's pairs, not decoded yet.

        Raises:
            CorruptError: when it cannot be stacked with those of other clips.
        """
        info, layout = opened.clip.info, self._layout
        num_points = opened.clip.labels["landmarks.npy"].shape[1]
        if num_points != layout.num_points or (self._config.size_px is None and info.size_px != layout.size_px):
            raise CorruptError(
                "layout",
                f"{info.clip_id} has {num_points} points in {info.size_px} px, the others {layout.num_points} in "
                f"{layout.size_px} px (size_px scales them)",
            )
        source, driving = (int(number) for number in opened.frames[slot])
        return FramePair(opened.clip, (source, driving), opened.packets)

    def batch(self, streams: Sequence[ClipStream[FramePair]], facts: RowFacts) -> Batch:
        """Take a pair of each stream, decode them, and stack them with their labels."""
        # All clips first, all frames then: a decoder leaves nothing of other code in the processor's caches.
        taken = [stream.take() for stream in streams]
        frames = self._memory.take()
        pairs: list[FramePair] = []
        for stream, drawn in zip(streams, taken, strict=True):
            row = len(pairs)
            pair = self._decoded(stream, drawn, frames[:, row])
            pairs.append(pair)
            if self._directions > 1:
                frames[0, row + 1], frames[1, row + 1] = frames[1, row], frames[0, row]
                pairs.append(replace(pair, frames=pair.frames[::-1]))
        return self._stacked(frames, pairs, facts)

    def _decoded(self, stream: ClipStream[FramePair], pair: FramePair, into: np.ndarray) -> FramePair:
        """The pair, or the stream's next one that decodes, its frames in ``into`` [2, S, S, 3]."""
        while True:
            try:
                decode_pair(self._decoder, pair, into)
            except CorruptError as error:
                stream.skip(error)
                pair = stream.take()
            else:
                return pair

    def _stacked(self, frames: np.ndarray, pairs: Sequence[FramePair], facts: RowFacts) -> Batch:
        with_emotion = self._layout.with_emotion
        return Batch(
            source=self._side(frames[0], pairs, 0),
            driving=self._side(frames[1], pairs, 1),
            domain=torch.from_numpy(facts.domain),
            group=torch.from_numpy(facts.group),
            face=_as_tensor([pair.clip.info.plan.face_in_crop() for pair in pairs]),
            has_emotion=_as_tensor([with_emotion and "emotion.npy" in pair.clip.labels for pair in pairs]),
            flippable=_as_tensor([pair.clip.info.landmark_scheme in FLIPPABLE_SCHEMES for pair in pairs]),
            frame=_as_tensor([pair.frames for pair in pairs]),
            clip_ids=tuple(pair.clip.info.clip_id for pair in pairs),
            seed=facts.seed,
        )

    def _side(self, frames: np.ndarray, pairs: Sequence[FramePair], side: int) -> Side:
        emotion = _stack(pairs, side, "emotion.npy") if self._layout.with_emotion else None
        pose, landmarks, motion, valid = (_stack(pairs, side, suffix) for suffix in LABELS[:4])
        sizes_px = np.array([pair.clip.info.size_px for pair in pairs], np.float32)
        scale_pose(pose, sizes_px, self._layout.size_px)
        scale_points(landmarks, sizes_px, self._layout.size_px)
        return Side(
            frames=torch.from_numpy(frames).permute(0, 3, 1, 2),  # a view: channels stay last in memory
            pose=torch.from_numpy(pose),
            landmarks=torch.from_numpy(landmarks),
            motion=torch.from_numpy(motion),
            valid=torch.from_numpy(valid),
            emotion=None if emotion is None else torch.from_numpy(emotion),
        )


def decode_pair(decoder: FrameDecoder, pair: FramePair, into: np.ndarray) -> None:
    """Write both frames of a pair into ``into`` [2, S, S, 3].

    Raises:
        CorruptError: when one of them is damaged.
    """
    for side, frame in enumerate(pair.frames):
        try:
            decoder.decode(pair.packets.setup, pair.packets.by_frame[frame], into[side])
        except CorruptError as error:
            raise CorruptError(error.kind, f"{pair.clip.info.clip_id}: frame {frame} {error}") from error


def _as_tensor(rows: list[Any]) -> torch.Tensor:
    return torch.from_numpy(np.array(rows))  # torch.tensor reads a list ten times as slowly


def _stack(pairs: Sequence[FramePair], side: int, suffix: str) -> np.ndarray:
    """One row per pair of a label; zeros where a clip has no emotion."""
    rows = [pair.clip.labels[suffix][pair.frames[side]] if suffix in pair.clip.labels else None for pair in pairs]
    some = next((row for row in rows if row is not None), np.zeros(8, np.float32))
    stacked = np.zeros((len(rows), *some.shape), some.dtype)
    for number, row in enumerate(rows):
        if row is not None:
            stacked[number] = row
    return stacked
