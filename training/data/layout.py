"""What the samples of a plan share, so that they can be stacked, and how labels are carried to one size of frame."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from schemas.errors import UsageError
from schemas.face import num_points
from training.data.clips import ClipInfo
from training.data.config import PairsConfig


@dataclass(frozen=True, slots=True)
class FieldLayout:
    """What a field looks like in one row of a batch of windows: shape, type, whether a clip may lack it."""

    shape: tuple[int, ...]
    dtype: np.dtype
    optional: bool


@dataclass(frozen=True, slots=True)
class BatchLayout:
    """What all samples share.

    Attributes:
        size_px: side of the frames, in which labels are.
        num_points: landmarks of a row; of windows those of the largest scheme.
        with_emotion: whether any domain has emotion logits.
        schemes: of landmarks, sorted; places in it are a row's scheme.
        fields: of windows, by suffix.
    """

    size_px: int
    num_points: int
    with_emotion: bool
    schemes: tuple[str, ...] = ()
    fields: Mapping[str, FieldLayout] = field(default_factory=dict[str, FieldLayout])


def common_size(infos: Mapping[str, ClipInfo], config: PairsConfig) -> int:
    """Side of the frames of all domains.

    Raises:
        UsageError: when they differ and nothing says to which they are scaled.
    """
    sizes = {domain: info.size_px for domain, info in infos.items()}
    if config.size_px is None and len(set(sizes.values())) > 1:
        raise UsageError(f"the domains have frames of different size ({listed(sizes.items())} px): set size_px")
    return config.size_px or next(iter(sizes.values()))


def pair_layout(infos: Mapping[str, ClipInfo], config: PairsConfig) -> BatchLayout:
    """What pairs of frames share, judged by the first sample of every domain.

    Raises:
        UsageError: when frames differ in size, or landmarks in number.
    """
    size_px = common_size(infos, config)
    points = {domain: num_points(info.landmark_scheme) for domain, info in infos.items()}
    if len(set(points.values())) > 1:
        raise UsageError(
            f"the domains have different numbers of landmarks ({listed(points.items())}): read them apart, or build "
            "them with one landmark scheme"
        )
    return BatchLayout(
        size_px=size_px,
        num_points=next(iter(points.values())),
        with_emotion=any(info.expression is not None for info in infos.values()),
        schemes=tuple(sorted({info.landmark_scheme for info in infos.values()})),
    )


def listed(counts: Iterable[tuple[str, int]]) -> str:
    """``mesh 68, real 98``."""
    return ", ".join(f"{name} {count}" for name, count in counts)


def scale_points(landmarks: np.ndarray, sizes_px: np.ndarray, to_px: int) -> None:
    """Carry landmarks [B, …, P, 3] from frames of ``sizes_px`` [B] to ``to_px``, pixel centres at whole numbers."""
    if (sizes_px == to_px).all():
        return
    scale = (to_px / sizes_px).reshape(-1, *[1] * (landmarks.ndim - 1))
    seen = landmarks[..., 2] > 0
    moved = (landmarks[..., :2] + 0.5) * scale - 0.5
    landmarks[..., :2] = np.where(seen[..., None], moved, landmarks[..., :2])


def scale_pose(pose: np.ndarray, sizes_px: np.ndarray, to_px: int) -> None:
    """Carry poses [B, …, 7] from frames of ``sizes_px`` [B] to ``to_px``; their centres are shares of the sides."""
    if (sizes_px == to_px).all():
        return
    shift = (0.5 / sizes_px - 0.5 / to_px).reshape(-1, *[1] * (pose.ndim - 2))
    pose[..., 3:5] += np.where(pose[..., 6] > 0, shift, 0.0)[..., None]
