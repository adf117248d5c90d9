"""Published clip lists: which part of which source, where in the picture, so that clips are cut without detection.

Two kinds are read: a release's own ``clips.jsonl``, which holds all that it takes to make the very same
clips, and the plain form in which most talking-head sets are published: address, span and box per clip.
"""

import csv
import hashlib
import itertools
import json
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Self, cast

from pydantic import Field, ValidationError, model_validator

from schemas.analysis import PlannedClip
from schemas.base import Box, Id, Record, TimeSpan, is_absent
from schemas.manifest_syntax import (
    ManifestEntry,
    SyntaxProblemError,
    csv_entries,
    jsonl_entries,
    read_text,
    separator_of,
)
from schemas.release import ClipListRow, Split
from schemas.source import ManifestError, Reading, Source
from schemas.uri import SCHEMES, uri_scheme


class ListedClip(Record):
    """One clip of a published list.

    ``planned`` is there for lists of ours. Else ``span`` and ``box`` say what to cut: the box in pixels of the upright
    picture, or of one of ``picture_px`` (width, height) if the list was made at another size, or in shares of the
    picture where no number exceeds 1. ``sha256`` is the file that the list was made from, empty when not known.
    ``domain`` is the clip's own where a reviewer had put it elsewhere than its source.
    """

    source_id: Id
    clip_id: Id | None = None
    span: TimeSpan
    box: Box
    picture_px: tuple[int, int] | None = None
    planned: PlannedClip | None = None
    sha256: str = ""
    split: Split | None = None
    identity_id: Id | None = None
    domain: str | None = Field(default=None, exclude_if=is_absent)


class ClipList(Record):
    """A clip list with its sources, in the order in which they first appear."""

    sources: tuple[Source, ...]
    clips: tuple[ListedClip, ...]


class _PlainRow(Record):
    """One row of a plain list; numbers may come as text."""

    uri: str
    domain: str
    license: str
    title: str
    start_s: float
    stop_s: float
    x0: float
    y0: float
    x1: float
    y1: float
    source_id: Id | None = None
    clip_id: Id | None = None
    width_px: int | None = None
    height_px: int | None = None
    credit: str | None = None
    language: str | None = None
    sha256: str | None = None
    split: Split | None = None
    identity_id: Id | None = None

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if (self.width_px is None) != (self.height_px is None):
            raise ValueError("width_px and height_px belong together: give both or none")
        if not 0 <= self.start_s < self.stop_s:
            raise ValueError(f"a clip needs 0 <= start_s < stop_s, found {self.start_s} to {self.stop_s}")
        return self


_PLAIN = frozenset(_PlainRow.model_fields)
_REQUIRED = tuple(name for name, field in _PlainRow.model_fields.items() if field.is_required())
_OF_SOURCE = ("uri", "domain", "license", "title", "credit", "language")


def is_clip_list(path: Path) -> bool:
    """Whether a file lists clips rather than sources; a file that cannot be read lists nothing."""
    suffix = path.suffix.lower()
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = file.readline(1024 * 1024)
    except (OSError, UnicodeDecodeError):
        return False
    if suffix == ".csv":
        rows: list[list[str]] = list(csv.reader([first], delimiter=separator_of(first)))
        names = {name.strip() for row in rows for name in row}
        return {"start_s", "x0"} <= names
    if suffix not in {".jsonl", ".ndjson"}:
        return False
    try:
        entry = json.loads(first)
    except ValueError:
        return False
    return isinstance(entry, dict) and ("plan" in entry or {"start_s", "x0"} <= set(cast("dict[str, Any]", entry)))


def read_clip_list(
    path: Path, domains: Collection[str], schemes: Collection[str] = SCHEMES, media: Path | None = None
) -> ClipList:
    """Read a clip list (``.jsonl`` or ``.csv``) and check every line of it.

    Args:
        path: the list.
        domains: what the build's configuration knows.
        schemes: allowed in addresses.
        media: the folder of local files, which lists name without one; the list's own folder by default.

    Raises:
        ManifestError: with every problem found, each with its line and field.
    """
    return _ListReading(path, domains, schemes, media or path.parent).clip_list()


