"""Samples in tars: written so that equal samples give equal bytes, read as if by an enemy.

The standard library does the writing: ``webdataset.TarWriter`` stores a user name and the time of day,
uses the pax format despite its own default, and does not tell offsets.
"""

import contextlib
import hashlib
import io
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from schemas.base import ID_PATTERN
from schemas.files import sha256_of_file
from schemas.tars import MEMBER_MODE, add_sample

MAX_NAME = 100  # USTAR keeps longer names in a second field, which wids does not read
MAX_MEMBER_BYTES = 1 << 30


class SampleTar:
    """A tar being written at ``path``, one sample after another: owner 0, time 0, mode 0644, USTAR."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - close() ends it

    @property
    def num_bytes(self) -> int:
        """Bytes written so far."""
        return self._tar.offset

    def add(self, key: str, files: Mapping[str, bytes]) -> tuple[int, int]:
        """Append the members ``KEY.suffix``, sorted by suffix; returns offset and length of the sample in bytes."""
        start = self._tar.offset
        add_sample(self._tar, key, files)
        return start, self._tar.offset - start

    def close(self) -> tuple[int, str]:
        """Finish the file; returns its size in bytes and its sha256."""
        self._tar.close()
        return self.path.stat().st_size, sha256_of_file(self.path)

    def abandon(self) -> None:
        """Let go of an unfinished file, which stays as it is; a full disk cannot take its end marker either."""
        if self._tar.fileobj is not None:
            with contextlib.suppress(OSError):  # the buffered rest has nowhere to go
                self._tar.fileobj.close()


def tar_size(files: Mapping[str, bytes]) -> int:
    """Bytes that a sample takes in a tar: a header per member, and data in whole blocks."""
    block = tarfile.BLOCKSIZE
    return sum(block + -(-len(data) // block) * block for data in files.values())


@dataclass(slots=True)
class TarSample:
    """One sample as it lies in a tar: members by suffix, its extent in bytes, and what is wrong with its members."""

    key: str
    offset: int
    num_bytes: int = 0
    members: dict[str, bytes] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class HashedStream(io.RawIOBase):
    """A readable stream that keeps the sha256 and length of all that was read through it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self.num_bytes = 0

    def readable(self) -> bool:
        """Always: this is what tarfile asks."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """At most ``size`` bytes."""
        data = self._stream.read(-1 if size is None else size)
        self._digest.update(data)
        self.num_bytes += len(data)
        return data

    def drain(self) -> str:
        """Read to the end and return the sha256 of everything."""
        while self.read(1 << 20):
            pass
        return self._digest.hexdigest()


def iter_samples(stream: HashedStream) -> Iterator[TarSample]:
    """Samples of an untrusted tar, one in memory at a time; nothing touches the disk.

    A member that cannot belong to a sample comes as a sample of its own, with the problem and no data.

    Raises:
        tarfile.TarError: when the tar itself is damaged or ends early.
    """
    sample: TarSample | None = None
    with tarfile.open(fileobj=stream, mode="r|", format=tarfile.USTAR_FORMAT) as tar:
        while (member := tar.next()) is not None:
            tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue] - every header would be kept otherwise
            key, _, suffix = member.name.partition(".")
            if sample is None or key != sample.key:
                if sample is not None:
                    yield sample
                sample = TarSample(key, member.offset)
            previous = max(sample.members, default="")
            problem = _member_problem(member, key, suffix)
            if problem:
                sample.problems.append(f"{_printable(member.name)}: {problem}")
                continue
            if suffix <= previous:
                sample.problems.append(f"{member.name}: comes after {previous}; members are sorted and single")
            file = tar.extractfile(member)
            sample.members[suffix] = file.read() if file else b""
            sample.num_bytes = member.offset_data + tar_size({"": sample.members[suffix]}) - 512 - sample.offset
    if sample is not None:
        yield sample


def _member_problem(member: tarfile.TarInfo, key: str, suffix: str) -> str:
    if not member.isreg() or member.pax_headers or member.issparse():
        return "is no plain file; a shard holds nothing else"
    if not ID_PATTERN.match(key) or not re.fullmatch(r"[a-z0-9_.]+", suffix):
        return "is no KEY.suffix"
    if member.size > MAX_MEMBER_BYTES:
        return f"claims {member.size} bytes, more than {MAX_MEMBER_BYTES}"
    if (member.uid, member.gid, member.mtime, member.mode) != (0, 0, 0, MEMBER_MODE) or member.uname or member.gname:
        owner = f"{member.uid}:{member.gid} {member.uname}:{member.gname}".strip()
        return f"has owner {owner}, time {member.mtime}, mode {member.mode:04o}; all shards have 0:0, 0, 0644"
    return ""


def _printable(name: str) -> str:
    return repr(name[:MAX_NAME])[1:-1]
