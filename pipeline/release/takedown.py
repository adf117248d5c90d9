"""Take a source down: out of the workspace, out of its releases, and out of every later build.

The tombstone comes first, so that a run that was cut off is finished by running it again: whatever the tombstone
covers and is still there, goes. Deleting is the last thing done to a release, after its successor is complete.
"""

import logging
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.build.upkeep import drop_leftovers
from pipeline.release.finished import read_manifest_rows
from pipeline.release.rewrite import release_without
from pipeline.release.staging import leftovers
from pipeline.release.traces import FoundRelease, Traces, find_releases, find_traces
from pipeline.store.reviews import ReviewLog
from pipeline.store.storage import Storage
from pipeline.store.tombstones import read_tombstones, write_tombstone
from pipeline.store.workspace import Workspace
from schemas.base import check_id
from schemas.errors import UsageError
from schemas.files import now_iso
from schemas.release import MANIFEST_FILE, RELEASE_FILE, next_name
from schemas.tombstone import Tombstone

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What became of a release that held clips of a forgotten source; ``successor`` is None where no clip was left."""

    old: FoundRelease
    successor: str | None


@dataclass(frozen=True, slots=True)
class Takedown:
    """What a take-down did. ``holding`` are releases that still hold the material, ``dropped`` those that did."""

    tombstone: Tombstone
    source_ids: tuple[str, ...]
    num_results: int
    num_media: int
    num_reviews: int
    rewritten: tuple[Rewritten, ...]
    holding: tuple[str, ...]
    dropped: tuple[str, ...]


def forget(
    workspace: Workspace,
    source_id: str,
    *,
    reason: str = "",
    name: str | None = None,
    more_releases: Sequence[str] = (),
    drop_old: bool = False,
) -> Takedown:
    """Take a source down; running it again finishes what was cut off, and otherwise finds nothing to do.

    Args:
        workspace: open for writing; the caller holds its lock.
        source_id: as in the manifest.
        reason: kept on the tombstone.
        name: of the one new release; each gets its old one's name with -r2, -r3, … by default.
        more_releases: folders or URIs that hold releases beside the workspace's own.
        drop_old: delete the releases that hold the source once their successors are complete.

    Raises:
        UsageError: before anything is changed, when nobody knows the source, a name cannot be used, or a release
            cannot be read.
        WorkspaceError: when a release is damaged or something cannot be written.
    """
    _check_name(source_id, "the source's id")
    shelves = [workspace.storage.below("releases"), *(_shelf(uri) for uri in more_releases)]
    releases = find_releases(shelves)
    traces = _known_traces(workspace, source_id, releases)
    stone = _stone(source_id, traces, releases, reason)
    stones = [*(other for other in read_tombstones(workspace) if other.source_id != source_id), stone]
    if name is not None:
        _check_new_name(name, _to_replace(releases, stones))
    write_tombstone(workspace, stone)
    for row in traces.results:
        workspace.storage.delete(row.folder)
    num_media = sum(_drop_media(workspace, known_id) for known_id in sorted(traces.source_ids))
    num_reviews = ReviewLog(workspace).forget(stone.clip_ids)
    drop_leftovers(workspace)
    _clear_unfinished(shelves[0])
    rewritten = _rewrite(workspace, releases, stones, name)
    holding = [release for release in releases if release.forgotten(stones)]
    if drop_old:
        for release in holding:
            _drop_release(release)
    places = tuple(release.storage.uri for release in holding)
    return Takedown(
        tombstone=stone,
        source_ids=tuple(sorted(traces.source_ids)),
        num_results=len(traces.results),
        num_media=num_media,
        num_reviews=num_reviews,
        rewritten=tuple(rewritten),
        holding=() if drop_old else places,
        dropped=places if drop_old else (),
    )


def _known_traces(workspace: Workspace, source_id: str, releases: Sequence[FoundRelease]) -> Traces:
    traces = find_traces(workspace, source_id, releases)
    if traces is None:
        raise UsageError(
            f"no source is called {source_id!r} in {workspace.storage.uri} or its releases: "
            "'anitalk sources --workspace …' lists them"
        )
    return traces


def _stone(source_id: str, traces: Traces, releases: Sequence[FoundRelease], reason: str) -> Tombstone:
    """The tombstone, of this run's knowledge; what an earlier run knew is part of what was found."""
    stone = Tombstone(
        source_id=source_id,
        sha256s=tuple(sorted(traces.sha256s)),
        uri_hashes=tuple(sorted(traces.uri_hashes)),
        reason=reason or (traces.earlier.reason if traces.earlier else ""),
        at=traces.earlier.at if traces.earlier else now_iso(),
    )
    clip_ids = set(traces.clip_ids)
    for release in releases:
        gone = release.forgotten([stone])
        # Where a release is being deleted its manifest goes before its record; the earlier tombstone knows its clips.
        if gone and release.storage.exists(MANIFEST_FILE):
            rows = read_manifest_rows(release.storage, release.record)
            clip_ids |= {row.clip_id for row in rows if row.source_id in gone}
    return stone.model_copy(update={"clip_ids": tuple(sorted(clip_ids))})


