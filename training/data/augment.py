"""Augmentation on the device: pictures and labels change together, both frames of a pair alike.

The parameters are drawn on the host from the batch's own seed, so that a run that goes on, or another device, changes
the same pairs in the same way.
"""

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from schemas.face import MOTION_CHANNELS, POSE_FIELDS
from training.data.batch import Batch, Side
from training.data.config import AugmentConfig

# Left and right of these are known; "none" has the arrays of ibug68 without content.
FLIPPABLE_SCHEMES = ("ibug68", "none")

# The point of 300-W's 68 that takes each one's place in a mirror: jaw, brows, nose, eyes, lips.
IBUG68_MIRROR: tuple[int, ...] = (
    *range(16, -1, -1),
    *range(26, 16, -1),
    *(27, 28, 29, 30),
    *(35, 34, 33, 32, 31),
    *(45, 44, 43, 42, 47, 46),
    *(39, 38, 37, 36, 41, 40),
    *(54, 53, 52, 51, 50, 49, 48),
    *(59, 58, 57, 56, 55),
    *(64, 63, 62, 61, 60),
    *(67, 66, 65),
)  # fmt: skip
_YAW, _ROLL, _TX, _POSE_CONFIDENCE = (POSE_FIELDS.index(name) for name in ("yaw_deg", "roll_deg", "tx", "confidence"))
_LEFT_EYE, _RIGHT_EYE = (MOTION_CHANNELS.index(f"eye_closure_{side}") for side in ("left", "right"))

# ITU-R BT.601 luma, and the axes of the NTSC's YIQ, in which a turn of I and Q is a turn of the hue.
_LUMA = (0.299, 0.587, 0.114)
_TO_YIQ = torch.tensor([_LUMA, (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135)])


def augment(batch: Batch, config: AugmentConfig) -> Batch:
    """A batch as the model is to see it: frames as f32 from 0 to 1, some pairs mirrored, swapped in time, recoloured.

    Pairs whose landmarks have no known left and right (``Batch.flippable``) are never mirrored.
    """
    numbers = torch.Generator().manual_seed(batch.seed)
    draws = torch.rand(len(batch), 6, generator=numbers)
    device = batch.source.frames.device
    swapped = (draws[:, 0] < config.time_flip).to(device)
    mirrored = (draws[:, 1] < config.flip).to(device) & batch.flippable
    limits = torch.tensor([config.brightness, config.contrast, config.saturation, config.hue])
    changes = ((2.0 * draws[:, 2:] - 1.0) * limits).to(device)
    return recolour(mirror(swap(as_float(batch), swapped), mirrored), changes)


def as_float(batch: Batch) -> Batch:
    """The same with frames as f32 from 0 to 1: all that evaluation needs of this module."""
    return replace(batch, source=_as_float(batch.source), driving=_as_float(batch.driving))


def _as_float(side: Side) -> Side:
    return replace(side, frames=side.frames.float() / 255.0)


def swap(batch: Batch, rows: Tensor) -> Batch:
    """Exchange source and driving frame in ``rows`` [B] bool."""

    def chosen(mine: Side, other: Side) -> Side:
        both = {field.name: (getattr(mine, field.name), getattr(other, field.name)) for field in fields(Side)}
        values: dict[str, Any] = {name: _where(rows, taken, kept) for name, (kept, taken) in both.items()}
        return Side(**values)

    frame = torch.where(rows[:, None], batch.frame.flip(1), batch.frame)
    source, driving = chosen(batch.source, batch.driving), chosen(batch.driving, batch.source)
    return replace(batch, source=source, driving=driving, frame=frame)


def _where(rows: Tensor, taken: Tensor | None, kept: Tensor | None) -> Tensor | None:
    """``taken`` in ``rows`` [B], ``kept`` elsewhere."""
    if taken is None or kept is None:
        return None
    return torch.where(rows.view(-1, *[1] * (kept.dim() - 1)), taken, kept)


def mirror(batch: Batch, rows: Tensor) -> Batch:
    """Mirror left and right in ``rows`` [B] bool: pictures, and labels as if read from the mirrored pictures."""
    left, top, right, bottom = batch.face.unbind(1)
    face = torch.where(rows[:, None], torch.stack([1.0 - right, top, 1.0 - left, bottom], dim=1), batch.face)
    return replace(batch, source=_mirrored(batch.source, rows), driving=_mirrored(batch.driving, rows), face=face)


def recolour(batch: Batch, changes: Tensor) -> Batch:
    """Change colours, both frames of a pair by one map, and clip to 0 to 1.

    Args:
        batch: frames as floats.
        changes: [B, 4], what is added to the factors (1) of brightness, contrast and saturation, in this order, and
            turns of hue. Contrast keeps the pair's mean grey, saturation each pixel's.
    """
    device = batch.source.frames.device
    brightness, contrast, saturation = (1.0 + changes[:, :3]).unbind(1)
    angle = 2.0 * torch.pi * changes[:, 3]
    ones, zeros = torch.ones_like(angle), torch.zeros_like(angle)
    cos, sin = angle.cos() * saturation, angle.sin() * saturation
    turn = torch.stack([ones, zeros, zeros, zeros, cos, -sin, zeros, sin, cos], dim=1).view(-1, 3, 3)
    to_yiq = _TO_YIQ.to(device)
    matrix = torch.linalg.inv(to_yiq) @ turn @ to_yiq * (brightness * contrast)[:, None, None]
    luma = to_yiq[0].view(1, 3, 1, 1)
    grey = [(side.frames * luma).sum(1).mean((1, 2)) for side in (batch.source, batch.driving)]
    lift = (1.0 - contrast) * brightness * (grey[0] + grey[1]) / 2

    def change(side: Side) -> Side:
        coloured = torch.einsum("bij,bjhw->bihw", matrix, side.frames) + lift[:, None, None, None]
        return replace(side, frames=coloured.clamp(0.0, 1.0).contiguous(memory_format=torch.channels_last))

    return replace(batch, source=change(batch.source), driving=change(batch.driving))


def _mirrored(side: Side, rows: Tensor) -> Side:
    width_px = side.frames.shape[-1]
    frames = torch.where(rows[:, None, None, None], side.frames.flip(-1), side.frames)
    pose = side.pose.clone()
    pose[:, [_YAW, _ROLL]] *= -1.0
    # Pixel centres at whole numbers, in widths: what lies at 0 comes to lie at (W - 1) / W. Without a face all stay 0.
    pose[:, _TX] = (1.0 - 1.0 / width_px - pose[:, _TX]) * (pose[:, _POSE_CONFIDENCE] > 0)
    motion = side.motion.clone()
    motion[:, [_LEFT_EYE, _RIGHT_EYE]] = side.motion[:, [_RIGHT_EYE, _LEFT_EYE]]
    return replace(
        side,
        frames=frames,
        pose=torch.where(rows[:, None], pose, side.pose),
        landmarks=torch.where(rows[:, None, None], _mirrored_points(side.landmarks, width_px), side.landmarks),
        motion=torch.where(rows[:, None], motion, side.motion),
    )


def _mirrored_points(landmarks: Tensor, width_px: int) -> Tensor:
    if landmarks.shape[1] != len(IBUG68_MIRROR):  # of a scheme that is never mirrored
        return landmarks
    points = landmarks[:, list(IBUG68_MIRROR)].clone()
    points[..., 0] = (width_px - 1 - points[..., 0]) * (points[..., 2] > 0)
    return points
