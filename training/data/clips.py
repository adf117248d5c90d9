"""From a place in a tar to the labels and the coded packets of a few frames, reading little else.

Every frame of a clip is a key frame, so a frame is one packet and can be kept undecoded: a pair that waits to be
shuffled costs 12 kB at 256 px, not 400. Members are read where they lie; the video's index and the wanted packets are
all that is read of it.
"""

import io
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import av
import numpy as np
from av.error import FFmpegError
from pydantic import ValidationError

from schemas.face import MOTION_CHANNELS, POSE_CONVENTION, POSE_FIELDS
from schemas.sample import Field, SampleInfo, fields_of
from training.errors import DataError

LABELS = ("pose.npy", "landmarks.npy", "motion.npy", "valid.npy", "emotion.npy")
_FIELDS = fields_of("visual")
_MAX_HEADER_BYTES = 4096
_READER_OPTIONS = {"probesize": "32"}  # the smallest: FFmpeg would decode a frame to learn what avcC says already


class CorruptError(Exception):
    """A sample, or a whole shard, that cannot be used; ``kind`` is the class under which it is counted."""

    def __init__(self, kind: str, problem: str) -> None:
        super().__init__(problem)
        self.kind = kind


Extent = tuple[int, int]  # offset in the tar and length, in bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """One sample of a tar: where its members lie, by suffix."""

    key: str
    members: Mapping[str, Extent]


def index_tar(descriptor: int, num_clips: int | None = None) -> list[Entry]:
    """The samples of a tar in their order, from its headers alone.

    Raises:
        CorruptError: when it is no tar, ends early, or has not ``num_clips`` samples.
    """
    entries: list[Entry] = []
    members: dict[str, Extent] = {}
    try:
        with os.fdopen(os.dup(descriptor), "rb") as file:
            file.seek(0)  # both descriptors share their place
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in filter(tarfile.TarInfo.isreg, tar):
                    key, _, suffix = member.name.partition(".")
                    if not entries or key != entries[-1].key:
                        members = {}
                        entries.append(Entry(key, members))
                    members[suffix] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError, ValueError) as error:
        raise CorruptError("shard", f"the tar is damaged or cut off ({error})") from error
    if num_clips is not None and len(entries) != num_clips:
        raise CorruptError("shard", f"it holds {len(entries)} samples where its index says {num_clips}")
    return entries


@dataclass(frozen=True, slots=True)
class Clip:
    """An opened sample: what it says of itself and its labels, by suffix, each with the frames first."""

    info: SampleInfo
    labels: Mapping[str, np.ndarray]


def open_clip(descriptor: int, entry: Entry) -> Clip:
    """Read the json and the labels of a sample.

    Raises:
        CorruptError: when a member is missing, has another shape than it must, or holds NaN.
        DataError: for another schema version or pose convention, which all samples of a release share.
    """
    for suffix in ("mp4", "json", *LABELS):
        if suffix not in entry.members and not _FIELDS[suffix].optional:
            raise CorruptError("missing", f"{entry.key}.{suffix} is not in the shard")
    info = parse_info(_read(descriptor, entry, "json"), entry.key)
    labels: dict[str, np.ndarray] = {}
    for suffix in LABELS:
        if suffix in entry.members:
            labels[suffix] = _labels(info, _FIELDS[suffix], _read(descriptor, entry, suffix))
    return Clip(info, labels)


def parse_info(data: bytes, key: str) -> SampleInfo:
    """The ``json`` of a sample.

    Raises:
        CorruptError: when it is no such record.
        DataError: when it is of another version or convention, which would silently mean other labels.
    """
    try:
        info = SampleInfo.model_validate_json(data)
        sizes = info.sizes()
        named = info.pose_convention if "pose_convention" in info.model_fields_set else None
    except (ValidationError, KeyError) as error:
        _check_version(data, key)
        raise CorruptError("json", f"{key}.json is no sample's record ({type(error).__name__})") from error
    if named != POSE_CONVENTION:
        found = "no pose_convention" if named is None else f"the pose_convention {named!r}"
        raise DataError(
            f"sample {key} has {found}, so its angles could mean anything; expected {POSE_CONVENTION!r}: build the "
            "release again"
        )
    if (info.clip_id, info.pose_fields, info.motion_channels) != (key, POSE_FIELDS, MOTION_CHANNELS) or not sizes["T"]:
        raise CorruptError("json", f"{key}.json is of another clip, or of none")
    return info


def _check_version(data: bytes, key: str) -> None:
    """Say so if a record is unreadable because another version wrote it."""
    try:
        raw = json.loads(data)
    except ValueError:
        return
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if version not in {None, 1}:
        raise DataError(
            f"sample {key} has schema version {version!r} and this version reads 1: install the version of anitalk "
            "that wrote it"
        )


