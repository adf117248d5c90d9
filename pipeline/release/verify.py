"""Check a release against its own record: every byte, every sample, every table, and the split law.

A release may come from anywhere, so nothing in it is believed: paths must stay inside it, sizes are
bounded before anything is read, nothing is unpickled, and no member ever reaches the disk.
"""

import hashlib
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from pydantic import ValidationError

from pipeline.media.tars import HashedStream, TarSample, iter_samples
from pipeline.release.finished import is_inside
from pipeline.release.samples import complaints
from pipeline.release.tables import SeenClip, check_table, first_error
from pipeline.store.storage import Storage
from schemas.base import canonical_json
from schemas.errors import UsageError
from schemas.progress import Report
from schemas.release import (
    ABOUT_FILE,
    CARD_FILE,
    CLIP_LIST_FILE,
    MANIFEST_FILE,
    RELEASE_FILE,
    WEB_CARD_FILE,
    About,
    Fault,
    Release,
    ShardRecord,
    Split,
    index_file,
    ties,
)
from schemas.sample import SampleInfo, Series

MAX_FILE_BYTES = 1 << 30  # of the files beside the shards, which are read whole
MAX_JSON_BYTES = 1 << 20


def _fault(path: str, problem: str, clip_id: str = "") -> Fault:
    return Fault(path=path, problem=problem, clip_id=clip_id)


def verify_release(location: str, *, deep: bool = True, report: Report | None = None) -> list[Fault]:
    """All faults of a release; an empty list means that it is what its record says.

    Memory holds one sample at a time and a short row per clip.

    Args:
        location: the folder of the release, a local path or fsspec URI.
        deep: decode every video; otherwise its packets and key-frame flags are believed.
        report: called before each shard with its path, its number from 0, and how many there are.

    Raises:
        UsageError: when there is no finished release at that place.
    """
    storage = Storage(location)
    data, faults = _read_bounded(storage, RELEASE_FILE)
    if data is None:
        if faults and storage.exists(RELEASE_FILE):
            return faults
        raise UsageError(
            f"no finished release at {location}: {RELEASE_FILE}, which is written last, is not there; "
            "check the path, or run the release again"
        )
    try:
        release = Release.model_validate_json(data)
    except ValidationError as error:
        return [_fault(RELEASE_FILE, first_error(error))]
    faults += _unsafe_paths(release)
    if faults:
        return faults
    seen = _Seen()
    faults += _check_presence(storage, release)
    for number, shard in enumerate(release.shards):
        if report:
            report(shard.path, number, len(release.shards))
        faults += _check_shard(storage, shard, release, seen, deep=deep)
    faults += _check_series(seen)
    faults += _check_totals(release, seen)
    faults += _check_tables(storage, release, seen)
    return faults


@dataclass(slots=True)
class _Seen:
    """What the shards turned out to hold."""

    entries: dict[Series, dict[str, SeenClip]] = field(default_factory=lambda: {"visual": {}, "speech": {}})
    order: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    infos: dict[str, SampleInfo] = field(
        default_factory=dict[str, SampleInfo]
    )  # by digest: both series of a clip share one


# ---- files ---------------------------------------------------------------------------------------------------------


def _unsafe_paths(release: Release) -> list[Fault]:
    paths = [*(shard.path for shard in release.shards), *release.files]
    faults = [_fault(RELEASE_FILE, f"names the unusable path {path[:200]!r}") for path in paths if not is_inside(path)]
    twice = [path for path, count in Counter(paths).items() if count > 1]
    return faults + [_fault(RELEASE_FILE, f"names {path} more than once") for path in twice]


def _read_bounded(storage: Storage, path: str) -> tuple[bytes | None, list[Fault]]:
    try:
        num_bytes = storage.fs.size(storage.path(path))
        if num_bytes is not None and num_bytes > MAX_FILE_BYTES:
            return None, [_fault(path, f"has {num_bytes} bytes, more than the {MAX_FILE_BYTES} that are read")]
        return storage.read(path), []
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None, [_fault(path, "is missing")]


