"""Walk a file's packets to the end: when its streams begin and end, and whether their times only go forward.

Recordings that were joined end to end (``cat`` of MPEG-TS parts) begin their clock anew at each joint. Whatever shows a
frame at its time then shows the first part's pictures with the second's sound, so such files are turned away.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.container
import av.error
import av.stream

from pipeline.media.decode import demux, open_media
from schemas.config import ProbeConfig
from schemas.errors import DecodeError, SourceError

# Damaged places in a file that are stepped over while its packets are walked.
_MAX_ERRORS = 100
# Opus's shortest packet lasts 2.5 ms. A sample table may list a packet for every byte, hours of walking.
_MAX_PACKETS_PER_S = 500
# MPEG's clock has 33 bits; going back by more than half of them is going on.
_WRAP_TICKS = 2**32


@dataclass
class Extent:
    """When a stream's packets begin and end, in ticks; what an edit list hides does not count.

    Attributes:
        tick: seconds of a tick.
        start: time of the packet that is shown first.
        last: of the one that is shown last, and ``hold`` its duration.
        num_packets: all of them; ``num_behind`` are stored behind a later one, and go on for ``behind``.
        jump: from which time to which the stream goes back furthest.
    """

    tick: Fraction
    start: int | None = None
    last: int = 0
    hold: int = 0
    num_packets: int = 0
    num_behind: int = 0
    behind: int = 0
    jump: tuple[int, int] | None = None
    _reached: int | None = None
    _before: int | None = None

    def add(self, packet: av.Packet) -> int:
        """Count a packet; by how many ticks the stream went on behind a later time."""
        pts = packet.pts if packet.pts is not None else packet.dts
        if packet.size == 0 or packet.is_discard:
            return 0
        self.num_packets += 1
        if pts is None:
            return 0
        if self.start is None or pts >= self.last:
            self.last, self.hold = pts, packet.duration or 0
        self.start = pts if self.start is None else min(self.start, pts)
        return 0 if packet.dts is None else self._in_order(packet.dts)

    def _in_order(self, stamp: int) -> int:
        """By the decoder's times, which rise as packets are stored; the viewer's do not where frames are reordered."""
        before, self._before = self._before, stamp
        if self._reached is None or not 0 < self._reached - stamp < _WRAP_TICKS:
            self._reached = stamp
            return 0
        if self.jump is None or self._reached - stamp > self.jump[0] - self.jump[1]:
            self.jump = self._reached, stamp
        self.num_behind += 1
        step = max(0, stamp - (stamp if before is None else before))
        self.behind += step
        return step


def walk(
    path: Path, container: av.container.InputContainer, streams: Sequence[av.stream.Stream], config: ProbeConfig
) -> dict[int, Extent]:
    """The extent of each stream of a file that is open, by its index.

    Raises:
        DecodeError: when its clock begins anew midway.
        SourceError: when a stream has more packets than any film needs.
    """
    extents = {stream.index: _extent(stream) for stream in streams}
    most = _MAX_PACKETS_PER_S * config.max_duration_s
    for packet in _packets(container, streams):
        extent = extents[packet.stream.index]
        extent.add(packet)
        if extent.num_packets > most:
            raise SourceError(
                f"{path.name} has more than {most:.0f} packets in one stream, and no film of at most "
                f"{config.max_duration_s:.0f} s needs them: remux it or remove the source"
            )
    _check_order(path, extents, config)
    return extents


def _extent(stream: av.stream.Stream) -> Extent:
    return Extent(Fraction(stream.time_base or Fraction(1, 90_000)))


def _packets(container: av.container.InputContainer, streams: Sequence[av.stream.Stream]) -> Iterator[av.Packet]:
    for _ in range(_MAX_ERRORS):
        try:
            yield from demux(container, *streams)
        except av.error.FFmpegError:
            continue  # the claim check judges what is missing
        return


def _check_order(path: Path, extents: dict[int, Extent], config: ProbeConfig) -> None:
    """Turn a file away of which more than may be missing is stored behind later times; what is there twice is not."""
    for index, extent in extents.items():
        at_s, to_s = (float(stamp * extent.tick) for stamp in extent.jump or (0, 0))
        lost_s = min(at_s - to_s, float(extent.behind * extent.tick))
        if lost_s > config.max_missing_s and _behind_s(path, index) > config.max_missing_s:
            raise DecodeError(
                f"{path.name} jumps back in time from {at_s:.1f} s to {to_s:.1f} s, like recordings joined end to end: "
                "write it anew ('ffmpeg -i FILE -c copy NEW.mp4') or list its parts as sources"
            )


def _behind_s(path: Path, index: int) -> float:
    """For how long packets are stored behind later ones that do not repeat one of the same time."""
    digests: dict[int, int] = {}
    behind = 0
    with open_media(path) as container:
        stream = container.streams[index]
        extent = _extent(stream)
        for packet in _packets(container, [stream]):
            step = extent.add(packet)
            if packet.size and packet.dts is not None:
                digest = zlib.crc32(bytes(packet))
                behind += step * (digests.get(packet.dts) != digest)
                digests.setdefault(packet.dts, digest)
    return float(behind * extent.tick)