def _read(descriptor: int, entry: Entry, suffix: str) -> bytes:
    offset, num_bytes = entry.members[suffix]
    data = os.pread(descriptor, num_bytes, offset)
    if len(data) != num_bytes:
        raise CorruptError("shard", f"{entry.key}.{suffix} reaches beyond the end of the shard")
    return data


def _labels(info: SampleInfo, field: Field, data: bytes) -> np.ndarray:
    """An .npy member as the field table has it: never unpickled, no more memory than bytes, all numbers finite."""
    name = f"{info.clip_id}.{field.suffix}"
    start = _data_start(data)
    try:
        shape, fortran, dtype = _header(data[:start])
    except (ValueError, KeyError, EOFError, SyntaxError, TypeError) as error:
        raise CorruptError("labels", f"{name} has no readable header") from error
    if fortran or dtype != np.dtype(field.dtype) or not field.fits(shape, info.sizes()):
        raise CorruptError("labels", f"{name} has shape {shape} of {dtype}, which no clip of its length has")
    try:
        array = np.frombuffer(data, dtype=dtype, offset=start).reshape(shape)
    except ValueError as error:
        raise CorruptError("labels", f"{name} holds less or more than its shape {shape}") from error
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise CorruptError("labels", f"{name} holds NaN or infinity")
    return array


def _data_start(data: bytes) -> int:
    """Where the numbers of an .npy file begin, by its own word (format versions 1 and 2)."""
    width = 2 if data[6:7] == b"\x01" else 4
    return 8 + width + int.from_bytes(data[8 : 8 + width], "little")


@lru_cache(maxsize=1024)  # clips of one length have equal headers, and reading one costs as much as its numbers
def _header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    stream = io.BytesIO(header)
    version = np.lib.format.read_magic(stream)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    return read_header[version](stream, max_header_size=_MAX_HEADER_BYTES)


# ---- video ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Packets:
    """Coded frames of one clip, and what its decoder has to know before the first (avcC)."""

    setup: bytes
    by_frame: Mapping[int, bytes]


class _Member(io.RawIOBase):
    """A member of a tar as a file of its own."""

    def __init__(self, descriptor: int, extent: Extent) -> None:
        self._descriptor = descriptor
        self._offset, self._length = extent
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self._length - self._at)
        wanted = left if size is None or size < 0 else min(size, left)
        data = os.pread(self._descriptor, wanted, self._offset + self._at)
        self._at += len(data)
        return data


@dataclass(frozen=True, slots=True)
class FrameTable:
    """Where the coded frames of a clip's video lie in it: starts and sizes [T] in bytes, and the decoder's setup."""

    setup: bytes
    starts: np.ndarray
    sizes: np.ndarray


def read_table(descriptor: int, entry: Entry, info: SampleInfo) -> FrameTable:
    """The container's own table of frames; opening it costs as much as decoding a frame, so tables are worth keeping.

    Raises:
        CorruptError: when the video is unreadable, or has not exactly the key frames that its record says.
    """
    problem = f"{entry.key}.mp4"
    extent = entry.members["mp4"]
    try:
        with av.open(_Member(descriptor, extent), format="mp4", options=_READER_OPTIONS) as container:
            if not container.streams.video:
                raise CorruptError("video", f"{problem} has no video stream")
            stream = container.streams.video[0]
            context, time_base = stream.codec_context, stream.time_base
            rows = [(row.pos, row.size, row.timestamp, row.is_keyframe) for row in stream.index_entries]
            size, setup = (context.width, context.height), bytes(context.extradata or b"")
            codec = context.name
    except FFmpegError as error:
        raise CorruptError("video", f"{problem} is not readable ({type(error).__name__})") from error
    if (codec, len(rows), size) != ("h264", info.num_frames, (info.size_px, info.size_px)) or not time_base:
        told = f"{len(rows)} frames of {size[0]} × {size[1]} px in {codec}"
        raise CorruptError("video", f"{problem} has {told}, not {info.num_frames} of {info.size_px} px")
    first = rows[0][2]  # of decoding, which may lie before 0
    for frame, (start, num_bytes, tick, is_key) in enumerate(rows):
        if not is_key or (tick - first) * time_base * info.fps != frame:
            raise CorruptError("video", f"{problem}: frame {frame} is no key frame in its place")
        if not 0 < num_bytes <= extent[1] - start:
            raise CorruptError("video", f"{problem}: frame {frame} reaches beyond the end")
    places = np.array([row[:2] for row in rows], np.int64)
    return FrameTable(setup, places[:, 0], places[:, 1])


def read_packets(descriptor: int, entry: Entry, table: FrameTable, frames: Sequence[int]) -> Packets:
    """The coded frames ``frames`` of a sample."""
    offset = entry.members["mp4"][0]
    rows = {frame: (int(table.sizes[frame]), offset + int(table.starts[frame])) for frame in frames}
    return Packets(table.setup, {frame: os.pread(descriptor, *row) for frame, row in rows.items()})
