"""Download one file over HTTP, continuing what an earlier attempt left.

urllib3 is used without the layer above it: redirects are followed here, so that every address on the way is
checked, and neither ``.netrc`` nor a proxy variable can change who is asked.
"""

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import urllib3
from urllib3 import BaseHTTPResponse
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, IncompleteRead, ProtocolError, ReadTimeoutError

from pipeline.fetch.addresses import connect
from pipeline.fetch.partial import Partial, check_size
from pipeline.fetch.politeness import HostTurns
from schemas.config import AcquireConfig
from schemas.errors import SourceError, ThrottledError, TransientError
from schemas.progress import Report
from schemas.uri import redact

logger = logging.getLogger(__name__)

STAGE = "acquire"  # how progress is named
USER_AGENT = "AniTalk-builder (dataset tool)"
_CHUNK_BYTES = 256 * 1024
_REDIRECTS = {301, 302, 303, 307, 308}
_PAGE_TYPES = {"text/html", "application/xhtml+xml"}
_PLAYLIST_TYPES = {
    "application/vnd.apple.mpegurl",
    "application/x-mpegurl",
    "audio/mpegurl",
    "audio/x-mpegurl",
    "application/dash+xml",
}
_HTML_START = re.compile(rb"^(\xef\xbb\xbf)?\s*<(!doctype\s+html|html[\s>])", re.IGNORECASE)
_CONTENT_RANGE = re.compile(r"^bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)$")
_RETRIED_STATUS = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY}
_SENTENCES = {
    401: "asks for a login (401); this tool uses no accounts",
    403: "refuses access (403)",
    404: "does not exist (404)",
    410: "was removed (410)",
    451: "is withheld for legal reasons (451)",
}


class WebPageError(Exception):
    """The address answers with a page or a playlist, not with a media file; a page fetcher may know more."""


@dataclass(frozen=True, slots=True)
class Download:
    """What a finished direct download knows about itself."""

    final_url: str
    media_type: str | None


def download(uri: str, partial: Partial, config: AcquireConfig, limiter: HostTurns, report: Report) -> Download:
    """Make one attempt to fetch ``uri`` into ``partial``; ``report`` hears of bytes.

    Raises:
        WebPageError: when the answer is a page or a playlist.
        SourceError: when trying again will not help.
        TransientError: when it may; what has arrived stays in ``partial``.
        ThrottledError: when the host asks for fewer requests.
    """
    with _pool(config) as pool:
        response, url = _follow(pool, uri, partial, config, limiter)
        try:
            if _is_complete(response, partial):  # an earlier run ended between the last byte and the final name
                return Download(redact(url), None)
            _check_status(response, url, partial, limiter)
            media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower() or None
            if media_type in _PAGE_TYPES or media_type in _PLAYLIST_TYPES:
                raise WebPageError(f"{redact(url)} answers with {media_type}")
            _receive(response, url, partial, config, report)
        finally:
            response.close()
    with partial.path.open("rb") as stream:
        if _HTML_START.match(stream.read(512)):
            partial.discard()
            raise SourceError(f"{redact(url)} sent a web page and called it {media_type}.")
    return Download(redact(url), media_type)


def _pool(config: AcquireConfig) -> urllib3.PoolManager:
    """A pool whose every connection goes to a checked address."""

    class CheckedHTTP(HTTPConnection):
        def _new_conn(self) -> Any:
            allow = config.allow_private_addresses
            return connect(self.host, self.port or 80, config.connect_timeout_s, allow_private=allow)

    class CheckedHTTPS(HTTPSConnection):
        def _new_conn(self) -> Any:
            allow = config.allow_private_addresses
            return connect(self.host, self.port or 443, config.connect_timeout_s, allow_private=allow)

    class HTTPPool(HTTPConnectionPool):
        ConnectionCls: Any = CheckedHTTP

    class HTTPSPool(HTTPSConnectionPool):
        ConnectionCls: Any = CheckedHTTPS

    timeout = urllib3.Timeout(connect=config.connect_timeout_s, read=config.stall_timeout_s)
    pool = urllib3.PoolManager(timeout=timeout, retries=False)
    pool.pool_classes_by_scheme = {"http": HTTPPool, "https": HTTPSPool}
    return pool


def _follow(
    pool: urllib3.PoolManager, uri: str, partial: Partial, config: AcquireConfig, limiter: HostTurns
) -> tuple[BaseHTTPResponse, str]:
    """The first answer that is no redirect, and the address that gave it."""
    url = uri
    for hop in range(config.max_redirects + 1):
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or parts.scheme not in config.schemes or not parts.hostname:
            raise SourceError(
                f"{redact(uri)} redirects to {redact(url)}, and the scheme {parts.scheme!r} is not allowed."
            )
        if hop == 0:
            limiter.wait(parts.hostname, "file")
        else:
            limiter.check(parts.hostname)
        with _network_errors_named(url):
            response = pool.request(
                "GET", url, headers=_headers(url, partial), redirect=False, preload_content=False, decode_content=False
            )
        if response.status not in _REDIRECTS:
            return response, url
        location = response.headers.get("Location")
        response.close()
        if not location:
            raise SourceError(f"{redact(url)} redirects without saying where.")
        url = _joined(url, location)
    raise SourceError(f"{redact(uri)} redirects more than {config.max_redirects} times.")


