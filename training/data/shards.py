"""Which shards there are, of which domains: from a release's record, or from addresses of shards.

Whatever can be known before the first batch is checked here. A record tells it without opening anything; shards that
have none are read through once, since only their samples know what they hold.
"""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from braceexpand import braceexpand
from pydantic import ValidationError

from schemas.base import content_hash
from schemas.errors import DataError, UsageError
from schemas.release import RELEASE_FILE, Release, ShardRecord, Split
from schemas.sample import Series
from schemas.uri import local_path, redact
from training.data.config import PairsConfig
from training.data.draws import Draw, FramePairs, Windows
from training.data.remote import Patience, RefusedError, is_local, read_file, size_of

log = logging.getLogger(__name__)

Where = str | Path | Sequence[str]
_SHARD_DEPTH = 3  # RELEASE/split/domain/name.tar


@dataclass(frozen=True, slots=True)
class Shard:
    """One visual tar, and those beside it that hold more of the same samples, by series.

    ``num_clips``, ``domain`` are unknown (0, "") until a shard without a record was read.
    """

    uri: str
    name: str
    domain: str
    num_clips: int
    num_bytes: int
    sha256: str = ""
    companions: Mapping[str, "Shard"] = field(default_factory=dict, hash=False)

    @property
    def every(self) -> tuple["Shard", ...]:
        """This one and those beside it."""
        return (self, *self.companions.values())


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
        rows: list[list[str | int]] = []
        for shard in (shard for shards in self.by_domain.values() for shard in shards):
            rows.append([shard.domain, shard.name, shard.num_clips, shard.num_bytes])
            rows += [[series, own.name, own.num_bytes, own.sha256] for series, own in shard.companions.items()]
        return content_hash(rows)[:16]


def locate(where: Where, config: PairsConfig, draw: Draw | None = None) -> list[Shard]:
    """The shards that ``where`` names, of all domains, with the speech shards beside them where ``draw`` reads those.

    Args:
        where: the folder or URI of a release; or shards by path or URL, of which one may stand for many
            (``s3://bucket/train-real-visual-{000000..000063}.tar``).
        config: whose split is read of a release.
        draw: what is read of them; frame pairs by default. For windows, speech shards may be named instead.

    Raises:
        UsageError: when there is no such release or no such split in it.
        DataError: when a record is damaged, or a shard is missing or has another size than its record says.
    """
    patience, draw = Patience(config.num_attempts, config.backoff_s), draw or FramePairs()
    root = release_root(where)
    if root is not None:
        shards = _of_release(root, _opened_release(root, patience), config.split, draw)
    else:
        patterns = [str(where)] if isinstance(where, str | Path) else list(where)
        shards = _of_addresses([uri for pattern in patterns for uri in braceexpand(pattern)], patience, draw)
    for shard in shards:
        for own in shard.every:
            _check_local(own)
    return shards


def split_domains(where: Where, config: PairsConfig) -> dict[Split, tuple[str, ...]]:
    """The domains that have clips in each split of a release; nothing where ``where`` names shards.

    Raises:
        UsageError, DataError: as ``locate`` does.
    """
    root = release_root(where)
    if root is None:
        return {}
    release = _opened_release(root, Patience(config.num_attempts, config.backoff_s))
    filled: defaultdict[Split, set[str]] = defaultdict(set)
    for row in release.shards:
        if row.series == "visual" and row.num_samples:
            filled[row.split].add(row.domain)
    return {split: tuple(sorted(domains)) for split, domains in filled.items()}


def release_root(where: Where) -> str | None:
    """Where a release lies, or nothing when shards are named one by one."""
    if isinstance(where, Path) or (isinstance(where, str) and not where.split("?")[0].endswith(".tar")):
        return str(where).removesuffix(RELEASE_FILE).rstrip("/")
    return None


def _opened_release(root: str, patience: Patience) -> Release:
    release = _read_release(root, patience)
    if release is None:
        raise UsageError(f"no finished release at {redact(root)}: name its folder, or shards ending in .tar")
    return release


def release_sha256(root: str, config: PairsConfig) -> str:
    """The SHA-256 of the record of the release at ``root``, which names all that is in it.

    Raises:
        UsageError: when there is none.
        DataError: when it cannot be reached.
    """
    patience = Patience(config.num_attempts, config.backoff_s)
    _opened_release(root, patience)
    return hashlib.sha256(read_file(f"{root}/{RELEASE_FILE}", patience)).hexdigest()


def _read_release(root: str, patience: Patience) -> Release | None:
    try:
        data = read_file(f"{root}/{RELEASE_FILE}", patience)
    except FileNotFoundError:
        return None
    try:
        return Release.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise DataError(
            f"{redact(root)}/{RELEASE_FILE} is damaged or of another version ({field}: {first['msg']}): "
            "verify the release, or install the version that wrote it"
        ) from error


