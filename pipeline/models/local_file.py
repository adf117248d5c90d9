"""Weights files on this machine, by path; kept apart so that asking for a hash starts no network runtime."""

import hashlib
from functools import lru_cache
from pathlib import Path

from pipeline.errors import UsageError


def check_file(path: Path) -> None:
    """Raise the UsageError of a weights file that is not there."""
    if not path.is_file():
        raise UsageError(f"the weights file {path} is missing: check the path, or fetch the file first")


def file_sha256(path: Path) -> str:
    """SHA-256 of a weights file, read again only when its size or time changes.

    Raises:
        UsageError: when it is missing.
    """
    check_file(path)
    stat = path.stat()
    return _sha256(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256(path: Path, _size: int, _mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
