"""Bytes by address, in parts: what breaks off is asked for again from where it broke off.

Every store has its own tree of errors, so whatever is not known to be final counts as a mishap of the network and is
tried again; a part that failed is asked for in halves, since some paths cut every long answer.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import fsspec

from schemas.errors import DataError, UsageError
from schemas.extras import install_command
from schemas.uri import local_path, redact, uri_scheme

log = logging.getLogger(__name__)

_PART_BYTES = 16 << 20
_MIN_PART_BYTES = 256 << 10
_CONNECT_S, _STALL_S = 20.0, 60.0  # a server that sends nothing for this long has failed
_MAX_WAIT_S = 30.0
_MISSING = {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}
_PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


@dataclass(frozen=True, slots=True)
class Patience:
    """Attempts at one part, and the wait before the second, which doubles."""

    num_attempts: int
    backoff_s: float


class RefusedError(DataError):
    """The store lets nobody, or not this user, read there; some say so of what does not exist."""


class _MishapError(Exception):
    """A part did not come, and may come if asked for again."""


def is_local(uri: str) -> bool:
    """Whether the address is a path on this machine."""
    return uri_scheme(uri) == "file"


def read_file(uri: str, patience: Patience) -> bytes:
    """A small file, whole.

    Raises:
        FileNotFoundError: when it is not there.
        DataError: when it cannot be read.
    """
    if not is_local(uri):
        system, path = _system(uri)
        return _attempts(uri, patience, lambda: _asked(uri, system.cat_file, path))
    try:
        return local_path(uri).read_bytes()
    except FileNotFoundError:
        raise
    except (NotADirectoryError, IsADirectoryError) as error:
        raise FileNotFoundError(uri) from error
    except OSError as error:
        raise DataError(f"{uri} cannot be read: {error.strerror}") from error


def size_of(uri: str, patience: Patience) -> int:
    """Bytes of a file.

    Raises:
        FileNotFoundError: when it is not there.
        DataError: when it cannot be reached, or the server does not say.
    """
    if is_local(uri):
        return local_path(uri).stat().st_size
    system, path = _system(uri)
    size = _attempts(uri, patience, lambda: _asked(uri, system.size, path))
    if size is None:
        raise DataError(f"{redact(uri)}: the server does not say how long it is, so it cannot be read in parts")
    return int(size)


def read_start(uri: str, num_bytes: int, patience: Patience) -> bytes:
    """The first ``num_bytes`` of a file that has as many.

    Raises:
        FileNotFoundError: when it is not there.
        DataError: when it cannot be read.
    """
    if not is_local(uri):
        return b"".join(iter_parts(uri, 0, num_bytes, patience))
    with local_path(uri).open("rb") as file:
        return file.read(num_bytes)


def iter_parts(uri: str, start: int, stop: int, patience: Patience) -> Iterator[bytes]:
    """Bytes ``start`` up to ``stop`` of a remote file, in parts, in order.

    Raises:
        FileNotFoundError: when it is not there.
        DataError: when the store refuses, or one part fails ``patience.num_attempts`` times.
    """
    system, path = _system(uri)
    part_bytes = _PART_BYTES
    failures = 0
    while start < stop:
        end = min(start + part_bytes, stop)
        try:
            data = _asked(uri, _some, system, path, start, end)
        except _MishapError as error:
            failures += 1
            _wait(uri, failures, patience, error)
            part_bytes = max(part_bytes // 2, _MIN_PART_BYTES)
            continue
        if len(data) > end - start:  # a server that knows no ranges sends the whole file
            if start:
                raise DataError(f"{redact(uri)}: the server does not send parts of files when asked (Range)")
            data = data[:stop]
        failures = 0
        start += len(data)
        yield data


def _system(uri: str) -> tuple[Any, str]:
    options: dict[str, Any] = {"use_listings_cache": False}
    if uri_scheme(uri) in {"http", "https"}:
        try:
            import aiohttp
        except ImportError as error:
            raise UsageError(f"{redact(uri)} needs the package aiohttp: {install_command('train')}") from error
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_STALL_S)
        # A compressed answer would be unpacked, and then lengths and offsets would mean other bytes.
        options["client_kwargs"] = {"timeout": timeout, "headers": {"Accept-Encoding": "identity"}}
    try:
        return fsspec.url_to_fs(uri, **options)
    except (ImportError, ValueError) as error:
        raise UsageError(f"cannot read from {redact(uri)}: {error}") from error


def _asked(uri: str, ask: Any, *arguments: Any, **more: Any) -> Any:
    """Call a method of a file system; what it raises becomes one of three kinds."""
    try:
        return ask(*arguments, **more)
    except FileNotFoundError as error:
        # fsspec says so of everything that a web server answers when asked for a size; the cause knows better.
        if uri_scheme(uri) == "s3" or error.__cause__ is None or _is_missing(error.__cause__):
            raise
        raise _classed(uri, error.__cause__) from error
    except Exception as error:
        raise _classed(uri, error) from error


def _is_missing(error: BaseException) -> bool:
    return isinstance(error, FileNotFoundError) or getattr(error, "status", None) in _MISSING


def _classed(uri: str, error: BaseException) -> "RefusedError | _MishapError":
    status = getattr(error, "status", None)
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
        return RefusedError(f"{redact(uri)}: the store refuses access ({reason}): check the credentials")
    refused = isinstance(status, int) and HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
    if refused and status not in _PASSING:
        return RefusedError(f"{redact(uri)}: the server refuses (status {status}): check the address and its access")
    return _MishapError(reason)


def _some(system: Any, path: str, start: int, end: int) -> bytes:
    data = system.cat_file(path, start=start, end=end)
    if not data:
        raise ConnectionError("the answer was empty")
    return data


def _attempts(uri: str, patience: Patience, ask: Any) -> Any:
    failures = 0
    while True:
        try:
            return ask()
        except _MishapError as error:
            failures += 1
            _wait(uri, failures, patience, error)


def _wait(uri: str, failures: int, patience: Patience, error: _MishapError) -> None:
    if failures >= patience.num_attempts:
        raise DataError(
            f"{redact(uri)} cannot be read after {failures} attempts ({error}): check the address and the network, "
            "then run again"
        ) from error
    log.warning("%s, attempt %d: %s", redact(uri), failures, error)
    time.sleep(min(patience.backoff_s * 2 ** (failures - 1), _MAX_WAIT_S))