def _check_presence(storage: Storage, release: Release) -> Iterator[Fault]:
    known = {RELEASE_FILE, *release.files, *(shard.path for shard in release.shards)}
    for path in storage.names(""):
        if path not in known:
            yield _fault(path, "is not part of the release")


# ---- shards --------------------------------------------------------------------------------------------------------


def _check_shard(storage: Storage, shard: ShardRecord, release: Release, seen: _Seen, *, deep: bool) -> list[Fault]:
    faults: list[Fault] = []
    num_samples = 0
    try:
        with storage.fs.open(storage.path(shard.path), "rb") as file:
            stream = HashedStream(file)
            try:
                for sample in iter_samples(stream):
                    num_samples += 1
                    faults += _check_sample(sample, shard, release, seen, deep=deep)
            except (tarfile.TarError, EOFError) as error:
                faults.append(_fault(shard.path, f"is no readable tar ({error})"))
            digest = stream.drain()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return [_fault(shard.path, "is missing")]
    if stream.num_bytes != shard.num_bytes:
        faults.append(_fault(shard.path, f"expected {shard.num_bytes} bytes, found {stream.num_bytes}"))
    if digest != shard.sha256:
        faults.append(_fault(shard.path, f"expected sha256 {shard.sha256}, found {digest}"))
    if num_samples != shard.num_samples:
        faults.append(_fault(shard.path, f"expected {shard.num_samples} samples, found {num_samples}"))
    return faults


def _check_sample(
    sample: TarSample, shard: ShardRecord, release: Release, seen: _Seen, *, deep: bool
) -> Iterator[Fault]:
    clip_id = sample.key if sample.members else ""
    for problem in sample.problems:
        yield _fault(shard.path, problem, clip_id)
    if not sample.members:
        return
    data = sample.members.get("json", b"")
    if not data or len(data) > MAX_JSON_BYTES:
        yield _fault(shard.path, f"json: expected 1 to {MAX_JSON_BYTES} bytes, found {len(data)}", clip_id)
        return
    digest = hashlib.sha256(data).hexdigest()
    try:
        info = seen.infos.get(digest) or SampleInfo.model_validate_json(data)
    except ValidationError as error:
        yield _fault(shard.path, f"json: {first_error(error)}", clip_id)
        return
    if data != canonical_json(info):
        yield _fault(shard.path, "json: is not in canonical form", clip_id)
    for name, expected, actual in (
        ("clip_id", sample.key, info.clip_id),
        ("split", shard.split, info.split),
        ("domain", shard.domain, info.domain),
    ):
        if expected != actual:
            yield _fault(shard.path, f"json: expected {name} {expected}, found {actual}", clip_id)
    for complaint in complaints(info, sample.members, shard.series, deep=deep):
        yield _fault(shard.path, str(complaint), clip_id)
    if "identity.npy" in sample.members and not release.with_identity:
        yield _fault(shard.path, "identity.npy: is in a release that was made without identities", clip_id)
    entries = seen.entries[shard.series]
    if sample.key in entries:
        yield _fault(shard.path, f"is also in {entries[sample.key].shard}", clip_id)
    seen.infos[digest] = info
    entries.setdefault(sample.key, SeenClip(shard.path, (sample.offset, sample.num_bytes), info, digest))
    seen.order.setdefault(shard.path, []).append(sample.key)


def _check_series(seen: _Seen) -> Iterator[Fault]:
    """Both series hold the same clips, in the same order, with the same json."""
    visual, speech = seen.entries["visual"], seen.entries["speech"]
    for clip_id in sorted(visual.keys() ^ speech.keys()):
        here, other = ("visual", "speech") if clip_id in visual else ("speech", "visual")
        entry = visual.get(clip_id) or speech[clip_id]
        yield _fault(entry.shard, f"is in the {here} series but not in the {other} series", clip_id)
    for clip_id in sorted(visual.keys() & speech.keys()):
        if visual[clip_id].digest != speech[clip_id].digest:
            yield _fault(speech[clip_id].shard, "json: differs from the visual series'", clip_id)
    for path, keys in sorted(seen.order.items()):
        twin = path.replace("-visual-", "-speech-")
        if twin != path and twin in seen.order and sorted(keys) == sorted(seen.order[twin]) != keys != seen.order[twin]:
            yield _fault(twin, f"holds the clips of {path} in another order")


