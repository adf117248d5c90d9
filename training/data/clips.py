"""From a place in a tar to what a sample says of itself and to its labels, which are read where they lie."""

import io
import json
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from schemas.base import Id
from schemas.clip import ClipPlan
from schemas.errors import DataError
from schemas.expression import ExpressionInput
from schemas.face import MOTION_CHANNELS, POSE_CONVENTION, POSE_FIELDS, num_points
from schemas.sample import Field, fields_of

LABELS = ("pose.npy", "landmarks.npy", "motion.npy", "valid.npy", "emotion.npy")
_FIELDS = fields_of("visual")
MAX_HEADER_BYTES = 4096


class CorruptError(Exception):
    """A sample, or a whole shard, that cannot be used; ``kind`` is the class under which it is counted."""

    def __init__(self, kind: str, problem: str) -> None:
        super().__init__(problem)
        self.kind = kind


Extent = tuple[int, int]  # offset in the tar and length, in bytes


@dataclass(frozen=True, slots=True)
class TarEntry:
    """One sample of a tar: where its members lie, by suffix."""

    key: str
    members: Mapping[str, Extent]


def index_tar(descriptor: int, num_clips: int | None = None) -> list[TarEntry]:
    """The samples of a tar in their order, from its headers alone.

    Raises:
        CorruptError: when it is no tar, ends early, or has not ``num_clips`` samples.
    """
    entries: list[TarEntry] = []
    members: dict[str, Extent] = {}
    try:
        with os.fdopen(os.dup(descriptor), "rb") as file:
            file.seek(0)  # both descriptors share their place
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in filter(tarfile.TarInfo.isreg, tar):
                    key, _, suffix = member.name.partition(".")
                    if not entries or key != entries[-1].key:
                        members = {}
                        entries.append(TarEntry(key, members))
                    members[suffix] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError, ValueError) as error:
        raise CorruptError("shard", f"the tar is damaged or cut off ({error})") from error
    if num_clips is not None and len(entries) != num_clips:
        raise CorruptError("shard", f"it holds {len(entries)} samples where its index says {num_clips}")
    return entries


class ClipInfo(BaseModel):
    """What reading needs of a sample's ``json`` (``SampleInfo``); the rest would take most of the time to check."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = 1
    clip_id: Id
    domain: str
    identity_id: Id
    num_frames: PositiveInt
    fps: PositiveInt
    size_px: PositiveInt
    landmark_scheme: str
    pose_convention: str | None = None
    pose_fields: tuple[str, ...]
    motion_channels: tuple[str, ...]
    expression: ExpressionInput | None = None
    plan: ClipPlan


@dataclass(frozen=True, slots=True)
class OpenedClip:
    """An opened sample: what it says of itself and its labels, by suffix, each with the frames first."""

    info: ClipInfo
    labels: Mapping[str, np.ndarray]


def open_clip(descriptor: int, entry: TarEntry) -> OpenedClip:
    """Read the json and the labels of a sample.

    Raises:
        CorruptError: when a member is missing, has another shape than it must, or holds NaN.
        DataError: for another schema version or pose convention, which all samples of a release share.
    """
    for suffix in ("mp4", "json", *LABELS):
        if suffix not in entry.members and not _FIELDS[suffix].optional:
            raise CorruptError("missing", f"{entry.key}.{suffix} is not in the shard")
    info = parse_info(read_member(descriptor, entry, "json"), entry.key)
    labels: dict[str, np.ndarray] = {}
    for suffix in LABELS:
        if suffix in entry.members:
            labels[suffix] = _labels(info, _FIELDS[suffix], read_member(descriptor, entry, suffix))
    return OpenedClip(info, labels)


def parse_info(data: bytes, key: str) -> ClipInfo:
    """The ``json`` of a sample.

    Raises:
        CorruptError: when it is no such record.
        DataError: when it is of another version or convention, which would silently mean other labels.
    """
    try:
        info = ClipInfo.model_validate_json(data)
        num_points(info.landmark_scheme)
    except (ValidationError, KeyError) as error:
        _check_version(data, key)
        raise CorruptError("json", f"{key}.json is no sample's record ({type(error).__name__})") from error
    if info.pose_convention != POSE_CONVENTION:
        named = info.pose_convention
        convention = "no pose_convention" if named is None else f"the pose_convention {named!r}"
        raise DataError(
            f"sample {key} has {convention}, so its angles could mean anything; expected {POSE_CONVENTION!r}: build "
            "the release again"
        )
    if (info.clip_id, info.pose_fields, info.motion_channels) != (key, POSE_FIELDS, MOTION_CHANNELS):
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


def read_member(descriptor: int, entry: TarEntry, suffix: str) -> bytes:
    """All of a member.

    Raises:
        CorruptError: when the tar ends before it.
    """
    offset, num_bytes = entry.members[suffix]
    data = os.pread(descriptor, num_bytes, offset)
    if len(data) != num_bytes:
        raise CorruptError("shard", f"{entry.key}.{suffix} reaches beyond the end of the shard")
    return data


def _labels(info: ClipInfo, field: Field, data: bytes) -> np.ndarray:
    """An .npy member as the field table has it: never unpickled, no more memory than bytes, all numbers finite."""
    name = f"{info.clip_id}.{field.suffix}"
    start = data_start(data)
    try:
        shape, dtype, fits = _shape(data[:start], field, info.num_frames, info.landmark_scheme)
    except (ValueError, KeyError, EOFError, SyntaxError, TypeError) as error:
        raise CorruptError("labels", f"{name} has no readable header") from error
    if not fits:
        raise CorruptError("labels", f"{name} has shape {shape} of {dtype}, which no clip of its length has")
    try:
        array = np.frombuffer(data, dtype, offset=start).reshape(shape)
    except ValueError as error:
        raise CorruptError("labels", f"{name} holds less or more than its shape {shape}") from error
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise CorruptError("labels", f"{name} holds NaN or infinity")
    return array


@lru_cache(maxsize=4096)  # clips of one length have equal headers, and reading one costs as much as its numbers
def _shape(
    header: bytes, field: Field, num_frames: int, landmark_scheme: str
) -> tuple[tuple[int, ...], np.dtype, bool]:
    """What the header of an .npy member says, and whether the field table has it so for such a clip."""
    shape, fortran, dtype = read_header(header)
    sizes = {"T": num_frames, "P": num_points(landmark_scheme), "M": len(MOTION_CHANNELS)}
    return shape, dtype, not fortran and dtype == np.dtype(field.dtype) and field.fits(shape, sizes)


def read_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether the first axis lies closest in memory, and type, as the header of an .npy file says.

    Raises:
        ValueError, KeyError, EOFError, SyntaxError, TypeError: when it is none.
    """
    stream = io.BytesIO(header)
    version = np.lib.format.read_magic(stream)
    reading = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    return reading[version](stream, max_header_size=MAX_HEADER_BYTES)


def data_start(data: bytes) -> int:
    """Where the numbers of an .npy file begin, by its own word (format versions 1 and 2)."""
    width = 2 if data[6:7] == b"\x01" else 4
    return 8 + width + int.from_bytes(data[8 : 8 + width], "little")
