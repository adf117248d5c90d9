"""The table of frames of an mp4 as the builder writes it, without opening a demuxer, which costs as much as two frames.

Only one layout is known here (ISO/IEC 14496-12 and -15): one H.264 track in one file, every frame a key frame, shown
when it is decoded, all equally long. Whatever differs in any way is left to FFmpeg's demuxer, which is to judge it; so
nothing here ever says that a file is damaged. Every length and count is compared with the bytes at hand before it is
used, and nothing made is larger than they are.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_MAX_TOP_BOXES = 16
_HEAD_BYTES = 64  # ftyp, free and the header of mdat
_MAX_TABLE_BYTES = 16 << 20  # of moov: a clip of twenty seconds has 10 kB
_WHOLE_SPEED = 1 << 16
_OWN_FILE = bytes.fromhex("00000000 00000001 0000000c 75726c20 00000001")  # dref: one address, "this file"
_PICTURE_BYTES = 78  # of a VisualSampleEntry, before the boxes in it

Boxes = dict[bytes, list[tuple[int, int]]]  # by type, the extents of their contents


@dataclass(frozen=True, slots=True)
class FrameTable:
    """Where the coded frames of a clip's video lie in it: starts and sizes [T] in bytes, and the decoder's setup."""

    setup: bytes
    starts: np.ndarray
    sizes: np.ndarray


class _OtherLayoutError(Exception):
    """Not what the builder writes."""


def plain_table(
    read: Callable[[int, int], bytes], num_bytes: int, *, num_frames: int, fps: int, size_px: int
) -> FrameTable | None:
    """The table of a file that is laid out as the builder does it; None when it is not, or not what is expected.

    Args:
        read: given an offset and a length, the bytes there, fewer at the end of the file.
        num_bytes: of the file.
        num_frames: expected.
        fps: expected, exactly.
        size_px: expected side of the frames.
    """
    try:
        moov = _moov(read, num_bytes)
        data = memoryview(moov)
        track = _video_track(data, _boxes(data, 0, len(moov)))
        sample_table = _sample_table(data, track, num_frames, fps)
        setup = _setup(data, _only(sample_table, b"stsd"), size_px)
        sizes = _sizes(data, _only(sample_table, b"stsz"), num_frames, num_bytes)
        starts = _starts(data, sample_table, sizes)
    except (_OtherLayoutError, struct.error):
        return None
    if not ((sizes > 0) & (starts >= 0) & (starts <= num_bytes - sizes)).all():
        return None
    return FrameTable(setup, starts, sizes)


def _need(condition: object) -> None:
    if not condition:
        raise _OtherLayoutError


# ---- boxes ---------------------------------------------------------------------------------------------------------


def _moov(read: Callable[[int, int], bytes], num_bytes: int) -> bytes:
    """The contents of the box that holds all tables."""
    head = read(0, _HEAD_BYTES)
    at = 0
    for _ in range(_MAX_TOP_BOXES):
        header = head[at : at + 16] if at + 16 <= len(head) else read(at, 16)
        length, kind = struct.unpack_from(">I4s", header)
        if length == 1:
            length = struct.unpack_from(">Q", header, 8)[0]
        _need(8 <= length <= num_bytes - at)
        if kind == b"moov":
            _need(length <= _MAX_TABLE_BYTES)
            moov = read(at + 8, length - 8)
            _need(len(moov) == length - 8)
            return moov
        at += length
    raise _OtherLayoutError


def _boxes(data: memoryview, start: int, stop: int) -> Boxes:
    """The boxes that fill a part of the data, by type."""
    boxes: Boxes = {}
    while start < stop:
        length, kind = struct.unpack_from(">I4s", data, start)
        _need(8 <= length <= stop - start)
        boxes.setdefault(kind, []).append((start + 8, start + length))
        start += length
    return boxes


def _only(boxes: Boxes, kind: bytes) -> tuple[int, int]:
    rows = boxes.get(kind, [])
    _need(len(rows) == 1)
    return rows[0]


def _video_track(data: memoryview, moov: Boxes) -> Boxes:
    """What is in the only video track, and in the box of its media."""
    _need(not moov.keys() & {b"mvex", b"cmov"})
    tracks: list[Boxes] = []
    for extent in moov.get(b"trak", []):
        track = _boxes(data, *extent)
        media = _boxes(data, *_only(track, b"mdia"))
        kind = struct.unpack_from(">8x4s", data, _only(media, b"hdlr")[0])[0]
        if kind == b"vide":
            tracks.append({**track, **media, b"mvhd": moov.get(b"mvhd", [])})
    _need(len(tracks) == 1)
    return tracks[0]


# ---- what the tables must say --------------------------------------------------------------------------------------


def _sample_table(data: memoryview, track: Boxes, num_frames: int, fps: int) -> Boxes:
    """The boxes of the sample table of a track whose frame k is shown from k / fps on."""
    information = _boxes(data, *_only(track, b"minf"))
    start, stop = _only(_boxes(data, *_only(information, b"dinf")), b"dref")
    _need(bytes(data[start:stop]) == _OWN_FILE)
    table = _boxes(data, *_only(information, b"stbl"))
    _need(not table.keys() & {b"stss", b"stps", b"ctts", b"cslg", b"sgpd", b"sbgp", b"stz2"})
    ticks_s = _ticks_per_second(data, _only(track, b"mdhd"))
    version, num_runs, count, delta = struct.unpack_from(">4I", data, _only(table, b"stts")[0])
    _need((version, num_runs, count) == (0, 1, num_frames) and delta and ticks_s == delta * fps)
    _check_edits(data, track, num_frames, fps)
    return table


def _ticks_per_second(data: memoryview, header: tuple[int, int]) -> int:
    version, ticks_s = struct.unpack_from(">I8xI", data, header[0])
    _need(version == 0 and ticks_s)
    return ticks_s


def _check_edits(data: memoryview, track: Boxes, num_frames: int, fps: int) -> None:
    """Nothing is cut away, nor shown at another time or speed."""
    if b"edts" not in track:
        return
    edits = _boxes(data, *_only(track, b"edts"))
    start, stop = _only(edits, b"elst")
    version, num_edits, length, begin, speed = struct.unpack_from(">5I", data, start)
    _need((version, num_edits, begin, speed, stop - start) == (0, 1, 0, _WHOLE_SPEED, 20) and len(edits) == 1)
    _need(length * fps > (num_frames - 1) * _ticks_per_second(data, _only(track, b"mvhd")))


def _setup(data: memoryview, extent: tuple[int, int], size_px: int) -> bytes:
    """What the decoder has to know (avcC) of the only description of pictures: H.264 of the given size."""
    start, stop = extent
    version, num_entries, length, kind = struct.unpack_from(">3I4s", data, start)
    _need((version, num_entries, kind, length) == (0, 1, b"avc1", stop - start - 8))
    _need(struct.unpack_from(">6xH16xHH", data, start + 16) == (1, size_px, size_px))
    inside = _boxes(data, start + 16 + _PICTURE_BYTES, stop)
    _need(inside.keys() <= {b"avcC", b"pasp", b"colr", b"btrt", b"fiel"})
    first, last = _only(inside, b"avcC")
    return bytes(data[first:last])


def _sizes(data: memoryview, extent: tuple[int, int], num_frames: int, num_bytes: int) -> np.ndarray:
    """Sizes of the frames [T] in bytes: one for all, or one of each."""
    start, stop = extent
    version, size, count = struct.unpack_from(">3I", data, start)
    _need((version, count) == (0, num_frames))
    if size:
        _need(num_frames * size <= num_bytes and start + 12 == stop)
        return np.full(num_frames, size, np.int64)
    sizes = _numbers(data, start + 12, stop, ">u4")
    _need(len(sizes) == num_frames)
    return sizes


def _starts(data: memoryview, table: Boxes, sizes: np.ndarray) -> np.ndarray:
    """Starts of the frames [T] in bytes of the file, by the chunks that hold them."""
    kind = b"co64" if b"co64" in table else b"stco"
    chunks = _counted(data, _only(table, kind), ">u8" if kind == b"co64" else ">u4")
    # Runs of chunks with equally many frames: the first chunk of each, counted from 1, frames per chunk, description.
    runs = _counted(data, _only(table, b"stsc"), ">u4", columns=3)
    firsts, frames, descriptions = runs[:, 0], runs[:, 1], runs[:, 2]
    _need(len(runs) and firsts[0] == 1)
    lengths = np.empty_like(firsts)
    lengths[:-1], lengths[-1] = firsts[1:] - firsts[:-1], len(chunks) + 1 - firsts[-1]
    _need((lengths > 0).all() and (frames > 0).all() and (descriptions == 1).all() and (chunks >= 0).all())
    # As floats, which do not wrap around: what is repeated below is as long as the sizes.
    _need(lengths.astype(float) @ frames.astype(float) == len(sizes))
    per_chunk = frames.repeat(lengths)
    before = sizes.cumsum() - sizes
    first_frames = per_chunk.cumsum() - per_chunk
    return (chunks - before[first_frames]).repeat(per_chunk) + before


def _counted(data: memoryview, extent: tuple[int, int], kind: str, *, columns: int = 1) -> np.ndarray:
    """A table that begins with its number of rows."""
    version, num_rows = struct.unpack_from(">II", data, extent[0])
    numbers = _numbers(data, extent[0] + 8, extent[1], kind)
    _need(version == 0 and len(numbers) == num_rows * columns)
    return numbers.reshape(-1, columns) if columns > 1 else numbers


def _numbers(data: memoryview, start: int, stop: int, kind: str) -> np.ndarray:
    _need(start <= stop and (stop - start) % np.dtype(kind).itemsize == 0)
    return np.frombuffer(data[start:stop], kind).astype(np.int64)
