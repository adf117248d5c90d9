"""Sound of an untrusted file, exact in time, and FLAC in and out.

A sample's place is its presentation time. Decoded blocks are laid into a buffer at the stream's own
rate by their time stamps, so gaps stay gaps and late starts stay late; only then is the buffer
resampled, with a symmetric filter that delays nothing.
"""

import io
import logging
from collections.abc import Iterator
from fractions import Fraction
from math import ceil, gcd
from pathlib import Path

import av
import numpy as np
from jaxtyping import Float32
from scipy.signal import resample_poly

from pipeline.errors import DecodeError
from pipeline.media.decode import open_media

log = logging.getLogger(__name__)

# Codecs need some packets before their output is right; entering early costs little.
_PREROLL_S = 1.0
# Around the wanted range, so that the resampling filter sees real sound at its ends.
_MARGIN_S = 0.05
# Time stamps of coarse clocks (1/1000 s in Matroska) wander by less than this around an unbroken stream.
_JITTER_S = 0.004
_MAX_ERRORS = 100


def read_audio(
    path: Path, stream_index: int, start_s: float, num_samples: int, rate_hz: int = 16000
) -> Float32[np.ndarray, " L"]:
    """Read a range of one audio stream as mono.

    Channels are averaged. Where the stream has no sound (before its start, after its end, in gaps and
    in damaged packets) the samples are zero.

    Args:
        path: the local file.
        stream_index: of the audio stream in the file.
        start_s: time of the first sample on the file's clock (PTS × time base), the same as the video's.
        num_samples: how many to return, at ``rate_hz``.
        rate_hz: of the result.

    Returns:
        Exactly ``num_samples`` values in -1 to 1.

    Raises:
        DecodeError: when the stream is damaged beyond use.
    """
    with open_media(path) as container:
        stream = container.streams[stream_index]
        if not isinstance(stream, av.AudioStream) or not stream.rate:
            raise DecodeError(f"{path.name} has no audio stream at index {stream_index}")
        native_hz = stream.rate
        first = round(Fraction(start_s - _MARGIN_S) * native_hz)
        length = ceil((num_samples / rate_hz + 2 * _MARGIN_S) * native_hz) + 1
        buffer = np.zeros(length, np.float32)
        for at, block in _placed(container, stream, start_s - _MARGIN_S, path.name):
            offset = at - first
            if offset >= length:
                break
            low, high = max(offset, 0), min(offset + len(block), length)
            if low < high:
                buffer[low:high] = block[low - offset : high - offset]
    return _resampled(buffer, first, native_hz, start_s, num_samples, rate_hz)


def _resampled(
    buffer: Float32[np.ndarray, " N"], first: int, native_hz: int, start_s: float, num_samples: int, rate_hz: int
) -> Float32[np.ndarray, " L"]:
    """Resample and cut so that the first sample lies at ``start_s`` to within half an output sample."""
    divisor = gcd(native_hz, rate_hz)
    up, down = rate_hz // divisor, native_hz // divisor
    made = buffer if up == down else resample_poly(buffer.astype(np.float64), up, down)
    skip = round((start_s - first / native_hz) * rate_hz)
    result = np.zeros(num_samples, np.float32)
    part = made[skip : skip + num_samples]
    result[: len(part)] = np.clip(part, -1.0, 1.0)
    return result


def _placed(
    container: av.container.InputContainer, stream: av.AudioStream, from_s: float, name: str
) -> Iterator[tuple[int, Float32[np.ndarray, " N"]]]:
    """Decoded mono blocks with the number of their first sample on the file's clock, at the stream's rate."""
    tick = Fraction(stream.time_base or Fraction(1, stream.rate))
    enter_s = from_s - _PREROLL_S
    if enter_s > 0:
        try:
            container.seek(int(enter_s / tick), stream=stream, backward=True)
        except av.FFmpegError:
            log.info("%s: no index for its sound, reading from its beginning", name)
            container.seek(0)
    expected: int | None = None
    jitter = round(_JITTER_S * stream.rate)
    for frame in _tolerant(container, stream, name):
        if frame.sample_rate != stream.rate:
            continue
        block = _mono(frame)
        at = expected
        if frame.pts is not None:
            stamped = round(frame.pts * Fraction(frame.time_base or tick) * stream.rate)
            at = stamped if expected is None or abs(stamped - expected) > jitter else expected
        if at is None:
            at = 0
        expected = at + len(block)
        yield at, block


def _tolerant(container: av.container.InputContainer, stream: av.AudioStream, name: str) -> Iterator[av.AudioFrame]:
    errors = 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            frames = packet.decode()
        except av.FFmpegError as error:
            errors += 1
            if errors > _MAX_ERRORS:
                raise DecodeError(f"the sound of {name} is damaged: more than {_MAX_ERRORS} packets failed") from error
            continue
        yield from frames  # type: ignore[misc]  # an audio stream's packets hold audio frames


def _mono(frame: av.AudioFrame) -> Float32[np.ndarray, " N"]:
    """The mean of all channels, -1 to 1."""
    data = frame.to_ndarray()
    if not frame.format.is_planar:
        data = data.reshape(-1, frame.layout.nb_channels).T
    if data.dtype.kind == "u":
        return ((data.astype(np.float32) - 128.0) / 128.0).mean(axis=0, dtype=np.float32)
    if data.dtype.kind == "i":
        return (data.astype(np.float32) / float(-np.iinfo(data.dtype).min)).mean(axis=0, dtype=np.float32)
    return np.nan_to_num(data.astype(np.float32)).mean(axis=0, dtype=np.float32)


def write_flac(samples: Float32[np.ndarray, " L"], rate_hz: int = 16000) -> bytes:
    """Encode mono samples (-1 to 1) as 16-bit FLAC; the same bytes for the same samples."""
    steps = np.clip(np.rint(samples.astype(np.float64) * 32768.0), -32768, 32767).astype(np.int16)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="flac", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("flac", rate=rate_hz, layout="mono")
        stream.codec_context.format = "s16"
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
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
    with av.open(io.BytesIO(data), format="flac") as container:
        blocks = [_mono(frame) for frame in container.decode(audio=0)]
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
