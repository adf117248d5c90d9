"""What the loader costs, beside what nobody can do without: decoding the same frames.

Both are taken in turns within one run, batch by batch and in processor time of one core, so that a machine that slows
down for a while slows both alike; only the ratio means anything elsewhere.
"""

import io
import itertools
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Self

import av
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import VideoReformatter

from schemas.errors import UsageError
from training.data.batch import Batch
from training.data.cache import ShardCache
from training.data.clips import TarEntry, index_tar, open_clip
from training.data.config import PairsConfig
from training.data.decode import CONVERSION, open_decoder
from training.data.draws import FramePairs
from training.data.loader import pairs
from training.data.plan import LoadingPlan, make_plan
from training.data.shards import Where
from training.data.video import Packets, read_packets, read_table

_WARM_BATCHES = 24  # of a small release all clips were opened once by then, which costs most the first time
_BLOCK_BATCHES = 4


@dataclass(frozen=True, slots=True)
class LoaderFigures:
    """One run's figures.

    Attributes:
        size_px: side of the frames.
        num_pairs: pairs that were read in turns.
        loader_ms: processor time per pair of the loader, in one process.
        bare_ms: the same of decoding and converting the same packets, which lie in memory, by one open decoder.
        usual_ms: the same of opening each pair's clip with PyAV, seeking, decoding, converting as exactly.
        both_ms: the same of the loader when both directions of each decoded pair are used; 0 for an odd batch.
        others_ms: the same of other loaders, by name.
        num_workers: of the run beside a step; 0 when there was none.
        step_ms: time that each step took.
        wait_ratio: of that run's time, the part spent waiting for data.
        others_wait_ratio: the same of other loaders.
    """

    size_px: int
    num_pairs: int
    loader_ms: float
    bare_ms: float
    usual_ms: float
    num_workers: int = 0
    step_ms: float = 0.0
    wait_ratio: float = 0.0
    both_ms: float = 0.0
    others_ms: Mapping[str, float] = field(default_factory=dict)
    others_wait_ratio: Mapping[str, float] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """As Markdown."""
        rows = [("loader", self.loader_ms), ("bare decoding", self.bare_ms), ("a clip opened per pair", self.usual_ms)]
        rows += [("loader, both directions", self.both_ms)] if self.both_ms else []
        rows += self.others_ms.items()
        lines = ["| one core | ms per pair | pairs/s | ÷ bare decoding |", "| --- | --- | --- | --- |"]
        lines += [f"| {name} | {ms:.2f} | {1000 / ms:.0f} | {self.bare_ms / ms:.2f} |" for name, ms in rows]
        lines += [
            "",
            f"{self.num_pairs} pairs of {self.size_px} px; the loader reaches {self.share:.0%} of bare decoding.",
        ]
        if self.both_ms:
            ratio = self.loader_ms / self.both_ms
            lines.append(
                f"Using both directions of each decoded pair gives {ratio:.2f} times as many pairs per second."
            )
        if self.step_ms:
            waits = {"loader": self.wait_ratio, **self.others_wait_ratio}
            shares = ", ".join(f"{name} {share:.1%}" for name, share in waits.items())
            lines.append(
                f"{self.num_workers} workers beside steps of {self.step_ms:.0f} ms, part of the time spent waiting for "
                f"data: {shares}."
            )
        return lines

    @property
    def share(self) -> float:
        """The loader's pairs per second over those of bare decoding."""
        return self.bare_ms / self.loader_ms


Other = Callable[[int], Iterator[object]]  # given a number of workers, endless batches of as many pairs


def measure_loader(
    where: Where,
    config: PairsConfig,
    *,
    num_batches: int = 20,
    step_ms: float = 0.0,
    others: Mapping[str, Other] | None = None,
) -> LoaderFigures:
    """Read ``num_batches`` in turns with bare decoding; then, for ``step_ms``, beside steps that need no processor.

    Raises:
        UsageError, DataError: as ``pairs`` does.
    """
    if num_batches < 1:
        raise UsageError("at least one batch has to be read")
    others = others or {}
    size_px, ms = _in_turns(where, config, num_batches, {name: other(0) for name, other in others.items()})
    loaders: dict[str, Iterator[object]] = {}
    if step_ms:
        loaders = {"loader": iter(pairs(where, config))}
        loaders |= {name: other(config.num_workers) for name, other in others.items()}
    waits = {name: _wait_ratio(batches, num_batches, step_ms) for name, batches in loaders.items()}
    return LoaderFigures(
        size_px=size_px,
        num_pairs=num_batches * config.batch_size,
        loader_ms=ms.pop("loader"),
        bare_ms=ms.pop("bare"),
        usual_ms=ms.pop("usual"),
        num_workers=config.num_workers,
        step_ms=step_ms,
        wait_ratio=waits.pop("loader", 0.0),
        both_ms=ms.pop("both", 0.0),
        others_ms=ms,
        others_wait_ratio=waits,
    )


