"""A download that may be continued: its bytes, and what is known about the file they belong to.

Bytes of two versions of a file must never be joined, so beside the bytes lies the validator that the server
gave for them; without one, a download begins again.
"""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from schemas.errors import SourceError, TransientError, WorkspaceError
from schemas.files import sync_folder

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.ENAMETOOLONG}


@dataclass(slots=True)
class _Facts:
    address: str  # digest of the address asked for: an address may hold secrets
    validator: str  # a strong ETag or a Last-Modified date
    total: int | None


class Partial:
    """``<stem>.part`` and ``<stem>.part.json`` inside ``folder``."""

    def __init__(self, folder: Path, stem: str, address: str) -> None:
        self.path = folder / f"{stem}.part"
        self._facts_path = folder / f"{stem}.part.json"
        self._address = sha256(address.encode()).hexdigest()
        self._facts = self._read_facts()
        if self._facts is None:
            self.path.unlink(missing_ok=True)

    def _read_facts(self) -> _Facts | None:
        try:
            facts = _Facts(**json.loads(self._facts_path.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return facts if facts.address == self._address and facts.validator else None

    @property
    def offset(self) -> int:
        """Bytes that are here and may be continued."""
        return self.path.stat().st_size if self.validator and self.path.exists() else 0

    @property
    def validator(self) -> str:
        """What the server must still say for the bytes to be continued."""
        return self._facts.validator if self._facts else ""

    @property
    def total(self) -> int | None:
        """The whole file's size in bytes, where the server told."""
        return self._facts.total if self._facts else None

    def restart(self, validator: str, total: int | None) -> None:
        """Drop the bytes and remember what those that follow belong to."""
        with disk_errors_named(self.path):
            self.path.unlink(missing_ok=True)
            self._facts = _Facts(self._address, validator, total)
            self._facts_path.write_text(json.dumps(asdict(self._facts)))

    def discard(self) -> None:
        """Remove everything."""
        self.path.unlink(missing_ok=True)
        self._facts_path.unlink(missing_ok=True)
        self._facts = None

    @contextmanager
    def append(self) -> Iterator[BinaryIO]:
        """Open for writing at the end; on leaving, the bytes are on the disk."""
        with disk_errors_named(self.path), self.path.open("ab") as stream:
            try:
                yield stream
            finally:
                stream.flush()
                os.fsync(stream.fileno())

    def finish(self, target: Path) -> Path:
        """Give the finished file its name, in one step."""
        with disk_errors_named(target):
            publish(self.path, target)
            self._facts_path.unlink(missing_ok=True)
        return target


def publish(finished: Path, target: Path) -> None:
    """Move a finished file to its name so that a crash leaves either nothing or all of it."""
    with finished.open("rb") as stream:
        os.fsync(stream.fileno())
    finished.replace(target)
    sync_folder(target.parent)


def check_size(num_bytes: int, max_bytes: int, what: str) -> None:
    """Pass up to and including ``max_bytes``.

    Raises:
        SourceError: above it.
    """
    if num_bytes > max_bytes:
        raise SourceError(f"{what} has at least {num_bytes} bytes; acquire.max_bytes allows {max_bytes}.")


@contextmanager
def disk_errors_named(path: Path) -> Iterator[None]:
    """Tell a full or read-only disk from a fault of the source.

    Raises:
        WorkspaceError: when the disk is why.
    """
    try:
        yield
    except (SourceError, TransientError):
        raise
    except OSError as error:
        if error.errno in _DISK_ERRORS:
            raise WorkspaceError(f"{path} cannot be written: {error.strerror}.") from error
        raise
