"""What changed from one release to another, by their records and manifests: no shard is opened.

Names, and hashes of names, are not compared: two releases of the same clips differ in nothing that a reader of
samples would see. What only the shards could tell is left to them: a shard of other bytes whose clips have the
same rows is reported as a shard.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.release.finished import read_manifest_table, read_release
from pipeline.store.storage import Storage
from schemas.release import Release, ReleaseSource

COLUMNS = ("subject", "name", "change", "before", "after", "difference", "detail")

# Where a sample lies says nothing of what it is; a clip that changed its split is told of as moved.
_PLACES = frozenset(
    {"clip_id", "visual_shard", "visual_offset", "speech_shard", "speech_offset", "split"}
)  # fmt: skip
_RECORDED = ("tool_version", "config_hash", "with_identity", "num_clips", "duration_s")
_RIGHTS = ("uri", "title", "domain", "license", "credit", "sha256")

Row = dict[str, Any]
Clips = dict[str, dict[str, Any]]  # manifest rows by clip id


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two releases."""

    release: Release
    clips: Clips
    columns: Collection[str]


def compare(before: str, after: str) -> list[Row]:
    """One row per difference, with the columns of ``COLUMNS``; none when there is no difference.

    ``before`` and ``after`` of a row are texts, empty where one side has nothing; ``difference`` is a number, or None
    where there is none to take.

    Raises:
        UsageError: when one of the places holds no finished release, or one whose tables cannot be read.
    """
    old, new = _open(before), _open(after)
    return [
        *_recorded(old.release, new.release),
        *_counts(old.release, new.release),
        *_sources(old.release, new.release),
        *_texts("model", old.release.models, new.release.models),
        *_texts("column", dict.fromkeys(old.columns, "there"), dict.fromkeys(new.columns, "there")),
        *_fields(old, new),
        *_clips(old, new),
        *_shards(old.release, new.release),
    ]


def _open(location: str) -> _Side:
    storage = Storage(location)
    release = read_release(storage)
    table = read_manifest_table(storage, release)
    return _Side(release, {row["clip_id"]: row for row in table.rows()}, table.columns)


def _row(subject: str, name: str, before: Any = None, after: Any = None, *, change: str = "", detail: str = "") -> Row:
    numbers = [float(value) for value in (before, after) if _is_number(value)]
    return {
        "subject": subject,
        "name": name,
        "change": change or ("added" if before is None else "removed" if after is None else "changed"),
        "before": _shown(before),
        "after": _shown(after),
        "difference": numbers[1] - numbers[0] if len(numbers) == 2 else None,
        "detail": detail,
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


# ---- by the record -------------------------------------------------------------------------------------------------


def _recorded(old: Release, new: Release) -> Iterator[Row]:
    for name in _RECORDED:
        left, right = getattr(old, name), getattr(new, name)
        if left != right:
            yield _row("release", name, left, right)


def _counts(old: Release, new: Release) -> Iterator[Row]:
    """Clips, and clips that were asked for, by split and domain."""
    for subject, left, right in (("clips", old.counts, new.counts), ("requested", old.requested, new.requested)):
        before, after = _flat(left), _flat(right)
        for name in sorted(before.keys() | after.keys()):
            if before[name] != after[name]:
                yield _row(subject, name, before[name], after[name], change="changed")


def _flat(counts: Mapping[str, Mapping[str, int]]) -> Counter[str]:
    return Counter({f"{split}/{name}": number for split, row in counts.items() for name, number in row.items()})


def _sources(old: Release, new: Release) -> Iterator[Row]:
    left, right = ({source.source_id: source for source in side.sources} for side in (old, new))
    for name in sorted(left.keys() | right.keys()):
        before, after = left.get(name), right.get(name)
        if before is None or after is None:
            yield _row("source", name, before and before.title, after and after.title, detail=_rights(before or after))
            continue
        for field in _RIGHTS:
            if getattr(before, field) != getattr(after, field):
                yield _row("source", name, getattr(before, field), getattr(after, field), detail=field)


def _rights(source: ReleaseSource | None) -> str:
    return source.license if source else ""


def _texts(subject: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[Row]:
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            yield _row(subject, name, old.get(name), new.get(name))


def _shards(old: Release, new: Release) -> Iterator[Row]:
    left, right = ({shard.path: shard for shard in side.shards} for side in (old, new))
    for path in sorted(left.keys() | right.keys()):
        before, after = left.get(path), right.get(path)
        if before is None or after is None or before.sha256 != after.sha256:
            numbers = (before and before.num_samples, after and after.num_samples)
            yield _row("shard", path, *numbers, detail="clips; other bytes" if before and after else "clips")


# ---- by the manifest -----------------------------------------------------------------------------------------------


def _changed_columns(old: _Side, new: _Side, clip_id: str) -> list[str]:
    left, right = old.clips[clip_id], new.clips[clip_id]
    shared = [name for name in old.columns if name in new.columns and name not in _PLACES]
    return [name for name in shared if left[name] != right[name]]


def _fields(old: _Side, new: _Side) -> Iterator[Row]:
    """One row per column in which clips changed: how many, and the largest change of any."""
    changed: defaultdict[str, list[str]] = defaultdict(list)
    for clip_id in sorted(old.clips.keys() & new.clips.keys()):
        for name in _changed_columns(old, new, clip_id):
            changed[name].append(clip_id)
    for name, clip_ids in sorted(changed.items()):
        values = {clip_id: (old.clips[clip_id][name], new.clips[clip_id][name]) for clip_id in clip_ids}
        numeric = [clip_id for clip_id in clip_ids if all(_is_number(value) for value in values[clip_id])]
        largest = max(numeric, key=lambda clip_id: abs(values[clip_id][1] - values[clip_id][0]), default=clip_ids[0])
        count = f"{len(clip_ids)} clip{'' if len(clip_ids) == 1 else 's'}"
        detail = f"in {count}; {'the largest change' if numeric else 'one of them'}: {largest}"
        yield _row(
            "score" if name.startswith("scores_") else "field", name, *values[largest], change="changed", detail=detail
        )


def _clips(old: _Side, new: _Side) -> Iterator[Row]:
    """One row per clip that is not as it was."""
    for clip_id in sorted(old.clips.keys() | new.clips.keys()):
        before, after = old.clips.get(clip_id), new.clips.get(clip_id)
        if before is None or after is None:
            yield _row("clip", clip_id, before and _home(before), after and _home(after))
            continue
        if before["split"] != after["split"]:
            yield _row("clip", clip_id, before["split"], after["split"], change="moved")
        if names := _changed_columns(old, new, clip_id):
            yield _row("clip", clip_id, change="changed", detail=", ".join(names))


def _home(clip: Mapping[str, Any]) -> str:
    return f"{clip['split']}/{clip['domain']}"
