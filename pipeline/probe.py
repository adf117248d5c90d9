"""Find out what a file really is before work is spent on it.

Headers lie: downloads that were cut short keep their full duration, and text can be named .mp4.
So the packets are walked to the end (no decoding, a file's read time) and the first and last
second are decoded.
"""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from pipeline.errors import DecodeError, SourceError
from pipeline.media.decode import iter_frames, open_media, scale_to_square
from schemas.config import ProbeConfig
from schemas.media import AudioStream, Video

__all__ = ["probe"]

_FLAG_ATTACHED_PICTURE = av.stream.Disposition.attached_pic


def probe(path: Path, source_id: str, sha256: str, config: ProbeConfig) -> Video:
    """Describe a media file and check that its beginning and its end decode.

    Raises:
        DecodeError: when it is damaged, truncated, or no media at all.
        SourceError: when it is sound but unusable: no picture, too small, too large, too long.
    """
    video = _describe(path, source_id, sha256)
    _check_limits(video, path.name, config)
    return _check_decodes(path, video, config)


@dataclass
class _Extent:
    start: int | None = None
    stop: int | None = None
    num_packets: int = 0

    def add(self, packet: av.Packet) -> None:
        pts = packet.pts if packet.pts is not None else packet.dts
        if pts is None:
            return
        stop = pts + (packet.duration or 0)
        self.start = pts if self.start is None else min(self.start, pts)
        self.stop = stop if self.stop is None else max(self.stop, stop)
        self.num_packets += 1


def _describe(path: Path, source_id: str, sha256: str) -> Video:
    with open_media(path) as container:
        stream = _picture_stream(container, path.name)
        sound = container.streams.best("audio", related=stream)
        extents = _walk(container, [stream, *([sound] if sound else [])])
        extent = extents[stream.index]
        claimed = container.duration
        if extent.start is None or extent.stop is None:
            raise DecodeError(f"{path.name} has a video stream without a single packet: the file is damaged")
        tick = Fraction(stream.time_base or Fraction(1, 90000))
        fps = _average_fps(stream, extent, tick)
        stop = extent.stop + (0 if extent.stop > extent.start else round(1 / (fps * tick)))
        audio = None
        if isinstance(sound, av.AudioStream):
            audio = _audio(sound, extents[sound.index])
        start_s, stop_s = float(extent.start * tick), float(stop * tick)
        _check_claim(path.name, claimed, max(stop_s, audio.stop_s if audio else 0.0) - min(0.0, start_s))
        context = stream.codec_context
        aspect = Fraction(stream.sample_aspect_ratio or context.sample_aspect_ratio or 1) or Fraction(1)
        return Video(
            source_id=source_id,
            sha256=sha256,
            num_bytes=path.stat().st_size,
            container=container.format.name,
            codec=context.name,
            pixel_format=context.pix_fmt or "unknown",
            stream_index=stream.index,
            time_base=tick,
            average_fps=fps,
            start_s=start_s,
            stop_s=stop_s,
            coded_width_px=context.width,
            coded_height_px=context.height,
            sample_aspect_ratio=aspect if Fraction(1, 8) <= aspect <= 8 else Fraction(1),
            rotation_deg=0,
            interlaced=False,
            width_px=context.width,
            height_px=context.height,
            colorspace=str(context.colorspace),
            audio=audio,
        )


def _picture_stream(container: av.container.InputContainer, name: str) -> av.VideoStream:
    streams = [s for s in container.streams.video if not (s.disposition & _FLAG_ATTACHED_PICTURE)]
    if not streams:
        what = "audio only" if container.streams.audio else "no audio either"
        raise SourceError(f"{name} has no video stream ({what}): remove the source or name another file")
    best = container.streams.best("video")
    return best if best in streams else streams[0]  # type: ignore[return-value]


def _walk(container: av.container.InputContainer, streams: list[av.stream.Stream]) -> dict[int, _Extent]:
    extents = {stream.index: _Extent() for stream in streams}
    packets = container.demux(streams)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:
            break  # what was read before the damage counts; the claim check judges the rest
        if packet is None:
            break
        extents[packet.stream.index].add(packet)
    return extents


def _average_fps(stream: av.VideoStream, extent: _Extent, tick: Fraction) -> Fraction:
    if stream.average_rate:
        return Fraction(stream.average_rate)
    span = (extent.stop or 0) - (extent.start or 0)
    if extent.num_packets > 1 and span > 0:
        return Fraction(extent.num_packets, 1) / (span * tick)
    return Fraction(25)


def _audio(stream: av.AudioStream, extent: _Extent) -> AudioStream | None:
    if extent.start is None or extent.stop is None:
        return None
    tick = Fraction(stream.time_base or Fraction(1, stream.rate))
    return AudioStream(
        index=stream.index,
        codec=stream.codec_context.name,
        rate_hz=stream.rate,
        num_channels=stream.channels,
        start_s=float(extent.start * tick),
        stop_s=float(extent.stop * tick),
    )


def _check_claim(name: str, claimed: int | None, found_s: float) -> None:
    """A header that promises more than the file holds marks a download that was cut short."""
    if claimed is None:
        return
    claimed_s = claimed / av.time_base
    # Edit lists and audio tails make honest headers differ by a fraction; cut downloads differ by more.
    if claimed_s - found_s > max(1.0, 0.05 * claimed_s):
        raise DecodeError(
            f"{name} is cut short: its header claims {claimed_s:.1f} s, its data end at {found_s:.1f} s; fetch it again"
        )


def _check_limits(video: Video, name: str, config: ProbeConfig) -> None:
    sides = (video.coded_width_px, video.coded_height_px)
    if min(sides) < config.min_side_px:
        raise SourceError(f"{name} is {sides[0]}×{sides[1]} px: at least {config.min_side_px} px a side are needed")
    if max(sides) > config.max_side_px:
        raise SourceError(f"{name} is {sides[0]}×{sides[1]} px: at most {config.max_side_px} px a side are accepted")
    if video.duration_s > config.max_duration_s:
        raise SourceError(f"{name} lasts {video.duration_s:.0f} s: at most {config.max_duration_s:.0f} s are accepted")


def _check_decodes(path: Path, video: Video, config: ProbeConfig) -> Video:
    """Decode the first and last second; learn rotation and interlacing from real frames."""
    head = []
    for frame in iter_frames(path, video):
        head.append((frame.time_s, frame.picture.rotation, frame.picture.interlaced_frame, frame.picture.colorspace))
        if frame.time_s - head[0][0] >= config.check_s:
            break
    if not head:
        raise DecodeError(f"{path.name} holds no frame that decodes: the file is damaged")
    tail_start_s = max(video.start_s, video.stop_s - max(config.check_s, 2 / float(video.average_fps)))
    last_s = max((frame.time_s for frame in iter_frames(path, video, start_s=tail_start_s)), default=None)
    if last_s is None:
        raise DecodeError(f"{path.name} is damaged at its end: nothing decodes in its last {config.check_s:.0f} s")
    rotation = round(head[0][1]) % 360
    rotation = rotation if rotation in {0, 90, 180, 270} else 0
    width, height = scale_to_square(
        video.coded_width_px, video.coded_height_px, Fraction(video.sample_aspect_ratio), rotation
    )
    return video.model_copy(
        update={
            "start_s": head[0][0],
            "rotation_deg": rotation,
            "interlaced": any(row[2] for row in head),
            "width_px": width,
            "height_px": height,
            "colorspace": str(int(head[0][3])),
        }
    )
