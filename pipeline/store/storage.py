"""Objects by name under one root, on a local disk or in an object store.

Publication differs between the two: a disk needs a temporary name, fsync and a rename so that a
crash leaves the old file or the new one; an object store gets a single put. Everything else
(appending, renaming, directories) is avoided, so that both behave alike.
"""
# pyright: reportMissingTypeStubs=false
# (fsspec carries no types)

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from schemas.errors import UsageError, WorkspaceError
from schemas.files import sync_folder

_FSSPEC = cast("Any", fsspec)  # untyped
_REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space and run the same command again, finished work is kept",
    errno.EDQUOT: "the disk quota is used up: free some space and run the same command again, finished work is kept",
    errno.EACCES: "no permission to write there: choose another place or change its permissions",
    errno.EPERM: "no permission to write there: choose another place or change its permissions",
    errno.EROFS: "the file system is read-only: choose another place",
    errno.EISDIR: "a folder is in the way: choose another place",
    errno.ENOTDIR: "a file is in the way where a folder is needed: choose another place",
    errno.ENOENT: "that place does not exist and cannot be made: choose another place",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
    errno.EIO: "the disk reports an error: check it, or choose another place",
}


@contextlib.contextmanager
def clear_write_errors(where: str) -> Generator[None]:
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


@contextlib.contextmanager
def _clear_store_errors(where: str) -> Generator[None]:
    """Turn an object store's refusals and the way to it into one sentence; a missing object passes unchanged.

    botocore, aiohttp and gcsfs each have their own tree of errors, so what is not known by name is the way there.
    """
    try:
        yield
    except (FileNotFoundError, FileExistsError, WorkspaceError):
        raise
    except Exception as error:
        kind = type(error).__name__
        if isinstance(error, PermissionError) or "Credentials" in kind:
            remedy = "the store refuses these credentials: check them (AWS_PROFILE, AWS_ACCESS_KEY_ID) and their rights"
        else:
            remedy = f"the store cannot be used ({' '.join(str(error).split()) or kind}): check its address, then again"
        raise WorkspaceError(f"cannot reach {where}: {remedy}") from error


