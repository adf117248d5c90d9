"""Open a finished release by its record and tables, without a look into its shards.

What is read here decides what is copied, dropped or compared, so the tables must be the very files that the
record names; of the shards, only ``pipeline.release.verify`` can say as much.
"""

import hashlib
import json
import re

from pydantic import ValidationError

from pipeline.store.parquet import ParquetErrors, ParquetTable
from pipeline.store.storage import Storage
from schemas.arrow import record_of
from schemas.errors import UsageError
from schemas.release import (
    ABOUT_FILE,
    CLIP_LIST_FILE,
    MANIFEST_FILE,
    RELEASE_FILE,
    About,
    ManifestRow,
    Release,
)

_SAFE_PATH = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*){0,7}$")


def is_inside(path: str) -> bool:
    """Whether a path that a release names can only lie inside it."""
    return bool(_SAFE_PATH.match(path)) and ".." not in path


def read_release(storage: Storage) -> Release:
    """The record of the release at a place.

    Raises:
        UsageError: when there is none, or one that this version cannot read.
    """
    data = storage.read_if_there(RELEASE_FILE)
    if data is None:
        raise UsageError(
            f"no finished release at {storage.uri}: {RELEASE_FILE}, which is written last, is not there; "
            "check the path, or run the release again"
        )
    try:
        release = Release.model_validate_json(data)
    except ValidationError as error:
        raise _unreadable(storage, RELEASE_FILE, "is damaged, or another version of anitalk wrote it") from error
    for path in (*release.files, *(shard.path for shard in release.shards)):
        if not is_inside(path):
            raise _unreadable(storage, RELEASE_FILE, f"names the unusable path {path[:200]!r}")
    return release


def read_manifest_table(storage: Storage, release: Release) -> ParquetTable:
    """The manifest of a release, one row per clip.

    Raises:
        UsageError: when it is not the file that the record names.
    """
    try:
        return ParquetTable(_read_named(storage, release, MANIFEST_FILE))
    except ParquetErrors as error:
        raise _unreadable(storage, MANIFEST_FILE, f"is no readable Parquet file ({type(error).__name__})") from error


def read_manifest_rows(storage: Storage, release: Release) -> list[ManifestRow]:
    """The rows of the manifest in the order of the shards.

    Raises:
        UsageError: when it is not the file that the record names, or of another version's columns.
    """
    rows = read_manifest_table(storage, release).rows()
    try:
        return [record_of(row, ManifestRow) for row in rows]
    except ValidationError as error:
        raise _unreadable(storage, MANIFEST_FILE, "has other columns than this version writes") from error


def read_clip_lines(storage: Storage, release: Release) -> dict[str, bytes]:
    """The lines of the clip list by clip id, as they are: a list of another version's fields serves as well.

    Raises:
        UsageError: when it is not the file that the record names.
    """
    lines = _read_named(storage, release, CLIP_LIST_FILE).splitlines()
    try:
        return {json.loads(line)["plan"]["clip_id"]: line for line in lines}
    except (ValueError, KeyError, TypeError) as error:
        raise _unreadable(storage, CLIP_LIST_FILE, "holds lines that name no clip") from error


def read_about(storage: Storage, release: Release) -> About | None:
    """What the cards of a release tell beside its record; None where an earlier version made it.

    Raises:
        UsageError: when it is not the file that the record names.
    """
    if ABOUT_FILE not in release.files:
        return None
    try:
        return About.model_validate_json(_read_named(storage, release, ABOUT_FILE))
    except ValidationError as error:
        raise _unreadable(storage, ABOUT_FILE, "is damaged, or another version of anitalk wrote it") from error


def _read_named(storage: Storage, release: Release, path: str) -> bytes:
    data = storage.read_if_there(path)
    if data is None or hashlib.sha256(data).hexdigest() != release.files.get(path):
        raise _unreadable(storage, path, "is missing" if data is None else "is not the file that the record names")
    return data


def _unreadable(storage: Storage, path: str, problem: str) -> UsageError:
    return UsageError(f"{storage.path(path)} {problem}: 'anitalk verify {storage.uri}' says more")
