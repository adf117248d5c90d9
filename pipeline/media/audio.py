"""Sound of an untrusted file, exact in time, and FLAC in and out.

A sample's place is its presentation time. Decoded blocks are laid into a buffer at the stream's own
rate by their time stamps, so gaps stay gaps and late starts stay late; only then is the buffer
resampled, with a symmetric filter that delays nothing. Output samples lie on one grid per file, so
that neighbouring ranges join without a seam.
"""

import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, floor, gcd
from pathlib import Path

import av
import av.container
import numpy as np
from av.codec.context import Flags
from av.error import FFmpegError
from jaxtyping import Float32

from pipeline.media.decode import demux, open_media
from schemas.errors import DecodeError

log = logging.getLogger(__name__)

# Codecs need some packets before their output is right; entering early costs little.
_PREROLL_S = 1.0
# Entered later than this before the range, the codec has not settled (MP3's bit reservoir reaches back .25 s).
_SETTLED_S = 0.3
# Around the wanted range, so that the resampling filter sees real sound at its ends.
_MARGIN_S = 0.05
# Time stamps of coarse clocks (1/1000 s in Matroska) wander by less than this around an unbroken stream.
_JITTER_S = 0.004
_MAX_ERRORS = 100
# One wrong time stamp far ahead is not yet the end of the range; this many in a row are.
_BLOCKS_BEYOND = 3
# Damaged time stamps can put hours of sound on one place; the range is full when it was filled this often.
_MAX_OVERLAP = 4
# A header may claim any rate, and the buffer grows with it.
_MIN_RATE_HZ, _MAX_RATE_HZ = 1000, 768_000
_SAMPLE_FORMATS = frozenset({"u8", "u8p", "s16", "s16p", "s32", "s32p", "flt", "fltp", "dbl", "dblp"})


@dataclass(frozen=True, slots=True)
class _Block:
    """Decoded mono sound; ``at`` is its first sample's place in samples of the stream's rate, not always whole."""

    at: float
    samples: Float32[np.ndarray, " N"]


@dataclass(slots=True)
class _Heard:
    """What decoding found; ``rate_hz`` is 0 while nothing has been decoded."""

    rate_hz: int = 0
    blocks: list[_Block] = field(default_factory=list)
    num_damaged: int = 0


def read_audio(
    path: Path, stream_index: int, start_s: float, num_samples: int, rate_hz: int = 16000
) -> Float32[np.ndarray, " L"]:
    """Read a range of one audio stream as mono.

    Channels are averaged, all with the same weight. Where the stream has no sound (before its start,
    after its end, in gaps and in damaged packets) the samples are zero. Of overlapping blocks the later
    one counts. Reading [a, b) and [b, c) gives what reading [a, c) gives, sample for sample, as far as
    the container's clock is finer than a sample (Matroska's is 1 ms).

    Args:
        path: the local file.
        stream_index: of the audio stream in the file.
        start_s: time of the first sample on the file's clock (PTS × time base), the same as the video's;
            may be negative. It is rounded to whole samples at ``rate_hz`` (31 µs at 16 kHz).
        num_samples: how many to return, at ``rate_hz``.
        rate_hz: of the result.

    Returns:
        Exactly ``num_samples`` values in -1 to 1.

    Raises:
        DecodeError: when there is no such stream, nothing of it can be decoded, or it is damaged beyond use.
    """
    from scipy.signal import resample_poly

    first_out = round(Fraction(start_s) * rate_hz)
    start = Fraction(first_out, rate_hz)
    from_s, to_s = float(start) - _MARGIN_S, float(start + Fraction(num_samples, rate_hz)) + _MARGIN_S
    heard = _decode_around(path, stream_index, from_s, to_s)
    divisor = gcd(heard.rate_hz, rate_hz)
    up, down = rate_hz // divisor, heard.rate_hz // divisor
    # Beginning on a multiple of ``down``, the resampled buffer begins on a whole output sample.
    first = floor(from_s * heard.rate_hz / down) * down
    buffer = np.zeros(ceil(to_s * heard.rate_hz) - first + 1, np.float32)
    for at, samples in _joined(heard.blocks, _JITTER_S * heard.rate_hz):
        low, high = max(at, first), min(at + len(samples), first + len(buffer))
        if low < high:
            buffer[low - first : high - first] = samples[low - at : high - at]
    resampled = buffer if up == down else resample_poly(buffer.astype(np.float64), up, down)
    skip = first_out - first // down * up
    return np.clip(resampled[skip : skip + num_samples], -1.0, 1.0).astype(np.float32)


