"""What a run will read, settled and checked before its first batch."""

import io
import logging
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from schemas.errors import DataError, UsageError
from schemas.expression import ExpressionInput
from schemas.uri import redact
from training.data.cache import DamagedShardError, ShardCache, check_cache
from training.data.clips import ClipInfo, CorruptError, index_tar, parse_info
from training.data.config import PairsConfig
from training.data.draws import ALL_ROWS, Draw, FramePairs, Quota, Windows, check_draw
from training.data.layout import BatchLayout, pair_layout
from training.data.order import RowGroup, mixture
from training.data.people import People, index_people
from training.data.remote import Patience, read_start
from training.data.shards import Shard, ShardSet, Where, choose, locate
from training.data.sidecar import join_sidecar
from training.data.window_arrays import window_layout

log = logging.getLogger(__name__)

_HEAD_BYTES = (1 << 20, 16 << 20)  # the first record lies behind a few seconds of sound and some labels


@dataclass(frozen=True, slots=True)
class LoadingPlan:
    """Everything that a reader needs, the same for all of them.

    Attributes:
        shards: to read, by domain.
        config: what, in which order, from where.
        draw: what makes a row.
        layout: what all samples share.
        num_readers: workers of all ranks.
        expressions: by domain, how its emotion logits were made.
        groups: of a batch's rows, in their order.
        people: by domain, which clips are of one person; empty unless the draw asks for references.
    """

    shards: ShardSet
    config: PairsConfig
    draw: Draw
    layout: BatchLayout
    num_readers: int
    expressions: Mapping[str, ExpressionInput | None]
    groups: tuple[RowGroup, ...]
    people: Mapping[str, People]

    @property
    def frames_shape(self) -> tuple[int, ...]:
        """[2, B, S, S, 3], the frames of a batch as they are decoded."""
        return (2, self.config.batch_size, self.layout.size_px, self.layout.size_px, 3)


def make_plan(where: Where, config: PairsConfig, num_readers: int, draw: Draw | None = None) -> LoadingPlan:
    """Find the shards and look at the first sample of every domain.

    Raises:
        UsageError: when something was asked for that these shards cannot give.
        DataError: when they cannot be reached, or are of another version or convention.
    """
    draw = draw or FramePairs()
    check_draw(draw, config.batch_size)
    located = locate(where, config, draw)
    check_cache(config, (own for shard in located for own in shard.every))
    shards = choose(_described(located, config), config, num_readers, draw)
    if isinstance(draw, Windows) and draw.sidecar:
        shards = join_sidecar(where, shards, config, draw)
        check_cache(config, (own for shards in shards.by_domain.values() for shard in shards for own in shard.every))
    patience = Patience(config.num_attempts, config.backoff_s)
    infos = {domain: _first_record(own[0], patience) for domain, own in shards.by_domain.items()}
    clips = ", ".join(f"{count} {domain}" for domain, count in shards.counts.items())
    log.info("%s clips in %d shards for %d readers", clips, sum(map(len, shards.by_domain.values())), num_readers)
    expressions = {domain: info.expression for domain, info in infos.items()}
    groups, people = _groups(shards, config, draw), dict[str, People]()
    if isinstance(draw, FramePairs):
        layout = pair_layout(infos, config)
    else:
        layout = window_layout(shards, infos, draw, config)
        people = index_people(where, shards, config) if draw.reference else people
    return LoadingPlan(shards, config, draw, layout, num_readers, expressions, groups, people)


def _groups(shards: ShardSet, config: PairsConfig, draw: Draw) -> tuple[RowGroup, ...]:
    """Which rows of a batch are of which domains, with which chances.

    Raises:
        UsageError: for a group whose every domain has weight 0.
    """
    names = list(shards.by_domain)
    quotas = draw.quotas or {ALL_ROWS: Quota(tuple(names), config.batch_size)}
    groups: list[RowGroup] = []
    for name, quota in quotas.items():
        counts = {domain: count for domain, count in shards.counts.items() if domain in quota.domains}
        if not counts:
            raise UsageError(f"every domain of the quota {name!r} has weight 0: nothing would be read for it")
        numbers = np.array([names.index(domain) for domain in counts], np.int64)
        groups.append(RowGroup(name, quota.rows, numbers, mixture(counts, config.weights, config.alpha)))
    return tuple(groups)


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
