"""Which clips are of one person: all of a split, by domain, wherever their shards were dealt to."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import DataError
from schemas.release import MANIFEST_FILE
from schemas.uri import redact
from training.data.cache import ShardCache
from training.data.clips import CorruptError
from training.data.config import PairsConfig
from training.data.opening import ShardFiles, sample_info
from training.data.remote import Patience, read_file
from training.data.shards import Shard, ShardSet, Where, release_root

_COLUMNS = ("identity_id", "num_frames", "visual_shard", "visual_offset")
Row = tuple[str, int, int, int]  # identity, shard, place in the shard, frames


@dataclass(frozen=True, slots=True)
class People:
    """The clips of a domain, those of one person next to one another.

    Attributes:
        clips: [N, 3] i64: place of the shard among the domain's, place in the shard, frames.
        spans: by person, first and last + 1 in ``clips``.
    """

    clips: np.ndarray
    spans: Mapping[str, tuple[int, int]]

    def others(self, identity: str, shard: int, index: int, min_frames: int) -> np.ndarray:
        """Rows of ``clips`` of a person's other clips that have at least ``min_frames``."""
        start, stop = self.spans.get(identity, (0, 0))
        own = self.clips[start:stop]
        return own[(own[:, 2] >= min_frames) & ~((own[:, 0] == shard) & (own[:, 1] == index))]


def index_people(where: Where, shards: ShardSet, config: PairsConfig) -> dict[str, People]:
    """By domain, from the release's manifest, or from the samples themselves where shards belong to no release.

    Raises:
        DataError: when neither can be read.
    """
    root = release_root(where)
    rows = _listed(root, shards, config) if root is not None else _read_through(shards, config)
    return {domain: _gathered(own) for domain, own in rows.items()}


def _gathered(rows: Sequence[Row]) -> People:
    ordered = sorted(rows)
    spans: dict[str, tuple[int, int]] = {}
    for number, (identity, *_) in enumerate(ordered):
        spans[identity] = (spans.get(identity, (number, 0))[0], number + 1)
    clips = np.array([row[1:] for row in ordered], np.int64).reshape(-1, 3)
    return People(clips, spans)


def _listed(root: str, shards: ShardSet, config: PairsConfig) -> dict[str, list[Row]]:
    try:
        data = read_file(f"{root}/{MANIFEST_FILE}", Patience(config.num_attempts, config.backoff_s))
        table = pq.read_table(io.BytesIO(data), columns=list(_COLUMNS))
    except (FileNotFoundError, pa.ArrowException) as error:
        raise DataError(f"{redact(root)}/{MANIFEST_FILE} cannot be read: verify the release") from error
    columns = {name: table.column(name).to_pylist() for name in _COLUMNS}
    by_shard: dict[str, list[tuple[int, str, int]]] = {}
    for identity, frames, shard, offset in zip(*(columns[name] for name in _COLUMNS), strict=True):
        by_shard.setdefault(shard, []).append((offset, identity, frames))
    rows: dict[str, list[Row]] = {}
    for domain, own in shards.by_domain.items():
        rows[domain] = []
        for number, shard in enumerate(own):
            listed = sorted(by_shard.get(shard.name, []))
            if len(listed) != shard.num_clips:
                raise DataError(
                    f"{redact(root)}/{MANIFEST_FILE} lists {len(listed)} clips of {shard.name}, which holds "
                    f"{shard.num_clips}: verify the release"
                )
            rows[domain] += [(who, number, position, frames) for position, (_, who, frames) in enumerate(listed)]
    return rows


def _read_through(shards: ShardSet, config: PairsConfig) -> dict[str, list[Row]]:
    """From the record of every sample; one that is unreadable is nobody's, and is skipped when it is drawn."""
    rows: dict[str, list[Row]] = {}
    files = ShardFiles(ShardCache(config))
    for domain, own in shards.by_domain.items():
        rows[domain] = []
        for number, shard in enumerate(own):
            rows[domain] += _of_shard(files, shard, number)
    files.close()
    return rows


def _of_shard(files: ShardFiles, shard: Shard, number: int) -> list[Row]:
    rows: list[Row] = []
    for position in range(shard.num_clips):
        try:
            info = sample_info(files.sample(shard, position))
        except CorruptError:
            continue
        rows.append((info.identity_id, number, position, info.num_frames))
    files.keep(())
    return rows
