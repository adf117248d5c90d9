"""Find out what a file really is before work is spent on it.

Headers lie: downloads that were cut short keep their full duration, and text can be named .mp4.
So the packets are walked to the end (no decoding, a file's read time) and the first and last
second are decoded.
"""

import logging
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.container
import av.stream

from pipeline.fetch.extents import Extent, walk
from pipeline.media.decode import iter_frames, open_media, scale_to_square
from pipeline.media.frame import Frame
from schemas.config import ProbeConfig
from schemas.errors import DecodeError, SourceError
from schemas.languages import same_language
from schemas.media import AudioStream, Video

__all__ = ["probe"]

log = logging.getLogger(__name__)

_FLAG_ATTACHED_PICTURE = av.stream.Disposition.attached_pic
_NOT_SPOKEN = av.stream.Disposition.visual_impaired | av.stream.Disposition.comment | av.stream.Disposition.descriptions
# How far the header's rate may lie from the counted one, as a factor, before it is not believed.
_RATE_TOLERANCE = Fraction(6, 5)
# Windows of shot detection grow with the rate; no camera for talking heads comes near this one.
_MAX_FPS = 240
_HONEST_DIFFERENCE = 0.02
_CLOCK_S = 1e-6  # rounding of sums of times


def probe(path: Path, source_id: str, sha256: str, config: ProbeConfig) -> Video:
    """Describe a media file and check that its beginning and its end decode.

    Raises:
        DecodeError: when it is damaged, truncated, or no media at all.
        SourceError: when it is not there, or sound but unusable: no picture, too small, too large, too long.
    """
    return _check_decodes(path, _describe(path, source_id, sha256, config), config)


def _describe(path: Path, source_id: str, sha256: str, config: ProbeConfig) -> Video:
    name = path.name
    with open_media(path) as container:
        stream = _picture_stream(container, name)
        context = stream.codec_context
        _check_size(context.width, context.height, name, config)
        sounds = _sound_streams(container, stream, name)
        extents = walk(path, container, [stream, *sounds], config)
        extent, first = extents[stream.index], _first_stamp(extents[stream.index], container, name)
        tick = Fraction(stream.time_base or Fraction(1, 90000))
        fps = _average_fps(stream, extent, tick, name)
        hold, last = extent.hold * tick or 1 / fps, extent.last * tick
        start_s, claimed_stop_s = float(first * tick), float(last + hold)
        audio = _audio(sounds[0], extents[sounds[0].index]) if sounds else None
        _check_claim(name, stream, container.duration, start_s, claimed_stop_s, audio, config)
        _check_length(claimed_stop_s - start_s, name, config)
        video = Video(
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
            # A last frame that claims to stay for long is a header's word, not data.
            stop_s=float(last + min(hold, max(Fraction(config.max_missing_s), 1 / fps))),
            coded_width_px=context.width,
            coded_height_px=context.height,
            sample_aspect_ratio=_pixel_aspect(stream, name, config),
            rotation_deg=0,
            interlaced=False,
            width_px=context.width,
            height_px=context.height,
            colorspace=str(context.colorspace),
            audio=audio,
        )
        return _with_others(video, sounds, extents)


def _first_stamp(extent: Extent, container: av.container.InputContainer, name: str) -> int:
    if not extent.num_packets:
        raise DecodeError(f"{name} has a video stream without a single packet: fetch it again")
    if extent.start is None:
        raise SourceError(f"{name} carries no time stamps ({container.format.name}): remux it into mp4 or mkv")
    return extent.start


def _pixel_aspect(stream: av.VideoStream, name: str, config: ProbeConfig) -> Fraction:
    """Width over height of a pixel; outside 1:8 to 8:1 it is taken for damage. The square-pixel size is checked."""
    context = stream.codec_context
    aspect = Fraction(stream.sample_aspect_ratio or context.sample_aspect_ratio or 1) or Fraction(1)
    aspect = aspect if Fraction(1, 8) <= aspect <= 8 else Fraction(1)
    _check_size(*scale_to_square(context.width, context.height, aspect, 0), name, config)
    return aspect


def _picture_stream(container: av.container.InputContainer, name: str) -> av.VideoStream:
    streams = [s for s in container.streams.video if not (s.disposition & _FLAG_ATTACHED_PICTURE)]
    if not streams:
        what = "audio only" if container.streams.audio else "no audio either"
        raise SourceError(f"{name} has no video stream ({what}): remove the source or name another file")
    readable = [s for s in streams if s.codec_context is not None]  # it is None where no decoder is known
    if not readable:
        raise SourceError(f"{name} has a picture in a coding that cannot be decoded here: convert it to H.264 in mp4")
    best = container.streams.best("video")
    return best if best in readable else readable[0]  # type: ignore[return-value]


def _sound_stream(container: av.container.InputContainer, picture: av.VideoStream, name: str) -> av.AudioStream | None:
    best = container.streams.best("audio", related=picture)
    if not isinstance(best, av.AudioStream):
        return None
    if best.codec_context is None:
        log.warning("%s has sound in a coding that cannot be decoded here: it is taken for a silent film", name)
        return None
    return best


def _sound_streams(container: av.container.InputContainer, picture: av.VideoStream, name: str) -> list[av.AudioStream]:
    """The track that players take, then those in other languages; none where the first is not readable.

    Descriptions of the picture and commentaries are left out, and so is what is tagged with no language.
    """
    sound = _sound_stream(container, picture, name)
    if sound is None:
        return []
    others = [track for track in container.streams.audio if track.index != sound.index and track.codec_context]
    spoken = [track for track in others if not track.disposition & _NOT_SPOKEN]
    tagged = [track for track in spoken if same_language(track.language, track.language)]
    return [sound, *(track for track in tagged if not same_language(track.language, sound.language))]


