"""Does this mouth belong to this sound? Without a trained network, so that it means the same in every domain.

A mouth's opening, and how fast it moves, follow the loudness of the speech band. How well they should
follow it differs from speaker to speaker, so the score is judged against sounds that do not belong to
the mouth: the clip's own, shifted by a second or more, and random ones with the same rhythm.
"""

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64
from scipy.ndimage import gaussian_filter1d

from schemas.config import SyncConfig
from schemas.scores import SyncScore

_MOVEMENT_SIGMA = 1.0  # frames
_NUM_SURROGATES = 199  # p can then be as small as .005
_SURROGATE_SEED = 20  # fixed: a score is a function of the clip alone
_ROUNDING = 1e-6  # of float32, relative

Series = Float64[np.ndarray, " T"]


def score_sync(
    opening: Float32[np.ndarray, " T"],
    valid: Bool[np.ndarray, " T"],
    envelope: Float32[np.ndarray, " T"],
    config: SyncConfig,
    fps: int = 25,
) -> SyncScore:
    """Compare mouth opening o with speech envelope a: ½ [corr(o, a) + corr(m, a)], m = |∇o|, smoothed.

    The score is the largest within ``max_lag_frames`` of a circular shift. ``lag_frames`` is where:
    positive when the picture comes later than the sound. Talkers open their mouths before they are
    heard, so -3 or -4 is usual where picture and sound belong together.

    Two nulls take the same maximum. (1) Every circular shift of the sound that keeps ``min_shift_s`` from
    the true place, lags included. Neighbours among these resemble one another (five seconds hold about
    six independent ones), and alone they call .2 of unrelated four-second pairs significant at .05.
    (2) 199 surrogates: the envelope's own values in the order of a series with its spectrum and random
    phases (Theiler et al., "Testing for nonlinearity in time series: the method of surrogate data",
    Physica D 58, 1992, algorithm II), which are independent of one another. ``p`` is the larger of the
    two values (1 + null ≥ score) / (1 + null); about .05 of unrelated pairs fall below .05 (three talkers swapped,
    4 to 6 s: .05 to .06). ``z`` is in
    standard deviations of the surrogates, about 0 ± 1 for unrelated pairs of any length.

    Args:
        opening: mouth opening per frame, any unit.
        valid: frames with a face; others take no part.
        envelope: loudness per frame, any unit.
        config: lags, shifts and the least length.
        fps: frames per second.

    Returns:
        Unknown below ``min_s`` of valid frames, and where mouth or sound never change.
    """
    why = _obstacle(opening, valid, envelope, config, fps)
    if why:
        return SyncScore(status="unknown", why=why)
    mouth = _filled(opening, valid)
    movement = gaussian_filter1d(np.abs(np.gradient(mouth)), _MOVEMENT_SIGMA)
    weight = valid.astype(np.float64)
    sound = envelope.astype(np.float64)
    scores = _agreement(mouth, movement, _shifted(sound, np.arange(len(sound))), weight)
    lags = np.arange(-config.max_lag_frames, config.max_lag_frames + 1)
    best = int(lags[np.argmax(scores[lags])])
    true = float(scores[best])
    away = _away(config, fps)
    centres = np.arange(away, len(mouth) - away + 1)
    shifts = scores[(centres[:, None] + lags[None, :]) % len(mouth)].max(axis=1)
    rows = np.concatenate([_shifted(surrogate, lags) for surrogate in _surrogates(sound, _NUM_SURROGATES)])
    others = _agreement(mouth, movement, rows, weight).reshape(_NUM_SURROGATES, len(lags)).max(axis=1)
    return SyncScore(
        status="known",
        score=round(true, 4),
        lag_frames=best,
        z=round((true - float(others.mean())) / max(float(others.std()), 1e-6), 3),
        p=round(max(_p_value(true, shifts), _p_value(true, others)), 5),
    )


def _obstacle(
    opening: Float32[np.ndarray, " T"],
    valid: Bool[np.ndarray, " T"],
    envelope: Float32[np.ndarray, " T"],
    config: SyncConfig,
    fps: int,
) -> str:
    """Why no answer is possible; empty when one is."""
    num_valid = int(valid.sum())
    if num_valid < config.min_s * fps:
        return f"{num_valid / fps:.2f} s with a face, {config.min_s} s needed"
    if len(valid) < 2 * _away(config, fps):
        return "too short to shift the sound against"
    if _constant(opening[valid]):
        return "the mouth never moves"
    if _constant(envelope[valid]):
        return "the sound's loudness never changes"
    return ""


def _constant(series: Float[np.ndarray, " N"]) -> bool:
    """No change beyond rounding, whatever the unit."""
    return float(np.std(series)) <= _ROUNDING * float(np.abs(series).max())


def _away(config: SyncConfig, fps: int) -> int:
    """Least shift, in frames, at which no lag reaches nearer than ``min_shift_s`` to the true place."""
    return round(config.min_shift_s * fps) + config.max_lag_frames


def _p_value(score: float, null: Float64[np.ndarray, " N"]) -> float:
    return (1 + int((null >= score).sum())) / (1 + len(null))


def _filled(opening: Float32[np.ndarray, " T"], valid: Bool[np.ndarray, " T"]) -> Series:
    """Frames without a face take the value between their neighbours, so that gradients there mean nothing odd."""
    at = np.arange(len(opening))
    return np.interp(at, at[valid], opening[valid].astype(np.float64))


def _shifted(series: Series, shifts: np.ndarray) -> Float64[np.ndarray, "K T"]:
    """Row i holds the series delayed by ``shifts[i]`` frames, circularly."""
    return series[(np.arange(len(series))[None, :] - shifts[:, None]) % len(series)]


def _surrogates(series: Series, num: int) -> Float64[np.ndarray, "N T"]:
    """Series with the values of this one and nearly its spectrum, but phases of their own."""
    generator = np.random.default_rng(_SURROGATE_SEED)
    values = np.sort(series)
    ranks = np.argsort(np.argsort(series, kind="stable"), kind="stable")
    bells = np.sort(generator.standard_normal((num, len(series))), axis=1)[:, ranks]
    spectra = np.fft.rfft(bells - bells.mean(axis=1, keepdims=True), axis=1)
    phases = generator.uniform(0.0, 2 * np.pi, spectra.shape)
    drawn = np.fft.irfft(np.abs(spectra) * np.exp(1j * phases), n=len(series), axis=1)
    return values[np.argsort(np.argsort(drawn, axis=1, kind="stable"), axis=1, kind="stable")]


def _agreement(
    mouth: Series, movement: Series, sounds: Float64[np.ndarray, "K T"], weight: Series
) -> Float64[np.ndarray, " K"]:
    """The score of each sound, at no lag."""
    return (_correlations(mouth, sounds, weight) + _correlations(movement, sounds, weight)) / 2


def _correlations(series: Series, rows: Float64[np.ndarray, "K T"], weight: Series) -> Float64[np.ndarray, " K"]:
    """Weighted Pearson correlation of a series with every row."""
    share = weight / weight.sum()
    a = series - share @ series
    b = rows - (rows @ share)[:, None]
    covariance = b @ (share * a)
    scale = np.sqrt((share @ a**2) * (b**2 @ share))
    return covariance / np.maximum(scale, 1e-12)
