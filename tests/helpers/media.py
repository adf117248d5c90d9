"""Synthetic video with exact answers: which frame this is, when it shows, where the face is, when it clicks.

Every stage's tests need films whose truth is known beforehand; a film found somewhere has labels, and labels have
errors. Frames carry their number as squares that survive any codec, so that a decoder can be proved exact.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from pipeline.demo.portrait import Camera, face_box, film_photograph, photograph

TICK = Fraction(1, 90_000)  # fine enough for every broadcast rate
_BITS = 12
_SQUARES = _BITS + 4  # white, black, number, two check squares
_BLOCK = 1024


@dataclass(frozen=True)
class Sound:
    """``samples`` [L] or [L, C], −1 to 1; ``offset_s`` is when its first sample plays."""

    samples: np.ndarray
    rate_hz: int = 48_000
    offset_s: Fraction = Fraction(0)
    codec: str = "aac"


@dataclass(frozen=True)
class Coding:
    """How a film is stored. ``gop`` counts frames between key frames; ``options`` go to the encoder."""

    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    gop: int = 12
    bframes: int = 2
    interlaced: bool = False
    rotation_deg: int = 0  # as probed: what a player must turn the picture by, clockwise
    sample_aspect_ratio: Fraction = Fraction(1)
    options: dict[str, str] = field(default_factory=dict)


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    *,
    fps: Fraction = Fraction(25),
    times_s: Sequence[Fraction] | None = None,
    start_s: Fraction = Fraction(0),
    sound: Sound | None = None,
    coding: Coding = Coding(),
) -> list[Fraction]:
    """Write RGB ``frames`` at ``fps``, or each at its own of ``times_s``, and return when each one shows.

    The container follows the suffix. Times are rounded to ``TICK``; ``start_s`` delays the picture, not the sound.
    """
    images = list(frames)
    shown = [start_s + (Fraction(k) / fps if times_s is None else times_s[k]) for k in range(len(images))]
    ticks = [round(time / TICK) for time in shown]
    with av.open(str(path), "w") as container:
        video = _video_stream(container, images[0].shape, fps, coding)
        audio = None
        if sound is not None:
            num_channels = 1 if sound.samples.ndim == 1 else sound.samples.shape[1]
            audio = container.add_stream(
                sound.codec, rate=sound.rate_hz, layout={1: "mono", 2: "stereo", 6: "5.1"}[num_channels]
            )
        for image, tick in zip(images, ticks, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame = frame.reformat(format=coding.pix_fmt, dst_colorspace=1, dst_color_range=1)
            frame.pts, frame.time_base = tick, TICK
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if sound is not None:
            _write_sound(container, audio, sound)
    return [tick * TICK for tick in ticks]


def _video_stream(container: Any, shape: tuple[int, ...], fps: Fraction, coding: Coding) -> Any:
    video = container.add_stream(coding.codec, rate=fps)
    video.height, video.width = shape[:2]
    video.pix_fmt = coding.pix_fmt
    video.time_base = TICK
    context = video.codec_context
    # MPEG-4 part 2 and MPEG-2 cannot count in 90 kHz ticks.
    context.time_base = TICK if coding.codec in {"libx264", "libx265", "libvpx-vp9", "ffv1"} else 1 / fps
    context.thread_count = 1
    context.gop_size = coding.gop
    context.sample_aspect_ratio = coding.sample_aspect_ratio
    options = dict(coding.options)
    if coding.codec == "libx264":
        # mbtree makes x264's bytes depend on what memory held before.
        params = "mbtree=0:tff=1" if coding.interlaced else "mbtree=0"
        options = {"preset": "veryfast", "crf": "12", "bf": str(coding.bframes), "x264-params": params} | options
    elif coding.codec in {"mpeg4", "mpeg2video"}:
        options = {"qscale": "2", "bf": str(coding.bframes)} | options
        video.bit_rate = 4_000_000
    if coding.interlaced:
        options["flags"] = "+ildct+ilme"
    video.options = options
    if coding.rotation_deg:
        video.set_display_rotation(-coding.rotation_deg)
    return video


def _write_sound(container: Any, stream: Any, sound: Sound) -> None:
    samples = sound.samples[:, None] if sound.samples.ndim == 1 else sound.samples
    start = round(sound.offset_s * sound.rate_hz)
    resampler = av.AudioResampler(stream.format, stream.layout, stream.rate, _BLOCK)
    for begin in range(0, len(samples), _BLOCK):
        block = np.ascontiguousarray(samples[begin : begin + _BLOCK].T, dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=stream.layout.name)
        frame.sample_rate = sound.rate_hz
        frame.pts, frame.time_base = start + begin, Fraction(1, sound.rate_hz)
        for piece in resampler.resample(frame):
            container.mux(stream.encode(piece))
    for piece in resampler.resample(None):
        container.mux(stream.encode(piece))
    container.mux(stream.encode(None))


def stamp(image: np.ndarray, number: int) -> np.ndarray:
    """A copy with ``number`` (0 to 4095) as a row of black and white squares along the top edge."""
    if not 0 <= number < 1 << _BITS:
        raise ValueError(f"a stamp holds 0 to {(1 << _BITS) - 1}, found {number}")
    bits = [number >> bit & 1 for bit in reversed(range(_BITS))]
    side = image.shape[1] / _SQUARES
    stamped = image.copy()
    for position, bit in enumerate([1, 0, *bits, *_check(bits)]):
        stamped[: round(side), round(position * side) : round((position + 1) * side)] = 255 * bit
    return stamped


def read_counter(image: np.ndarray) -> int:
    """The number of a stamped picture, after compression, scaling or a grey conversion.

    Raises:
        ValueError: when the squares are not there or don't agree with their checks.
    """
    grey = image if image.ndim == 2 else image.mean(-1)
    side = grey.shape[1] / _SQUARES
    row = slice(round(side * 0.3), max(round(side * 0.7), round(side * 0.3) + 1))
    levels = [grey[row, round((k + 0.3) * side) : round((k + 0.7) * side)].mean() for k in range(_SQUARES)]
    white, black, *rest = levels
    bits = [int(level > (white + black) / 2) for level in rest]
    if white - black < 64 or bits[_BITS:] != _check(bits[:_BITS]):
        raise ValueError(f"no counter in this picture: levels {[round(float(level)) for level in levels]}")
    return int("".join(map(str, bits[:_BITS])), 2)


def _check(bits: Sequence[int]) -> list[int]:
    return [sum(bits[0::2]) % 2, 1 - sum(bits[1::2]) % 2]


def iter_numbered(num_frames: int, size: tuple[int, int] = (320, 180), first: int = 0) -> Iterator[np.ndarray]:
    """Stamped frames (width, height) over a picture that moves, so that an encoder has something to predict."""
    picture = cv2.resize(photograph("coffee"), (size[0] + 64, size[1] + 64))
    for number in range(first, first + num_frames):
        x, y = (32 + round(24 * float(wave(number / 40))) for wave in (np.sin, np.cos))
        yield stamp(picture[y : y + size[1], x : x + size[0]], number)


def iter_shots(lengths: Sequence[int], size: tuple[int, int] = (320, 180)) -> Iterator[np.ndarray]:
    """Stamped frames of unlike photographs, cut hard after each of ``lengths`` frames."""
    names = ("coffee", "rocket", "chelsea", "hubble_deep_field", "astronaut", "retina")
    number = 0
    for shot, length in enumerate(lengths):
        picture = photograph(names[shot % len(names)])
        fit = max(size[0] / picture.shape[1], size[1] / picture.shape[0]) * 1.1
        for frame in range(length):
            centre = (picture.shape[1] / 2 + 0.1 * frame, picture.shape[0] / 2)
            yield stamp(film_photograph(picture, Camera(centre, fit), size), number)
            number += 1


def iter_dip(scene: int, flat: int, size: tuple[int, int] = (320, 180), ramp: int = 12) -> Iterator[np.ndarray]:
    """Two shots of ``scene`` frames with ``flat`` frames of black between, faded to and from over ``ramp`` frames."""
    images = list(iter_shots([scene, scene], size))
    for k, image in enumerate(images):
        share = min(1.0, abs(k + 0.5 - scene) / ramp)
        yield (image * share).astype(np.uint8)
        if k == scene - 1:
            yield from [np.zeros_like(image)] * flat


def iter_gradual(size: tuple[int, int] = (320, 180)) -> Iterator[np.ndarray]:
    """Nine seconds with a fade through black at 3 s and a dissolve from 5.6 to 6.4 s."""
    images = list(iter_shots([75, 75, 75], size))
    for k, image in enumerate(images):
        if 140 <= k < 160:
            share = (k - 139) / 21
            other = images[150] if k < 150 else images[149]
            a, b = (image, other) if k < 150 else (other, image)
            yield (a * (1 - share) + b * share).astype(np.uint8)
        else:
            yield (image * min(1.0, abs(k + 0.5 - 75) / 10)).astype(np.uint8)


def iter_moving_face(
    num_frames: int, size: tuple[int, int] = (640, 360), *, zoom: float = 1.4, sway_px: float = 40.0
) -> Iterator[tuple[np.ndarray, tuple[float, float, float, float]]]:
    """The astronaut and her face's xyxy box, swaying by ``sway_px`` on each side once in four seconds at 25 fps."""
    for frame in range(num_frames):
        shift = sway_px / zoom * np.sin(2 * np.pi * frame / 100)
        camera = Camera((225.0 - shift, 150.0), zoom)
        yield film_photograph(photograph("astronaut"), camera, size), face_box(camera, size)


