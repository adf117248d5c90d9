"""Films that drive: frames at a constant rate, as often as they are asked for.

What is opened here is cropped already; other films come from the builder's decoder (``flows.framing``). Both are read
as they are used, so that nothing grows with a film's length.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import av.container
import av.error
import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from schemas.config import ProbeConfig
from schemas.errors import DataError, UsageError
from schemas.pictures import not_a_film
from training.data.decode import EXACT

Picture = UInt8[Tensor, "3 S S"]  # RGB

LIMITS = ProbeConfig()  # sizes and lengths that the builder accepts as well
# Playlists would make FFmpeg open other files and addresses on a film's behalf.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,m4v,ogg,nut"
_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "file,pipe"}
_MAX_DAMAGED = 100
_MAX_FPS = 240
_BT601, _BT709, _UNSPECIFIED = 5, 1, 2
_LIMITED, _FULL = 1, 2


@dataclass(frozen=True, slots=True)
class Film:
    """What drives.

    Attributes:
        path: the file.
        fps: frames per second of what comes out of ``frames``.
        num_frames: how many those are; of a film whose header lies, about how many.
        start_s: time of the first one on the file's clock.
        sound_index: of the audio stream that goes with them; None where there is none.
        frames: reads them from the beginning, every time it is called.
    """

    path: Path
    fps: Fraction
    num_frames: int
    start_s: float
    sound_index: int | None
    frames: Callable[[], Iterator[Picture]]


# ---- inputs that are cropped already -------------------------------------------------------------------------------


def read_picture(path: Path) -> Image.Image:
    """An image file, upright, in RGB.

    Raises:
        UsageError: when it is not there, no image, or too large or small.
    """
    if not path.is_file():
        raise UsageError(f"{path} is not there: name an image")
    try:
        with Image.open(path) as given:
            _check_size(path.name, *given.size)
            return ImageOps.exif_transpose(given).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"{path.name} is no image that can be read ({error}): name a PNG or JPEG file") from error


def cropped_picture(path: Path, size_px: int) -> Picture:
    """A square image at the model's size.

    Raises:
        UsageError: as :func:`read_picture`, or when it is not square.
    """
    image = read_picture(path)
    _check_square(path.name, *image.size)
    return scaled(image, size_px)


def scaled(image: Image.Image, size_px: int) -> Picture:
    """A square image at another size, averaged where it shrinks."""
    how = Image.Resampling.BOX if image.width > size_px else Image.Resampling.BICUBIC
    return to_tensor(np.asarray(image.resize((size_px, size_px), how)))


def to_tensor(image: UInt8[np.ndarray, "S S 3"]) -> Picture:
    """Rows of pixels as channels, which is how networks have them."""
    return torch.from_numpy(np.array(image)).movedim(-1, 0)


def cropped_film(path: Path, size_px: int) -> Film:
    """A square film as it is, its frames at the model's size.

    Raises:
        UsageError: when it is not there, no film, not square, or too long.
    """
    with opened(path) as container:
        stream = _picture_stream(container, path.name)
        context = stream.codec_context
        _check_size(path.name, context.width, context.height)
        if (stream.sample_aspect_ratio or 1) != 1:
            raise UsageError(f"{path.name} has no square pixels: convert it, or leave --no-crop out")
        _check_square(path.name, context.width, context.height)
        fps = Fraction(stream.average_rate or 25)
        if fps > _MAX_FPS:
            raise UsageError(f"{path.name} has {float(fps):.0f} frames per second: at most {_MAX_FPS} are accepted")
        length_s = float((container.duration or 0) / av.time_base)
        if length_s > LIMITS.max_duration_s:
            raise UsageError(f"{path.name} lasts {length_s:.0f} s: at most {LIMITS.max_duration_s:.0f} s are accepted")
        sound = container.streams.best("audio", related=stream)
        sound_index = sound.index if sound else None
    first = next(_decoded(path), None)
    if first is None:
        raise UsageError(f"{path.name} holds no frame that decodes: name another film")
    return Film(
        path=path,
        fps=fps,
        num_frames=max(1, round(length_s * fps)),
        start_s=first[0],
        sound_index=sound_index,
        frames=lambda: (_as_picture(frame, size_px) for frame in _at_rate(_decoded(path), fps)),
    )


def _picture_stream(container: av.container.InputContainer, name: str) -> av.VideoStream:
    for stream in container.streams.video:
        if stream.codec_context is not None:
            return stream
    raise UsageError(f"{name} has no pictures that can be decoded: name a film")


def _decoded(path: Path) -> Iterator[tuple[float, av.VideoFrame]]:
    """Frames with rising times; damaged ones are left out."""
    with opened(path) as container:
        stream = _picture_stream(container, path.name)
        stream.codec_context.options = {"max_pixels": str(LIMITS.max_side_px**2)}
        step_s, first_s, last_s = 1 / float(stream.average_rate or 25), None, float("-inf")
        for frame in tolerant(container, stream, path.name):
            picture = cast("av.VideoFrame", frame)
            time_s = picture.time if picture.time is not None else max(last_s + step_s, 0.0)
            if time_s <= last_s:
                continue
            first_s = time_s if first_s is None else first_s
            if time_s - first_s > LIMITS.max_duration_s:  # headers lie, and so do time stamps
                raise DataError(
                    f"{path.name} has a frame at {time_s:.0f} s: at most {LIMITS.max_duration_s:.0f} s are read"
                )
            yield time_s, picture
            last_s = time_s


def tolerant(container: av.container.InputContainer, stream: Any, name: str) -> Iterator[Any]:
    """Decoded frames of a stream; damaged packets cost their frames only, up to a limit.

    Raises:
        DataError: beyond it.
    """
    damaged, packets = 0, _packets(container, stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            frames = packet.decode()
        except av.error.FFmpegError as error:
            damaged += 1
            if damaged > _MAX_DAMAGED:
                raise DataError(f"{name} is damaged: {damaged} of its packets failed ({error.strerror})") from error
            packets = _packets(container, stream)  # a generator that has raised is spent; the file goes on
            continue
        yield from frames


def _packets(container: av.container.InputContainer, stream: Any) -> Iterator[av.Packet]:
    """A stream's packets, in a file in which others may begin anywhere; PyAV fails at its end over those."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, IndexError):
            return
        yield packet


