"""Pictures of released clips, drawn from the shards that hold them.

The workspace is not asked: a release may outlive it, and what is shown is what readers will get.
"""

import hashlib
import io
import tarfile
from collections import defaultdict
from collections.abc import Sequence
from statistics import median

import numpy as np

from pipeline.draw.sheet import (
    MAX_OVERVIEW_ROWS,
    MAX_SHEET_CLIPS,
    OVERVIEW_FRAMES,
    SHEET_FRAMES,
    ShownClip,
    draw_overview,
    draw_sheet,
    evenly_spaced,
    frames_of,
)
from pipeline.media.tars import HashedStream, iter_samples
from pipeline.store.storage import Storage
from schemas.errors import WorkspaceError
from schemas.release import OVERVIEW_FILE, ManifestRow, sheet_file


def draw_gallery(storage: Storage, rows: Sequence[ManifestRow]) -> dict[str, bytes]:
    """The overview (PNG) and one contact sheet per domain (JPEG) of a release, by path.

    Only the clips that are shown are read, each by one ranged read of its shard.

    Args:
        storage: the release's folder.
        rows: all its clips, in any order.

    Raises:
        WorkspaceError: when a shard does not hold the clip that a row says.
    """
    by_source: defaultdict[str, list[ManifestRow]] = defaultdict(list)
    by_domain: defaultdict[str, list[ManifestRow]] = defaultdict(list)
    for row in rows:
        by_source[row.source_id].append(row)
        by_domain[row.domain].append(row)
    medians = [_of_median_length(mine) for _, mine in sorted(by_source.items())]
    shown = [shown_clip(storage, row, OVERVIEW_FRAMES) for row in medians[:MAX_OVERVIEW_ROWS]]
    pictures = {OVERVIEW_FILE: draw_overview(shown, num_more=len(medians) - len(shown))}
    for domain, mine in sorted(by_domain.items()):
        chosen = spread_over_sources(mine, MAX_SHEET_CLIPS)
        pictures[sheet_file(domain)] = draw_sheet([shown_clip(storage, row, SHEET_FRAMES) for row in chosen])
    return pictures


def spread_over_sources(rows: Sequence[ManifestRow], count: int) -> list[ManifestRow]:
    """At most ``count`` clips, of as many sources as possible, in the order of their ids.

    Which ones is decided by a hash of their ids, so neither names nor the order of the rows favour any, and a
    clip that leaves the release changes no more of the choice than its own place.
    """
    waiting: defaultdict[str, list[tuple[str, ManifestRow]]] = defaultdict(list)
    for row in rows:
        waiting[row.source_id].append((_rank(row.clip_id), row))
    turns = [
        (turn, _rank(source_id), row)
        for source_id, mine in waiting.items()
        for turn, (_, row) in enumerate(sorted(mine, key=lambda pair: pair[0]))
    ]
    chosen = sorted(turns, key=lambda entry: entry[:2])[:count]
    return sorted((row for _, _, row in chosen), key=lambda row: row.clip_id)


def shown_clip(storage: Storage, row: ManifestRow, num_frames: int) -> ShownClip:
    """Frames of a released clip, evenly spaced, with their landmarks and pose.

    Raises:
        WorkspaceError: when the shard does not hold that clip at the place the row names.
    """
    members = read_members(storage, row)
    indices = evenly_spaced(row.num_frames, num_frames)
    frames = frames_of(members["mp4"], indices)
    return ShownClip(
        row=row,
        frames=[frames[index] for index in indices],
        landmarks=_array(members["landmarks.npy"])[indices],
        pose=_array(members["pose.npy"])[indices],
    )


def read_members(storage: Storage, row: ManifestRow) -> dict[str, bytes]:
    """The members of a clip's visual sample by suffix, by one ranged read.

    Raises:
        WorkspaceError: when the shard does not hold that clip at the place the row names.
    """
    path, start = row.visual_shard, row.visual_offset
    try:
        data = storage.read_range(path, start, start + row.visual_bytes)
        samples = list(iter_samples(HashedStream(io.BytesIO(data))))
    except (FileNotFoundError, tarfile.TarError) as error:
        raise WorkspaceError(f"{storage.path(path)} cannot be read at byte {start}: make the release again") from error
    (sample, *more) = samples
    if more or sample.key != row.clip_id or sample.problems:
        raise WorkspaceError(
            f"{storage.path(path)}: expected clip {row.clip_id} at byte {start}, found {sample.key}: verify the release"
        )
    return sample.members


def _array(data: bytes) -> np.ndarray:
    return np.load(io.BytesIO(data), allow_pickle=False)


def _of_median_length(rows: Sequence[ManifestRow]) -> ManifestRow:
    middle = median(row.duration_s for row in rows)
    return min(rows, key=lambda row: (abs(row.duration_s - middle), row.clip_id))


def _rank(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
