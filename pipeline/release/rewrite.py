"""A finished release without some of its sources, made from that release alone.

The workspace that made it may be gone, or have other settings by now. Shards that hold no clip of those sources
are taken over byte for byte; of the others the remaining samples are packed again, in their order and with the
bytes of every member as they were, so a reader finds the same clips as before, less what was taken out.
"""

import json
import logging
import tarfile
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.build.results import tool_version
from pipeline.card.describe import describe_release
from pipeline.media.tars import HashedStream, SampleTar, TarSample, iter_samples
from pipeline.release.finished import read_about, read_clip_lines, read_manifest_rows, read_release
from pipeline.release.staging import clear_leftovers, publish_shard, seal, staging, unfinished_tar
from pipeline.release.tables import Tables, write_tables
from pipeline.store.storage import Storage
from schemas.base import content_hash
from schemas.errors import WorkspaceError
from schemas.funnel import Funnel
from schemas.release import (
    About,
    ManifestRow,
    Release,
    Replaced,
    ShardRecord,
    next_shard_file,
)

log = logging.getLogger(__name__)

Extent = tuple[int, int]  # offset and length in bytes
Model = tuple[str, str]  # name and sha256 of its file


def release_without(
    origin: Storage, destination: Storage, name: str, gone: Collection[str], *, scratch: Path | None = None
) -> Release:
    """Write the release ``name``: the one at ``origin`` without the sources ``gone``.

    Args:
        origin: the folder of the old release, which stays as it is.
        destination: the folder of the new one, in the same store; what a killed run left there is replaced.
        name: the new release's name.
        gone: ids of sources; at least one clip must belong to another.
        scratch: folder for the shards being written, on their way to an object store.

    Raises:
        UsageError: when the old release cannot be read, or something else lies at ``destination``.
        WorkspaceError: when the old release turns out to be damaged, or the place cannot be written.
    """
    old = read_release(origin)
    rows = read_manifest_rows(origin, old)
    kept = [row for row in rows if row.source_id not in gone]
    if not kept:
        raise ValueError(f"nothing would be left of {origin.uri}")
    clear_leftovers(destination)
    touched = {path for row in rows if row.source_id in gone for path in (row.visual_shard, row.speech_shard)}
    packed = _Packed()
    with staging(destination, scratch) as folder:
        for shard in old.shards:
            if shard.path in touched:
                _pack_again(origin, destination, folder, shard, kept, packed)
            else:
                _take_over(origin, destination, shard)
                packed.shards.append(shard)
    lines = read_clip_lines(origin, old)
    lines = {row.clip_id: lines[row.clip_id] for row in kept if row.clip_id in lines}
    tables = Tables(shards=packed.shards, rows=[packed.placed(row) for row in kept], clips=lines)
    files = write_tables(destination, name, tables)
    release = _record(old, name, tables, files, _models_left(origin, old, touched, packed))
    about = _about(read_about(origin, old), {row.source_id for row in rows} - {row.source_id for row in kept})
    release = seal(destination, release, describe_release(destination, release, about, tables.rows))
    log.info("release %s: %d of the %d clips of %s", name, release.num_clips, old.num_clips, old.name)
    return release


@dataclass(slots=True)
class _Packed:
    """What became of the shards: their records, new places of packed samples, and the models those were made with."""

    shards: list[ShardRecord] = field(default_factory=list[ShardRecord])
    paths: dict[str, str] = field(default_factory=dict[str, str])  # by old path
    extents: dict[tuple[str, str], Extent] = field(
        default_factory=dict[tuple[str, str], Extent]
    )  # by old path and clip id
    models: set[Model] = field(default_factory=set[Model])

    def placed(self, row: ManifestRow) -> ManifestRow:
        """The row of a clip, with the place where its samples lie now."""
        changes: dict[str, object] = {}
        for series, path in (("visual", row.visual_shard), ("speech", row.speech_shard)):
            if path in self.paths:
                offset, num_bytes = self.extents[path, row.clip_id]
                changes |= {
                    f"{series}_shard": self.paths[path],
                    f"{series}_offset": offset,
                    f"{series}_bytes": num_bytes,
                }
        return row.model_copy(update=changes) if changes else row


def _take_over(origin: Storage, destination: Storage, shard: ShardRecord) -> None:
    num_bytes = origin.size(shard.path)
    if num_bytes != shard.num_bytes:
        raise _damaged(origin, shard, f"expected {shard.num_bytes} bytes, found {num_bytes or 'none'}")
    destination.copy_from(origin, shard.path)