def flashes(num_frames: int, lit: Iterable[int], size: tuple[int, int] = (160, 120)) -> Iterator[np.ndarray]:
    """Dark frames, white where ``lit``."""
    bright = set(lit)
    for frame in range(num_frames):
        yield np.full((size[1], size[0], 3), 235 if frame in bright else 20, np.uint8)


def clicks(at_s: Iterable[float | Fraction], duration_s: float | Fraction, rate_hz: int = 48_000) -> np.ndarray:
    """Silence with a 4 ms burst of 1 kHz that begins at each of ``at_s``; loud enough to find to the sample."""
    samples = np.zeros(round(duration_s * rate_hz), np.float32)
    burst = 0.8 * np.sin(2 * np.pi * 1000 * (np.arange(rate_hz // 250) + 0.5) / rate_hz)
    for time in at_s:
        start = round(time * rate_hz)
        part = samples[start : start + len(burst)]
        part += burst[: len(part)]
    return samples


def onsets_s(samples: np.ndarray, rate_hz: int, *, level: float = 0.25, rest_s: float = 0.05) -> list[float]:
    """When clicks begin in decoded sound: the first sample above ``level`` after ``rest_s`` of quiet."""
    loud = np.flatnonzero(np.abs(samples) > level)
    if not len(loud):
        return []
    first = np.concatenate([[True], np.diff(loud) > rest_s * rate_hz])
    return [float(index) / rate_hz for index in loud[first]]
