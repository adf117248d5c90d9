"""The files beside a release's shards, written and checked: WIDS indexes, clip list, Parquet manifest, record.

All of them repeat what the shards' own json says, so that a reader can choose clips, or a builder cut
them again, without opening a shard; what repeats must agree.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import ValidationError

from pipeline.store.parquet import ParquetErrors, ParquetTable, parquet_of, unpacked_bytes
from pipeline.store.storage import Storage
from schemas.arrow import row_of
from schemas.base import canonical_json
from schemas.clip import Clip
from schemas.expression import ExpressionInput
from schemas.release import (
    CLIP_LIST_FILE,
    MANIFEST_FILE,
    ClipListRow,
    Fault,
    ManifestRow,
    Release,
    ReleaseSource,
    ShardRecord,
    Split,
    index_file,
)
from schemas.sample import SampleInfo, Series
from schemas.source import Source

MAX_TABLE_BYTES = 4 << 30  # of an unpacked manifest: a million clips need about one


@dataclass(frozen=True, slots=True)
class ReleaseItem:
    """One clip on its way into a release.

    ``sha256`` is the source file's. ``key`` is whatever ``read_file`` needs to find the clip's files (its
    key in the workspace); it is not the sample's key, which is the clip id.
    """

    clip: Clip
    source: Source
    identity_id: str
    split: Split
    sha256: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class ReleaseSetup:
    """What a release records beside its clips; ``requested`` is clips by split, then domain."""

    tool_version: str
    config_hash: str
    requested: Mapping[str, Mapping[str, int]] = field(default_factory=dict[str, Mapping[str, int]])
    mel: Mapping[str, float] = field(default_factory=dict[str, float])
    hubert: Mapping[str, str] = field(default_factory=dict[str, str])
    with_identity: bool = False
    expression: ExpressionInput | None = None


@dataclass(slots=True)
class Tables:
    """What accumulates while shards are written."""

    shards: list[ShardRecord] = field(default_factory=list[ShardRecord])
    rows: list[ManifestRow] = field(default_factory=list[ManifestRow])
    clips: dict[str, bytes] = field(default_factory=dict[str, bytes])  # lines of the clip list by clip id

    def add_clip(
        self,
        item: ReleaseItem,
        info: SampleInfo,
        paths: Mapping[Series, str],
        extents: Mapping[Series, tuple[int, int]],
    ) -> None:
        """Enter one clip that lies in the shards ``paths`` at ``extents`` (offset and length in bytes)."""
        self.rows.append(_manifest_row(item, info, paths, extents))
        self.clips[info.clip_id] = canonical_json(_clip_list_row(item, info))


def _manifest_row(
    item: ReleaseItem, info: SampleInfo, paths: Mapping[Series, str], extents: Mapping[Series, tuple[int, int]]
) -> ManifestRow:
    shared = info.model_dump(include=set(ManifestRow.model_fields) & set(SampleInfo.model_fields) - {"scores"})
    return ManifestRow(
        **shared,
        source_sha256=item.sha256,
        duration_s=item.clip.duration_s,
        start_s=info.plan.span.start_s,
        visual_shard=paths["visual"],
        visual_offset=extents["visual"][0],
        visual_bytes=extents["visual"][1],
        speech_shard=paths["speech"],
        speech_offset=extents["speech"][0],
        speech_bytes=extents["speech"][1],
        scores=info.scores,
    )


def _clip_list_row(item: ReleaseItem, info: SampleInfo) -> ClipListRow:
    own = {"plan", "domain"}
    shared = info.model_dump(include=set(ClipListRow.model_fields) & set(SampleInfo.model_fields) - own)
    return ClipListRow(
        **shared,
        sha256=item.sha256,
        domain=item.source.domain,
        reviewed_domain=info.domain if info.domain != item.source.domain else None,
        plan=info.plan,
        face=item.clip.face,
    )


def publish(destination: Storage, path: str, data: bytes) -> str:
    """Write a file and return its sha256."""
    destination.write(path, data)
    return hashlib.sha256(data).hexdigest()


def write_tables(destination: Storage, name: str, tables: Tables) -> dict[str, str]:
    """The files beside the shards; sha256 by path."""
    files: dict[str, str] = {}
    by_index: defaultdict[tuple[Split, Series], list[ShardRecord]] = defaultdict(list)
    for shard in sorted(tables.shards, key=lambda shard: shard.path):
        by_index[shard.split, shard.series].append(shard)
    for (split, series), shards in by_index.items():
        path = index_file(split, series)
        files[path] = publish(destination, path, canonical_json(_wids_index(f"{name}-{split}-{series}", shards)))
    lines = [line + b"\n" for _, line in sorted(tables.clips.items())]
    files[CLIP_LIST_FILE] = publish(destination, CLIP_LIST_FILE, b"".join(lines))
    files[MANIFEST_FILE] = publish(destination, MANIFEST_FILE, parquet_of(tables.rows, ManifestRow))
    return files


def _wids_index(name: str, shards: list[ShardRecord]) -> dict[str, object]:
    entries = [
        {"url": shard.path, "nsamples": shard.num_samples, "filesize": shard.num_bytes, "dataset": shard.domain}
        for shard in shards
    ]
    return {"wids_version": 1, "name": name, "shardlist": entries}


def release_record(
    name: str,
    inputs_hash: str,
    items: Iterable[ReleaseItem],
    setup: ReleaseSetup,
    shards: Iterable[ShardRecord],
    files: Mapping[str, str],
) -> Release:
    """The record of a release, without anything that depends on when or where it was written."""
    counts: defaultdict[str, dict[str, int]] = defaultdict(dict)
    models: defaultdict[str, set[str]] = defaultdict(set)
    sources: dict[str, ReleaseSource] = {}
    clips = list(items)
    for item in clips:
        counts[item.split][item.clip.domain] = counts[item.split].get(item.clip.domain, 0) + 1
        for model, digest in item.clip.provenance.models.items():
            models[model].add(digest)
        sources[item.source.id] = ReleaseSource(
            source_id=item.source.id,
            uri=item.source.public_uri,
            title=item.source.title,
            domain=item.source.domain,
            license=item.source.license,
            credit=item.source.credit or "",
            sha256=item.sha256,
        )
    return Release(
        name=name,
        tool_version=setup.tool_version,
        config_hash=setup.config_hash,
        inputs_hash=inputs_hash,
        num_clips=len(clips),
        duration_s=sum(item.clip.duration_s for item in clips),
        counts=counts,
        requested={split: dict(domains) for split, domains in setup.requested.items()},
        shards=tuple(sorted(shards, key=lambda shard: shard.path)),
        sources=tuple(sources[source_id] for source_id in sorted(sources)),
        models={model: ", ".join(sorted(digests)) for model, digests in sorted(models.items())},
        files=dict(files),
        with_identity=setup.with_identity,
    )


# ---- checking ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SeenClip:
    """Where a clip was found (shard; offset and length in bytes), and what its json says."""

    shard: str
    extent: tuple[int, int]
    info: SampleInfo
    digest: str


SeenClips = Mapping[Series, Mapping[str, SeenClip]]


def check_table(path: str, data: bytes, release: Release, seen: SeenClips) -> Iterator[Fault]:
    """Compare one of the files of ``write_tables`` with the record and the clips found in the shards."""
    if path == MANIFEST_FILE:
        yield from _check_manifest(data, seen)
    elif path == CLIP_LIST_FILE:
        yield from _check_clip_list(data, release, seen)
    else:
        yield from _check_index(path, data, release)


def first_error(error: ValidationError) -> str:
    """One sentence for a record that does not validate."""
    first = error.errors(include_url=False, include_context=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "the whole"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{field}: {first['msg']}{more}"


def _check_index(path: str, data: bytes, release: Release) -> Iterator[Fault]:
    try:
        index = json.loads(data)
        listed = sorted((entry["url"], entry["nsamples"], entry["filesize"]) for entry in index["shardlist"])
        version = index["wids_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        yield Fault(path=path, problem=f"is no WIDS index ({type(error).__name__}: {error})")
        return
    own = [shard for shard in release.shards if index_file(shard.split, shard.series) == path]
    expected = sorted((shard.path, shard.num_samples, shard.num_bytes) for shard in own)
    if version != 1 or listed != expected:
        yield Fault(path=path, problem=f"does not list the {len(own)} shards of its split and series with their sizes")


def _check_manifest(data: bytes, seen: SeenClips) -> Iterator[Fault]:
    try:
        if unpacked_bytes(data) > MAX_TABLE_BYTES:
            yield Fault(path=MANIFEST_FILE, problem=f"would unpack to more than {MAX_TABLE_BYTES} bytes")
            return
        table = ParquetTable(data)
    except (*ParquetErrors, ValueError) as error:
        yield Fault(path=MANIFEST_FILE, problem=f"is no readable Parquet file ({type(error).__name__})")
        return
    if not table.holds(ManifestRow):
        yield Fault(path=MANIFEST_FILE, problem="has other columns than this version writes")
        return
    listed_rows = table.rows()
    rows = {row["clip_id"]: row for row in listed_rows}
    yield from _same_clips(MANIFEST_FILE, [row["clip_id"] for row in listed_rows], seen)
    for series, clips in seen.items():
        for clip_id in sorted(clips.keys() & rows.keys()):
            row, expected = rows[clip_id], (clips[clip_id].shard, *clips[clip_id].extent)
            listed = (row[f"{series}_shard"], row[f"{series}_offset"], row[f"{series}_bytes"])
            if listed != expected:
                problem = f"{series} part: expected {expected}, found {listed}"
                yield Fault(path=MANIFEST_FILE, problem=problem, clip_id=clip_id)
            if series == "visual" and (wrong := _differences(row, clips[clip_id].info)):
                problem = f"differs from the clip's json in {', '.join(wrong)}"
                yield Fault(path=MANIFEST_FILE, problem=problem, clip_id=clip_id)


def _differences(row: Mapping[str, object], info: SampleInfo) -> list[str]:
    expected = {name: getattr(info, name) for name in ManifestRow.model_fields if name in SampleInfo.model_fields}
    expected |= {f"scores_{name}": value for name, value in row_of(expected.pop("scores"), flatten=True).items()}
    return [
        name
        for name, value in expected.items()
        if row.get(name) != (list(cast("tuple[Any, ...]", value)) if isinstance(value, tuple) else value)
    ]


def _check_clip_list(data: bytes, release: Release, seen: SeenClips) -> Iterator[Fault]:
    digests = {source.source_id: source.sha256 for source in release.sources}
    listed: list[str] = []
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            row = ClipListRow.model_validate_json(line)
        except ValidationError as error:
            yield Fault(path=CLIP_LIST_FILE, problem=f"line {number}: {first_error(error)}")
            continue
        listed.append(row.plan.clip_id)
        clip = seen["visual"].get(row.plan.clip_id)
        if clip and (row.plan != clip.info.plan or row.sha256 != digests.get(row.plan.source_id)):
            problem = "differs from the clip's json or its source's sha256"
            yield Fault(path=CLIP_LIST_FILE, problem=problem, clip_id=row.plan.clip_id)
    yield from _same_clips(CLIP_LIST_FILE, listed, seen)


def _same_clips(path: str, listed: list[str], seen: SeenClips) -> Iterator[Fault]:
    there = seen["visual"].keys()
    if len(listed) != len(set(listed)):
        yield Fault(path=path, problem="lists a clip more than once")
    for clip_id in sorted(there - set(listed)):
        yield Fault(path=path, problem="is not listed", clip_id=clip_id)
    for clip_id in sorted(set(listed) - there):
        yield Fault(path=path, problem="is listed but in no visual shard", clip_id=clip_id)
