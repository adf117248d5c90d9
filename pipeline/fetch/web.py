"""Fetch the video of a web page with yt-dlp, under the same rules as a plain file.

yt-dlp may ask any address that a page names. All its requests are therefore sent by one transport that
connects to checked addresses only; downloads by ffmpeg, which would go around it, are made impossible.
"""

import http.client
import logging
import mimetypes
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yt_dlp
from yt_dlp.networking._urllib import HTTPHandler, UrllibRH
from yt_dlp.networking.exceptions import HTTPError, TransportError
from yt_dlp.utils import DownloadError, remove_terminal_sequences
from yt_dlp.version import __version__ as yt_dlp_version

from pipeline.fetch.addresses import connect
from pipeline.fetch.direct import STAGE
from pipeline.fetch.partial import check_size
from pipeline.fetch.politeness import HostTurns
from schemas.config import AcquireConfig
from schemas.errors import SourceError, ThrottledError, TransientError
from schemas.progress import Report
from schemas.uri import redact

logger = logging.getLogger(__name__)

# Read by Python code that uses our transport; anything else is handed to ffmpeg or to a protocol of its own.
_PROTOCOLS = {"http", "https", "m3u8", "m3u8_native", "http_dash_segments", "http_dash_segments_generator"}
_LIVE = {"is_live", "is_upcoming", "post_live"}
_THROTTLED = ("not a bot", "too many requests", "http error 429", "rate-limited", "rate limit", "ratelimit")
_NETWORK = ("timed out", "connection reset", "connection refused", "incompleteread", "temporary failure",
            "remote end closed", "unable to connect", "http error 5")  # fmt: skip
_NO_FFMPEG = "/nonexistent/ffmpeg"
# Their stubs forbid every override.
_YoutubeDL: Any = yt_dlp.YoutubeDL
_UrllibRH: Any = UrllibRH


@dataclass(frozen=True, slots=True)
class WebVideo:
    """A fetched video, and what the site says about it."""

    path: Path
    final_url: str
    title: str | None
    uploader: str | None
    license: str | None
    format_id: str | None
    media_type: str | None
    tool_version: str


def has_extractor(url: str) -> bool:
    """Whether yt-dlp knows this site; its generic extractor does not count."""
    return any(
        extractor.suitable(url) and extractor.IE_NAME != "generic"
        for extractor in yt_dlp.extractor.gen_extractor_classes()
    )


def fetch_video(
    url: str, folder: Path, stem: str, config: AcquireConfig, limiter: HostTurns, report: Report
) -> WebVideo:
    """Make one attempt to fetch the one video of ``url`` into ``folder``.

    yt-dlp continues its own partial files; unlike a direct download it does not check that the file behind
    them is still the same.

    Raises:
        SourceError: unsupported, private, removed, live, several videos, too long or too large.
        TransientError: network trouble. ThrottledError: the site asks for fewer requests.
    """
    host = urlsplit(url).hostname or ""
    limiter.wait(host, "video")
    notes = _Notes()
    guard = _Guard(config)
    try:
        with _Downloader(_options(folder, stem, config, notes, report), guard, config) as downloader:
            video = downloader.extract_info(url, download=True)
    except DownloadError as error:
        if guard.refused is not None:
            raise guard.refused from error
        raise _named(url, error, notes, limiter) from error
    video = _single(video, url)
    files = sorted(path for path in folder.glob(f"{stem}.*") if path.suffix not in {".part", ".ytdl", ".json"})
    if not files or not files[-1].stat().st_size:
        raise SourceError(f"{redact(url)} gave no video file{notes.hint()}.")
    path = next((path for path in files if path.suffix == f".{video.get('ext')}"), files[-1])
    return WebVideo(
        path=path,
        final_url=redact(str(video.get("webpage_url") or url)),
        title=video.get("title"),
        uploader=video.get("uploader"),
        license=video.get("license"),
        format_id=video.get("format_id"),
        media_type=mimetypes.guess_type(path.name)[0],
        tool_version=yt_dlp_version,
    )


def _single(video: Any, url: str) -> dict[str, Any]:
    if video and video.get("_type") in {"playlist", "multi_video"}:
        entries = [entry for entry in video.get("entries") or [] if entry]
        video = entries[0] if len(entries) == 1 else None
    if not video:
        raise SourceError(f"{redact(url)} holds no single video.")
    return video


