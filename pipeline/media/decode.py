"""Frames of an untrusted video file, exact in time, upright, with square pixels.

Rates in containers lie and differ from frame to frame, so a frame's only identity here is its
presentation time; nothing counts frames to know what time it is.
"""

import contextlib
import errno
import logging
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain, dropwhile, groupby
from pathlib import Path
from typing import cast

import av
import av.container
import av.error
import av.filter
import av.stream
import av.video

from pipeline.media.frame import Frame
from schemas.errors import DecodeError, SourceError
from schemas.media import Video
from schemas.pictures import not_a_film

log = logging.getLogger(__name__)

# Playlists (hls, dash, concat) would make FFmpeg open other files and addresses on the media's behalf.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpeg,mpegts,mpegvideo,m4v,h264,hevc,ogg,asf,nut,wav,flac,mp3,aac"
)
_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "file,pipe"}

# How far before the wanted frame to enter the file when its index points too late, in seconds.
_SEEK_MARGINS_S = (0.0, 3.0, 15.0)
# A damaged stretch costs its frames; a file that is mostly damage is given up.
_MAX_ERRORS = 100
_MAX_ERROR_RATIO = 0.5

_MAX_PIXELS = 8192 * 8192

_TIE_S = 1e-6  # shorter than any container's tick


@contextlib.contextmanager
def open_media(path: Path) -> Iterator[av.container.InputContainer]:
    """Open a local media file for reading, playlists and network protocols excluded.

    Raises:
        SourceError: when there is no file at ``path``.
        DecodeError: when it is empty, unreadable, or no media format known here.
    """
    if not path.is_file():
        what = "a folder, not a media file" if path.is_dir() else "not there"
        raise SourceError(f"{path.name} is {what}: name a media file that exists")
    if path.stat().st_size == 0:
        raise DecodeError(f"{path.name} is empty (0 bytes): fetch it again or remove the source")
    if sentence := not_a_film(path):
        raise DecodeError(sentence)
    try:
        container = av.open(f"file:{path}", options=dict(_OPTIONS), metadata_errors="replace")
    except (av.error.FFmpegError, ValueError) as error:
        raise DecodeError(f"{path.name} is not a media file that can be opened ({_cause(error)})") from error
    with container:
        yield container


def _cause(error: Exception) -> str:
    if getattr(error, "errno", None) == errno.ENOMEM:  # FFmpeg's word for tables and streams beyond its limits, too
        return "it asks for more memory, or holds more streams, than any film needs"
    return str(getattr(error, "strerror", None) or error)


def demux(container: av.container.InputContainer, *streams: av.stream.Stream) -> Iterator[av.Packet]:
    """Packets of ``streams``, and at the end an empty one of each, which empties its decoder.

    MPEG-TS and FLV may begin further streams anywhere. Only those that were there when the file was opened are known
    to PyAV; of others it yields no packet, but may want to empty their decoders too, last of all, and fails.
    """
    packets = container.demux(*streams)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, IndexError):
            return
        yield packet


def scale_to_square(width: int, height: int, aspect: Fraction, rotation_deg: int) -> tuple[int, int]:
    """Size (width, height) of the upright picture with square pixels; never smaller than the coded one."""
    if aspect > 1:
        width = round(width * aspect)
    else:
        height = round(height / aspect)
    return (height, width) if rotation_deg in {90, 270} else (width, height)


def fit_within(width: int, height: int, long_side: int) -> tuple[int, int]:
    """The largest size (width, height) of the same shape whose long side is at most ``long_side``."""
    factor = min(1.0, long_side / max(width, height))
    return max(1, round(width * factor)), max(1, round(height * factor))


def iter_frames(path: Path, video: Video, *, start_s: float | None = None, rough: bool = False) -> Iterator[Frame]:
    """Frames in order of presentation, from the first one at or after ``start_s`` (default: the file's first).

    Times rise strictly; a frame that does not move time forward is dropped. Damaged packets cost
    their frames only, up to a limit. ``rough`` leaves the edges of blocks unsmoothed in frames that no other frame
    is made from, which spares a tenth of the time: good enough for looking, and still the same from any entry.

    Raises:
        DecodeError: when the file cannot be decoded any further.
    """
    tick = Fraction(video.time_base)
    if start_s is None or start_s <= video.start_s:
        with open_media(path) as container:
            pictures = _decoded(container, video, path.name, rough=rough)
            yield from _ascending(pictures, video, path.name, video.start_s)
        return
    start_pts = round(Fraction(start_s) / tick)
    for margin_s in (*_SEEK_MARGINS_S, None):
        with open_media(path) as container:
            if margin_s is not None and not _enter(container, video, start_pts - round(Fraction(margin_s) / tick)):
                continue
            first_s = video.start_s if margin_s is None else None
            pictures = _decoded(container, video, path.name, sought=margin_s is not None, rough=rough)
            frames = _ascending(pictures, video, path.name, first_s)
            frames, in_time = _from(frames, start_pts, at_first=not video.interlaced)
            if in_time or margin_s is None:
                yield from frames
                return


def _enter(container: av.container.InputContainer, video: Video, pts: int) -> bool:
    try:
        container.seek(pts, stream=container.streams[video.stream_index], backward=True)
    except av.error.FFmpegError:
        return False
    return True


def _from(frames: Iterator[Frame], start_pts: int, *, at_first: bool) -> tuple[Iterator[Frame], bool]:
    """The frames from ``start_pts`` on, and whether nothing of them was missed.

    Only a frame before the wanted time proves that; one exactly there does as well, unless its pixels
    depend on its neighbour (``at_first``), as those of an interlaced frame do.
    """
    first = next(frames, None)
    in_time = first is not None and (first.pts < start_pts or (at_first and first.pts == start_pts))
    while first is not None and first.pts < start_pts:
        first = next(frames, None)
    return (frames if first is None else chain([first], frames)), in_time


