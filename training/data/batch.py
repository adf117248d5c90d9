"""Batches: of frame pairs, two frames of one clip each, with all that is known about either; or of windows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class RowFacts:
    """What is known of a batch before any clip is opened: numbers of domain and group [B] i64, and its seed."""

    domain: np.ndarray
    group: np.ndarray
    seed: int


@dataclass(frozen=True, slots=True)
class Side:
    """One frame of each of B pairs.

    Attributes:
        frames: [B, 3, H, W], channels last in memory; u8 as read, float from 0 to 1 once augmented.
        pose: [B, 7] f32, the columns of ``POSE_FIELDS`` in ``POSE_CONVENTION``.
        landmarks: [B, P, 3] f32: x, y in pixels of ``frames``, centres at whole numbers, and confidence.
        motion: [B, M] f32, the columns of ``MOTION_CHANNELS``.
        valid: [B] bool: a face is there.
        emotion: [B, 8] f32 logits, zeros where a clip has none; None where no domain has any.
    """

    frames: Tensor
    pose: Tensor
    landmarks: Tensor
    motion: Tensor
    valid: Tensor
    emotion: Tensor | None

    def map(self, change: Callable[[Tensor], Tensor]) -> "Side":
        """The same with every tensor changed."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {name: None if old is None else change(old) for name, old in tensors.items()}
        return Side(**changed)


@dataclass(frozen=True, slots=True)
class Batch:
    """B pairs: the model sees ``source`` and is to make ``driving`` of it.

    Attributes:
        source: the first frame of each pair.
        driving: the second.
        domain: [B] i64, places in ``BatchLoader.domains``.
        group: [B] i64, places in ``BatchLoader.groups``; rows of one group are neighbours.
        face: [B, 4] f32: the clip's one face box, xyxy as shares of width and height.
        has_emotion: [B] bool: the clip has emotion logits.
        flippable: [B] bool: left and right of its landmarks are known.
        frame: [B, 2] i64, numbers of the source and driving frames in their clip.
        clip_ids: B names.
        seed: of this batch's augmentation; depends on the loader's seed, rank, worker and step alone.
    """

    source: Side
    driving: Side
    domain: Tensor
    group: Tensor
    face: Tensor
    has_emotion: Tensor
    flippable: Tensor
    frame: Tensor
    clip_ids: tuple[str, ...]
    seed: int

    def __len__(self) -> int:
        return len(self.clip_ids)

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same with every tensor changed."""
        names = ("domain", "group", "face", "has_emotion", "flippable", "frame")
        changed = {name: change(getattr(self, name)) for name in names}
        return replace(self, source=self.source.map(change), driving=self.driving.map(change), **changed)

    def to(self, device: torch.device | str) -> Self:
        """The same on a device; pinned tensors travel while the host goes on."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """The same in page-locked memory; the name is the one that torch's DataLoader looks for."""
        return self.map(Tensor.pin_memory)


@dataclass(frozen=True, slots=True)
class WindowSide:
    """One window of each of B rows, T frames long.

    Attributes:
        fields: by member name, such as ``landmarks.npy`` [B, T, P, 3], ``mel.npy`` [B, 4 T, 80], ``hubert.npy``
            [B, L, T, C] and ``latents.npy`` [B, T, D], in the types in which they are stored; zeros where a clip
            has none.
        present: [B] bool by member name, of the fields that a clip may lack: whether it has it.
        valid: [B, T] bool: a face is there.
        start: [B] i64, the window's first frame in its clip.
        clip_ids: B names.
    """

    fields: Mapping[str, Tensor]
    present: Mapping[str, Tensor]
    valid: Tensor
    start: Tensor
    clip_ids: tuple[str, ...]

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same with every tensor changed."""
        return replace(
            self,
            fields={name: change(values) for name, values in self.fields.items()},
            present={name: change(values) for name, values in self.present.items()},
            valid=change(self.valid),
            start=change(self.start),
        )


@dataclass(frozen=True, slots=True)
class WindowBatch:
    """B windows of T frames, each of one clip.

    Attributes:
        window: what was read of each.
        reference: a second window of each row's person; None unless the draw asks for it.
        domain: [B] i64, places in ``BatchLoader.domains``.
        group: [B] i64, places in ``BatchLoader.groups``; rows of one group are neighbours.
        scheme: [B] i64, places in ``BatchLoader.landmark_schemes``.
        points: [B, P] bool: which of the landmarks the row's scheme has; the others are zeros.
        identity_ids: B names of persons.
        seed: of whatever is random about this batch; depends on the loader's seed, rank, worker and step alone.
    """

    window: WindowSide
    reference: WindowSide | None
    domain: Tensor
    group: Tensor
    scheme: Tensor
    points: Tensor
    identity_ids: tuple[str, ...]
    seed: int

    def __len__(self) -> int:
        return len(self.window.clip_ids)

    def __getitem__(self, name: str) -> Tensor:
        return self.window.fields[name]

    @property
    def fields(self) -> Mapping[str, Tensor]:
        """Of the rows' own windows, by member name."""
        return self.window.fields

    @property
    def valid(self) -> Tensor:
        """[B, T] bool: a face is there."""
        return self.window.valid

    @property
    def start(self) -> Tensor:
        """[B] i64, the window's first frame in its clip."""
        return self.window.start

    @property
    def clip_ids(self) -> tuple[str, ...]:
        """B names."""
        return self.window.clip_ids

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same with every tensor changed."""
        changed = {name: change(getattr(self, name)) for name in ("domain", "group", "scheme", "points")}
        reference = None if self.reference is None else self.reference.map(change)
        return replace(self, window=self.window.map(change), reference=reference, **changed)

    def to(self, device: torch.device | str) -> Self:
        """The same on a device; pinned tensors travel while the host goes on."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """The same in page-locked memory; the name is the one that torch's DataLoader looks for."""
        return self.map(Tensor.pin_memory)
