"""Sound of an untrusted file, exact in time, and FLAC in and out.

A sample's place is its presentation time. Decoded blocks are laid into a buffer at the stream's own
rate by their time stamps, so gaps stay gaps and late starts stay late; only then is the buffer
resampled, with a symmetric filter that delays nothing. Results lie on one grid, on which 0 s is a
sample, whatever range is read: two readings of the same moment agree.
"""

import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import chain
from math import ceil, gcd, sqrt
from pathlib import Path

import av
import av.container
import numpy as np
from av.codec.context import Flags
from av.error import FFmpegError
from jaxtyping import Float32
from scipy.signal import resample_poly

from pipeline.errors import DecodeError
from pipeline.media.decode import open_media

log = logging.getLogger(__name__)

# How long before the wanted range to enter the file. Codecs need some packets before their output is right, and an
# index may point too late; None reads from the beginning.
_PREROLLS_S = (1.0, 10.0, None)
# Around the wanted range, so that the resampling filter sees real sound at its ends.
_MARGIN_S = 0.05
# Time stamps of coarse clocks (1/1000 s in Matroska) wander by less than this around an unbroken stream.
_JITTER_S = 0.004
# A header can claim any rate; the buffer's size and the filter's follow it.
_RATES_HZ = range(1_000, 400_000)
# One wrong time stamp far ahead is not yet the end of the range; this many in a row are.
_BLOCKS_BEYOND = 3
_MAX_ERRORS = 100
# Floating-point sound may hold anything; honest peaks lie a little over 1.
_MAX_LEVEL = 8.0


@dataclass(frozen=True, slots=True)
class _Block:
    """Mono sound whose first sample is number ``at`` from 0 s, at ``rate_hz``."""

    at: int
    rate_hz: int
    samples: Float32[np.ndarray, " N"]


def read_audio(
    path: Path, stream_index: int, start_s: float, num_samples: int, rate_hz: int = 16000
) -> Float32[np.ndarray, " L"]:
    """Read a range of one audio stream as mono.

    Channels are mixed by the weights of ITU-R BS.775-3 table 2 (one front channel), which keep the dialogue in the
    centre of surround sound audible and leave out the bass channel; stereo is averaged. Where the stream has no sound
    (before its start, after its end, in gaps, in damaged packets, after a change of rate) the samples are zero.

    Args:
        path: the local file.
        stream_index: of the audio stream in the file.
        start_s: time of the first sample on the file's clock (PTS × time base), the same as the video's; taken to
            the nearest whole number of output samples from 0 s.
        num_samples: how many to return, at ``rate_hz``.
        rate_hz: of the result.

    Returns:
        Exactly ``num_samples`` values in -1 to 1.

    Raises:
        DecodeError: when the stream is damaged beyond use.
    """
    begin = round(Fraction(start_s) * rate_hz)
    from_s = begin / rate_hz - _MARGIN_S
    for preroll_s in _PREROLLS_S:
        with open_media(path) as container:
            stream = container.streams[stream_index]
            if not isinstance(stream, av.AudioStream):
                raise DecodeError(f"{path.name} has no audio stream at index {stream_index}, but {stream.type}")
            enter_s = from_s - preroll_s if preroll_s is not None else 0.0
            sought = enter_s > 0
            if sought and not _enter(container, stream, enter_s):
                continue
            blocks = _blocks(container, stream, path.name, sought=sought)
            head = next(blocks, None)
            if sought and (head is None or head.at > from_s * head.rate_hz):
                continue  # entered too late, or the sound does start within the range: its beginning tells
            if head is None:
                break
            if head.rate_hz not in _RATES_HZ:
                raise DecodeError(f"the sound of {path.name} claims {head.rate_hz} Hz: the file is damaged")
            return _resampled(chain([head], blocks), head.rate_hz, begin, num_samples, rate_hz)
    return np.zeros(num_samples, np.float32)


def _enter(container: av.container.InputContainer, stream: av.AudioStream, time_s: float) -> bool:
    tick = stream.time_base or Fraction(1, stream.rate)
    try:
        container.seek(int(Fraction(time_s) / tick), stream=stream, backward=True)
    except FFmpegError:
        return False
    return True