def _joined(blocks: Sequence[_Block], jitter: float) -> Iterator[tuple[int, Float32[np.ndarray, " N"]]]:
    """Unbroken runs of sound and the place of each.

    Within a run the time stamps only differ from the count of samples by their rounding, so their mean
    places the run finer than the container's clock ticks.
    """
    run: list[Float32[np.ndarray, " N"]] = []
    length, origin = 0, 0.0
    for block in blocks:
        if run and abs(block.at - origin - length) > jitter:
            yield round(origin), np.concatenate(run)
            run, length = [], 0
        origin = (origin * len(run) + block.at - length) / (len(run) + 1)
        run.append(block.samples)
        length += len(block.samples)
    if run:
        yield round(origin), np.concatenate(run)


def _decode_around(path: Path, stream_index: int, from_s: float, to_s: float) -> _Heard:
    """Decode a range, entering by the file's index where that leads to a place before it, else from the beginning."""
    heard = _Heard()
    if from_s > _PREROLL_S:
        heard = _decode(path, stream_index, from_s, to_s, seek=True)
    if not heard.blocks or heard.blocks[0].at > (from_s - _SETTLED_S) * heard.rate_hz:
        heard = _decode(path, stream_index, from_s, to_s, seek=False)
    if not heard.rate_hz:
        raise DecodeError(
            f"nothing of the sound of {path.name} can be decoded ({heard.num_damaged} damaged packets): "
            "fetch it again or remove the source"
        )
    if heard.num_damaged:
        log.warning("%s: %d damaged packets of sound up to %.2f s", path.name, heard.num_damaged, to_s)
    return heard


def _decode(path: Path, stream_index: int, from_s: float, to_s: float, *, seek: bool) -> _Heard:
    """Decode up to ``to_s``; only blocks from shortly before ``from_s`` are kept, so memory stays bounded."""
    heard = _Heard()
    next_at, num_beyond, num_kept = 0.0, 0, 0
    with open_media(path) as container:
        stream = _audio_stream(container, stream_index, path.name)
        tick = Fraction(stream.time_base or Fraction(1, 1000))
        if seek and not _enter(container, stream, int((from_s - _PREROLL_S) / tick)):
            return heard
        for frame in _tolerant(container, stream, heard, path.name):
            if not heard.rate_hz:
                heard.rate_hz = _checked_rate(frame, path.name)
                if seek:
                    heard.num_damaged = 0  # an MPEG stream entered amid a packet begins with half a frame
            if frame.sample_rate != heard.rate_hz:
                heard.num_damaged += 1  # no stream of ours changes its rate; a damaged header seems to
                continue
            # Blocks without a time stamp follow the one before.
            at = next_at if frame.pts is None else float(frame.pts * Fraction(frame.time_base or tick) * heard.rate_hz)
            next_at = at + frame.samples
            num_beyond = num_beyond + 1 if at >= to_s * heard.rate_hz else 0
            if num_beyond == _BLOCKS_BEYOND:
                break
            if not num_beyond and next_at > (from_s - _PREROLL_S) * heard.rate_hz:
                num_kept += frame.samples
                if num_kept > _MAX_OVERLAP * (to_s - from_s + 2 * _PREROLL_S) * heard.rate_hz:
                    heard.num_damaged += 1
                    break
                heard.blocks.append(_Block(at, _mono(frame)))
    return heard


