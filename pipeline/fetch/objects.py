"""Read one object from S3 or Google Cloud Storage, through fsspec.

The store and its credentials come from the environment (``AWS_ENDPOINT_URL``, ``AWS_PROFILE``, fsspec's own
variables): they belong to the person who runs the build, so the address rule for web sources does not apply.
"""

from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from pipeline.fetch.direct import STAGE, Download
from pipeline.fetch.partial import Partial, check_size
from schemas.config import AcquireConfig
from schemas.errors import SourceError, ThrottledError, TransientError, UsageError
from schemas.progress import Report

_PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}
_BLOCK_BYTES = 8 * 1024**2
_THROTTLED = ("SlowDown", "Please reduce your request rate", "TooManyRequests", "rateLimitExceeded", "Throttling")
_DENIED = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "DefaultCredentialsError")


def read_object(uri: str, partial: Partial, config: AcquireConfig, report: Report) -> Download:
    """Make one attempt to read ``uri`` into ``partial``; ``report`` hears of bytes.

    Raises:
        UsageError: when the package for this store is not installed, or there are no credentials.
        SourceError: when the object is missing, forbidden, empty or too large.
        TransientError: for everything that may pass; what has arrived stays in ``partial``.
    """
    store = _store(uri, config)
    path = uri.split("://", 1)[1]
    try:
        facts = store.info(path)
        _check(uri, facts, config)
        _copy(store, path, facts, partial, report)
    except (SourceError, UsageError):
        raise
    except FileNotFoundError as error:
        raise SourceError(f"{uri} does not exist.") from error
    except PermissionError as error:
        raise SourceError(f"{uri} may not be read with the credentials of this environment.") from error
    except Exception as error:
        # botocore, aiohttp and gcsfs each have their own tree; all that is left here is the way to the store.
        raise _named(uri, error) from error
    return Download(uri, facts.get("ContentType") or facts.get("contentType") or None)


def _store(uri: str, config: AcquireConfig) -> Any:
    import fsspec

    scheme = urlsplit(uri).scheme
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if scheme == "s3":
        options["config_kwargs"] = {
            "connect_timeout": config.connect_timeout_s,
            "read_timeout": config.stall_timeout_s,
            "retries": {"max_attempts": 1},  # this module's caller retries
        }
    try:
        return fsspec.filesystem(scheme, **options)
    except ImportError as error:
        package = _PACKAGES[scheme]
        raise UsageError(f"{scheme}:// sources need the package {package}: pip install {package}.") from error


def _check(uri: str, facts: dict[str, Any], config: AcquireConfig) -> None:
    if facts.get("type") != "file":
        raise SourceError(f"{uri} is a folder, not an object.")
    if not facts["size"]:
        raise SourceError(f"{uri} is empty: 0 bytes.")
    check_size(facts["size"], config.max_bytes, uri)


def _copy(store: Any, path: str, facts: dict[str, Any], partial: Partial, report: Report) -> None:
    etag, size = str(facts.get("ETag") or facts.get("etag") or ""), int(facts["size"])
    if partial.validator != etag or not 0 < partial.offset <= size:
        partial.restart(etag, size)
    with store.open(path, "rb", block_size=_BLOCK_BYTES, cache_type="readahead") as remote, partial.append() as stream:
        received = partial.offset
        remote.seek(received)
        while chunk := remote.read(_BLOCK_BYTES):
            stream.write(chunk)
            received += len(chunk)
            report(STAGE, received, size)
    if received != size:
        raise TransientError(f"{PurePosixPath(path).name} ended at byte {received} of {size}.")


def _named(uri: str, error: Exception) -> Exception:
    text = f"{type(error).__name__}: {error}"
    if type(error).__name__ in _DENIED:
        return UsageError(f"{uri} needs credentials and the environment has none ({type(error).__name__}).")
    if any(sign in text for sign in _THROTTLED):
        return ThrottledError(f"The store of {uri} asks for fewer requests.")
    return TransientError(f"{uri} could not be read: {text}.")
