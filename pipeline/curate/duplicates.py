"""Find clips that are in the collection twice: the same file, or the same take re-encoded, rescaled or trimmed.

Talking heads before still walls all look alike, so pictures that agree prove nothing by themselves: a pair
is a duplicate only if, besides, the pictures change alike or the sound agrees, at one and the same delay.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt64

from pipeline.curate.components import components
from pipeline.curate.typed_scipy import gaussian_smooth
from schemas.base import Box, TimeSpan
from schemas.boxes import box_iou
from schemas.collection import DuplicateGroup, DuplicateKind, DuplicateLink
from schemas.config import DuplicateConfig
from schemas.face import XYXY
from schemas.prints import Prints

_BLOCK = 2048  # hashes compared at once, squared: 32 MB of distances
_CACHED = 2048  # clips whose series stay in memory: about 300 MB at twenty seconds each
_SMOOTHING = 1.0  # frames: copies are cut between frames, so a difference of half a frame must not matter
_KINDS: tuple[DuplicateKind, ...] = ("file", "picture", "sound")  # the surest first

Series = Float32[np.ndarray, "T C"]
Read = Callable[[str], Prints]


@dataclass(frozen=True, slots=True)
class ComparedClip:
    """What is known of one clip without reading it: where it was cut from."""

    clip_id: str
    source_id: str
    sha256: str
    span: TimeSpan
    square: Box


def find_duplicates(clips: Iterable[ComparedClip], read: Read, config: DuplicateConfig) -> list[DuplicateGroup]:
    """Groups of clips that show the same take; the order of the input does not matter.

    Args:
        clips: all clips of the collection.
        read: gives the prints of a clip by its id.
        config: how much must agree.

    Every two clips that show the same are linked. A group may hold clips that are not: two halves of a take and
    the whole are one group, and only the whole is linked with both.

    Memory holds one hash per clip and the series of at most 2,048 clips; all pairs of hashes are compared
    (100,000 clips: five billion), and the series only of pairs whose pictures agree.
    """
    ordered = sorted(clips, key=lambda clip: clip.clip_id)
    links = list(_same_file(ordered, config))
    known = {(link.clip_id, link.twin_id) for link in links}
    cache = _Series(read)
    hashes = np.array([typical_hash(read(clip.clip_id).hashes) for clip in ordered], np.uint64)
    for i, j in _near(hashes, config.max_picture_bits):
        first, second = ordered[i].clip_id, ordered[j].clip_id
        if (first, second) not in known and (link := _compare(first, second, cache, config)) is not None:
            links.append(link)
    return grouped(links)


# ---- the same file -------------------------------------------------------------------------------------------------


def _same_file(clips: Sequence[ComparedClip], config: DuplicateConfig) -> Iterator[DuplicateLink]:
    """Clips of one file that was listed as two sources, where they show the same face at the same time."""
    by_file: defaultdict[str, list[ComparedClip]] = defaultdict(list)
    for clip in clips:
        by_file[clip.sha256].append(clip)
    limit = 1 - config.min_overlap
    for mates in by_file.values():
        for number, first in enumerate(mates):
            for second in mates[number + 1 :]:
                if first.source_id == second.source_id:
                    continue
                distance = 1 - min(
                    _common_time(first.span, second.span), box_iou(_xyxy(first.square), _xyxy(second.square))
                )
                if distance <= limit:
                    yield _link(first.clip_id, second.clip_id, "file", distance, limit)


def _common_time(a: TimeSpan, b: TimeSpan) -> float:
    common = min(a.stop_s, b.stop_s) - max(a.start_s, b.start_s)
    return max(common, 0.0) / min(a.duration_s, b.duration_s)


def _xyxy(box: Box) -> XYXY:
    return box.x0, box.y0, box.x1, box.y1


# ---- the same pictures ---------------------------------------------------------------------------------------------


def typical_hash(hashes: UInt64[np.ndarray, " H"]) -> np.uint64:
    """The majority of every bit, ties being 0: what most of a clip looks like, wherever a copy of it was trimmed."""
    bits = np.unpackbits(hashes.astype(">u8").view(np.uint8).reshape(-1, 8), axis=1)
    return np.packbits(bits.sum(axis=0) * 2 > len(bits)).view(">u8")[0].astype(np.uint64)


def _near(hashes: UInt64[np.ndarray, " N"], max_bits: int) -> Iterator[tuple[int, int]]:
    """All pairs i < j whose hashes differ in at most ``max_bits`` bits, in order."""
    for start in range(0, len(hashes), _BLOCK):
        rows = hashes[start : start + _BLOCK]
        near: list[Int64[np.ndarray, "K 2"]] = []
        for other in range(start, len(hashes), _BLOCK):
            distances = np.bitwise_count(rows[:, None] ^ hashes[None, other : other + _BLOCK])
            near.append(np.argwhere(distances <= max_bits) + np.array([start, other]))
        pairs = np.concatenate(near)
        pairs = pairs[pairs[:, 0] < pairs[:, 1]]
        for i, j in pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]:
            yield int(i), int(j)


# ---- the same movement, the same sound -----------------------------------------------------------------------------


def motion_of(prints: Prints) -> Series:
    """How the mean luma of every cell of the picture changes from frame to frame, smoothed; 0 where it is still."""
    smooth = gaussian_smooth(prints.grid.astype(np.float32), _SMOOTHING, "nearest")
    return np.diff(smooth, axis=0, prepend=smooth[:1])


def sound_of(prints: Prints) -> Series:
    """The bits of the sound print as +1 and -1, and 0 where nothing was heard.

    Haitsma and Kalker, "A highly robust audio fingerprinting system", ISMIR 2002: agreement a of these series is
    1 - 2 × bit error rate, so their threshold of .35 is an agreement of .30.
    """
    bits = (prints.chords[:, None] >> np.arange(32, dtype=np.uint32)) & 1
    return (2.0 * bits - 1.0).astype(np.float32) * prints.heard[:, None]


def agreement(a: Series, b: Series, min_overlap: float, least: float) -> Float64[np.ndarray, " L"]:
    """Correlation of two series over what they have in common, at every delay.

    Args:
        a: one series.
        b: another of as many channels.
        min_overlap: the least part of the shorter one that must take part, 0 to 1.
        least: mean square per frame that either must reach in the common part; quieter parts prove nothing.

    Returns:
        -1 to 1 for delays of ``b`` against ``a`` from -(Tb - 1) to Ta - 1; 0 where too little is in common.
    """
    num_a, num_b = len(a), len(b)
    delays = np.arange(-(num_b - 1), num_a)
    size = 1 << (num_a + num_b - 2).bit_length()
    product = (np.fft.rfft(a, size, axis=0) * np.conj(np.fft.rfft(b, size, axis=0))).sum(axis=1)
    common = np.fft.irfft(product, size)[delays % size]
    start, stop = np.maximum(delays, 0), np.minimum(num_a, num_b + delays)
    lengths = stop - start
    power_a = _running(a)[stop] - _running(a)[start]
    power_b = _running(b)[stop - delays] - _running(b)[start - delays]
    enough = (lengths >= min_overlap * min(num_a, num_b)) & (np.minimum(power_a, power_b) >= least * lengths)
    return np.where(enough, common / np.sqrt(np.maximum(power_a * power_b, 1e-12)), 0.0)


def _running(series: Series) -> Float64[np.ndarray, " N"]:
    power = np.square(series.astype(np.float64)).sum(axis=1)
    return np.concatenate([[0.0], np.cumsum(power)])


class _Series:
    """The series of the clips compared last, so that a room's clips are read once and not once per pair."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._kept: OrderedDict[str, tuple[Series, Series]] = OrderedDict()

    def __getitem__(self, clip_id: str) -> tuple[Series, Series]:
        if clip_id not in self._kept:
            prints = self._read(clip_id)
            self._kept[clip_id] = motion_of(prints), sound_of(prints)
            if len(self._kept) > _CACHED:
                self._kept.popitem(last=False)
        self._kept.move_to_end(clip_id)
        return self._kept[clip_id]


