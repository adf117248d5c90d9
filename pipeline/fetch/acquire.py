"""Bring a source's bytes here, whatever kind of address it has, and say where they came from.

Results are kept by the caller. Here a file is either finished under its final name or a partial one that
the next attempt continues, and every failure is classed by whether trying again can help.
"""

import hashlib
import logging
import mimetypes
import os
import stat
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from pipeline.fetch.direct import Download, WebPageError, download
from pipeline.fetch.objects import read_object
from pipeline.fetch.partial import Partial, check_size, disk_errors_named, publish
from pipeline.fetch.politeness import HostTurns
from pipeline.fetch.retries import attempts
from schemas.config import AcquireConfig
from schemas.errors import SourceError, UsageError
from schemas.files import now_iso, sha256_of_file
from schemas.progress import Report, silent
from schemas.source import Fetched, FetchProvenance, Source
from schemas.uri import local_path, redact, uri_scheme

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
MEDIA_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .ts .m2ts .mts .ogv .ogg .wmv .flv .3gp .mxf .y4m".split()  # noqa: SIM905
)


def fetch(source: Source, config: AcquireConfig, into: Path, *, limiter: HostTurns, report: Report = silent) -> Fetched:
    """Fetch one source into the folder ``into``, which is its own and may hold an earlier attempt's partial file.

    Local files stay where they are and are only hashed. ``report`` hears of bytes done and bytes in all (None
    when unknown).

    Raises:
        SourceError: the source cannot be used; trying again will not help.
        TransientError: after ``config.num_attempts`` attempts; a later call continues.
        ThrottledError: the host asks for fewer requests; it is left alone for the cool-down.
        UsageError: the scheme is not allowed, or a package or credentials for it are missing.
        WorkspaceError: ``into`` cannot be written.
    """
    scheme = uri_scheme(source.uri)
    if scheme not in config.schemes:
        allowed = ", ".join(config.schemes)
        raise UsageError(f"Source {source.id}: scheme '{scheme}:' is not allowed; allowed: {allowed}.")
    if scheme == "file":
        fetched = _read_local(source, config)
    else:
        with disk_errors_named(into):
            into.mkdir(parents=True, exist_ok=True)
        fetched = _Fetching(source, config, into, limiter, report).run()
    provenance = fetched.provenance
    logger.info("fetched %s: %d bytes by %s %s", source.id, fetched.num_bytes, provenance.tool, provenance.tool_version)
    return fetched


class _Fetching:
    """One source on its way here: the attempts, and the file they make."""

    def __init__(self, source: Source, config: AcquireConfig, into: Path, limiter: HostTurns, report: Report) -> None:
        self.source, self.config, self.into = source, config, into
        self.limiter, self.report = limiter, report
        self.partial = Partial(into, source.id, source.uri)

    def run(self) -> Fetched:
        uri = self.source.uri
        if uri_scheme(uri) in {"s3", "gs"}:
            done = self._retry(lambda: read_object(uri, self.partial, self.config, self.report))
            return self._finish_direct(done, "fsspec", version("fsspec"))
        suffix = PurePosixPath(urlsplit(uri).path).suffix.lower()
        if suffix not in MEDIA_SUFFIXES and self._is_known_site():
            return self._fetch_page()
        try:
            done = self._retry(lambda: download(uri, self.partial, self.config, self.limiter, self.report))
        except WebPageError:
            return self._fetch_page()
        return self._finish_direct(done, "urllib3", version("urllib3"))

    def _is_known_site(self) -> bool:
        from pipeline.fetch.web import has_extractor

        return has_extractor(self.source.uri)

    def _retry(self, attempt: Callable[[], Result]) -> Result:
        return attempts(self.config, f"source {self.source.id}")(attempt)

    def _fetch_page(self) -> Fetched:
        from pipeline.fetch.web import fetch_video

        self.partial.discard()
        uri = self.source.uri
        # yt-dlp continues whatever lies under the name, so the name says which address it came from.
        stem = f"{self.source.id}-page-{hashlib.sha256(uri.encode()).hexdigest()[:12]}"
        try:
            video = self._retry(lambda: fetch_video(uri, self.into, stem, self.config, self.limiter, self.report))
        except SourceError as error:
            if error.reason == "permanent":  # nothing will be continued
                for path in self.into.glob(f"{stem}.*"):
                    path.unlink()
            raise
        check_size(video.path.stat().st_size, self.config.max_bytes, redact(uri))
        target = self.into / f"{self.source.id}{video.path.suffix}"
        with disk_errors_named(target):
            publish(video.path, target)
        return self._fetched(
            target,
            FetchProvenance(
                uri=self.source.public_uri,
                final_url=video.final_url,
                title=video.title,
                uploader=video.uploader,
                license=video.license,
                format_id=video.format_id,
                tool="yt-dlp",
                tool_version=video.tool_version,
                fetched_at=now_iso(),
                media_type=video.media_type,
            ),
        )

    def _finish_direct(self, done: Download, tool: str, tool_version: str) -> Fetched:
        target = self.partial.finish(self.into / f"{self.source.id}{_suffix(done)}")
        provenance = FetchProvenance(
            uri=self.source.public_uri,
            final_url=done.final_url,
            tool=tool,
            tool_version=tool_version,
            fetched_at=now_iso(),
            media_type=done.media_type,
        )
        return self._fetched(target, provenance)

    def _fetched(self, target: Path, provenance: FetchProvenance) -> Fetched:
        digest = sha256_of_file(target)
        try:
            _check_digest(self.source, digest)
        except SourceError:
            target.unlink()
            raise
        return Fetched(sha256=digest, num_bytes=target.stat().st_size, path=target.name, provenance=provenance)


def _suffix(done: Download) -> str:
    """A media suffix from the address or the media type; ``.bin`` when neither tells."""
    suffix = PurePosixPath(unquote(urlsplit(done.final_url).path)).suffix.lower()
    if suffix in MEDIA_SUFFIXES:
        return suffix
    guessed = mimetypes.guess_extension(done.media_type or "") or ""
    return guessed if guessed in MEDIA_SUFFIXES else ".bin"


def _read_local(source: Source, config: AcquireConfig) -> Fetched:
    path = local_path(source.uri)
    if not path.exists():
        raise SourceError(f"{path} does not exist: correct the uri in the manifest, or put the file there.")
    resolved = path.resolve()
    facts = resolved.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise SourceError(f"{path} is no regular file: name a media file, not a folder or a device.")
    if not facts.st_size:
        raise SourceError(f"{path} is empty: 0 bytes. Copy or fetch it again.")
    check_size(facts.st_size, config.max_bytes, str(path))
    if not os.access(resolved, os.R_OK):
        raise SourceError(f"{path} may not be read by this user: change its permissions.")
    digest = sha256_of_file(resolved)
    _check_digest(source, digest)
    provenance = FetchProvenance(
        uri=source.public_uri,
        final_url=resolved.as_uri(),
        tool="file",
        tool_version=version("anitalk"),
        fetched_at=now_iso(),
        media_type=mimetypes.guess_type(resolved.name)[0],
    )
    return Fetched(sha256=digest, num_bytes=facts.st_size, path=str(resolved), provenance=provenance)


def _check_digest(source: Source, digest: str) -> None:
    if source.sha256 is not None and digest != source.sha256:
        raise SourceError(
            f"Source {source.id} has SHA-256 {digest}; the manifest says {source.sha256}. "
            "If the new content is wanted, correct the manifest."
        )
