"""Rows that are windows of T neighbouring frames: how they come out of a clip, and how a batch is made of them.

Nothing of a clip is kept while its rows wait but where its arrays lie: a window of all HuBERT layers is 6 MB, so each
is read when its row comes up, and nothing around it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from schemas.face import num_points
from training.data.batch import RowFacts, WindowBatch, WindowSide
from training.data.cache import ShardCache
from training.data.clips import CorruptError
from training.data.draws import Windows
from training.data.layout import scale_points, scale_pose
from training.data.opening import Sample, ShardFiles
from training.data.order import Purpose, draw_apart, draw_starts, generator
from training.data.plan import LoadingPlan
from training.data.shards import Shard
from training.data.stream import ClipStream
from training.data.window_arrays import PIXEL_FIELDS, POINT_FIELDS, ClipArrays, Window, open_arrays, padded

_MAX_OPEN = 64  # tars of references, which may lie anywhere


@dataclass(frozen=True, slots=True)
class Reference:
    """Where the second window of a row begins, and in which clip; None: in the row's own."""

    clip: tuple[Shard, int] | None
    start: int


@dataclass(frozen=True, slots=True)
class ClipWindows:
    """A clip of the present block, where its windows begin [rows], and their references, if any are asked for."""

    clip: ClipArrays
    starts: np.ndarray
    references: Sequence[Reference]


@dataclass(frozen=True, slots=True)
class WindowRow:
    """One row as read."""

    window: Window
    reference: Window | None