class Storage:
    """Bytes by relative name below ``uri`` (a local path, or any fsspec URI such as ``s3://bucket/prefix``).

    Raises:
        UsageError: when the URI's scheme is unknown or its package is not installed.
    """

    def __init__(self, uri: str | Path) -> None:
        self.uri = str(uri)
        try:
            options = {} if "://" not in self.uri else {"use_listings_cache": False}
            self.fs, root = _FSSPEC.url_to_fs(self.uri, **options)
        except (ImportError, ValueError) as error:
            raise UsageError(f"cannot use {self.uri!r} as a place for files: {error}") from error
        self.root: str = root.rstrip("/")
        self.is_local = isinstance(self.fs, LocalFileSystem)
        # s3fs asks for the size first, to read in parts side by side: three requests for our small objects, not one.
        is_s3 = "s3" in ((self.fs.protocol,) if isinstance(self.fs.protocol, str) else self.fs.protocol)
        self._whole = {"max_concurrency": 1} if is_s3 else {}

    def path(self, name: str) -> str:
        """The full path of an object, as its file system names it."""
        return f"{self.root}/{name}"

    def exists(self, name: str) -> bool:
        """Whether the object is there now."""
        with self._clear_errors(name):
            return bool(self.fs.exists(self.path(name)))

    def read(self, name: str) -> bytes:
        """The whole object.

        Raises:
            FileNotFoundError: when it is not there.
        """
        with self._clear_errors(name):
            return self.fs.cat_file(self.path(name), **self._whole)

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Bytes ``start`` up to but not including ``stop`` of an object; fewer where it ends before.

        Raises:
            FileNotFoundError: when it is not there.
        """
        with self._clear_errors(name):
            return self.fs.cat_file(self.path(name), start=start, end=stop)

    def read_if_there(self, name: str) -> bytes | None:
        """The whole object, or None."""
        try:
            return self.read(name)
        except FileNotFoundError:
            return None

    def size(self, name: str) -> int | None:
        """Bytes of the object, or None when it is not there."""
        try:
            with self._clear_errors(name):
                return self.fs.size(self.path(name))
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Publish an object: readers see the old bytes or the new ones, also after a crash."""
        with self._clear_errors(name, writing=True):
            if not self.is_local:
                self.fs.pipe_file(self.path(name), data)
                return
            with _temporary_beside(self._target(name)) as temporary:
                temporary.write_bytes(data)

    def write_new(self, name: str, data: bytes) -> bool:
        """Publish an object unless one of that name is there; says whether it was written."""
        with self._clear_errors(name, writing=True):
            if not self.is_local:
                return self._create(name, data)
            target = self._target(name)
            try:
                with _temporary_beside(target, replace=False) as temporary:
                    temporary.write_bytes(data)
            except FileExistsError:
                return False
            return True

    def put_file(self, local: Path, name: str) -> None:
        """Publish a local file under ``name``; the local file may be moved away."""
        with self._clear_errors(name, writing=True):
            if not self.is_local:
                self.fs.put_file(str(local), self.path(name))
                return
            target = self._target(name)
            _sync(local)
            local.replace(target)
            sync_folder(target.parent)

    def get_file(self, name: str, local: Path) -> None:
        """Copy an object into a local file, which appears whole or not at all.

        Raises:
            FileNotFoundError: when it is not there.
        """
        local.parent.mkdir(parents=True, exist_ok=True)
        with self._clear_errors(name), _temporary_beside(local) as temporary:
            self.fs.get_file(self.path(name), str(temporary))

    def names(self, prefix: str) -> list[str]:
        """Names of all objects below the folder ``prefix``, sorted, unfinished writes left out."""
        folder = self.path(prefix.rstrip("/"))
        try:
            with self._clear_errors(prefix):
                paths = self.fs.find(folder)
        except FileNotFoundError:
            return []
        start = len(self.root) + 1
        return sorted(path[start:] for path in paths if not path.rsplit("/", 1)[-1].startswith(".tmp-"))

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly below the folder ``prefix``, sorted, without their path."""
        try:
            with self._clear_errors(prefix):
                entries = self.fs.ls(self.path(prefix).rstrip("/"), detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(entry["name"].rstrip("/").rsplit("/", 1)[-1] for entry in entries if entry["type"] == "directory")

    def below(self, folder: str) -> "Storage":
        """A folder of this place as a place of its own."""
        return Storage(f"{self.root if self.is_local else self.uri.rstrip('/')}/{folder}")

    def copy_from(self, origin: "Storage", name: str) -> None:
        """Publish the object ``name`` of another place in the same store here: no byte travels where it can be helped.

        On a disk both names share the bytes from then on, which is safe for what is never changed.
        """
        with self._clear_errors(name, writing=True):
            if not self.is_local:
                self.fs.cp_file(origin.path(name), self.path(name))
                return
            target = self._target(name)
            target.unlink(missing_ok=True)
            try:
                target.hardlink_to(origin.path(name))
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                with _temporary_beside(target) as temporary:
                    shutil.copyfile(origin.path(name), temporary)
            sync_folder(target.parent)

    def delete(self, name: str) -> None:
        """Remove an object or everything below a folder; nothing there is no error."""
        with self._clear_errors(name, writing=True), contextlib.suppress(FileNotFoundError):
            if self.fs.exists(self.path(name)):
                self.fs.rm(self.path(name), recursive=True)

    @contextlib.contextmanager
    def _clear_errors(self, name: str, *, writing: bool = False) -> Generator[None]:
        if not self.is_local:
            try:
                with _clear_store_errors(f"{self.uri.rstrip('/')}/{name}"):
                    yield
            except FileNotFoundError as error:
                if not writing:
                    raise
                raise WorkspaceError(f"cannot write {self.uri}: there is no such bucket: make it first") from error
            return
        with clear_write_errors(self.path(name)) if writing else contextlib.nullcontext():
            yield

    def _target(self, name: str) -> Path:
        """The local path of an object, its folder made."""
        target = Path(self.path(name))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:  # which would read as "the object is there already"
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(target.parent)) from error
        return target

    def _create(self, name: str, data: bytes) -> bool:
        """Put with If-None-Match: the store itself refuses the second one."""
        while True:
            try:
                self.fs.pipe_file(self.path(name), data, mode="create")
            except FileExistsError:
                return False
            except OSError as error:
                if _refusal(error) == _TAKEN:
                    return False
                # Two creations crossed in the store and it let neither decide; the next try settles it.
                if _refusal(error) != _CROSSED:
                    raise
                time.sleep(0.05)
            else:
                return True


# Another disk, a file system without links, or one that has enough of them for this file.
_NO_LINKS = {errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK}
_TAKEN, _CROSSED = 412, 409


def _refusal(error: BaseException) -> int | None:
    """The HTTP status with which an object store refused; s3fs hides it in the error's cause."""
    cause: BaseException | None = error
    while cause is not None:
        response = getattr(cause, "response", None)
        if isinstance(response, dict):
            return cast("dict[str, Any]", response).get("ResponseMetadata", {}).get("HTTPStatusCode")
        cause = cause.__cause__
    return None


@contextlib.contextmanager
def _temporary_beside(target: Path, *, replace: bool = True) -> Generator[Path]:
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
        sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