def _resampled(
    blocks: Iterator[_Block], native_hz: int, begin: int, num_samples: int, rate_hz: int
) -> Float32[np.ndarray, " L"]:
    """Samples ``begin`` to ``begin + num_samples`` of the output's grid.

    The buffer starts at a sample that both grids have in common: every ``up`` output samples last as long as
    ``down`` native ones.
    """
    divisor = gcd(native_hz, rate_hz)
    up, down = rate_hz // divisor, native_hz // divisor
    margin = ceil(_MARGIN_S * divisor)
    common = begin // up - margin
    skip = begin - common * up
    length = (-(-(skip + num_samples) // up) + margin) * down
    buffer = _laid(blocks, common * down, length, native_hz)
    made = buffer if up == down else resample_poly(buffer.astype(np.float64), up, down)
    return np.clip(made[skip : skip + num_samples], -1.0, 1.0).astype(np.float32)


def _laid(blocks: Iterator[_Block], first: int, length: int, native_hz: int) -> Float32[np.ndarray, " N"]:
    """Samples ``first`` to ``first + length`` of the native grid, zero where there is no block."""
    buffer = np.zeros(length, np.float32)
    num_beyond = 0
    for block in blocks:
        if block.rate_hz != native_hz:
            continue
        offset = block.at - first
        num_beyond = num_beyond + 1 if offset >= length else 0
        if num_beyond == _BLOCKS_BEYOND:
            break
        low, high = max(offset, 0), min(offset + len(block.samples), length)
        if low < high:
            buffer[low:high] = block.samples[low - offset : high - offset]
    return buffer


def _blocks(
    container: av.container.InputContainer, stream: av.AudioStream, name: str, *, sought: bool
) -> Iterator[_Block]:
    """Decoded blocks in file order; none where a time is needed (after seeking) and the file has none."""
    expected: int | None = None
    for frame in _tolerant(container, stream, name):
        rate_hz = frame.sample_rate
        at = expected
        if frame.pts is not None:
            tick = frame.time_base or stream.time_base or Fraction(1, rate_hz)
            stamped = round(frame.pts * tick * rate_hz)
            unbroken = expected is not None and abs(stamped - expected) <= _JITTER_S * rate_hz
            at = expected if unbroken else stamped
        if at is None and sought:
            return
        block = _Block(at or 0, rate_hz, _mono(frame))
        expected = block.at + len(block.samples)
        yield block


def _tolerant(container: av.container.InputContainer, stream: av.AudioStream, name: str) -> Iterator[av.AudioFrame]:
    """Decoded frames; damaged packets cost themselves only, a demuxer's error the rest of the file."""
    errors = 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                break
            frames = packet.decode()
        except FFmpegError as error:
            errors += 1
            if errors > _MAX_ERRORS:
                raise DecodeError(f"the sound of {name} is damaged: more than {_MAX_ERRORS} packets failed") from error
            continue
        yield from frames  # type: ignore[misc]  # an audio stream's packets hold audio frames
    if errors:
        log.info("%s: %d packets of its sound are damaged", name, errors)


def _mono(frame: av.AudioFrame) -> Float32[np.ndarray, " N"]:
    """All channels in one, -1 to 1."""
    data = frame.to_ndarray()
    if not frame.format.is_planar:
        data = data.reshape(-1, frame.layout.nb_channels).T
    weights = _mixing_weights(tuple(channel.name for channel in frame.layout.channels))
    if data.dtype.kind == "u":
        return weights @ ((data.astype(np.float32) - 128.0) / 128.0)
    if data.dtype.kind == "i":
        return weights @ (data.astype(np.float32) / 2.0 ** (8 * data.dtype.itemsize - 1))
    return weights @ np.clip(np.nan_to_num(data.astype(np.float32)), -_MAX_LEVEL, _MAX_LEVEL)


@lru_cache(maxsize=64)
def _mixing_weights(channels: tuple[str, ...]) -> Float32[np.ndarray, " C"]:
    """Share of each channel in the mono sound; the shares sum to 1, so nothing clips that did not before."""
    known = {"FC": 1.0, "FL": sqrt(0.5), "FR": sqrt(0.5), "LFE": 0.0, "LFE2": 0.0}
    weights = np.array([known.get(channel, 0.5) for channel in channels])
    weights = weights if weights.any() else np.ones(len(channels))
    return (weights / weights.sum()).astype(np.float32)


def write_flac(samples: Float32[np.ndarray, " L"], rate_hz: int = 16000) -> bytes:
    """Encode mono samples (-1 to 1) as 16-bit FLAC; the same bytes for the same samples."""
    steps = np.clip(np.rint(samples.astype(np.float64) * 32768.0), -32768, 32767).astype(np.int16)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="flac", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("flac", rate=rate_hz, layout="mono")
        stream.codec_context.format = "s16"
        stream.codec_context.flags |= Flags.bitexact
        block = 4096
        for start in range(0, len(steps), block):
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(steps[None, start : start + block]), format="s16", layout="mono"
            )
            frame.sample_rate = rate_hz
            frame.pts = start
            frame.time_base = Fraction(1, rate_hz)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def read_flac(data: bytes) -> Float32[np.ndarray, " L"]:
    """Decode mono FLAC to samples in -1 to 1."""
    with av.open(io.BytesIO(data), "r", format="flac") as container:
        blocks = [_mono(frame) for frame in container.decode(audio=0)]
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
