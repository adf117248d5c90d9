"""Write accepted clips as an immutable release: tars, their index and tables, and one record that seals them.

The same clips give the same bytes whatever order they arrive in, so a release that was interrupted is
simply written again.
"""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.media.tars import MAX_NAME, SampleTar, tar_size
from pipeline.release.samples import complaints, read_picture
from pipeline.release.staging import clear_leftovers, publish_shard, seal, staging, unfinished_tar
from pipeline.release.tables import ReleaseItem, ReleaseSetup, Tables, release_record, write_tables
from pipeline.store.storage import Storage, clear_write_errors
from schemas.base import canonical_json, check_id, content_hash
from schemas.config import PackConfig
from schemas.errors import UsageError, WorkspaceError
from schemas.release import RELEASE_FILE, SPLITS, ManifestRow, Release, Split, shard_file
from schemas.sample import FIELDS, SampleInfo, Series

log = logging.getLogger(__name__)

ReadFile = Callable[[ReleaseItem, str], bytes]
Describe = Callable[[Release, Sequence[ManifestRow]], Mapping[str, bytes]]


def write_release(
    destination: Storage,
    name: str,
    items: Iterable[ReleaseItem],
    read_file: ReadFile,
    *,
    setup: ReleaseSetup,
    pack: PackConfig,
    describe: Describe | None = None,
    scratch: Path | None = None,
) -> Release:
    """Write a release, or find that it is there already.

    Memory holds the records of all clips and the files of one.

    Args:
        destination: the release's own folder.
        name: the release's name, a dot-free id.
        items: the clips, in any order.
        read_file: gives the bytes of one file of a clip by suffix, for the suffixes in ``clip.files``.
        setup: what the record says of how the release was made.
        pack: sizes and order of shards.
        describe: called with the record and the manifest's rows when the shards lie in their place; the files it
            returns by path, such as the cards and their pictures, join the release.
        scratch: folder for the shards being written, on their way to an object store.

    Raises:
        UsageError: when another release, or something else, is in that place, or there are no clips.
        WorkspaceError: when a clip breaks an invariant, is damaged, or the place cannot be written.
    """
    ordered = _ordered(items, pack.seed)
    inputs_hash = _inputs_hash(name, ordered, setup, pack)
    if (finished := _finished(destination, name, inputs_hash)) is not None:
        log.info("release %s is there already, with these clips", name)
        return finished
    clear_leftovers(destination)
    tables = Tables()
    with staging(destination, scratch) as folder:
        for (split, domain), clips in ordered.items():
            _write_domain(_Target(destination, folder, split, domain, setup), clips, read_file, pack, tables)
    files = write_tables(destination, name, tables)
    everything = [item for clips in ordered.values() for item in clips]
    release = release_record(name, inputs_hash, everything, setup, tables.shards, files)
    release = seal(destination, release, describe(release, tables.rows) if describe else {})
    log.info("release %s: %d clips in %d shards", name, release.num_clips, len(release.shards))
    return release


# ---- what goes where -----------------------------------------------------------------------------------------------

Ordered = dict[tuple[Split, str], list[ReleaseItem]]


def _ordered(items: Iterable[ReleaseItem], seed: int) -> Ordered:
    """Clips by split and domain, in an order that spreads the clips of a source and ignores the input's."""
    by_id: dict[str, ReleaseItem] = {}
    longest = max(len(row.suffix) for row in FIELDS) + 1
    for item in items:
        clip_id = item.clip.clip_id
        if clip_id in by_id:
            raise UsageError(f"clip {clip_id} is given twice: every clip may be in a release once")
        if len(clip_id) + longest > MAX_NAME:
            raise UsageError(f"clip id {clip_id} is too long for a tar: at most {MAX_NAME - longest} characters")
        check_id(item.clip.domain)
        by_id[clip_id] = item
    if not by_id:
        raise UsageError("no clips to release: none was accepted, or no split asked for any ('anitalk status')")
    gathered: defaultdict[tuple[Split, str], list[ReleaseItem]] = defaultdict(list)
    for item in sorted(by_id.values(), key=lambda item: _rank(seed, item.clip.clip_id)):
        gathered[item.split, item.clip.domain].append(item)
    return {key: gathered[key] for key in sorted(gathered, key=lambda key: (SPLITS.index(key[0]), key[1]))}


def _rank(seed: int, clip_id: str) -> tuple[str, str]:
    return hashlib.sha256(f"{seed}:{clip_id}".encode()).hexdigest(), clip_id


def _inputs_hash(name: str, ordered: Ordered, setup: ReleaseSetup, pack: PackConfig) -> str:
    clips = [
        content_hash([item.clip, item.source, item.identity_id, item.split, item.sha256])
        for clips in ordered.values()
        for item in clips
    ]
    settings = {
        "tool_version": setup.tool_version,
        "config_hash": setup.config_hash,
        "requested": {split: dict(counts) for split, counts in setup.requested.items()},
        "mel": dict(setup.mel),
        "hubert": dict(setup.hubert),
        "with_identity": setup.with_identity,
    }
    return content_hash([name, settings, pack, clips])


def _finished(destination: Storage, name: str, inputs_hash: str) -> Release | None:
    data = destination.read_if_there(RELEASE_FILE)
    if data is None:
        return None
    try:
        release = Release.model_validate_json(data)
    except ValueError as error:
        raise UsageError(f"{destination.uri} holds a damaged release: choose another place or name") from error
    if release.inputs_hash != inputs_hash:
        raise UsageError(
            f"{destination.uri} already holds the release {release.name!r}, made of other clips or settings; "
            f"releases are never changed: choose another name than {name!r}"
        )
    return release


