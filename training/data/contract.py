"""What the tables of batches hold, by draw: pictures, labels and which can be believed of pairs; series of windows.

A table maps names to tensors whose first axis is the batch's. ``REQUIRED`` and ``OPTIONAL`` are those of frame pairs,
which ``prepared`` and ``check_labels`` mind; ``window_table`` makes those of windows.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from schemas.errors import DataError
from training.data.batch import WindowBatch, WindowSide

# Axes after the batch's; None is free. Pictures are RGB, u8 or from 0 to 1. Poses are in schemas.face.POSE_FIELDS.
REQUIRED: dict[str, tuple[int | None, ...]] = {
    "source": (3, None, None),
    "driving": (3, None, None),
    "source_pose": (7,),
    "driving_pose": (7,),
    "source_landmarks": (None, 3),
    "driving_landmarks": (None, 3),
    "source_valid": (),
    "driving_valid": (),
    "domain": (),
}
# emotion logits in AffectNet's order, and whether there are any; the face as xyxy shares of the driving picture's sides
OPTIONAL: dict[str, tuple[int | None, ...]] = {"driving_emotion": (8,), "has_emotion": (), "driving_face": (4,)}
# Of every table of windows: numbers of domain, group and landmark scheme, which points that scheme has, first frame of
# each window and where a face is [T]. Beside these, each field by its member's name without ``.npy`` ("mel"), has_NAME
# of those that a clip may lack, and the reference's with "reference_" before its names where the draw brings one.
WINDOW_REQUIRED: dict[str, tuple[int | None, ...]] = {
    "domain": (),
    "group": (),
    "scheme": (),
    "points": (None,),
    "start": (),
    "valid": (None,),
}
_CONFIDENCE = 6  # the last of POSE_FIELDS


def prepared(batch: Mapping[str, Tensor], image_px: int) -> dict[str, Tensor]:
    """The batch with pictures as floats from 0 to 1.

    Args:
        batch: of the fields above, on any device.
        image_px: side that pictures must have.

    Raises:
        DataError: for a missing field, another shape, or a label that is believed and no number.
    """
    count = len(batch["source"]) if "source" in batch else 0
    for name, axes in (REQUIRED | OPTIONAL).items():
        if name not in batch:
            if name in OPTIONAL:
                continue
            raise DataError(f"a batch has no {name}: it needs {', '.join(REQUIRED)}")
        shape = tuple(batch[name].shape)
        fits = len(shape) == 1 + len(axes) and shape[0] == count
        if not fits or any(axis not in (None, size) for axis, size in zip(axes, shape[1:], strict=True)):
            wanted = ", ".join("any" if axis is None else str(axis) for axis in (count, *axes))
            raise DataError(f"{name} of a batch has shape {shape}, expected ({wanted})")
    ready = {name: batch[name] for name in (*REQUIRED, *OPTIONAL) if name in batch}
    for name in ("source", "driving"):
        if ready[name].shape[2:] != (image_px, image_px):
            height, width = ready[name].shape[2:]
            raise DataError(f"{name} pictures are {width}×{height} px and the model makes {image_px}: scale them")
        if ready[name].dtype == torch.uint8:
            ready[name] = ready[name].float() / 255
    return ready


def check_labels(batch: Mapping[str, Tensor]) -> None:
    """Refuse poses that claim confidence and are no numbers; meant for batches that are still on the host.

    Raises:
        DataError: naming the field and its place in the batch.
    """
    for name in ("source_pose", "driving_pose"):
        believed = ~(batch[name][:, _CONFIDENCE] <= 0)
        wrong = believed & ~batch[name].isfinite().all(dim=1)
        if wrong.any():
            row = int(wrong.nonzero()[0])
            raise DataError(f"{name} of pair {row} of a batch is no number: the shard is damaged, run anitalk verify")


def confidence(pose: Tensor) -> Tensor:
    """How far pose labels [B, 7] can be believed, 0 to 1."""
    return pose[:, _CONFIDENCE]


def window_table(batch: WindowBatch) -> dict[str, Tensor]:
    """A loader's batch of windows by the names of ``WINDOW_REQUIRED``; nothing is copied."""
    table = {"domain": batch.domain, "group": batch.group, "scheme": batch.scheme, "points": batch.points}
    table |= _side_table(batch.window, "")
    if batch.reference is not None:
        table |= _side_table(batch.reference, "reference_")
    return table


def _side_table(side: WindowSide, prefix: str) -> dict[str, Tensor]:
    table = {f"{prefix}start": side.start, f"{prefix}valid": side.valid}
    for suffix, values in side.fields.items():
        table[prefix + suffix.removesuffix(".npy")] = values
    for suffix, values in side.present.items():
        table[f"{prefix}has_{suffix.removesuffix('.npy')}"] = values
    return table
