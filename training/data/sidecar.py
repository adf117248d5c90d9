"""Tars beside a release with more of its samples, under the same keys: what ``encode`` writes and windows join.

A sidecar is a folder: one tar per shard of the release, and ``sidecar.json``, written last, which names the release and
the checkpoint whose networks made it. Latents of another checkpoint have the same shapes and mean something else, so
neither is left to whoever reads them to remember.
"""

import io
import os
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import ValidationError

from schemas.base import Record
from schemas.errors import DataError, UsageError
from schemas.files import sha256_of_file, sync_folder, write_atomically
from schemas.release import SPLITS
from schemas.tars import add_sample
from schemas.uri import redact
from training.data.cache import ShardCache
from training.data.clips import CorruptError, index_tar
from training.data.config import PairsConfig
from training.data.draws import Windows
from training.data.opening import Sample, ShardFiles, sample_info
from training.data.remote import Patience, read_file
from training.data.shards import Shard, ShardSet, Where, locate, release_root, release_sha256, sibling, split_domains

SIDECAR_FILE = "sidecar.json"
_BEGUN_FILE = ".sidecar-begun.json"  # the same record before any shard is finished


class SidecarShard(Record):
    """One tar of a sidecar: its path in it, and the shard of the release whose samples it holds, in their order."""

    path: str
    release_shard: str
    num_samples: int
    num_bytes: int
    sha256: str


class SidecarRecord(Record):
    """What a sidecar belongs to and what made it (``sidecar.json``).

    ``release_sha256`` is that of the release's ``release.json``, ``fields`` are the members of each sample.
    """

    format_version: Literal[1] = 1
    release_sha256: str
    checkpoint_sha256: str
    fields: tuple[str, ...]
    shards: tuple[SidecarShard, ...] = ()


# ---- reading -------------------------------------------------------------------------------------------------------


def join_sidecar(where: Where, shards: ShardSet, config: PairsConfig, draw: Windows) -> ShardSet:
    """The shards, each with the sidecar's tar beside it.

    Raises:
        UsageError: when there is no such sidecar, or it is of another release or checkpoint, or lacks what is asked.
        DataError: when it cannot be reached or its record is damaged.
    """
    root, folder = release_root(where), (draw.sidecar or "").rstrip("/")
    if root is None:
        raise UsageError("a sidecar is joined with a whole release: name the release's folder instead of its shards")
    record = read_sidecar(folder, config)
    if record.release_sha256 != release_sha256(root, config):
        raise UsageError(
            f"the sidecar {redact(folder)} belongs to another release than {redact(root)}: encode this one"
        )
    if draw.checkpoint_sha256 not in (None, record.checkpoint_sha256):
        raise UsageError(
            f"the sidecar {redact(folder)} was made by the checkpoint {record.checkpoint_sha256[:12]}… and not by "
            f"{draw.checkpoint_sha256[:12]}…: encode the release with that one"
        )
    lacking = [suffix for suffix in draw.sidecar_fields if suffix not in record.fields]
    if lacking:
        raise UsageError(f"the sidecar {redact(folder)} holds {', '.join(record.fields)} and no {lacking[0]}")
    rows = {row.release_shard: row for row in record.shards}
    joined: dict[str, tuple[Shard, ...]] = {}
    for domain, own in shards.by_domain.items():
        joined[domain] = tuple(_joined(folder, shard, rows.get(shard.name)) for shard in own)
    return ShardSet(joined)


def _joined(folder: str, shard: Shard, row: SidecarShard | None) -> Shard:
    if row is None or row.num_samples != shard.num_clips:
        held = 0 if row is None else row.num_samples
        raise UsageError(
            f"the sidecar {redact(folder)} holds {held} of the {shard.num_clips} clips of {shard.name}: encode the rest"
        )
    # Its name is never the release's, so that no cache takes one for the other.
    name = f"sidecar/{row.path}"
    tar = Shard(f"{folder}/{row.path}", name, shard.domain, row.num_samples, row.num_bytes, row.sha256)
    return replace(shard, companions={**shard.companions, "sidecar": tar})


def read_sidecar(folder: str, config: PairsConfig) -> SidecarRecord:
    """The record of a finished sidecar.

    Raises:
        UsageError: when there is none.
        DataError: when it cannot be reached or is damaged.
    """
    try:
        data = read_file(f"{folder}/{SIDECAR_FILE}", Patience(config.num_attempts, config.backoff_s))
    except FileNotFoundError as error:
        raise UsageError(f"there is no finished sidecar at {redact(folder)}: encode the release to its end") from error
    return _parsed(data, f"{redact(folder)}/{SIDECAR_FILE}")


def _parsed(data: bytes, name: str) -> SidecarRecord:
    try:
        return SidecarRecord.model_validate_json(data)
    except ValidationError as error:
        raise DataError(f"{name} is damaged or of another version: delete it and encode the release again") from error


# ---- writing -------------------------------------------------------------------------------------------------------


Encode = Callable[[Sample], Mapping[str, np.ndarray]]


