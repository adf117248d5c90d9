"""Windows of one clip: where its arrays lie, what is cut of them, and whether those of all domains can be stacked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from schemas.errors import DataError, UsageError
from schemas.face import num_points
from schemas.sample import FIELDS, fields_of
from training.data.arrays import StoredArray, open_field, open_series
from training.data.cache import ShardCache
from training.data.clips import ClipInfo, CorruptError
from training.data.config import PairsConfig
from training.data.draws import Windows
from training.data.layout import BatchLayout, FieldLayout, common_size
from training.data.opening import Sample, ShardFiles, sample_info
from training.data.shards import Shard, ShardSet

POINT_FIELDS = ("landmarks.npy", "landmarks_smooth.npy")  # [T, P, 3], of as many points as their scheme has
PIXEL_FIELDS = (*POINT_FIELDS, "pose.npy")
_VALID = "valid.npy"
_VISUAL, _SPEECH = fields_of("visual"), fields_of("speech")
_OPTIONAL = {field.suffix for field in FIELDS if field.optional}


@dataclass(frozen=True, slots=True)
class ClipArrays:
    """A clip's record and where its arrays lie, by suffix; those that it may lack and lacks are left out."""

    info: ClipInfo
    stored: Mapping[str, StoredArray]

    def cut(self, start: int, length: int) -> "Window":
        """Read a window.

        Raises:
            CorruptError: when it cannot be read or believed.
        """
        arrays = {suffix: array.read(start, length) for suffix, array in self.stored.items()}
        return Window(self.info, start, arrays[_VALID], arrays)


@dataclass(frozen=True, slots=True)
class Window:
    """One window as read: its clip, first frame, where a face is [T], and its arrays by suffix."""

    info: ClipInfo
    start: int
    valid: np.ndarray
    arrays: Mapping[str, np.ndarray]


def open_arrays(sample: Sample, draw: Windows) -> ClipArrays:
    """Look where the arrays of a sample lie.

    Raises:
        CorruptError: when the record or a header cannot be used.
        DataError: for another schema version or pose convention.
    """
    info = sample_info(sample)
    stored: dict[str, StoredArray] = {}
    for suffix in dict.fromkeys((_VALID, *draw.fields)):
        field = _VISUAL[suffix] if suffix in _VISUAL else _SPEECH[suffix]
        descriptor, entry = sample.members[field.series]
        if suffix in entry.members:
            stored[suffix] = open_field(descriptor, entry, field, info)
        elif not field.optional:
            raise CorruptError("missing", f"{entry.key}.{suffix} is not in the shard")
    for suffix in draw.sidecar_fields:
        stored[suffix] = open_series(*sample.members["sidecar"], suffix, info.num_frames)
    return ClipArrays(info, stored)


# ---- before the first batch ----------------------------------------------------------------------------------------


def window_layout(shards: ShardSet, infos: Mapping[str, ClipInfo], draw: Windows, config: PairsConfig) -> BatchLayout:
    """What windows share, judged by the first usable sample of every domain.

    Raises:
        UsageError: when the domains have arrays that cannot be stacked, or none has a field.
        DataError: when no sample of a domain can be read.
    """
    cache = ShardCache(config)
    firsts = {domain: _first_arrays(domain, own, draw, cache) for domain, own in shards.by_domain.items()}
    fields: dict[str, FieldLayout] = {}
    most_points = max(num_points(clip.info.landmark_scheme) for clip in firsts.values())
    for suffix in (*draw.fields, *draw.sidecar_fields):
        fields[suffix] = _field_layout(suffix, firsts, draw.num_frames, most_points)
    in_pixels = any(suffix in PIXEL_FIELDS for suffix in fields)
    return BatchLayout(
        size_px=common_size(infos, config) if in_pixels else config.size_px or next(iter(infos.values())).size_px,
        num_points=most_points,
        with_emotion=any(info.expression is not None for info in infos.values()),
        schemes=tuple(sorted({clip.info.landmark_scheme for clip in firsts.values()})),
        fields=fields,
    )


def _field_layout(suffix: str, firsts: Mapping[str, ClipArrays], num_frames: int, most_points: int) -> FieldLayout:
    """What all domains that have a field agree on.

    Raises:
        UsageError: when they do not, or none has it.
    """
    layouts: dict[str, FieldLayout] = {}
    for domain, clip in firsts.items():
        array = clip.stored.get(suffix)
        if array is not None:
            shape = padded(suffix, array.window_shape(num_frames), most_points)
            layouts[domain] = FieldLayout(shape, array.dtype, suffix in _OPTIONAL)
    if not layouts:
        raise UsageError(f"no clip of {', '.join(firsts)} has {suffix}: leave it out, or build the release with it")
    if len({(layout.shape, layout.dtype) for layout in layouts.values()}) > 1:
        differing = ", ".join(f"{domain} {layout.shape} of {layout.dtype}" for domain, layout in layouts.items())
        raise UsageError(f"the domains have windows of {suffix} that differ ({differing}): read them apart")
    return next(iter(layouts.values()))


def padded(suffix: str, shape: tuple[int, ...], most_points: int) -> tuple[int, ...]:
    """The shape of a window with as many landmarks as the largest scheme has."""
    return (shape[0], most_points, *shape[2:]) if suffix in POINT_FIELDS else shape


def _first_arrays(domain: str, shards: Sequence[Shard], draw: Windows, cache: ShardCache) -> ClipArrays:
    problem = "it holds no samples"
    files = ShardFiles(cache)
    try:
        for shard in shards:
            for index in range(shard.num_clips):
                try:
                    return open_arrays(files.sample(shard, index), draw)
                except CorruptError as error:  # the next one will do; reading will count this one
                    problem = str(error)
    finally:
        files.close()
    raise DataError(f"no clip of the domain {domain!r} can be read ({problem}): verify the release")
