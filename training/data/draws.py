"""What a recipe asks the loader for: which frames or windows make a row of a batch, and of which domains.

A draw says what is read; ``PairsConfig`` says from where, in which order and how much at a time. Both decide the
batches, so both are part of a saved position.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Quota:
    """How many rows of every batch come from a group of domains, such as two real and two cartoon ones.

    Attributes:
        domains: names of the group's domains; within it they are mixed by ``PairsConfig.alpha`` and ``weights``.
        rows: of each batch of one process.
    """

    domains: tuple[str, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class FramePairs:
    """Rows are pairs of different frames of one clip, from visual shards.

    Attributes:
        quotas: by the group's name, in the order of the batch's rows; empty: every row is drawn from all domains.
        pairs_per_frames: pairs that are formed of each decoded pair of frames: 1, or 2 to use both directions.
    """

    quotas: Mapping[str, Quota] = field(default_factory=dict[str, Quota])
    pairs_per_frames: int = 1


@dataclass(frozen=True, slots=True)
class Windows:
    """Rows are windows of neighbouring frames of one clip, from speech shards; no picture is decoded.

    Attributes:
        num_frames: T, length of a window.
        fields: members that are read, such as ``landmarks.npy``, ``mel.npy``, ``hubert.npy``, ``motion.npy``; each is
            cut to the window's time (``mel.npy`` has its own rate).
        reference: a second window of another clip of the same person comes with each row, as a style reference.
        sidecar: folder or URI of sidecar tars (what ``encode`` wrote), whose members are joined by the sample's key.
        sidecar_fields: members that are read from the sidecar, such as ``latents.npy``.
        quotas: as in :class:`FramePairs`.
    """

    num_frames: int
    fields: tuple[str, ...]
    reference: bool = False
    sidecar: str | None = None
    sidecar_fields: tuple[str, ...] = ()
    quotas: Mapping[str, Quota] = field(default_factory=dict[str, Quota])


Draw = FramePairs | Windows