class _ListReading(Reading):
    """One pass over one list; sources are checked as those of a manifest are."""

    def __init__(self, path: Path, domains: Collection[str], schemes: Collection[str], media: Path) -> None:
        super().__init__(path, domains, schemes)
        self.media = media
        self.known: dict[str, Source] = {}
        self.clip_ids: dict[str, int] = {}

    def clip_list(self) -> ClipList:
        clips: list[ListedClip] = []
        try:
            for entry in self._rows(read_text(self.path)):
                if isinstance(entry, SyntaxProblemError):
                    self.problem(entry.line, entry.field_name, entry.message)
                elif (clip := self._clip(entry)) is not None:
                    clips.append(clip)
        except SyntaxProblemError as error:
            self.problem(error.line, error.field_name, error.message)
        if not clips and not self.problems:
            self.problem(None, None, "lists no clips")
        if self.problems:
            raise ManifestError(sorted(self.problems, key=lambda problem: problem.line or 0))
        return ClipList(sources=tuple(self.known.values()), clips=tuple(clips))

    def _rows(self, text: str) -> Iterator[ManifestEntry | SyntaxProblemError]:
        return csv_entries(text, _PLAIN, _REQUIRED) if self.path.suffix.lower() == ".csv" else jsonl_entries(text)

    def _clip(self, entry: ManifestEntry) -> ListedClip | None:
        try:
            clip = _own(entry) if "plan" in entry.values else _plain(entry)
        except ValidationError as error:
            for item in error.errors():
                name = ".".join(str(part) for part in item["loc"]) or None
                self.problem(entry.line_of(name), name, item["msg"].removeprefix("Value error, "))
            return None
        if clip.clip_id is not None and clip.clip_id in self.clip_ids:
            self.problem(entry.line, "clip_id", f"{clip.clip_id!r} is listed on line {self.clip_ids[clip.clip_id]} too")
            return None
        self.clip_ids.setdefault(clip.clip_id or "", entry.line)
        return clip if self._has_source(clip.source_id, entry) else None

    def _has_source(self, source_id: str, entry: ManifestEntry) -> bool:
        """Enter the clip's source when it is met first; later rows must agree with it."""
        values = {name: entry.values.get(name) or None for name in _OF_SOURCE}
        uri = str(values["uri"])
        if uri_scheme(uri) == "file":
            # By name alone: a list that somebody else wrote must not choose folders of this machine.
            values["uri"] = str(self.media.absolute() / PurePosixPath(uri.removeprefix("file:")).name)
        given = {name: value for name, value in values.items() if value is not None}
        if source_id not in self.known:
            self.ids.pop(source_id, None)
            source = self.source_of(ManifestEntry(entry.line, {"id": source_id, **given}, entry.lines))
            if source is None:
                return False
            self.known[source_id] = source
            return True
        known = self.known[source_id]
        if given["uri"] != values["uri"] or (uri_scheme(uri) != "file" and known.uri != uri):
            self.problem(entry.line_of("uri"), "uri", f"differs from that of an earlier clip of source {source_id}")
            return False
        return True


def _own(entry: ManifestEntry) -> ListedClip:
    row = ClipListRow.model_validate(entry.values)
    return ListedClip(
        source_id=row.plan.source_id,
        clip_id=row.plan.clip_id,
        span=row.plan.span,
        box=row.plan.square,
        planned=PlannedClip(plan=row.plan, face=row.face),
        sha256=row.sha256,
        split=row.split,
        identity_id=row.identity_id,
        domain=row.reviewed_domain,
    )


def _plain(entry: ManifestEntry) -> ListedClip:
    row = _PlainRow.model_validate({name: value for name, value in entry.values.items() if value != ""})
    size = (row.width_px, row.height_px)
    return ListedClip(
        source_id=row.source_id or f"listed-{hashlib.sha256(row.uri.encode()).hexdigest()[:16]}",
        clip_id=row.clip_id,
        span=TimeSpan(start_s=row.start_s, stop_s=row.stop_s),
        box=Box(x0=row.x0, y0=row.y0, x1=row.x1, y1=row.y1),
        picture_px=cast("tuple[int, int]", size) if row.width_px is not None else None,
        sha256=row.sha256 or "",
        split=row.split,
        identity_id=row.identity_id,
    )


def by_source(clips: Collection[ListedClip]) -> dict[str, tuple[ListedClip, ...]]:
    """The clips of a list by source, each source's in order of time."""
    ordered = sorted(clips, key=lambda clip: (clip.source_id, clip.span.start_s, clip.clip_id or ""))
    return {source: tuple(mine) for source, mine in itertools.groupby(ordered, key=lambda clip: clip.source_id)}