def _options(folder: Path, stem: str, config: AcquireConfig, notes: "_Notes", report: Report) -> dict[str, Any]:
    import imageio_ffmpeg

    return {
        "format": config.web_format.replace("{max_height_px}", str(config.max_height_px)),
        "outtmpl": {"default": f"{stem}.%(ext)s"},  # never from a title
        "paths": {"home": str(folder)},
        "restrictfilenames": True,
        "merge_output_format": "mp4/mkv",
        "ffmpeg_location": imageio_ffmpeg.get_ffmpeg_exe(),
        "allowed_extractors": list(config.web_extractors),
        "noplaylist": True,
        "playlist_items": "1:2",  # enough to know that there is more than one
        "socket_timeout": config.stall_timeout_s,
        "retries": 1,  # the caller retries, with its own waits
        "fragment_retries": 3,
        "extractor_retries": 1,
        "file_access_retries": 1,
        "skip_unavailable_fragments": False,
        "continuedl": True,
        "overwrites": False,
        "updatetime": False,
        "cachedir": False,
        "hls_prefer_native": True,
        "proxy": "",  # through a proxy the address check would see the proxy
        "enable_file_urls": False,
        "color": "no_color",
        "quiet": True,
        "noprogress": True,
        "no_warnings": False,
        "logger": notes,
        "progress_hooks": [_size_hook(config, report)],
    }


def _size_hook(config: AcquireConfig, report: Report) -> Callable[[dict[str, Any]], None]:
    sizes: dict[str, int] = {}  # per file: picture and sound may come apart

    def hook(status: dict[str, Any]) -> None:
        sizes[str(status.get("filename"))] = int(status.get("downloaded_bytes") or 0)
        done = sum(sizes.values())
        total = status.get("total_bytes")
        check_size(max(done, int(total or 0)), config.max_bytes, "The video")
        report(STAGE, done, int(total) if total else None)

    return hook


class _Notes:
    """yt-dlp's messages: to the log, and kept where they explain a failure."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def debug(self, message: str) -> None:
        logger.debug("yt-dlp: %s", message)

    def warning(self, message: str) -> None:
        self.warnings.append(message)
        logger.debug("yt-dlp warns: %s", message)

    def error(self, message: str) -> None:
        logger.debug("yt-dlp fails: %s", message)

    def hint(self) -> str:
        """What a person can do about it, where a warning tells."""
        if any("javascript runtime" in warning.lower() for warning in self.warnings):
            return "; this site needs a JavaScript runtime: install deno and yt-dlp[default]"
        return ""


class _Guard:
    """Opens yt-dlp's connections, and remembers a refusal that yt-dlp would report as a network error."""

    def __init__(self, config: AcquireConfig) -> None:
        self._config = config
        self.refused: SourceError | None = None

    def create_connection(self, address: tuple[str, int], timeout: Any = None, *_: Any, **__: Any) -> Any:
        try:
            timeout_s = min(float(timeout), self._config.connect_timeout_s)
        except (TypeError, ValueError):  # the standard library's "no time-out given"
            timeout_s = self._config.connect_timeout_s
        try:
            allow = self._config.allow_private_addresses
            connection = connect(address[0], address[1], timeout_s, allow_private=allow)
        except TransientError as error:
            raise OSError(str(error)) from error
        except SourceError as error:
            self.refused = error
            raise OSError(str(error)) from error
        connection.settimeout(self._config.stall_timeout_s)
        return connection

    def connection_class(self, base: type[http.client.HTTPConnection], request: Any) -> type[Any]:
        """``base``, made to connect through this guard; takes the place of HTTPHandler's own choice of class."""
        del request
        guard = self

        class Guarded(base):  # type: ignore[valid-type, misc]
            def connect(self) -> None:
                self._create_connection = guard.create_connection
                super().connect()

        return Guarded