def _compare(first: str, second: str, series: _Series, config: DuplicateConfig) -> DuplicateLink | None:
    (motion_a, sound_a), (motion_b, sound_b) = series[first], series[second]
    motion = agreement(motion_a, motion_b, config.min_overlap, config.min_motion)
    if (best := float(motion.max())) >= config.min_motion_agreement:
        return _link(first, second, "picture", 1 - best, 1 - config.min_motion_agreement)
    sound = agreement(sound_a, sound_b, config.min_overlap, config.min_heard * 32)
    if (best := float(sound.max())) >= config.min_sound_agreement:
        return _link(first, second, "sound", 1 - best, 1 - config.min_sound_agreement)
    return None


def _link(first: str, second: str, kind: DuplicateKind, distance: float, limit: float) -> DuplicateLink:
    return DuplicateLink(
        clip_id=first, twin_id=second, kind=kind, distance=round(max(distance, 0.0), 4), limit=round(limit, 4)
    )


# ---- groups --------------------------------------------------------------------------------------------------------


def grouped(links: Iterable[DuplicateLink]) -> list[DuplicateGroup]:
    """Clips that links connect, directly or through others, with these links."""
    ordered = sorted(links, key=lambda link: (_KINDS.index(link.kind), link.distance, link.clip_id, link.twin_id))
    names = components((link.clip_id, link.twin_id) for link in ordered)
    gathered: defaultdict[str, list[DuplicateLink]] = defaultdict(list)
    for link in ordered:
        gathered[names[link.clip_id]].append(link)
    members: defaultdict[str, list[str]] = defaultdict(list)
    for clip_id, name in sorted(names.items()):
        members[name].append(clip_id)
    return [DuplicateGroup(clip_ids=tuple(members[name]), links=tuple(gathered[name])) for name in sorted(members)]