def _ascending(
    pictures: Iterator[av.video.VideoFrame], video: Video, name: str, first_s: float | None
) -> Iterator[Frame]:
    """Give every frame a time on the stream's clock, strictly rising.

    ``first_s`` is the time of a first frame that carries none; where it is None (somewhere inside the file) such
    frames are left out.
    """
    tick = Fraction(video.time_base)
    step = max(1, round(1 / (Fraction(video.average_fps) * tick)))
    last: int | None = None
    # AVI stores no presentation times, and what FFmpeg makes up for B-frames is out of order.
    in_storage_order = video.container == "avi"
    for picture in pictures:
        stamp = picture.dts if in_storage_order else picture.pts
        if stamp is not None:
            pts = round(stamp * Fraction(picture.time_base or tick) / tick)
        elif last is not None:  # raw streams and broken muxers: the frame follows its neighbour
            pts = last + step
        elif first_s is not None:
            pts = round(Fraction(first_s) / tick)
        else:
            continue
        if last is None or pts > last:
            last = pts
            yield Frame(pts, float(pts * tick), picture, video.rotation_deg, name)


def _decoded(
    container: av.container.InputContainer, video: Video, name: str, *, sought: bool = False, rough: bool
) -> Iterator[av.video.VideoFrame]:
    stream = cast("av.VideoStream", container.streams[video.stream_index])
    # One thread: error concealment depends on the thread count, and workers run side by side anyway.
    stream.codec_context.thread_count = 1
    # A picture may grow midway to what no probe has seen; such frames are damage.
    smoothing = {"skip_loop_filter": "noref"} if rough else {}
    stream.codec_context.options = {"max_pixels": str(_MAX_PIXELS), **smoothing}
    pictures = _tolerant(container, stream, name)
    if sought:  # some containers are entered anywhere, and some decoders then begin with what they have not got
        pictures = dropwhile(lambda picture: not picture.key_frame, pictures)
    return _deinterlaced(pictures, Fraction(video.time_base), name) if video.interlaced else pictures


def _tolerant(
    container: av.container.InputContainer, stream: av.VideoStream, name: str
) -> Iterator[av.video.VideoFrame]:
    errors, sound = 0, 0
    packets = demux(container, stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError as error:
            errors = _one_more(errors, sound, name, error)
            packets = demux(container, stream)  # a generator that has raised is spent; the file goes on
            continue
        if packet is None:
            return
        try:
            pictures = packet.decode()
        except av.error.FFmpegError as error:
            errors = _one_more(errors, sound, name, error)
            continue
        sound += 1
        yield from pictures  # type: ignore[misc]  # a video stream's packets hold video frames


def _one_more(errors: int, sound: int, name: str, error: av.error.FFmpegError) -> int:
    errors += 1
    if errors > max(_MAX_ERRORS, _MAX_ERROR_RATIO * sound):
        raise DecodeError(
            f"{name} is damaged: {errors} of its packets failed ({_cause(error)}); fetch it again or remove the source"
        ) from error
    return errors


def _deinterlaced(pictures: Iterator[av.video.VideoFrame], tick: Fraction, name: str) -> Iterator[av.video.VideoFrame]:
    """One frame per frame by yadif, only where a frame is flagged as interlaced.

    Broadcasts change their picture's size or format midway, and a graph is made for one of each.
    """
    try:
        for _, alike in groupby(pictures, key=lambda picture: (picture.format.name, picture.width, picture.height)):
            yield from _deinterlaced_alike(alike, tick)
    except av.error.FFmpegError as error:
        raise DecodeError(
            f"{name} is interlaced in a way that cannot be undone ({_cause(error)}): convert it or remove the source"
        ) from error


def _deinterlaced_alike(pictures: Iterator[av.video.VideoFrame], tick: Fraction) -> Iterator[av.video.VideoFrame]:
    first = next(pictures)
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=first.width, height=first.height, format=first.format, time_base=first.time_base or tick
    )
    yadif = graph.add("yadif", "mode=send_frame:deint=interlaced")
    sink = graph.add("buffersink")
    source.link_to(yadif)
    yadif.link_to(sink)
    graph.configure()
    for picture in chain([first], pictures):
        graph.push(picture)
        yield from _pulled(graph)
    graph.push(None)
    yield from _pulled(graph)


def _pulled(graph: av.filter.Graph) -> Iterator[av.video.VideoFrame]:
    while True:
        try:
            frame = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        yield cast("av.VideoFrame", frame)


def iter_at_rate(
    frames: Iterator[Frame], start_s: float, fps: int | Fraction, num_frames: int
) -> Iterator[tuple[Frame, bool]]:
    """For each of ``num_frames`` times ``start_s + k / fps``, the frame nearest in time.

    The second value says whether the frame repeats the one before. Ties go to the earlier frame.
    Fewer come out only when ``frames`` has none at all.
    """
    before: Frame | None = None
    after = next(frames, None)
    shown: int | None = None
    for k in range(num_frames):
        time_s = start_s + float(k / fps)
        while after is not None and after.time_s <= time_s:
            before, after = after, next(frames, None)
        nearest = _nearer(before, after, time_s)
        if nearest is None:
            return
        yield nearest, nearest.pts == shown
        shown = nearest.pts


def _nearer(before: Frame | None, after: Frame | None, time_s: float) -> Frame | None:
    if before is None or after is None:
        return before or after
    # Binary fractions of a second make ties uneven; without the margin, chance would decide them.
    return before if time_s - before.time_s <= after.time_s - time_s + _TIE_S else after
