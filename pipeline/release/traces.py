"""What a workspace and its releases hold of one source: the knowledge that a take-down acts on.

Keys of stage results are hashes of settings, so those of earlier configurations cannot be computed any more. They
are found by looking at every result once and asking what its record names.
"""

import contextlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, cast

from pipeline.build.results import load_build
from pipeline.release.finished import read_release
from pipeline.store.storage import Storage
from pipeline.store.tombstones import read_tombstones
from pipeline.store.workspace import Workspace
from schemas.release import RELEASE_FILE, Release
from schemas.source import Fetched, Source
from schemas.tombstone import Tombstone, uri_hash

_READERS = 16  # side by side, where reading means a request


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One stage result: which sources, clips, files and addresses its record names."""

    stage: str
    key: str
    source_ids: frozenset[str] = frozenset()
    clip_ids: frozenset[str] = frozenset()
    sha256s: frozenset[str] = frozenset()
    uri_hashes: frozenset[str] = frozenset()
    finished: bool = True

    @property
    def folder(self) -> str:
        """Its place in the workspace."""
        return f"results/{self.stage}/{self.key}"


@dataclass(frozen=True, slots=True)
class FoundRelease:
    """A finished release that lies in a folder of releases."""

    shelf: Storage
    folder: str
    record: Release

    @property
    def storage(self) -> Storage:
        """Its own folder."""
        return self.shelf.below(self.folder)

    def forgotten(self, stones: Collection[Tombstone]) -> set[str]:
        """Ids of its sources that were taken down."""
        return {
            source.source_id
            for source in self.record.sources
            for stone in stones
            if stone.covers(source_id=source.source_id, uri=source.uri, sha256=source.sha256)
        }


@dataclass(slots=True)
class Traces:
    """All that is known of a source: what keeps it out, and what has to go.

    ``source_ids`` are its own id and those under which the same file or address was used too. ``earlier`` is the
    tombstone of an earlier run, whose knowledge is part of this one's.
    """

    source_ids: set[str]
    sha256s: set[str] = field(default_factory=set[str])
    uri_hashes: set[str] = field(default_factory=set[str])
    clip_ids: set[str] = field(default_factory=set[str])
    results: list[ResultRow] = field(default_factory=list[ResultRow])
    earlier: Tombstone | None = None

    def take(self, row: ResultRow) -> None:
        """Learn from a result of the source."""
        self.sha256s |= row.sha256s
        self.uri_hashes |= row.uri_hashes
        self.clip_ids |= row.clip_ids

    def names(self, row: ResultRow) -> bool:
        """Whether a result was made from the source, also together with others."""
        return bool(
            row.source_ids & self.source_ids
            or row.sha256s & self.sha256s
            or row.uri_hashes & self.uri_hashes
            or row.clip_ids & self.clip_ids
        )


def find_releases(shelves: Sequence[Storage]) -> list[FoundRelease]:
    """The finished releases of some folders.

    Raises:
        UsageError: for a record that cannot be read: nobody could say what that release holds.
    """
    return [
        FoundRelease(shelf, folder, read_release(shelf.below(folder)))
        for shelf in shelves
        for folder in shelf.folders("")
        if shelf.exists(f"{folder}/{RELEASE_FILE}")
    ]


def find_traces(workspace: Workspace, source_id: str, releases: Sequence[FoundRelease]) -> Traces | None:
    """Search a workspace and its releases for a source; nothing is changed. None: nobody knows it."""
    sources = load_build(workspace).sources
    rows = list(_result_rows(workspace.storage))
    published = [source for release in releases for source in release.record.sources]
    stones = [stone for stone in read_tombstones(workspace) if stone.source_id == source_id]
    mine = [row for row in rows if source_id in row.source_ids]
    if not (mine or stones or workspace.ledger(source_id)) and source_id not in {
        *(source.id for source in sources),
        *(source.source_id for source in published),
    }:
        return None
    traces = Traces({source_id})
    for stone in stones:  # what an earlier run has deleted is known from here alone
        traces.earlier = stone
        traces.sha256s |= {*stone.sha256s}
        traces.uri_hashes |= {*stone.uri_hashes}
        traces.clip_ids |= {*stone.clip_ids}
    for source in sources:
        if source.id == source_id:
            traces.uri_hashes.add(uri_hash(source.uri))
            traces.sha256s |= {source.sha256} if source.sha256 else set()
    traces.sha256s |= {source.sha256 for source in published if source.source_id == source_id}
    for row in mine:
        traces.take(row)
    _add_twins(traces, rows, sources)
    traces.results = [row for row in rows if not row.finished or traces.names(row)]
    return traces


def _add_twins(traces: Traces, rows: Collection[ResultRow], sources: Collection[Source]) -> None:
    """The same film under other ids: by its file, or by its address."""
    for source in sources:
        if uri_hash(source.uri) in traces.uri_hashes or source.sha256 in traces.sha256s:
            traces.source_ids.add(source.id)
    for row in rows:
        if row.sha256s & traces.sha256s or row.uri_hashes & traces.uri_hashes:
            traces.take(row)
            traces.source_ids |= row.source_ids
    for row in rows:
        if row.source_ids and row.source_ids <= traces.source_ids:
            traces.clip_ids |= row.clip_ids


# ---- stage results -------------------------------------------------------------------------------------------------


def _result_rows(storage: Storage) -> Iterator[ResultRow]:
    """One row per stage result, finished or not."""
    items = [(stage, key) for stage in storage.folders("results") for key in storage.folders(f"results/{stage}")]
    readers = ThreadPoolExecutor(_READERS) if not storage.is_local else contextlib.nullcontext()
    with readers as pool:
        paths = [f"results/{stage}/{key}/record.json" for stage, key in items]
        records = (pool.map if pool else map)(storage.read_if_there, paths)
        for (stage, key), data in zip(items, records, strict=True):
            yield _result_row(stage, key, data)


def _result_row(stage: str, key: str, data: bytes | None) -> ResultRow:
    if data is None:
        return ResultRow(stage, key, finished=False)
    if stage == "acquire":
        return _acquired(key, Fetched.model_validate_json(data))
    content = json.loads(data)
    texts: defaultdict[str, set[str]] = defaultdict(set)
    _collect(content, texts)
    # A result of many clips together names them in whatever way it likes.
    clip_ids = texts["clip_id"] if texts["source_id"] else texts[""]
    digest = content.get("sha256") if stage == "probe" else None
    return ResultRow(
        stage, key, frozenset(texts["source_id"]), frozenset(clip_ids), frozenset({digest} if digest else ())
    )


def _acquired(key: str, fetched: Fetched) -> ResultRow:
    """What was fetched is named after its source; a local file is not, and is known by its address."""
    provenance = fetched.provenance
    is_local = provenance.tool == "file"
    return ResultRow(
        "acquire",
        key,
        source_ids=frozenset() if is_local else frozenset({PurePosixPath(fetched.path).stem}),
        sha256s=frozenset({fetched.sha256}),
        uri_hashes=frozenset({uri_hash(provenance.final_url if is_local else provenance.uri)}),
    )


def _collect(content: Any, texts: defaultdict[str, set[str]]) -> None:
    """All texts and names in a record: by the field that held them, and under no name all together."""
    if isinstance(content, dict):
        for name, value in cast("dict[str, Any]", content).items():
            texts[""].add(name)
            if isinstance(value, str):
                texts[name].add(value)
            _collect(value, texts)
    elif isinstance(content, list):
        for value in cast("list[Any]", content):
            _collect(value, texts)
    elif isinstance(content, str):
        texts[""].add(content)
