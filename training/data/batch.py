"""A batch of frame pairs: two frames of one clip each, with everything that is known about either."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor


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
        domain: [B] i64, places in ``PairLoader.domains``.
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
        names = ("domain", "face", "has_emotion", "flippable", "frame")
        changed = {name: change(getattr(self, name)) for name in names}
        return replace(self, source=self.source.map(change), driving=self.driving.map(change), **changed)

    def to(self, device: torch.device | str) -> Self:
        """The same on a device; pinned tensors travel while the host goes on."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """The same in page-locked memory; the name is the one that torch's DataLoader looks for."""
        return self.map(Tensor.pin_memory)