# ---- the whole -----------------------------------------------------------------------------------------------------


def _check_totals(release: Release, seen: _Seen) -> Iterator[Fault]:
    infos = [entry.info for entry in seen.entries["visual"].values()]
    if len(infos) != release.num_clips:
        yield _fault(RELEASE_FILE, f"expected {release.num_clips} clips, found {len(infos)}")
    counts: defaultdict[Split, Counter[str]] = defaultdict(Counter)
    for info in infos:
        counts[info.split][info.domain] += 1
    if {split: dict(domains) for split, domains in counts.items()} != release.counts:
        actual = {split: dict(domains) for split, domains in sorted(counts.items())}
        yield _fault(RELEASE_FILE, f"expected counts {release.counts}, found {actual}")
    listed = {source.source_id: source for source in release.sources}
    used = {info.source_id for info in infos}
    for source_id in sorted(listed.keys() ^ used):
        yield _fault(
            RELEASE_FILE, f"source {source_id} is {'listed but not used' if source_id in listed else 'missing'}"
        )
    digests = {source_id: source.sha256 for source_id, source in listed.items()}
    yield from _check_leaks(infos, digests)


def _check_leaks(infos: list[SampleInfo], digests: dict[str, str]) -> Iterator[Fault]:
    """No source, person, title or file is in two splits."""
    homes: defaultdict[str, dict[Split, str]] = defaultdict(dict)
    for info in sorted(infos, key=lambda info: info.clip_id):
        names = ties(
            source_id=info.source_id,
            identity_id=info.identity_id,
            title=info.title,
            sha256=digests.get(info.source_id, ""),
        )
        for name in names:
            homes[name].setdefault(info.split, info.clip_id)
    for name, splits in sorted(homes.items()):
        if len(splits) > 1:
            kind, _, value = name.partition(":")
            where = ", ".join(f"{split} (clip {clip_id})" for split, clip_id in sorted(splits.items()))
            yield _fault(RELEASE_FILE, f"the {kind} {value!r} is in several splits: {where}")


def _check_tables(storage: Storage, release: Release, seen: _Seen) -> Iterator[Fault]:
    expected = {MANIFEST_FILE, CLIP_LIST_FILE} | {index_file(shard.split, shard.series) for shard in release.shards}
    for path in sorted(expected - release.files.keys()):
        yield _fault(RELEASE_FILE, f"does not list {path}")
    for path, digest in sorted(release.files.items()):
        data, faults = _read_bounded(storage, path)
        yield from faults
        if data is None:
            continue
        actual = hashlib.sha256(data).hexdigest()
        if actual != digest:
            yield _fault(path, f"expected sha256 {digest}, found {actual}")
        if path in expected:
            yield from check_table(path, data, release, seen.entries)
        elif path == ABOUT_FILE:
            yield from _check_about(data, release)


def _check_about(data: bytes, release: Release) -> Iterator[Fault]:
    """A release of an earlier version has no such file, which is no fault."""
    try:
        about = About.model_validate_json(data)
    except ValidationError as error:
        yield _fault(ABOUT_FILE, first_error(error))
        return
    if data != canonical_json(about):
        yield _fault(ABOUT_FILE, "is not in canonical form")
    for model in about.models:
        used = release.models.get(model.name, model.sha256)
        if model.sha256 not in used.split(", "):
            yield _fault(ABOUT_FILE, f"model {model.name}: expected sha256 {used}, found {model.sha256}")
    for path in sorted({CARD_FILE, WEB_CARD_FILE} - release.files.keys()):
        yield _fault(RELEASE_FILE, f"lists {ABOUT_FILE} but not {path}, which is written from it")