def _transport(guard: _Guard, config: AcquireConfig) -> type[Any]:
    """A request handler for http and https whose connections and redirects are ours."""

    class GuardedRH(_UrllibRH):
        _SUPPORTED_URL_SCHEMES = ("http", "https", "data")
        RH_NAME = "guarded"

        def _create_instance(self, *args: Any, **kwargs: Any) -> Any:
            opener = super()._create_instance(*args, **kwargs)
            guarded: list[Any] = [handler for handler in opener.handlers if isinstance(handler, HTTPHandler)]
            if not guarded:  # yt-dlp changed its insides: better nothing than an unchecked request
                raise RuntimeError("yt-dlp's transport cannot be guarded; install a version this tool was tested with")
            for handler in guarded:
                handler._make_conn_class = guard.connection_class  # noqa: SLF001
            for handler in opener.handlers:
                if isinstance(handler, urllib.request.HTTPRedirectHandler):
                    vars(handler)["max_redirections"] = config.max_redirects
            return opener

    return GuardedRH


class _Downloader(_YoutubeDL):
    """yt-dlp with one transport, and limits checked once the format is known and before it is downloaded."""

    def __init__(self, options: dict[str, Any], guard: _Guard, config: AcquireConfig) -> None:
        self._guard, self._config = guard, config
        super().__init__(options)

    def build_request_director(self, handlers: Any, preferences: Any = None) -> Any:
        del handlers, preferences  # the transports that yt-dlp would choose from
        return super().build_request_director([_transport(self._guard, self._config)])

    def process_info(self, info_dict: dict[str, Any]) -> Any:
        _check_video(info_dict, self._config)
        return super().process_info(info_dict)

    def dl(self, name: str, info: dict[str, Any], subtitle: bool = False, test: bool = False) -> Any:
        # HLS features that Python code lacks are otherwise handed to ffmpeg, which asks whom it likes.
        params, self.params = self.params, {**self.params, "ffmpeg_location": _NO_FFMPEG}
        try:
            return super().dl(name, info, subtitle, test)
        finally:
            self.params = params


def _check_video(video: dict[str, Any], config: AcquireConfig) -> None:
    """Refuse what must not be downloaded.

    Raises:
        SourceError: for one of several videos, a live stream, a length above the limit, or a protocol that
            would go around the address check.
    """
    where = redact(str(video.get("webpage_url") or video.get("original_url") or "The page"))
    if (video.get("n_entries") or 1) > 1:
        raise SourceError(f"{where} holds several videos; give the address of the one that is meant.")
    if video.get("is_live") or video.get("live_status") in _LIVE:
        raise SourceError(f"{where} is a live stream; give a recording.")
    duration_s = video.get("duration")
    if duration_s and duration_s > config.max_duration_s:
        raise SourceError(f"{where} lasts {duration_s:g} s; acquire.max_duration_s allows {config.max_duration_s:g}.")
    for part in video.get("requested_formats") or [video]:
        protocols = set(str(part.get("protocol") or "https").split("+"))
        if not protocols <= _PROTOCOLS:
            raise SourceError(f"{where} is offered over {', '.join(sorted(protocols))} only, which is not supported.")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what caused it, through yt-dlp's own way of recording causes."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        item = waiting.pop()
        if item is None or id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        wrapped = getattr(item, "exc_info", None)
        waiting += [item.__cause__, item.__context__, getattr(item, "cause", None), wrapped[1] if wrapped else None]


def _named(url: str, error: DownloadError, notes: _Notes, limiter: HostTurns) -> SourceError:
    chain = list(_chain(error))
    text = remove_terminal_sequences(str(error)).removeprefix("ERROR: ").split("; please report this issue")[0]
    first = _redact_words(text.splitlines()[0] if text else type(error).__name__)
    folded = text.lower()
    status = next((item.status for item in chain if isinstance(item, HTTPError)), None)
    message = f"{redact(url)}: {first.rstrip('.')}{notes.hint()}."
    if status == 429 or any(sign in folded for sign in _THROTTLED):
        limiter.throttled(urlsplit(url).hostname or "")
        return ThrottledError(message)
    if status is not None:
        return TransientError(message) if status >= 500 or status in {408, 425} else SourceError(message)
    if any(isinstance(item, TransportError | TimeoutError | ConnectionError) for item in chain):
        return TransientError(message)
    return TransientError(message) if any(sign in folded for sign in _NETWORK) else SourceError(message)


def _redact_words(text: str) -> str:
    """Redact every address inside a sentence."""
    return " ".join(redact(word) if "://" in word else word for word in text.split(" "))