class WindowRows:
    """Opens clips for one reader, and makes batches.

    Args:
        plan: of the run.
        draw: what a window is.
        reader: number of the reader.
        cache: where the shards of references come from.
    """

    def __init__(self, plan: LoadingPlan, draw: Windows, reader: int, cache: ShardCache) -> None:
        self._config, self._layout, self._draw, self._reader = plan.config, plan.layout, draw, reader
        self._people = plan.people
        self._shards = plan.shards.by_domain
        self._domains = list(plan.shards.by_domain)
        self._numbers = {shard.name: number for own in self._shards.values() for number, shard in enumerate(own)}
        self._others = ShardFiles(cache, _MAX_OPEN)

    def open(self, sample: Sample, position: tuple[int, ...]) -> ClipWindows:
        """Look where a clip's arrays lie, and draw its windows and their references.

        Raises:
            CorruptError: when it cannot be used, is too short, or its person shows no second window.
        """
        clip = open_arrays(sample, self._draw)
        length, count = self._draw.num_frames, self._config.pairs_per_clip
        if clip.info.num_frames < length:
            raise CorruptError("short", f"{sample.key} has {clip.info.num_frames} frames, and a window needs {length}")
        numbers = generator(self._config.seed, self._reader, Purpose.WINDOWS, *position)
        if not self._draw.reference:
            return ClipWindows(clip, draw_starts(clip.info.num_frames, length, count, numbers), ())
        domain = self._domains[position[0]]
        shard = self._numbers[sample.shard.name]
        others = self._people[domain].others(clip.info.identity_id, shard, sample.index, length)
        if len(others):
            starts = draw_starts(clip.info.num_frames, length, count, numbers)
            chosen = others[numbers.integers(len(others), size=count)]
            begins = [int(draw_starts(num_frames, length, 1, numbers)[0]) for num_frames in chosen[:, 2].tolist()]
            clips = [(self._shards[domain][number], index) for number, index in chosen[:, :2].tolist()]
            return ClipWindows(clip, starts, [Reference(*both) for both in zip(clips, begins, strict=True)])
        if clip.info.num_frames < 2 * length:
            raise CorruptError(
                "reference", f"{sample.key} is the only clip of {clip.info.identity_id}, and too short for two windows"
            )
        apart = draw_apart(clip.info.num_frames, length, count, numbers)
        return ClipWindows(clip, apart[:, 0], [Reference(None, start) for start in apart[:, 1].tolist()])

    def row(self, opened: ClipWindows, slot: int) -> WindowRow:
        """Read one of the clip's windows, and its reference.

        Raises:
            CorruptError: when one cannot be read, or not be stacked with those of other clips.
        """
        window = self._cut(opened.clip, int(opened.starts[slot]))
        if not opened.references:
            return WindowRow(window, None)
        reference = opened.references[slot]
        if reference.clip is None:
            return WindowRow(window, self._cut(opened.clip, reference.start))
        clip = open_arrays(self._others.sample(*reference.clip), self._draw)
        if clip.info.identity_id != window.info.identity_id or clip.info.num_frames < self._draw.num_frames:
            raise CorruptError("json", f"{clip.info.clip_id} is not the clip that the manifest lists there")
        return WindowRow(window, self._cut(clip, reference.start))

    def _cut(self, clip: ClipArrays, start: int) -> Window:
        layout = self._layout
        if self._config.size_px is None and self._in_pixels and clip.info.size_px != layout.size_px:
            raise CorruptError(
                "layout", f"{clip.info.clip_id} is of {clip.info.size_px} px, the others of {layout.size_px} px"
            )
        if clip.info.landmark_scheme not in layout.schemes:
            raise CorruptError(
                "layout", f"{clip.info.clip_id} has {clip.info.landmark_scheme} landmarks, as no first clip has"
            )
        window = clip.cut(start, self._draw.num_frames)
        for suffix, array in window.arrays.items():
            field = layout.fields.get(suffix)
            shape = padded(suffix, array.shape, layout.num_points)
            if field is not None and (shape, array.dtype) != (field.shape, field.dtype):
                raise CorruptError(
                    "layout", f"{clip.info.clip_id}.{suffix} gives windows {array.shape}, the others {field.shape}"
                )
        return window

    @property
    def _in_pixels(self) -> bool:
        return any(suffix in PIXEL_FIELDS for suffix in self._layout.fields)

    def batch(self, streams: Sequence[ClipStream[WindowRow]], facts: RowFacts) -> WindowBatch:
        """Take a window of each stream and stack them."""
        rows = [stream.take() for stream in streams]
        windows = [row.window for row in rows]
        references = [row.reference for row in rows if row.reference is not None]
        schemes = [window.info.landmark_scheme for window in windows]
        counts = np.array([num_points(scheme) if scheme != "none" else 0 for scheme in schemes])
        return WindowBatch(
            window=self._side(windows),
            reference=self._side(references) if references else None,
            domain=torch.from_numpy(facts.domain),
            group=torch.from_numpy(facts.group),
            scheme=torch.tensor([self._layout.schemes.index(scheme) for scheme in schemes]),
            points=torch.from_numpy(np.arange(self._layout.num_points) < counts[:, None]),
            identity_ids=tuple(window.info.identity_id for window in windows),
            seed=facts.seed,
        )

    def _side(self, windows: Sequence[Window]) -> WindowSide:
        sizes_px = np.array([window.info.size_px for window in windows], np.float32)
        fields: dict[str, torch.Tensor] = {}
        present: dict[str, torch.Tensor] = {}
        for suffix, layout in self._layout.fields.items():
            stacked = np.zeros((len(windows), *layout.shape), layout.dtype)
            for row, window in zip(stacked, windows, strict=True):
                array = window.arrays.get(suffix)
                if array is not None:
                    row[tuple(slice(length) for length in array.shape)] = array
            if suffix in POINT_FIELDS:
                scale_points(stacked, sizes_px, self._layout.size_px)
            elif suffix == "pose.npy":
                scale_pose(stacked, sizes_px, self._layout.size_px)
            fields[suffix] = torch.from_numpy(stacked)
            if layout.optional:
                present[suffix] = torch.tensor([suffix in window.arrays for window in windows])
        return WindowSide(
            fields=fields,
            present=present,
            valid=torch.from_numpy(np.stack([window.valid for window in windows])),
            start=torch.tensor([window.start for window in windows]),
            clip_ids=tuple(window.info.clip_id for window in windows),
        )