def _shelf(uri: str) -> Storage:
    shelf = Storage(uri)
    if not any(shelf.exists(f"{folder}/{RELEASE_FILE}") for folder in shelf.folders("")):
        raise UsageError(f"{uri} holds no release: name a folder or URI in which releases lie, each in its own folder")
    return shelf


# ---- in the workspace ----------------------------------------------------------------------------------------------


def _drop_media(workspace: Workspace, source_id: str) -> int:
    """Delete what was fetched for a source, here and in the store; returns how many files there were."""
    kept = [] if workspace.storage.is_local else workspace.storage.names(f"media/{source_id}")
    for name in kept:
        workspace.storage.delete(name)
    folder = workspace.media_path(source_id)
    names = {Path(name).name for name in kept}
    if folder.is_dir():
        names |= {path.name for path in folder.rglob("*") if path.is_file()}
        shutil.rmtree(folder)
    return len(names)


def _clear_unfinished(shelf: Storage) -> None:
    """Delete what killed runs left of releases: nobody can say whose clips those shards hold."""
    for folder in shelf.folders(""):
        storage = shelf.below(folder)
        if not storage.exists(RELEASE_FILE):
            for path in leftovers(storage):
                storage.delete(path)


# ---- releases ------------------------------------------------------------------------------------------------------


def _to_replace(releases: Sequence[FoundRelease], stones: Collection[Tombstone]) -> list[FoundRelease]:
    """Releases that hold forgotten sources and that no other release stands in for yet."""
    replaced = {release.record.replaces.inputs_hash for release in releases if release.record.replaces}
    return [release for release in releases if release.forgotten(stones) and release.record.inputs_hash not in replaced]


def _rewrite(
    workspace: Workspace, releases: Sequence[FoundRelease], stones: Collection[Tombstone], name: str | None
) -> list[Rewritten]:
    done: list[Rewritten] = []
    for old in _to_replace(releases, stones):
        gone = old.forgotten(stones)
        if len(gone) == len(old.record.sources):
            done.append(Rewritten(old, None))
            continue
        new = name or _free_name(old)
        storage = old.shelf.below(new)
        with workspace.scratch() as scratch:
            release_without(old.storage, storage, new, gone, scratch=scratch)
        done.append(Rewritten(old, storage.uri))
    return done


def _free_name(old: FoundRelease) -> str:
    """The next name of a release that nothing lies under."""
    name = next_name(old.folder)
    while not _is_free(old.shelf.below(name)):
        name = next_name(name)
    _check_name(name, "the new release's name (choose one with --as)")
    return name


def _check_new_name(name: str, affected: Sequence[FoundRelease]) -> None:
    _check_name(name, "the new release's name")
    if len(affected) > 1:
        names = ", ".join(release.folder for release in affected)
        raise UsageError(f"{len(affected)} releases hold the source ({names}), and --as names only one: leave it out")
    for old in affected:
        storage = old.shelf.below(name)
        if not _is_free(storage):
            raise UsageError(f"{storage.uri} is taken: choose another name than {name!r}")


def _is_free(storage: Storage) -> bool:
    """Whether a release may be written there: nothing lies there, or what a killed run left."""
    return not storage.exists(RELEASE_FILE) and (bool(leftovers(storage)) or not storage.names(""))


def _check_name(name: str, what: str) -> None:
    try:
        check_id(name)
    except ValueError as error:
        raise UsageError(f"{what}: {error}") from error


def _drop_release(release: FoundRelease) -> None:
    """Delete a release, its record last: as long as that is there, a later run knows what the rest holds."""
    storage = release.storage
    for path in sorted(storage.names(""), key=lambda path: path == RELEASE_FILE):
        storage.delete(path)
    release.shelf.delete(release.folder)