def _pack_again(
    origin: Storage,
    destination: Storage,
    folder: Path,
    shard: ShardRecord,
    kept: Collection[ManifestRow],
    packed: _Packed,
) -> None:
    """Write the remaining samples of a shard as its successor; none when no sample remains."""
    wanted = {row.clip_id for row in kept if shard.path in (row.visual_shard, row.speech_shard)}
    if not wanted:
        return
    path = next_shard_file(shard.path)
    tar = SampleTar(unfinished_tar(folder, shard.series))
    written: list[str] = []
    try:
        for sample in _samples(origin, shard):
            if sample.key in wanted:
                written.append(sample.key)
                packed.extents[shard.path, sample.key] = tar.add(sample.key, sample.members)
                packed.models |= _models_of(sample)
        if sorted(written) != sorted(wanted):
            raise _damaged(origin, shard, "does not hold the clips that the manifest names")
        facts = shard.model_dump(include={"series", "split", "domain"})
        packed.shards.append(publish_shard(destination, tar, path, num_samples=len(written), **facts))
    finally:
        tar.abandon()
    packed.paths[shard.path] = path


def _samples(origin: Storage, shard: ShardRecord) -> Iterator[TarSample]:
    """The samples of a shard, proved at its end to be the one that the record names."""
    try:
        with origin.fs.open(origin.path(shard.path), "rb") as file:
            stream = HashedStream(file)
            for sample in iter_samples(stream):
                if sample.problems:
                    raise _damaged(origin, shard, sample.problems[0])
                yield sample
            if stream.drain() != shard.sha256:
                raise _damaged(origin, shard, "is not the file that the record names")
    except (tarfile.TarError, EOFError, FileNotFoundError) as error:
        raise _damaged(origin, shard, f"cannot be read ({error})") from error


def _damaged(origin: Storage, shard: ShardRecord, problem: str) -> WorkspaceError:
    return WorkspaceError(
        f"{origin.path(shard.path)} {problem}: restore the release or delete it, then run the same command again"
    )


def _models_of(sample: TarSample) -> set[Model]:
    return set(json.loads(sample.members["json"])["provenance"]["models"].items())


def _models_left(origin: Storage, old: Release, touched: Collection[str], packed: _Packed) -> dict[str, str]:
    """The models that the remaining clips were made with.

    The tables do not say it, so shards that were only taken over are read until every model was seen again;
    usually the first sample settles it.
    """
    unseen = {(name, digest) for name, digests in old.models.items() for digest in digests.split(", ")}
    left = unseen & packed.models
    unseen -= left
    for shard in old.shards:
        if shard.series == "speech" and shard.path not in touched and unseen:
            for sample in _samples(origin, shard):
                seen = unseen & _models_of(sample)
                left, unseen = left | seen, unseen - seen
                if not unseen:
                    break
    by_name: defaultdict[str, set[str]] = defaultdict(set)
    for name, digest in left:
        by_name[name].add(digest)
    return {name: ", ".join(sorted(digests)) for name, digests in sorted(by_name.items())}


def _about(before: About | None, gone: Collection[str]) -> About:
    """What the cards tell: as before, and how many sources have left since, but not which.

    A release of an earlier version left no such record. Its cards say nothing of what was dropped, and know its
    models by name alone.
    """
    if before is None:
        before = About(funnel=Funnel(steps=()))
    changes: dict[str, object] = {"forgotten": before.forgotten + len(gone)}
    if before.coverage is not None:
        lost = tuple(row for row in before.coverage.lost if row.source_id not in gone)
        num_unnamed = before.coverage.num_lost - sum(row.num_clips for row in lost)
        num_listed = before.coverage.num_listed - num_unnamed
        changes["coverage"] = before.coverage.model_copy(update={"lost": lost, "num_listed": num_listed})
    return before.model_copy(update=changes)


def _record(old: Release, name: str, tables: Tables, files: dict[str, str], models: dict[str, str]) -> Release:
    """The record of what is left; what it does not count again is the old one's."""
    used = {row.source_id for row in tables.rows}
    return old.model_copy(
        update={
            "name": name,
            "tool_version": tool_version(),
            "inputs_hash": inputs_hash_without(old, name, used),
            "num_clips": len(tables.rows),
            "duration_s": sum(row.duration_s for row in tables.rows),
            "counts": _counts(tables.rows),
            "shards": tuple(sorted(tables.shards, key=lambda shard: shard.path)),
            "sources": tuple(source for source in old.sources if source.source_id in used),
            "models": models,
            "files": dict(sorted(files.items())),
            "replaces": Replaced(name=old.name, inputs_hash=old.inputs_hash),
        }
    )


def inputs_hash_without(old: Release, name: str, sources: Iterable[str]) -> str:
    """What names the bytes of a release that was made from another: its own name, the other, and what is kept."""
    return content_hash([name, tool_version(), old.inputs_hash, sorted(sources)])


def _counts(rows: Iterable[ManifestRow]) -> dict[str, dict[str, int]]:
    counted = Counter((row.split, row.domain) for row in rows)
    counts: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for (split, domain), number in counted.items():
        counts[split][domain] = number
    return dict(counts)
