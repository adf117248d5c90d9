"""Small things that every part does with files and clocks, in one way."""

import hashlib
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file's content in hexadecimal, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that readers see the old content or the new one, also after a loss of power.

    Raises:
        OSError: when it cannot be written; nothing is left behind then.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with aside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have a folder's own entries on the disk: a rename is safe only then."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def now_iso(timespec: Literal["seconds", "milliseconds"] = "seconds") -> str:
    """The present time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec=timespec)