def _at_rate(frames: Iterator[tuple[float, av.VideoFrame]], fps: Fraction) -> Iterator[av.VideoFrame]:
    """For every tick of the rate the frame nearest in time, to the end of the last one."""
    number, start_s, before = 0, 0.0, None
    for time_s, picture in frames:
        if before is None:
            start_s = time_s
        else:
            while start_s + float(number / fps) < (before[0] + time_s) / 2:
                yield before[1]
                number += 1
        before = time_s, picture
    while before is not None and start_s + float(number / fps) < before[0] + 0.5 / float(fps):
        yield before[1]
        number += 1


def _as_picture(frame: av.VideoFrame, size_px: int) -> Picture:
    _check_square("a frame", frame.width, frame.height)  # which may change midway
    tagged = int(frame.colorspace)
    matrix = tagged if tagged != _UNSPECIFIED else _BT709 if frame.height >= 720 else _BT601
    full = _FULL if int(frame.color_range) == _FULL else _LIMITED
    coding = {"src_colorspace": matrix, "src_color_range": full, "interpolation": EXACT, "threads": 1}
    pixels = frame.reformat(size_px, size_px, "rgb24", **coding).to_ndarray()
    return to_tensor(np.rot90(pixels, (frame.rotation // 90) % 4))


@contextmanager
def opened(path: Path) -> Iterator[av.container.InputContainer]:
    """A local film, without playlists or addresses.

    Raises:
        UsageError: when it is not there or no film.
    """
    if not path.is_file():
        raise UsageError(f"{path} is not there: name a film")
    if sentence := not_a_film(path):
        raise UsageError(sentence)
    try:
        container = av.open(f"file:{path}", options=dict(_OPTIONS), metadata_errors="replace")
    except (av.error.FFmpegError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"{path.name} is no film that can be opened ({why}): name another") from error
    with container:
        yield container


def _check_size(name: str, width: int, height: int) -> None:
    if max(width, height) > LIMITS.max_side_px or min(width, height) < 16:
        raise UsageError(f"{name} is {width}×{height} px: 16 to {LIMITS.max_side_px} px a side are accepted")


def _check_square(name: str, width: int, height: int) -> None:
    if width != height:
        raise UsageError(f"{name} is {width}×{height} px and not cropped to a square: leave --no-crop out")
