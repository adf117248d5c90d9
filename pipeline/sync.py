"""Does this mouth belong to this sound? Without a trained network, so that it means the same in every domain.

A mouth's opening, and how fast it moves, follow the loudness of the speech band. How well they should
follow it differs from speaker to speaker, so the score is judged against the same clip with its sound
shifted by a second or more: what a mouth and a voice that do not belong together would reach.
"""

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64
from scipy.ndimage import gaussian_filter1d

from schemas.config import SyncConfig
from schemas.scores import SyncScore

_MOVEMENT_SIGMA = 1.0  # frames
_ROUNDING = 1e-6  # of float32, relative


def score_sync(
    opening: Float32[np.ndarray, " T"],
    valid: Bool[np.ndarray, " T"],
    envelope: Float32[np.ndarray, " T"],
    config: SyncConfig,
    fps: int = 25,
) -> SyncScore:
    """Compare mouth opening o with speech envelope a: ½ [corr(o, a) + corr(m, a)], m = smoothed |∇o|.

    The score is the largest within ``max_lag_frames``. ``lag_frames`` is where: positive when the picture
    comes later than the sound. The null takes the same maximum around every circular shift of the sound
    that stays ``min_shift_s`` away from the true place in both directions; ``p`` = (1 + shifts that score
    as high) / (1 + shifts), ``z`` in standard deviations of the shifts. Neighbouring shifts resemble one
    another, so p is coarser than its number of shifts suggests.

    Args:
        opening: mouth opening per frame, any unit.
        valid: frames with a face; others take no part.
        envelope: loudness per frame, any unit.
        config: lags, shifts and the least length.
        fps: frames per second.

    Returns:
        Unknown below ``min_s`` of valid frames, and where mouth or sound never change.
    """
    num_valid = int(valid.sum())
    if num_valid < config.min_s * fps:
        why = f"{num_valid / fps:.2f} s with a face, {config.min_s} s needed"
        return SyncScore(status="unknown", why=why)
    mouth = _filled(opening, valid)
    if _constant(mouth):
        return SyncScore(status="unknown", why="the mouth never moves")
    if _constant(envelope):
        return SyncScore(status="unknown", why="the sound's loudness never changes")
    movement = gaussian_filter1d(np.abs(np.gradient(mouth)), _MOVEMENT_SIGMA)
    weight = valid.astype(np.float64)
    shifted = _all_shifts(envelope.astype(np.float64))
    scores = (_correlations(mouth, shifted, weight) + _correlations(movement, shifted, weight)) / 2
    reach = config.max_lag_frames
    near = np.arange(-reach, reach + 1)
    best = int(near[np.argmax(scores[near])])
    true = float(scores[best])
    away = round(config.min_shift_s * fps) + reach
    centres = np.arange(away, len(mouth) - away + 1)
    if len(centres) == 0:
        return SyncScore(status="unknown", why="too short to shift the sound against")
    null = scores[(centres[:, None] + near[None, :]) % len(mouth)].max(axis=1)
    spread = max(float(null.std()), 1e-6)
    return SyncScore(
        status="known",
        score=round(true, 4),
        lag_frames=best,
        z=round((true - float(null.mean())) / spread, 3),
        p=round((1 + int((null >= true).sum())) / (1 + len(null)), 5),
    )


def _constant(series: Float[np.ndarray, " T"]) -> bool:
    """No change beyond rounding, whatever the unit."""
    return float(np.std(series)) <= _ROUNDING * float(np.abs(series).max())


def _filled(opening: Float32[np.ndarray, " T"], valid: Bool[np.ndarray, " T"]) -> Float64[np.ndarray, " T"]:
    """Frames without a face take the value between their neighbours, so that gradients there mean nothing odd."""
    at = np.arange(len(opening))
    return np.interp(at, at[valid], opening[valid].astype(np.float64))


def _all_shifts(series: Float64[np.ndarray, " T"]) -> Float64[np.ndarray, "T T"]:
    """Row k holds the series delayed by k frames, circularly."""
    length = len(series)
    return series[(np.arange(length)[None, :] - np.arange(length)[:, None]) % length]


def _correlations(
    series: Float64[np.ndarray, " T"], rows: Float64[np.ndarray, "K T"], weight: Float64[np.ndarray, " T"]
) -> Float64[np.ndarray, " K"]:
    """Weighted Pearson correlation of a series with every row."""
    share = weight / weight.sum()
    a = series - share @ series
    b = rows - (rows @ share)[:, None]
    covariance = b @ (share * a)
    scale = np.sqrt((share @ a**2) * (b**2 @ share))
    return covariance / np.maximum(scale, 1e-12)