def _audio_stream(container: av.container.InputContainer, stream_index: int, name: str) -> av.AudioStream:
    stream = container.streams[stream_index] if 0 <= stream_index < len(container.streams) else None
    if not isinstance(stream, av.AudioStream):
        raise DecodeError(f"{name} has no audio stream at index {stream_index}: probe the file again")
    return stream


def _enter(container: av.container.InputContainer, stream: av.AudioStream, pts: int) -> bool:
    try:
        container.seek(pts, stream=stream, backward=True)
    except FFmpegError:  # no index; the caller reads from the beginning
        return False
    return True


def _checked_rate(frame: av.AudioFrame, name: str) -> int:
    if not _MIN_RATE_HZ <= frame.sample_rate <= _MAX_RATE_HZ:
        raise DecodeError(
            f"{name} claims sound at {frame.sample_rate} Hz, {_MIN_RATE_HZ} to {_MAX_RATE_HZ} Hz can be read: "
            "convert it or remove the source"
        )
    if frame.format.name not in _SAMPLE_FORMATS:
        raise DecodeError(f"{name} has sound in the sample format {frame.format.name}, not readable here: convert it")
    return frame.sample_rate


def _tolerant(
    container: av.container.InputContainer, stream: av.AudioStream, heard: _Heard, name: str
) -> Iterator[av.AudioFrame]:
    """Decoded frames; damaged packets are counted and left out."""
    packets = demux(container, stream)
    while True:
        try:
            packet = next(packets, None)
        except FFmpegError as error:
            _count_damage(heard, name, error)
            packets = demux(container, stream)  # a generator that has raised is spent; the file goes on
            continue
        if packet is None:
            return
        try:
            frames = packet.decode()
        except FFmpegError as error:
            _count_damage(heard, name, error)
            continue
        yield from frames  # type: ignore[misc]  # an audio stream's packets hold audio frames


def _count_damage(heard: _Heard, name: str, error: FFmpegError) -> None:
    heard.num_damaged += 1
    if heard.num_damaged > _MAX_ERRORS:
        raise DecodeError(
            f"the sound of {name} is damaged beyond use (more than {_MAX_ERRORS} packets failed): "
            "fetch it again or remove the source"
        ) from error


def _mono(frame: av.AudioFrame) -> Float32[np.ndarray, " N"]:
    """The mean of all channels; full scale is -1 to 1, damaged floats are silenced or clipped."""
    data = frame.to_ndarray()
    if not frame.format.is_planar:
        data = data.reshape(-1, frame.layout.nb_channels).T
    if data.dtype.kind == "u":
        return ((data.astype(np.float32) - 128.0) / 128.0).mean(axis=0, dtype=np.float32)
    if data.dtype.kind == "i":
        return (data.astype(np.float32) / 2.0 ** (8 * data.dtype.itemsize - 1)).mean(axis=0, dtype=np.float32)
    # Lossy codecs overshoot full scale a little; a filter must not meet infinities or 1e30.
    finite = np.clip(np.nan_to_num(data, nan=0.0), -4.0, 4.0)
    return finite.astype(np.float32).mean(axis=0, dtype=np.float32)


def write_flac(samples: Float32[np.ndarray, " L"], rate_hz: int = 16000) -> bytes:
    """Encode mono samples as 16-bit FLAC; the same bytes for the same samples.

    A sample x becomes round(32768 x), halves to even, without dither; beyond -1 to 1 - 1/32768 it is clipped.

    Raises:
        ValueError: for NaN or infinity, or no samples at all.
    """
    if not len(samples) or not np.isfinite(samples).all():
        raise ValueError(f"cannot write FLAC: {len(samples)} samples, all must be finite and there must be one")
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
    """Decode mono FLAC to samples in -1 to 1.

    Raises:
        DecodeError: when the bytes are no FLAC or are damaged.
    """
    try:
        with av.open(io.BytesIO(data), "r", format="flac") as container:
            blocks = [_mono(frame) for frame in container.decode(audio=0)]
    except (FFmpegError, IndexError) as error:
        raise DecodeError(f"{len(data)} bytes that should be FLAC cannot be decoded: write them again") from error
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
