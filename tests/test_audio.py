"""Sound: every sample at its presentation time, whatever the codec, container, rate and range; FLAC without loss."""

import hashlib
import struct
import tracemalloc
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.signal import correlate, resample_poly

from pipeline.errors import DecodeError
from pipeline.media.audio import read_audio, read_flac, write_flac

RATE = 16000


def chirps(duration_s: float, rate_hz: int, seed: int = 0) -> np.ndarray:
    """Noise below 3 kHz in irregular bursts: no two moments look alike, so a shift is found to the sample."""
    rng = np.random.default_rng(seed)
    coarse = rng.standard_normal(round(duration_s * 8000) + 8)
    spectrum = np.fft.rfft(coarse)
    hz = np.fft.rfftfreq(len(coarse), 1 / 8000)
    spectrum[(hz < 200) | (hz > 3000)] = 0
    band = np.fft.irfft(spectrum, len(coarse))
    gates = np.repeat(rng.random(len(coarse) // 400 + 1) > 0.4, 400)[: len(coarse)]
    made = resample_poly(band * gates, rate_hz, 8000)[: round(duration_s * rate_hz)]
    return (0.4 * made / np.abs(made).max()).astype(np.float32)


def write_sound(
    path: Path,
    samples: np.ndarray,
    rate_hz: int,
    codec: str,
    start_s: Fraction = Fraction(0),
    layout: str = "mono",
    drop: range = range(0),
    bit_rate: int = 0,
) -> None:
    """``samples`` [L] or [C, L] whose first one plays at ``start_s``; packets numbered in ``drop`` are left out."""
    channels = samples[None] if samples.ndim == 1 else samples
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate_hz, layout=layout)
        if bit_rate:
            stream.bit_rate = bit_rate
        if codec == "opus":
            stream.codec_context.options = {"strict": "experimental"}
        resampler = av.AudioResampler(stream.format, stream.layout, rate_hz, 960)
        packets = []
        for at in range(0, channels.shape[1], 960):
            block = np.ascontiguousarray(channels[:, at : at + 960], dtype=np.float32)
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
            frame.sample_rate, frame.time_base = rate_hz, Fraction(1, rate_hz)
            frame.pts = round(start_s * rate_hz) + at
            for piece in resampler.resample(frame):
                packets += stream.encode(piece)
        for piece in resampler.resample(None):
            packets += stream.encode(piece)
        packets += stream.encode(None)
        container.mux([packet for number, packet in enumerate(packets) if number not in drop])


def expected(samples: np.ndarray, rate_hz: int, start_s: float, from_s: float, num_samples: int) -> np.ndarray:
    """What must be read at 16 kHz from ``from_s``, when ``samples`` play from ``start_s``."""
    lead_s, total_s = 4, 24  # silence around, so that nothing is cut
    timeline = np.zeros(total_s * rate_hz)
    at = round((start_s + lead_s) * rate_hz)
    timeline[at : at + len(samples)] = samples
    divisor = np.gcd(rate_hz, RATE)
    made = resample_poly(timeline, RATE // divisor, rate_hz // divisor)
    return made[round((from_s + lead_s) * RATE) :][:num_samples]


def delay_s(found: np.ndarray, wanted: np.ndarray) -> float:
    """By how much ``found`` comes late, to a tenth of a sample."""
    product = correlate(found.astype(np.float64), wanted.astype(np.float64), method="fft")
    peak = int(product.argmax())
    left, top, right = product[peak - 1 : peak + 2]
    return (peak - (len(wanted) - 1) + 0.5 * (left - right) / (left - 2 * top + right)) / RATE


def likeness(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(found @ wanted / np.sqrt((found @ found) * (wanted @ wanted)))


def audio_index(path: Path) -> int:
    with av.open(str(path)) as container:
        return container.streams.audio[0].index


@pytest.fixture(scope="module")
def lossless(tmp_path_factory) -> tuple[Path, np.ndarray]:
    """12 s of FLAC at 16 kHz from 0 s, and its samples."""
    path = tmp_path_factory.mktemp("sound") / "lossless.mkv"
    samples = np.rint(chirps(12.0, RATE) * 32768).astype(np.float32) / 32768
    write_sound(path, samples, RATE, "flac")
    return path, samples


# --- laws: where every sample lies ----------------------------------------------------------------------------------


@given(start_s=st.floats(-3.0, 16.0), num_samples=st.integers(0, 30_000))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_range_has_exactly_its_samples_and_zeros_where_there_is_no_sound(lossless, start_s, num_samples):
    path, samples = lossless
    begin = round(Fraction(start_s) * RATE)
    padded = np.concatenate([np.zeros(4 * RATE), samples, np.zeros(8 * RATE)]).astype(np.float32)
    found = read_audio(path, 0, start_s, num_samples)
    np.testing.assert_array_equal(found, padded[begin + 4 * RATE : begin + 4 * RATE + num_samples])
    assert found.dtype == np.float32


LOSSLESS, LOSSY = 0.0002, 0.005
CASES = [
    # suffix, codec, rate, channels, start of the sound, limit on the delay
    ("mp4", "aac", 48000, "mono", "0", LOSSY),
    ("mp4", "aac", 44100, "stereo", "0", LOSSY),
    ("mp4", "aac", 22050, "mono", "1/2", LOSSY),
    ("mp4", "aac", 16000, "stereo", "0", LOSSY),
    ("mp4", "aac", 11025, "mono", "0", LOSSY),
    ("mp4", "aac", 8000, "stereo", "0", LOSSY),
    ("mp4", "aac", 48000, "5.1", "0", LOSSY),
    ("mov", "aac", 44100, "stereo", "5/4", LOSSY),
    ("mkv", "aac", 44100, "stereo", "0", LOSSY),
    ("ts", "aac", 48000, "stereo", "0", LOSSY),
    ("mkv", "libopus", 48000, "mono", "0", LOSSY),
    ("webm", "libopus", 48000, "stereo", "3/4", LOSSY),
    ("mkv", "flac", 44100, "stereo", "0", LOSSLESS + 0.0005),  # Matroska counts whole milliseconds
    ("mkv", "flac", 11025, "mono", "7/3", LOSSLESS + 0.0005),
    ("mpg", "mp2", 44100, "stereo", "0", LOSSY),
    ("mp4", "libmp3lame", 44100, "mono", "0", LOSSY),
    ("avi", "libmp3lame", 44100, "mono", "0", 0.03),  # AVI has no time stamps of its own for the encoder's delay
    ("avi", "pcm_s16le", 22050, "stereo", "0", LOSSLESS),
    ("mov", "pcm_s16le", 44100, "stereo", "0", LOSSLESS),
    ("mov", "pcm_s24le", 48000, "mono", "1/2", LOSSLESS),
    ("mov", "pcm_f32le", 8000, "mono", "0", LOSSLESS),
    ("mov", "pcm_u8", 22050, "mono", "0", LOSSLESS),
    ("mov", "pcm_s16le", 48000, "5.1", "0", LOSSLESS),
    ("wav", "pcm_s16le", 11025, "mono", "0", LOSSLESS),
]


@pytest.mark.parametrize(("suffix", "codec", "rate_hz", "layout", "start", "limit_s"), CASES)
def test_sound_lies_at_its_presentation_time(tmp_path, suffix, codec, rate_hz, layout, start, limit_s):
    path = tmp_path / f"sound.{suffix}"
    samples = chirps(8.0, rate_hz)
    num_channels = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
    channels = np.repeat(samples[None], num_channels, axis=0)
    if num_channels == 6:
        channels[3] = 0  # the bass channel takes no part
    write_sound(path, channels, rate_hz, codec, Fraction(start), layout)
    start_s = float(Fraction(start))
    if suffix == "ts":
        start_s += _shift_of_transport_stream(path)
    if suffix == "mpg":
        start_s += 0.0
    for from_s in (start_s - 0.5, start_s + 4.28):  # from the beginning, and from the middle
        found = read_audio(path, audio_index(path), from_s, 48000)
        wanted = expected(samples, rate_hz, start_s, round(from_s * RATE) / RATE, 48000)
        assert abs(delay_s(found, wanted)) <= limit_s
        if limit_s <= LOSSLESS:
            np.testing.assert_allclose(found, wanted, atol=0.005 if codec == "pcm_u8" else 1e-4)
        else:
            assert likeness(found, wanted) > (0.9 if limit_s <= LOSSY and rate_hz > 8000 else -1)


def _shift_of_transport_stream(path: Path) -> float:
    """FFmpeg's muxer starts its clock late by a fixed time, which the sound's first stamp shows."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        first = next(packet.pts for packet in container.demux(stream) if packet.pts is not None)
        return float(first * stream.time_base) + 1024 / 48000
