"""What a recipe asks the loader for: which frames or windows make a row of a batch, and of which domains.

A draw says what is read; ``PairsConfig`` says from where, in which order and how much at a time. Both decide the
batches, so both are part of a saved position.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from schemas.errors import UsageError
from schemas.sample import FIELDS, fields_of

ALL_ROWS = "all"  # name of the only group where no quota is asked for


@dataclass(frozen=True, slots=True)
class Quota:
    """How many rows of every batch come from a group of domains, such as two real and two cartoon ones.

    Attributes:
        domains: names of the group's domains; within it they are mixed by ``PairsConfig.alpha`` and ``weights``.
        rows: of each batch of one process; the rows of all groups together are ``PairsConfig.batch_size``.
    """

    domains: tuple[str, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class FramePairs:
    """Rows are pairs of different frames of one clip, from visual shards.

    Attributes:
        quotas: by the group's name, in the order of the batch's rows; empty: every row is drawn from all domains.
        pairs_per_frames: pairs that are formed of each decoded pair of frames: 1, or 2 to use both directions, which
            stand in neighbouring rows.
    """

    quotas: Mapping[str, Quota] = field(default_factory=dict[str, Quota])
    pairs_per_frames: int = 1


@dataclass(frozen=True, slots=True)
class Windows:
    """Rows are windows of neighbouring frames of one clip, of its labels and speech features; no picture is decoded.

    Clips that are shorter than a window are counted as skipped. ``PairsConfig.pairs_per_clip`` and ``shuffle_pairs``
    count windows here.

    Attributes:
        num_frames: T, length of a window.
        fields: members that are read, such as ``landmarks.npy``, ``mel.npy``, ``hubert.npy``, ``motion.npy``; each is
            cut to the window's time (``mel.npy`` has its own rate). What has no time, ``identity.npy``, comes whole.
        reference: a second window of another clip of the same person and domain comes with each row, as a style
            reference; of the same clip, not overlapping, where the person has no other.
        sidecar: folder or URI of sidecar tars (``training.data.sidecar``), whose members are joined by the sample's
            key; only a release can have one.
        sidecar_fields: members that are read from the sidecar, such as ``latents.npy``.
        checkpoint_sha256: of the checkpoint that must have made the sidecar; None: any.
        quotas: as in :class:`FramePairs`.
    """

    num_frames: int
    fields: tuple[str, ...]
    reference: bool = False
    sidecar: str | None = None
    sidecar_fields: tuple[str, ...] = ()
    checkpoint_sha256: str | None = None
    quotas: Mapping[str, Quota] = field(default_factory=dict[str, Quota])

    @property
    def speech_fields(self) -> tuple[str, ...]:
        """Those of the fields that lie in speech shards."""
        return tuple(suffix for suffix in self.fields if suffix not in fields_of("visual"))


Draw = FramePairs | Windows


def check_draw(draw: Draw, batch_size: int) -> None:
    """Refuse what no release could give.

    Raises:
        UsageError: for quotas that do not make up ``batch_size`` rows, fields that do not exist, and the like.
    """
    if isinstance(draw, FramePairs):
        _check_both_directions(draw, batch_size)
    else:
        _check_fields(draw)
    for name, quota in draw.quotas.items():
        if quota.rows < 1 or not quota.domains or len(set(quota.domains)) != len(quota.domains):
            raise UsageError(f"the quota of {name!r} has to name at least one row and some different domains")
    num_rows = sum(quota.rows for quota in draw.quotas.values())
    if draw.quotas and num_rows != batch_size:
        rows = ", ".join(f"{name} {quota.rows}" for name, quota in draw.quotas.items())
        raise UsageError(f"the quotas ask for {num_rows} rows of each batch ({rows}) and batch_size is {batch_size}")


def _check_both_directions(draw: FramePairs, batch_size: int) -> None:
    if draw.pairs_per_frames not in (1, 2):
        raise UsageError(
            f"pairs_per_frames is {draw.pairs_per_frames}: two frames make 1 pair, or 2 in both directions"
        )
    rows = {"batch_size": batch_size} | {f"the quota of {name!r}": quota.rows for name, quota in draw.quotas.items()}
    for name, count in rows.items():
        if count % draw.pairs_per_frames:
            raise UsageError(f"pairs_per_frames is 2 and {name} is {count}: ask for an even number of rows")


def _check_fields(draw: Windows) -> None:
    known = {field.suffix for field in FIELDS if field.suffix.endswith(".npy")}
    for suffix in draw.fields:
        if suffix not in known:
            raise UsageError(f"there is no field {suffix!r} for windows: choose from {', '.join(sorted(known))}")
    for suffix in draw.sidecar_fields:
        if suffix in known or not suffix.endswith(".npy"):
            raise UsageError(f"the sidecar's field {suffix!r} must end in .npy and be none of the release's own")
    if draw.num_frames < 1:
        raise UsageError(f"a window of {draw.num_frames} frames holds nothing: set num_frames to 1 or more")
    every = draw.fields + draw.sidecar_fields
    if not every or len(set(every)) != len(every):
        raise UsageError("windows have to name at least one field, and none twice")
    if bool(draw.sidecar) != bool(draw.sidecar_fields):
        raise UsageError("sidecar and sidecar_fields belong together: give both or neither")


def order_of(draw: Draw) -> dict[str, object] | None:
    """What of a draw belongs to a saved position; None for the default, which old positions do not mention.

    Where a sidecar lies is left out: what it holds is part of the shards' fingerprint.
    """
    if draw == FramePairs():
        return None
    kept = {name: value for name, value in asdict(draw).items() if name not in ("sidecar", "quotas")}
    quotas = [[name, quota.domains, quota.rows] for name, quota in draw.quotas.items()]  # their order is the rows'
    return json.loads(json.dumps({"of": type(draw).__name__, **kept, "quotas": quotas}))
