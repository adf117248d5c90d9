"""The way of a release's files to their place: written aside, published whole, cleared away when a run was killed.

Making a release and taking clips out of one end alike, and must leave alike when they are cut off.
"""

import contextlib
import logging
import re
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path

from pipeline.media.tars import SampleTar
from pipeline.release.tables import publish
from pipeline.store.storage import Storage, clear_write_errors
from schemas.base import canonical_json
from schemas.errors import UsageError
from schemas.release import RELEASE_FILE, Release, ShardRecord, Split
from schemas.sample import Series

log = logging.getLogger(__name__)

_SHARD = re.compile(r"^(train|val|test)/[^/]+/[^/]+\.tar$")
_OWN_FILES = re.compile(
    r"^(about\.json|card\.html|clips\.jsonl|funnel\.png|index-[a-z]+-[a-z]+\.json|manifest\.parquet|overview\.png"
    r"|README\.md|sheets/[^/]+\.jpg|(train|val|test)/[^/]+/[^/]+\.tar)$"
)


def leftovers(destination: Storage) -> list[str]:
    """What an interrupted write of a release left, in an order in which it may be removed; never what is not ours.

    Shards are written first and removed last, so only where one lies are files with common names, such as a
    README.md, ours as well; without one the place belongs to somebody else.
    """
    present = destination.names("")
    if not any(_SHARD.match(path) for path in present):
        return []
    return sorted(filter(_OWN_FILES.match, present), key=lambda path: (bool(_SHARD.match(path)), path))


def clear_leftovers(destination: Storage) -> None:
    """Remove what an interrupted write of a release left.

    Raises:
        UsageError: when something else lies there.
    """
    present, own = destination.names(""), leftovers(destination)
    if present and not own:
        raise UsageError(f"{destination.uri} is not empty ({present[0]} lies there): choose a new place for a release")
    for path in own:
        destination.delete(path)


@contextlib.contextmanager
def staging(destination: Storage, scratch: Path | None) -> Generator[Path]:
    """A local folder for unfinished shards; on a disk it is the release's own, so that a rename publishes them."""
    if not destination.is_local:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            yield Path(folder)
        return
    folder = Path(destination.root)
    with clear_write_errors(destination.root):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        # Fixed names: what a killed run left is overwritten by the next one.
        for series in ("visual", "speech"):
            unfinished_tar(folder, series).unlink(missing_ok=True)


def unfinished_tar(folder: Path, series: Series) -> Path:
    """Where the shard that is being written lies."""
    return folder / f".tmp-{series}.tar"


def publish_shard(
    destination: Storage, tar: SampleTar, path: str, *, series: Series, split: Split, domain: str, num_samples: int
) -> ShardRecord:
    """Finish a tar and publish it under ``path``; returns its record."""
    with clear_write_errors(str(tar.path.parent)):
        num_bytes, digest = tar.close()
    destination.put_file(tar.path, path)
    log.info("%s: %d clips, %d bytes, sha256 %s", path, num_samples, num_bytes, digest)
    return ShardRecord(
        path=path,
        series=series,
        split=split,
        domain=domain,
        num_samples=num_samples,
        num_bytes=num_bytes,
        sha256=digest,
    )


def seal(destination: Storage, release: Release, described: Mapping[str, bytes]) -> Release:
    """Publish the files that describe a release, then the record that names all of them and makes it complete."""
    files = dict(release.files)
    for path, data in sorted(described.items()):
        if path in files or path == RELEASE_FILE or _SHARD.match(path):
            raise ValueError(f"what describes a release may not replace {path}")
        files[path] = publish(destination, path, data)
    sealed = release.model_copy(update={"files": dict(sorted(files.items()))})
    destination.write(RELEASE_FILE, canonical_json(sealed))
    return sealed
