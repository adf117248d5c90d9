"""Which shards there are, of which domains: from a release's record, or from addresses of shards.

Whatever can be known before the first batch is checked here. A record tells it without opening anything; shards that
have none are read through once, since only their samples know what they hold.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from braceexpand import braceexpand
from pydantic import ValidationError

from schemas.base import content_hash
from schemas.errors import DataError, UsageError
from schemas.release import RELEASE_FILE, Release, ShardRecord, Split
from schemas.uri import local_path, redact
from training.data.config import PairsConfig
from training.data.remote import Patience, RefusedError, is_local, read_file, size_of

log = logging.getLogger(__name__)

Where = str | Path | Sequence[str]
_SHARD_DEPTH = 3  # RELEASE/split/domain/name.tar


@dataclass(frozen=True, slots=True)
class Shard:
    """One visual tar. ``num_clips``, ``domain`` are unknown (0, "") until a shard without a record was read."""

    uri: str
    name: str
    domain: str
    num_clips: int
    num_bytes: int
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class ShardSet:
    """The shards to read by domain; domains and shards are sorted, wherever they lie."""

    by_domain: Mapping[str, tuple[Shard, ...]]

    @property
    def counts(self) -> dict[str, int]:
        """Clips by domain."""
        return {domain: sum(shard.num_clips for shard in shards) for domain, shards in self.by_domain.items()}

    def fingerprint(self) -> str:
        """Equal for copies of the same shards in different places."""
        rows = [[s.domain, s.name, s.num_clips, s.num_bytes] for shards in self.by_domain.values() for s in shards]
        return content_hash(rows)[:16]


def locate(where: Where, config: PairsConfig) -> list[Shard]:
    """The shards that ``where`` names, of all domains.

    Args:
        where: the folder or URI of a release; or shards by path or URL, of which one may stand for many
            (``s3://bucket/train-real-visual-{000000..000063}.tar``).
        config: whose split is read of a release.

    Raises:
        UsageError: when there is no such release or no such split in it.
        DataError: when a record is damaged, or a shard is missing or has another size than its record says.
    """
    patience = Patience(config.num_attempts, config.backoff_s)
    root = _release_root(where)
    if root is not None:
        found = _of_release(root, _opened_release(root, patience), config.split)
    else:
        patterns = [str(where)] if isinstance(where, str | Path) else list(where)
        found = _of_addresses([uri for pattern in patterns for uri in braceexpand(pattern)], patience)
    for shard in found:
        _check_local(shard)
    return found


def split_domains(where: Where, config: PairsConfig) -> dict[Split, tuple[str, ...]]:
    """The domains that have clips in each split of a release; nothing where ``where`` names shards.

    Raises:
        UsageError, DataError: as ``locate`` does.
    """
    root = _release_root(where)
    if root is None:
        return {}
    release = _opened_release(root, Patience(config.num_attempts, config.backoff_s))
    found: defaultdict[Split, set[str]] = defaultdict(set)
    for row in release.shards:
        if row.series == "visual" and row.num_samples:
            found[row.split].add(row.domain)
    return {split: tuple(sorted(domains)) for split, domains in found.items()}


def _release_root(where: Where) -> str | None:
    """Where a release lies, or nothing when shards are named one by one."""
    if isinstance(where, Path) or (isinstance(where, str) and not where.split("?")[0].endswith(".tar")):
        return str(where).removesuffix(RELEASE_FILE).rstrip("/")
    return None


def _opened_release(root: str, patience: Patience) -> Release:
    release = _read_release(root, patience)
    if release is None:
        raise UsageError(f"no finished release at {redact(root)}: name its folder, or shards ending in .tar")
    return release


def _read_release(root: str, patience: Patience) -> Release | None:
    try:
        data = read_file(f"{root}/{RELEASE_FILE}", patience)
    except FileNotFoundError:
        return None
    try:
        return Release.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise DataError(
            f"{redact(root)}/{RELEASE_FILE} is damaged or of another version ({place}: {first['msg']}): "
            "verify the release, or install the version that wrote it"
        ) from error


def _of_release(root: str, release: Release, split: Split) -> list[Shard]:
    found = [_of_record(root, row) for row in release.shards if row.split == split and row.series == "visual"]
    if not found:
        there = ", ".join(sorted({row.split for row in release.shards})) or "none"
        raise UsageError(f"{redact(root)} has no split {split!r}: choose from {there}")
    return found


def _of_record(root: str, row: ShardRecord) -> Shard:
    return Shard(f"{root}/{row.path}", row.path, row.domain, row.num_samples, row.num_bytes, row.sha256)


def _of_addresses(uris: Sequence[str], patience: Patience) -> list[Shard]:
    if not uris:
        raise UsageError("no shards are named: give a release's folder, or addresses ending in .tar")
    if len(set(uris)) != len(uris):
        raise UsageError(f"{redact(next(uri for uri in uris if uris.count(uri) > 1))} is named twice")
    folders = [uri for uri in uris if not uri.split("?")[0].endswith(".tar")]
    if folders:
        raise UsageError(f"{redact(folders[0])} is no shard: name one release alone, or shards ending in .tar")
    records: dict[str, dict[str, ShardRecord]] = {}
    found: list[Shard] = []
    for uri in uris:
        parts = uri.rsplit("/", _SHARD_DEPTH)
        root, path = parts[0], "/".join(parts[1:])
        if root not in records:
            is_place = len(parts) > _SHARD_DEPTH and (is_local(uri) or urlsplit(root).netloc)
            records[root] = _records_beside(root, patience) if is_place else {}
        row = records[root].get(path)
        if row is not None and row.series != "visual":
            raise UsageError(f"{redact(uri)} is a speech shard: name visual ones, which hold the frames")
        found.append(_of_record(root, row) if row else Shard(uri, path, "", 0, _size(uri, patience)))
    return found


def _records_beside(root: str, patience: Patience) -> dict[str, ShardRecord]:
    """What the release at ``root`` says of its shards, by path; empty when there is none to be seen."""
    try:
        release = _read_release(root, patience)
    except RefusedError as error:  # as S3 says of what is missing, to those who may not list
        log.info("no record of the shards: %s", error)
        return {}
    return {row.path: row for row in release.shards} if release else {}


def _size(uri: str, patience: Patience) -> int:
    try:
        return size_of(uri, patience)
    except FileNotFoundError as error:
        raise DataError(f"{redact(uri)} does not exist: check the address") from error


def _check_local(shard: Shard) -> None:
    if not is_local(shard.uri):
        return
    try:
        num_bytes = local_path(shard.uri).stat().st_size
    except OSError as error:
        raise DataError(f"{shard.uri} cannot be read ({error.strerror}): copy the release again") from error
    if num_bytes != shard.num_bytes:
        raise DataError(
            f"{shard.uri} has {num_bytes} bytes where its release says {shard.num_bytes}: it was cut off or changed; "
            "copy it again"
        )


def choose(shards: Sequence[Shard], config: PairsConfig, num_readers: int) -> ShardSet:
    """The shards of the domains asked for, checked against what ``num_readers`` readers need.

    Raises:
        UsageError: for a domain that is not there or is empty, a weight of no domain, no weight at all, or fewer
            shards than readers.
    """
    gathered: defaultdict[str, list[Shard]] = defaultdict(list)
    for shard in shards:
        gathered[shard.domain].append(shard)
    wanted = sorted(config.domains or gathered)
    there = ", ".join(sorted(gathered))
    for domain in [*wanted, *config.weights]:
        if domain not in gathered:
            raise UsageError(f"there is no domain {domain!r} in the split {config.split!r} of these shards: {there}")
    wanted = [domain for domain in wanted if config.weights.get(domain, 1.0) > 0]
    if not wanted:
        raise UsageError("every domain has weight 0: nothing would be read")
    by_domain: dict[str, tuple[Shard, ...]] = {}
    for domain in wanted:
        filled = sorted((shard for shard in gathered[domain] if shard.num_clips), key=lambda shard: shard.name)
        if not filled:
            raise UsageError(f"the domain {domain!r} is empty: its {len(gathered[domain])} shards hold no clip")
        if len(filled) < num_readers:
            raise UsageError(
                f"the domain {domain!r} has {len(filled)} shards for {num_readers} readers (ranks × workers), and "
                "each needs one of its own: use fewer workers, or release with a larger pack.min_shards"
            )
        by_domain[domain] = tuple(filled)
    return ShardSet(by_domain)