def _joined(url: str, location: str) -> str:
    try:
        joined = urljoin(url, location)
        _ = urlsplit(joined).port
    except ValueError as error:
        raise SourceError(f"{redact(url)} redirects to an address that cannot be read: {error}.") from error
    return joined


def _headers(url: str, partial: Partial) -> dict[str, str]:
    headers = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}
    parts = urlsplit(url)
    if parts.username:  # of this address alone: a redirect's target brings its own or none
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers |= urllib3.make_headers(basic_auth=login)
    if partial.offset:
        headers |= {"Range": f"bytes={partial.offset}-", "If-Range": partial.validator}
    return headers


def _receive(response: BaseHTTPResponse, url: str, partial: Partial, config: AcquireConfig, report: Report) -> None:
    if encoding := response.headers.get("Content-Encoding", "").strip().lower().replace("identity", ""):
        raise SourceError(f"{redact(url)} was sent compressed ({encoding}) though that was refused.")
    length = _content_length(response)
    if not _continues(response, partial):
        check_size(length or 0, config.max_bytes, redact(url))
        partial.restart(_validator(response), length)
    elif length is not None:
        check_size(partial.offset + length, config.max_bytes, redact(url))
    received = partial.offset
    with partial.append() as stream:
        for chunk in _chunks(response, url):
            received += len(chunk)
            if received > config.max_bytes:
                partial.discard()
                check_size(received, config.max_bytes, redact(url))
            stream.write(chunk)
            report(STAGE, received, partial.total)
    if received == 0:
        partial.discard()
        raise SourceError(f"{redact(url)} is empty: 0 bytes.")


def _chunks(response: BaseHTTPResponse, url: str) -> Iterator[bytes]:
    with _network_errors_named(url):
        # read1 hands out what has arrived, so that nothing received is lost when the connection breaks.
        while chunk := response.read1(_CHUNK_BYTES):
            yield chunk


def _content_length(response: BaseHTTPResponse) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def _validator(response: BaseHTTPResponse) -> str:
    etag = response.headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        return etag
    return response.headers.get("Last-Modified", "")


def _continues(response: BaseHTTPResponse, partial: Partial) -> bool:
    """Whether the answer carries on where ``partial`` ends; a whole file does not."""
    if response.status != HTTPStatus.PARTIAL_CONTENT:
        return False
    match = _CONTENT_RANGE.match(response.headers.get("Content-Range", "").strip())
    start = int(match[1]) if match else None
    total = int(match[2]) if match and match[2] != "*" else None
    validator = _validator(response)
    same_file = not validator or validator == partial.validator
    same_size = total is None or partial.total is None or total == partial.total
    if start != partial.offset or not same_file or not same_size:
        answered = response.headers.get("Content-Range")
        wanted = partial.offset
        partial.discard()
        raise TransientError(
            f"The server was asked to continue at byte {wanted} and answered {answered!r}; begun again."
        )
    return True


def _is_complete(response: BaseHTTPResponse, partial: Partial) -> bool:
    """Whether the server has nothing beyond what is here; had the file changed, If-Range would have sent it whole."""
    if response.status != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not partial.offset:
        return False
    content_range = response.headers.get("Content-Range", "").strip()
    return partial.offset == partial.total and content_range == f"bytes */{partial.total}"


def _check_status(response: BaseHTTPResponse, url: str, partial: Partial, limiter: HostTurns) -> None:
    status = response.status
    if status == HTTPStatus.OK or (status == HTTPStatus.PARTIAL_CONTENT and partial.offset):
        return
    where = redact(url)
    retry_after = response.headers.get("Retry-After")
    if status == HTTPStatus.TOO_MANY_REQUESTS or (status == HTTPStatus.SERVICE_UNAVAILABLE and retry_after):
        limiter.throttled(urlsplit(url).hostname or "", _seconds(retry_after))
        raise ThrottledError(f"{where} asks for fewer requests (status {status}, Retry-After: {retry_after}).")
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        partial.discard()
        raise TransientError(f"{where} has changed since the download began; begun again.")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _RETRIED_STATUS:
        raise TransientError(f"{where} answers with status {status}.")
    raise SourceError(f"{where} {_SENTENCES.get(status, f'answers with status {status}')}.")


def _seconds(retry_after: str | None) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3): a number or a date."""
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


@contextmanager
def _network_errors_named(url: str) -> Iterator[None]:
    """Turn urllib3's exceptions into ours."""
    where = redact(url)
    try:
        yield
    except ReadTimeoutError as error:
        raise TransientError(f"{where} sent nothing for too long; the attempt was ended.") from error
    except (IncompleteRead, ProtocolError) as error:
        raise TransientError(f"The connection to {where} ended before the file did.") from error
    except HTTPError as error:
        raise TransientError(f"{where} cannot be reached: {error}.") from error