def _with_others(video: Video, sounds: list[av.AudioStream], extents: dict[int, Extent]) -> Video:
    """A record that tells of further tracks, and then in which language each of them is."""
    tracks = [_tagged(_audio(track, extents[track.index]), track) for track in sounds[1:]]
    others = tuple(track for track in tracks if track is not None)
    if not others:
        return video
    return video.model_copy(update={"audio": _tagged(video.audio, sounds[0]), "other_audio": others})


def _tagged(audio: AudioStream | None, stream: av.AudioStream) -> AudioStream | None:
    return audio and audio.model_copy(update={"language": stream.language})


def _average_fps(stream: av.VideoStream, extent: Extent, tick: Fraction, name: str) -> Fraction:
    """Frames per second as the header says it, or as counted where that is far from it (variable rates, AVI)."""
    fps = Fraction(stream.average_rate or 0)
    span_s = (extent.last - (extent.start or 0)) * tick
    num_packets = extent.num_packets - extent.num_behind
    if num_packets > 2 and span_s > 0:
        counted = (num_packets - 1) / span_s
        if not counted / _RATE_TOLERANCE <= fps <= counted * _RATE_TOLERANCE:
            fps = counted.limit_denominator(1001) or counted
    if not fps:
        fps = Fraction(25)
    if fps > _MAX_FPS:
        raise SourceError(f"{name} has {float(fps):.0f} frames per second: at most {_MAX_FPS} are accepted")
    return fps


def _audio(stream: av.AudioStream, extent: Extent) -> AudioStream | None:
    if extent.start is None or not stream.rate:
        return None
    tick = Fraction(stream.time_base or Fraction(1, stream.rate))
    return AudioStream(
        index=stream.index,
        codec=stream.codec_context.name,
        rate_hz=stream.rate,
        num_channels=stream.channels,
        start_s=float(extent.start * tick),
        stop_s=float((extent.last + extent.hold) * tick),
    )


def _check_claim(
    name: str,
    stream: av.VideoStream,
    container_us: int | None,
    start_s: float,
    stop_s: float,
    audio: AudioStream | None,
    config: ProbeConfig,
) -> None:
    """A header that promises more than the file holds marks a download that was cut short."""
    if stream.duration and stream.time_base:
        claimed_s, found_s = float(stream.duration * stream.time_base), stop_s - min(start_s, 0.0)
        allowed_s = config.max_missing_s
    elif container_us:
        # The whole file's length: of subtitles and chapters too, so honest headers differ by more.
        claimed_s, found_s = (
            container_us / av.time_base,
            max(stop_s, audio.stop_s if audio else 0.0) - min(0.0, start_s),
        )
        allowed_s = max(config.max_missing_s, _HONEST_DIFFERENCE * claimed_s)
    else:
        return
    if claimed_s - found_s > allowed_s:
        raise DecodeError(
            f"{name} is cut short: its header claims {claimed_s:.1f} s, its data end at {found_s:.1f} s; fetch it again"
        )


def _check_size(width: int, height: int, name: str, config: ProbeConfig) -> None:
    if min(width, height) < config.min_side_px:
        raise SourceError(f"{name} is {width}×{height} px: at least {config.min_side_px} px a side are needed")
    if max(width, height) > config.max_side_px:
        raise SourceError(f"{name} is {width}×{height} px: at most {config.max_side_px} px a side are accepted")


def _check_length(duration_s: float, name: str, config: ProbeConfig) -> None:
    if duration_s > config.max_duration_s + _CLOCK_S:
        raise SourceError(f"{name} lasts {duration_s:.1f} s: at most {config.max_duration_s:.1f} s are accepted")


def _check_decodes(path: Path, video: Video, config: ProbeConfig) -> Video:
    """Decode the first and last second; learn rotation and interlacing from real frames."""
    head = []
    for frame in iter_frames(path, video):
        if not head:
            frame.to_array((16, 16), "rgb24")  # colours that cannot be converted are known before any work
        head.append(_seen(frame))
        if frame.time_s - head[0].time_s >= config.check_s:
            break
    if not head:
        raise DecodeError(f"{path.name} holds no frame that decodes: it is damaged, fetch it again")
    frame_s = 1 / float(video.average_fps)
    tail_start_s = max(video.start_s, video.stop_s - config.max_missing_s - max(config.check_s, 2 * frame_s))
    tail = [_seen(frame) for frame in iter_frames(path, video, start_s=tail_start_s)]
    if not tail or video.stop_s - tail[-1].time_s > config.max_missing_s + frame_s:
        raise DecodeError(
            f"{path.name} is damaged at its end: its packets end at {video.stop_s:.2f} s, "
            f"its last frame that decodes lies {config.max_missing_s:.1f} s or more before; fetch it again"
        )
    rotation = round(head[0].rotation_deg) % 360
    rotation = rotation if rotation in {0, 90, 180, 270} else 0
    width, height = scale_to_square(
        video.coded_width_px, video.coded_height_px, Fraction(video.sample_aspect_ratio), rotation
    )
    return video.model_copy(
        update={
            "start_s": head[0].time_s,
            "rotation_deg": rotation,
            "interlaced": any(seen.interlaced for seen in (*head, *tail)),
            "width_px": width,
            "height_px": height,
            "colorspace": str(head[0].colorspace),
        }
    )


@dataclass(frozen=True, slots=True)
class _Seen:
    time_s: float
    rotation_deg: float
    interlaced: bool
    colorspace: int


def _seen(frame: Frame) -> _Seen:
    """What probing keeps of a frame, so that no second of pictures stays in memory."""
    picture = frame.picture
    return _Seen(frame.time_s, picture.rotation, picture.interlaced_frame, int(picture.colorspace))