# ---- shards --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Target:
    """Where the shards of one split and domain go."""

    destination: Storage
    folder: Path
    split: Split
    domain: str
    setup: ReleaseSetup


def _write_domain(
    target: _Target, items: list[ReleaseItem], read_file: ReadFile, pack: PackConfig, tables: Tables
) -> None:
    """Write pairs of shards; a pair ends when its share of the clips or its bytes are reached."""
    num_parts = min(pack.min_shards, len(items))
    if num_parts < pack.min_shards:
        log.warning("%s %s: %d clips cannot fill %d shards", target.split, target.domain, len(items), pack.min_shards)
    ends = {len(items) * part // num_parts for part in range(1, num_parts + 1)}
    number, pair = 0, _Pair(target, 0)
    try:
        for count, item in enumerate(items, start=1):
            info, members = _sample(item, read_file, target.setup)
            if pair.rows and pair.size_with(members) > pack.target_bytes:
                pair.close(tables)
                number, pair = number + 1, _Pair(target, number + 1)
            pair.add(item, info, members)
            if count in ends:
                pair.close(tables)
                number, pair = number + 1, _Pair(target, number + 1)
    finally:
        pair.abandon()


Members = dict[Series, dict[str, bytes]]


def _sample(item: ReleaseItem, read_file: ReadFile, setup: ReleaseSetup) -> tuple[SampleInfo, Members]:
    """Read and check one clip.

    Raises:
        WorkspaceError: naming clip, field, what was expected and what was found.
    """
    clip_id = item.clip.clip_id
    members: Members = {"visual": {}, "speech": {}}
    for row in FIELDS:
        wanted = row.suffix != "identity.npy" or setup.with_identity
        if row.suffix != "json" and row.suffix in item.clip.files and wanted:
            members[row.series][row.suffix] = _read_checked(item, row.suffix, read_file)
    try:
        size_px = read_picture(members["visual"].get("mp4", b""), item.clip.plan.fps).width_px
    except ValueError as error:
        raise WorkspaceError(f"clip {clip_id}: mp4: expected an H.264 video, found {error}") from error
    info = _info(item, size_px, setup)
    for series, files in members.items():
        files["json"] = canonical_json(info)
        for complaint in complaints(info, files, series):
            raise WorkspaceError(f"clip {clip_id}: {complaint}; the release was not written")
    return info, members


def _read_checked(item: ReleaseItem, suffix: str, read_file: ReadFile) -> bytes:
    digest, clip_id = item.clip.files[suffix], item.clip.clip_id
    try:
        data = read_file(item, suffix)
    except FileNotFoundError as error:
        raise WorkspaceError(f"clip {clip_id}: {suffix} is missing from the workspace: build it again") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise WorkspaceError(f"clip {clip_id}: {suffix} is damaged in the workspace: delete the clip and build again")
    return data


def _info(item: ReleaseItem, size_px: int, setup: ReleaseSetup) -> SampleInfo:
    clip, source = item.clip, item.source
    return SampleInfo(
        clip_id=clip.clip_id,
        source_id=source.id,
        identity_id=item.identity_id,
        domain=clip.domain,
        split=item.split,
        title=source.title,
        license=source.license,
        credit=source.credit or "",
        uri=source.public_uri,
        language=source.language or "",
        num_frames=clip.plan.num_frames,
        fps=clip.plan.fps,
        size_px=size_px,
        landmark_scheme=clip.landmark_scheme,
        mel=dict(setup.mel),
        hubert=dict(setup.hubert) if "hubert.npy" in clip.files else {},
        expression=setup.expression if "emotion.npy" in clip.files else None,
        flags=clip.flags,
        plan=clip.plan,
        scores=clip.scores,
        provenance=clip.provenance,
    )


class _Pair:
    """A visual and a speech shard of the same clips, being written; empty ones leave no trace."""

    def __init__(self, target: _Target, number: int) -> None:
        self._target = target
        self._number = number
        self._tars: dict[Series, SampleTar] = {}
        self.rows: list[tuple[ReleaseItem, SampleInfo, dict[Series, tuple[int, int]]]] = []

    def size_with(self, members: Members) -> int:
        """Bytes of the larger shard if this sample joined it."""
        return max(self._tars[series].num_bytes + tar_size(files) for series, files in members.items())

    def add(self, item: ReleaseItem, info: SampleInfo, members: Members) -> None:
        """Append one sample to both shards."""
        with clear_write_errors(str(self._target.folder)):
            extents: dict[Series, tuple[int, int]] = {
                series: self._tar(series).add(info.clip_id, files) for series, files in members.items()
            }
        self.rows.append((item, info, extents))

    def _tar(self, series: Series) -> SampleTar:
        if series not in self._tars:
            self._tars[series] = SampleTar(unfinished_tar(self._target.folder, series))
        return self._tars[series]

    def abandon(self) -> None:
        """Let go of what was not published."""
        for tar in self._tars.values():
            tar.abandon()

    def close(self, tables: Tables) -> None:
        """Publish both shards and enter their clips in the tables."""
        target = self._target
        paths: dict[Series, str] = {}
        for series, tar in self._tars.items():
            paths[series] = shard_file(target.split, target.domain, series, self._number)
            tables.shards.append(
                publish_shard(
                    target.destination,
                    tar,
                    paths[series],
                    series=series,
                    split=target.split,
                    domain=target.domain,
                    num_samples=len(self.rows),
                )
            )
        for item, info, extents in self.rows:
            tables.add_clip(item, info, paths, extents)
