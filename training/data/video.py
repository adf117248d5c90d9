"""From the video of a sample to the coded packets of a few frames, reading little else.

Every frame of a clip is a key frame, so a frame is one packet and can be kept undecoded: a pair that waits to be
shuffled costs 12 kB at 256 px, not 400. The video's index and the wanted packets are all that is read of it.
"""

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from training.data.clips import ClipInfo, CorruptError, Extent, TarEntry
from training.data.mp4 import FrameTable, plain_table

_READER: dict[str, Any] = {
    "format": "mp4",
    "metadata_errors": "replace",  # whatever letters a track's name has
    "options": {"probesize": "32"},  # the smallest: FFmpeg would decode a frame to learn what avcC says already
}


@dataclass(frozen=True, slots=True)
class Packets:
    """Coded frames of one clip, and what its decoder has to know before the first (avcC)."""

    setup: bytes
    by_frame: Mapping[int, bytes]


class _Member(io.RawIOBase):
    """A member of a tar as a file of its own."""

    def __init__(self, descriptor: int, extent: Extent) -> None:
        self._descriptor = descriptor
        self._offset, self._length = extent
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        data = self.read_at(self._at, self._length if size is None or size < 0 else size)
        self._at += len(data)
        return data

    def __len__(self) -> int:
        return self._length

    def read_at(self, start: int, size: int) -> bytes:
        """The bytes from ``start`` on, fewer at the end."""
        left = max(0, self._length - start)
        return os.pread(self._descriptor, min(size, left), self._offset + start)


def read_table(descriptor: int, entry: TarEntry, info: ClipInfo) -> FrameTable:
    """The container's own table of frames; what is not laid out as the builder does it is opened by FFmpeg.

    Raises:
        CorruptError: when the video is unreadable, or has not exactly the key frames that its record says.
    """
    member = _Member(descriptor, entry.members["mp4"])
    expected = {"num_frames": info.num_frames, "fps": info.fps, "size_px": info.size_px}
    return plain_table(member.read_at, len(member), **expected) or demuxed_table(descriptor, entry, info)


def demuxed_table(descriptor: int, entry: TarEntry, info: ClipInfo) -> FrameTable:
    """The same by FFmpeg's demuxer, which costs ten times as much.

    Raises:
        CorruptError: as ``read_table`` does.
    """
    problem = f"{entry.key}.mp4"
    extent = entry.members["mp4"]
    try:
        with av.open(_Member(descriptor, extent), **_READER) as container:
            stream = next(iter(container.streams.video), None)
            if stream is None or not stream.codec_context:  # PyAV has none for a coding it does not know
                raise CorruptError("video", f"{problem} has no video that FFmpeg knows")
            context, time_base = stream.codec_context, stream.time_base
            rows = [(row.pos, row.size, row.timestamp, row.is_keyframe) for row in stream.index_entries]
            size, setup = (context.width, context.height), bytes(context.extradata or b"")
            codec = context.name
    except FFmpegError as error:
        raise CorruptError("video", f"{problem} is not readable ({type(error).__name__})") from error
    if (codec, len(rows), size) != ("h264", info.num_frames, (info.size_px, info.size_px)) or not time_base:
        stored = f"{len(rows)} frames of {size[0]} × {size[1]} px in {codec}"
        raise CorruptError("video", f"{problem} has {stored}, not {info.num_frames} of {info.size_px} px")
    first = rows[0][2]  # of decoding, which may lie before 0
    for frame, (start, num_bytes, tick, is_key) in enumerate(rows):
        if not is_key or (tick - first) * time_base * info.fps != frame:
            raise CorruptError("video", f"{problem}: frame {frame} is no key frame in its place")
        if not 0 < num_bytes <= extent[1] - start:
            raise CorruptError("video", f"{problem}: frame {frame} reaches beyond the end")
    places = np.array([row[:2] for row in rows], np.int64)
    return FrameTable(setup, places[:, 0], places[:, 1])


def read_packets(descriptor: int, entry: TarEntry, table: FrameTable, frames: Sequence[int]) -> Packets:
    """The coded frames ``frames`` of a sample."""
    offset = entry.members["mp4"][0]
    rows = {frame: (int(table.sizes[frame]), offset + int(table.starts[frame])) for frame in frames}
    return Packets(table.setup, {frame: os.pread(descriptor, *row) for frame, row in rows.items()})