def _in_turns(
    where: Where, config: PairsConfig, num_batches: int, others: Mapping[str, Iterator[object]]
) -> tuple[int, dict[str, float]]:
    """Side of the frames, and processor time per pair in ms by what it was spent on."""
    # Short blocks, so that whole ones are measured: a block opens most of its clips early.
    block = min(config.shuffle_pairs, _BLOCK_BATCHES * config.batch_size)
    alone = config.model_copy(update={"num_workers": 0, "epoch_batches": None, "shuffle_pairs": block})
    spent: defaultdict[str, float] = defaultdict(float)
    size_px, bare = 0, _Bare()
    with _Catalogue(make_plan(where, alone, 1)) as catalogue:
        batches = iter(pairs(where, alone, rank=0, world_size=1))
        for batch in itertools.islice(batches, _WARM_BATCHES):
            size_px = batch.source.frames.shape[-1]
        if config.batch_size % 2 == 0:
            both = iter(pairs(where, alone, FramePairs(pairs_per_frames=2), rank=0, world_size=1))
            others = {"both": itertools.islice(both, _WARM_BATCHES - 1, None), **others}
        for other in others.values():
            next(other)
        for _ in range(num_batches):
            with _spending(spent, "loader"):
                batch = next(batches)
            packets = [catalogue.packets(*drawn) for drawn in _drawn(batch)]
            with _spending(spent, "bare"):
                bare.decode(packets, size_px)
            videos = [(catalogue.video(clip), frames) for clip, frames in _drawn(batch)]
            with _spending(spent, "usual"):
                _decode_usual(videos, size_px)
            for name, other in others.items():
                with _spending(spent, name):
                    next(other)
    num_pairs = num_batches * config.batch_size
    return size_px, {name: 1000 * seconds / num_pairs for name, seconds in spent.items()}


@contextmanager
def _spending(spent: defaultdict[str, float], name: str) -> Iterator[None]:
    began = time.process_time()
    yield
    spent[name] += time.process_time() - began


def _wait_ratio(batches: Iterator[object], num_batches: int, step_ms: float) -> float:
    """Part of the time that a training whose steps take ``step_ms`` of an accelerator waits for its data."""
    for _ in range(_WARM_BATCHES):
        next(batches)  # workers start, and their queues fill
    began, waited_s = time.monotonic(), 0.0
    for _ in range(num_batches):
        asked = time.monotonic()
        next(batches)
        waited_s += time.monotonic() - asked
        time.sleep(step_ms / 1000)
    return waited_s / (time.monotonic() - began)


# ---- the same frames, without a loader -----------------------------------------------------------------------------

Drawn = tuple[str, tuple[int, int]]


def _drawn(batch: Batch) -> Iterator[Drawn]:
    yield from zip(batch.clip_ids, batch.frame.tolist(), strict=True)


class _Catalogue:
    """Every clip of a plan by id."""

    def __init__(self, plan: LoadingPlan) -> None:
        self._cache, self._plan = ShardCache(plan.config), plan
        self._entries: dict[str, tuple[int, TarEntry]] = {}
        self._open = ExitStack()

    def __enter__(self) -> Self:
        for shard in itertools.chain(*self._plan.shards.by_domain.values()):
            descriptor = self._cache.open(shard)
            self._open.callback(os.close, descriptor)
            self._entries.update({entry.key: (descriptor, entry) for entry in index_tar(descriptor)})
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def packets(self, clip: str, frames: tuple[int, int]) -> Packets:
        """The coded frames of a pair, in memory."""
        descriptor, entry = self._entries[clip]
        info = open_clip(descriptor, entry).info
        return read_packets(descriptor, entry, read_table(descriptor, entry, info), frames)

    def video(self, clip: str) -> bytes:
        """The whole video of a clip."""
        descriptor, entry = self._entries[clip]
        offset, num_bytes = entry.members["mp4"]
        return os.pread(descriptor, num_bytes, offset)


class _Bare:
    """What nobody can do without: FFmpeg's decoder, opened once, and its conversion, over packets that lie in memory.

    Pictures are let go as they come, so that nothing is copied; this is the least that PyAV needs for them.
    """

    def __init__(self) -> None:
        self._decoders: dict[bytes, VideoCodecContext] = {}
        self._converter = VideoReformatter()

    def decode(self, packets: Sequence[Packets], size_px: int) -> None:
        """Make every frame of some pairs."""
        for pair in packets:
            if pair.setup not in self._decoders:
                self._decoders[pair.setup] = open_decoder(pair.setup)
            for packet in pair.by_frame.values():
                for frame in self._decoders[pair.setup].decode(av.Packet(packet)):
                    self._converter.reformat(frame, size_px, size_px, "rgb24", **CONVERSION)


def _decode_usual(videos: Sequence[tuple[bytes, tuple[int, int]]], size_px: int) -> None:
    for video, frames in videos:
        with av.open(io.BytesIO(video), "r", format="mp4") as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            ticks = round(1 / ((stream.average_rate or 25) * (stream.time_base or Fraction(1, 12800))))
            for number in frames:
                container.seek(number * ticks, stream=stream)
                frame = next(container.decode(stream))
                frame.reformat(size_px, size_px, "rgb24", **CONVERSION).to_ndarray()