class SidecarWriter:
    """Writes a sidecar of a release, shard after shard; what was finished before a kill is kept.

    Several processes may write different shards into one folder; one of them finishes.

    Args:
        folder: of the sidecar, on this machine; begun by an earlier run of equal arguments, or new.
        release: folder or URI of the release.
        checkpoint_sha256: of the checkpoint that encodes.
        fields: members of every sample, such as ``latents.npy``; each one row per video frame.
        config: how the release's shards come here.

    Raises:
        UsageError: when there is no such release, or the folder holds a sidecar of something else.
    """

    def __init__(
        self,
        folder: Path,
        release: str,
        *,
        checkpoint_sha256: str,
        fields: Sequence[str],
        config: PairsConfig | None = None,
    ) -> None:
        config = config or PairsConfig()
        root = release_root(release)
        if root is None:
            raise UsageError(f"{redact(release)} is a shard: name the release's folder, which a sidecar belongs to")
        if Path(root).is_dir() and folder.resolve().is_relative_to(Path(root).resolve()):
            raise UsageError(f"{folder} lies in the release itself, which nothing may be added to: name another folder")
        self._folder, self._files = folder, ShardFiles(ShardCache(config), max_open=1)
        self._record = SidecarRecord(
            release_sha256=release_sha256(root, config),
            checkpoint_sha256=checkpoint_sha256,
            fields=tuple(sorted(fields)),
        )
        known = split_domains(root, config)
        self.shards: tuple[Shard, ...] = tuple(
            shard
            for split in SPLITS
            if split in known
            for shard in locate(root, config.model_copy(update={"split": split}))
            if shard.num_clips
        )
        self._begin()

    def pending(self) -> list[Shard]:
        """The release's shards that have no tar here yet."""
        return [shard for shard in self.shards if not self._path(shard).exists()]

    def write(self, shard: Shard, encode: Encode) -> None:
        """Encode every sample of a shard of the release; its tar appears when it is whole.

        Args:
            shard: of ``pending``.
            encode: given a sample of the release, its arrays by field; [T, …] each, T the clip's frames.

        Raises:
            DataError: when the shard is damaged, or an array is not as the sidecar's fields must be.
            UsageError: when it cannot be written.
        """
        path = self._path(shard)
        try:
            self._write(path, shard, encode)
        except OSError as error:
            raise UsageError(f"the sidecar cannot be written to {path}: {error.strerror}") from error

    def _write(self, path: Path, shard: Shard, encode: Encode) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with aside.open("wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                for index in range(shard.num_clips):
                    add_sample(tar, *self._encoded(shard, index, encode))
                tar.close()
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
        sync_folder(path.parent)

    def finish(self) -> SidecarRecord:
        """Write the record, by which readers know that the sidecar is whole.

        Raises:
            DataError: when a shard is not written yet, or not whole.
        """
        pending = self.pending()
        if pending:
            raise DataError(
                f"the sidecar {self._folder} lacks {len(pending)} shards, such as that of {pending[0].name}"
            )
        record = self._record.model_copy(update={"shards": tuple(self._row(shard) for shard in self.shards)})
        write_atomically(self._folder / SIDECAR_FILE, record.model_dump_json(indent=1).encode() + b"\n")
        for left in (self._folder / _BEGUN_FILE, *self._folder.glob("*/*/.*.tar.*")):  # also of killed processes
            left.unlink(missing_ok=True)
        return record

    def _begin(self) -> None:
        for name in (SIDECAR_FILE, _BEGUN_FILE):
            path = self._folder / name
            if path.exists():
                begun = _parsed(path.read_bytes(), str(path))
                if begun.model_copy(update={"shards": ()}) != self._record:
                    raise UsageError(
                        f"{self._folder} holds a sidecar of another release, checkpoint or fields: name another folder"
                    )
                return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._folder / _BEGUN_FILE, self._record.model_dump_json().encode())
        except OSError as error:
            raise UsageError(f"the sidecar cannot be written to {self._folder}: {error.strerror}") from error

    def _path(self, shard: Shard) -> Path:
        return self._folder / sibling(shard.name, "sidecar")

    def _encoded(self, shard: Shard, index: int, encode: Encode) -> tuple[str, dict[str, bytes]]:
        try:
            sample = self._files.sample(shard, index)
            num_frames = sample_info(sample).num_frames
            arrays = encode(sample)
        except CorruptError as error:
            raise DataError(f"{redact(shard.uri)}: {error}: verify the release, or copy it again") from error
        return sample.key, self._checked(sample.key, num_frames, arrays)

    def _checked(self, key: str, num_frames: int, arrays: Mapping[str, np.ndarray]) -> dict[str, bytes]:
        given, fields = tuple(sorted(arrays)), self._record.fields
        if given != fields:
            raise DataError(f"the encoding of {key} has {', '.join(given)}, and the sidecar {', '.join(fields)}")
        members: dict[str, bytes] = {}
        for suffix, array in arrays.items():
            if array.ndim < 1 or len(array) != num_frames:
                rows = len(array) if array.ndim else 0
                raise DataError(f"the encoding of {key} has {rows} rows in {suffix} for {num_frames} frames")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise DataError(f"the encoding of {key} holds NaN or infinity in {suffix}")
            buffer = io.BytesIO()
            np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
            members[suffix] = buffer.getvalue()
        return members

    def _row(self, shard: Shard) -> SidecarShard:
        path = self._path(shard)
        try:
            with path.open("rb") as file:
                num_samples = len(index_tar(file.fileno(), shard.num_clips))
        except CorruptError as error:
            raise DataError(f"{path}: {error}: delete it and encode again") from error
        return SidecarShard(
            path=path.relative_to(self._folder).as_posix(),
            release_shard=shard.name,
            num_samples=num_samples,
            num_bytes=path.stat().st_size,
            sha256=sha256_of_file(path),
        )