def _of_release(root: str, release: Release, split: Split, draw: Draw) -> list[Shard]:
    rows = {row.path: row for row in release.shards if row.split == split}
    shards = [_of_record(root, row) for row in rows.values() if row.series == "visual"]
    if not shards:
        there = ", ".join(sorted({row.split for row in release.shards})) or "none"
        raise UsageError(f"{redact(root)} has no split {split!r}: choose from {there}")
    if not (isinstance(draw, Windows) and draw.speech_fields):
        return shards
    paired: list[Shard] = []
    for shard in shards:
        row = rows.get(sibling(shard.name, "speech"))
        if row is None:
            raise DataError(f"{redact(shard.uri)} has no speech shard beside it: verify the release")
        paired.append(replace(shard, companions={"speech": _of_record(root, row)}))
    return paired


def sibling(uri: str, series: str) -> str:
    """The address of the shard of another series that holds the same samples as the one at ``uri``."""
    path, mark, query = uri.partition("?")
    folder, slash, name = path.rpartition("/")
    for own in ("visual", "speech"):
        before, infix, after = name.rpartition(f"-{own}-")
        if infix:
            return f"{folder}{slash}{before}-{series}-{after}{mark}{query}"
    raise UsageError(f"{redact(uri)} says neither -visual- nor -speech- in its name: windows need both series")


def _of_record(root: str, row: ShardRecord) -> Shard:
    return Shard(f"{root}/{row.path}", row.path, row.domain, row.num_samples, row.num_bytes, row.sha256)


def _of_addresses(uris: Sequence[str], patience: Patience, draw: Draw) -> list[Shard]:
    if not uris:
        raise UsageError("no shards are named: give a release's folder, or addresses ending in .tar")
    if len(set(uris)) != len(uris):
        raise UsageError(f"{redact(next(uri for uri in uris if uris.count(uri) > 1))} is named twice")
    folders = [uri for uri in uris if not uri.split("?")[0].endswith(".tar")]
    if folders:
        raise UsageError(f"{redact(folders[0])} is no shard: name one release alone, or shards ending in .tar")
    records = _Records(patience)
    if isinstance(draw, FramePairs):
        return [records.shard(uri, "visual") for uri in uris]
    # One series names the other: samples of equal names lie in shards of equal names.
    needs_speech = bool(draw.speech_fields) or any("-speech-" in uri.rpartition("/")[2] for uri in uris)
    if not needs_speech:
        return [records.shard(uri, "visual") for uri in uris]
    shards: list[Shard] = []
    for uri in dict.fromkeys(sibling(uri, "visual") for uri in uris):
        speech = {"speech": records.shard(sibling(uri, "speech"), "speech")} if draw.speech_fields else {}
        shards.append(replace(records.shard(uri, "visual"), companions=speech))
    return shards


class _Records:
    """What the releases that shards lie in say of them."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._rows: dict[str, dict[str, ShardRecord]] = {}

    def shard(self, uri: str, series: Series) -> Shard:
        """The shard at ``uri``, with what is said of it.

        Raises:
            UsageError: when it is of another series.
            DataError: when it cannot be reached.
        """
        parts = uri.rsplit("/", _SHARD_DEPTH)
        root, path = parts[0], "/".join(parts[1:])
        if root not in self._rows:
            is_place = len(parts) > _SHARD_DEPTH and (is_local(uri) or urlsplit(root).netloc)
            self._rows[root] = _records_beside(root, self._patience) if is_place else {}
        row = self._rows[root].get(path)
        if row is not None and row.series != series:
            raise UsageError(f"{redact(uri)} is a speech shard: name visual ones, which hold the frames")
        return _of_record(root, row) if row else Shard(uri, path, "", 0, _size(uri, self._patience))


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


def choose(shards: Sequence[Shard], config: PairsConfig, num_readers: int, draw: Draw | None = None) -> ShardSet:
    """The shards of the domains asked for, checked against what ``num_readers`` readers need.

    Raises:
        UsageError: for a domain that is not there or is empty, a weight of no domain, no weight at all, or fewer
            shards than readers.
    """
    gathered: defaultdict[str, list[Shard]] = defaultdict(list)
    for shard in shards:
        gathered[shard.domain].append(shard)
    by_domain: dict[str, tuple[Shard, ...]] = {}
    for domain in _wanted(list(gathered), config, draw or FramePairs()):
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


def _wanted(domains: Sequence[str], config: PairsConfig, draw: Draw) -> list[str]:
    """Which of the domains are read, sorted."""
    asked = {domain for quota in draw.quotas.values() for domain in quota.domains}
    for domain in sorted(asked if config.domains else ()):
        if domain not in config.domains:
            raise UsageError(f"a quota asks for the domain {domain!r}, which domains leaves out: name it there too")
    wanted = sorted(asked or config.domains or domains)
    for domain in [*wanted, *config.weights]:
        if domain not in domains:
            there = ", ".join(sorted(domains))
            raise UsageError(f"there is no domain {domain!r} in the split {config.split!r} of these shards: {there}")
    weighted = [domain for domain in wanted if config.weights.get(domain, 1.0) > 0]
    if not weighted:
        raise UsageError("every domain has weight 0: nothing would be read")
    return weighted
