"""Objects by name under one root, on a local disk or in an object store.

Publication differs between the two: a disk needs a temporary name, fsync and a rename so that a
crash leaves the old file or the new one; an object store gets a single put. Everything else
(appending, renaming, directories) is avoided, so that both behave alike.
"""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import UsageError, WorkspaceError

_REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space and run the same command again, finished work is kept",
    errno.EDQUOT: "the disk quota is used up: free some space and run the same command again, finished work is kept",
    errno.EACCES: "no permission to write there: choose another place or change its permissions",
    errno.EPERM: "no permission to write there: choose another place or change its permissions",
    errno.EROFS: "the file system is read-only: choose another place",
    errno.EISDIR: "a folder is in the way: choose another place",
    errno.ENOTDIR: "a file is in the way where a folder is needed: choose another place",
}


@contextlib.contextmanager
def clear_write_errors(where: str) -> Iterator[None]:
    """Turn the operating system's write failures into one sentence with a remedy.

    Raises:
        WorkspaceError: for a full, read-only or forbidden target; other errors pass unchanged.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        raise WorkspaceError(f"cannot write {where}: {_REMEDIES[error.errno]}") from error


class Storage:
    """Bytes by relative name below ``uri`` (a local path, or any fsspec URI such as ``s3://bucket/prefix``).

    Raises:
        UsageError: when the URI's scheme is unknown or its package is not installed.
    """

    def __init__(self, uri: str | Path) -> None:
        self.uri = str(uri)
        try:
            self.fs, self.root = fsspec.url_to_fs(
                self.uri, **({} if "://" not in self.uri else {"use_listings_cache": False})
            )
        except (ImportError, ValueError) as error:
            raise UsageError(f"cannot use {self.uri!r} as a place for files: {error}") from error
        self.root = self.root.rstrip("/")
        self.is_local = isinstance(self.fs, LocalFileSystem)

    def path(self, name: str) -> str:
        """The full path of an object, as its file system names it."""
        return f"{self.root}/{name}"

    def exists(self, name: str) -> bool:
        """Whether the object is there now."""
        return bool(self.fs.exists(self.path(name)))

    def read(self, name: str) -> bytes:
        """The whole object.

        Raises:
            FileNotFoundError: when it is not there.
        """
        return self.fs.cat_file(self.path(name))

    def read_if_there(self, name: str) -> bytes | None:
        """The whole object, or None."""
        try:
            return self.read(name)
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Publish an object: readers see the old bytes or the new ones, also after a crash."""
        with clear_write_errors(self.path(name)):
            if not self.is_local:
                self.fs.pipe_file(self.path(name), data)
                return
            target = Path(self.path(name))
            target.parent.mkdir(parents=True, exist_ok=True)
            with _temporary_beside(target) as temporary:
                temporary.write_bytes(data)

    def write_new(self, name: str, data: bytes) -> bool:
        """Publish an object unless one of that name is there; says whether it was written."""
        with clear_write_errors(self.path(name)):
            try:
                if not self.is_local:
                    self.fs.pipe_file(self.path(name), data, mode="create")
                    return True
                target = Path(self.path(name))
                target.parent.mkdir(parents=True, exist_ok=True)
                with _temporary_beside(target, replace=False) as temporary:
                    temporary.write_bytes(data)
            except FileExistsError:
                return False
            return True

    def put_file(self, local: Path, name: str) -> None:
        """Publish a local file under ``name``; the local file may be moved away."""
        with clear_write_errors(self.path(name)):
            if not self.is_local:
                self.fs.put_file(str(local), self.path(name))
                return
            target = Path(self.path(name))
            target.parent.mkdir(parents=True, exist_ok=True)
            _sync(local)
            local.replace(target)
            _sync_folder(target.parent)

    def names(self, prefix: str) -> list[str]:
        """Names of all objects below the folder ``prefix``, sorted, unfinished writes left out."""
        folder = self.path(prefix.rstrip("/"))
        try:
            found = self.fs.find(folder)
        except FileNotFoundError:
            return []
        start = len(self.root) + 1
        return sorted(path[start:] for path in found if not path.rsplit("/", 1)[-1].startswith(".tmp-"))

    def delete(self, name: str) -> None:
        """Remove an object or everything below a folder; nothing there is no error."""
        if self.fs.exists(self.path(name)):
            self.fs.rm(self.path(name), recursive=True)


@contextlib.contextmanager
def _temporary_beside(target: Path, *, replace: bool = True) -> Iterator[Path]:
    descriptor, name = tempfile.mkstemp(prefix=".tmp-", dir=target.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        _sync(temporary)
        if replace:
            temporary.replace(target)
        else:
            # A hard link fails when the name is taken, which os.replace cannot be asked to do.
            target.hardlink_to(temporary)
        _sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
