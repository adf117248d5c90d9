"""Audio features of a clip: voice activity, log-mel, and the envelope that mouths follow."""

from functools import lru_cache

import numpy as np
from jaxtyping import Float32, Float64
from scipy.signal import butter, sosfiltfilt

from pipeline.models.speech import SileroVad
from schemas.config import SpeechConfig
from schemas.sample import SAMPLE_RATE_HZ

# Telephone band: where the energy of speech follows the mouth's opening.
_SPEECH_BAND_HZ = (300.0, 3400.0)
_ENVELOPE_WINDOW_S = 0.040
_FLOOR = 1e-5
# Below half a step of 16 bit: rounding, and what a filter leaves of a constant offset. Its fourth root would look loud.
_INAUDIBLE = (0.5 / 32768) ** 2


def voice_activity(samples: Float32[np.ndarray, " L"], vad: SileroVad) -> Float32[np.ndarray, " N"]:
    """Probability of speech per 32 ms of 16 kHz audio."""
    return vad.probabilities(samples)


def speech_ratio(probabilities: Float32[np.ndarray, " N"], config: SpeechConfig) -> float:
    """Part of the time in which somebody speaks, 0 to 1."""
    return float(np.mean(probabilities >= config.vad_threshold)) if len(probabilities) else 0.0


def log_mel(samples: Float32[np.ndarray, " L"], config: SpeechConfig) -> Float32[np.ndarray, "Tm M"]:
    """Natural logarithm of mel-band magnitudes.

    Slaney's mel scale and area normalisation, Hann window, magnitude floor 1e-5, as in common vocoder
    front ends. Frame k is centred on sample k × hop; the ends are mirrored. With the default hop there are
    exactly four per video frame: Tm = L / hop.

    Args:
        samples: 16 kHz mono; a whole number of hops.
        config: bins, window and hop.
    """
    hop, window = config.mel_hop_samples, config.mel_window_samples
    num_frames = len(samples) // hop
    padded = np.pad(samples.astype(np.float64), window // 2, mode="reflect")
    blocks = np.lib.stride_tricks.sliding_window_view(padded, window)[: num_frames * hop : hop]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    size = 1 << (window - 1).bit_length()
    magnitudes = np.abs(np.fft.rfft(blocks * hann, n=size, axis=1))
    bands = magnitudes @ _mel_filters(config.mel_bins, size).T
    return np.log(np.maximum(bands, _FLOOR)).astype(np.float32)


@lru_cache(maxsize=4)
def _mel_filters(num_bins: int, size: int) -> Float64[np.ndarray, "M F"]:
    """Triangular filters of unit area on Slaney's mel scale, 0 Hz to half the rate."""
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(
        num_frequency_bins=size // 2 + 1,
        num_mel_filters=num_bins,
        min_frequency=0.0,
        max_frequency=SAMPLE_RATE_HZ / 2,
        sampling_rate=SAMPLE_RATE_HZ,
        norm="slaney",
        mel_scale="slaney",
    )
    return np.ascontiguousarray(filters.T)


def speech_envelope(samples: Float32[np.ndarray, " L"], num_frames: int, fps: int = 25) -> Float32[np.ndarray, " T"]:
    """Loudness of the speech band, one value per video frame: energy in 40 ms to the power of a quarter.

    The window of frame k is centred on the time k / fps, and shorter at the clip's ends. Sound below half a step of
    16 bit is silence, 0.

    Args:
        samples: 16 kHz mono from the first frame's time.
        num_frames: T.
        fps: of the video.
    """
    sections = butter(4, _SPEECH_BAND_HZ, "bandpass", fs=SAMPLE_RATE_HZ, output="sos")
    band = sosfiltfilt(sections, samples.astype(np.float64)) if len(samples) > 64 else samples.astype(np.float64)
    half = round(_ENVELOPE_WINDOW_S * SAMPLE_RATE_HZ / 2)
    total = np.concatenate([[0.0], np.cumsum(np.square(band))])
    centres = np.round(np.arange(num_frames) * SAMPLE_RATE_HZ / fps).astype(int)
    low = np.clip(centres - half, 0, len(band))
    high = np.clip(centres + half, 0, len(band))
    energy = (total[high] - total[low]) / np.maximum(high - low, 1)
    return np.power(np.where(energy > _INAUDIBLE, energy, 0.0), 0.25).astype(np.float32)
