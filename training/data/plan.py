"""What a run will read, settled and checked before its first batch."""

import io
import logging
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from schemas.errors import DataError, UsageError
from schemas.expression import ExpressionInput
from schemas.face import num_points
from schemas.uri import redact
from training.data.cache import DamagedShardError, ShardCache, check_cache
from training.data.clips import ClipInfo, CorruptError, index_tar, parse_info
from training.data.config import PairsConfig
from training.data.remote import Patience, read_start
from training.data.shards import Shard, ShardSet, Where, choose, locate

log = logging.getLogger(__name__)

_HEAD_BYTES = (1 << 20, 16 << 20)  # the first record lies behind a few seconds of sound and some labels


@dataclass(frozen=True, slots=True)
class BatchLayout:
    """What all samples share, so that they can be stacked: side of the frames, points, and whether any has emotion."""

    size_px: int
    num_points: int
    with_emotion: bool


@dataclass(frozen=True, slots=True)
class LoadingPlan:
    """Everything that a reader needs, the same for all of them; and by domain, how its emotion logits were made."""

    shards: ShardSet
    config: PairsConfig
    layout: BatchLayout
    num_readers: int
    expressions: Mapping[str, ExpressionInput | None]

    @property
    def frames_shape(self) -> tuple[int, ...]:
        """[2, B, S, S, 3], the frames of a batch as they are decoded."""
        return (2, self.config.batch_size, self.layout.size_px, self.layout.size_px, 3)


def make_plan(where: Where, config: PairsConfig, num_readers: int) -> LoadingPlan:
    """Find the shards and look at the first sample of every domain.

    Raises:
        UsageError: when something was asked for that these shards cannot give.
        DataError: when they cannot be reached, or are of another version or convention.
    """
    found = locate(where, config)
    check_cache(config, found)
    shards = choose(_described(found, config), config, num_readers)
    patience = Patience(config.num_attempts, config.backoff_s)
    infos = {domain: _first_record(own[0], patience) for domain, own in shards.by_domain.items()}
    clips = ", ".join(f"{count} {domain}" for domain, count in shards.counts.items())
    log.info("%s clips in %d shards for %d readers", clips, sum(map(len, shards.by_domain.values())), num_readers)
    expressions = {domain: info.expression for domain, info in infos.items()}
    return LoadingPlan(shards, config, _layout(infos, config), num_readers, expressions)


def _described(shards: Sequence[Shard], config: PairsConfig) -> list[Shard]:
    """Shards of which no record tells the domain are read through; a remote one has to be fetched for it."""
    unknown = [shard for shard in shards if not shard.domain]
    if unknown:
        log.info("%d shards belong to no release: each is read through", len(unknown))
    cache = ShardCache(config)
    patience = Patience(config.num_attempts, config.backoff_s)
    return [shard if shard.domain else _read_through(shard, cache, patience) for shard in shards]


def _read_through(shard: Shard, cache: ShardCache, patience: Patience) -> Shard:
    try:
        descriptor = cache.open(shard)
        try:
            entries = index_tar(descriptor)
        finally:
            os.close(descriptor)
    except (DamagedShardError, CorruptError) as error:
        raise DataError(f"{redact(shard.uri)}: {error}: write or copy it again") from error
    if not entries:
        raise DataError(f"{redact(shard.uri)} holds no samples: leave it out")
    return replace(shard, domain=_first_record(shard, patience).domain, num_clips=len(entries))


def _first_record(shard: Shard, patience: Patience) -> ClipInfo:
    """What the first readable sample of a shard says of itself.

    Raises:
        DataError: when that cannot be read, or the sample is of another version or convention.
    """
    where = redact(shard.uri)
    problem = "is no shard, or is cut off before its first record"
    try:
        for num_bytes in (*(size for size in _HEAD_BYTES if size < shard.num_bytes), shard.num_bytes):
            for key, data in _iter_records(read_start(shard.uri, num_bytes, patience)):
                try:
                    return parse_info(data, key)
                except CorruptError as error:  # the next one will do; reading will count this one
                    problem = str(error)
    except FileNotFoundError as error:
        raise DataError(f"{where} does not exist: check the address, or copy the release again") from error
    except OSError as error:
        raise DataError(f"{where} cannot be read: {error.strerror}") from error
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    raise DataError(f"{where}: {problem}: verify the release, or copy it again")


def _iter_records(head: bytes) -> Iterator[tuple[str, bytes]]:
    """Keys and contents of the whole ``json`` members in the beginning of a tar."""
    try:
        with tarfile.open(fileobj=io.BytesIO(head), mode="r:") as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                if suffix == "json" and member.offset_data + member.size <= len(head):
                    yield key, head[member.offset_data : member.offset_data + member.size]
    except tarfile.TarError:
        return  # the head ends inside a member; the caller asks for more of it, or gives up


def _layout(infos: dict[str, ClipInfo], config: PairsConfig) -> BatchLayout:
    sizes = {domain: info.size_px for domain, info in infos.items()}
    points = {domain: num_points(info.landmark_scheme) for domain, info in infos.items()}
    if config.size_px is None and len(set(sizes.values())) > 1:
        raise UsageError(f"the domains have frames of different size ({_told(sizes.items())} px): set size_px")
    if len(set(points.values())) > 1:
        raise UsageError(
            f"the domains have different numbers of landmarks ({_told(points.items())}): read them apart, or build "
            "them with one landmark scheme"
        )
    return BatchLayout(
        size_px=config.size_px or next(iter(sizes.values())),
        num_points=next(iter(points.values())),
        with_emotion=any(info.expression is not None for info in infos.values()),
    )


def _told(pairs: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{domain} {number}" for domain, number in pairs)
