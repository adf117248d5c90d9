"""Does this mouth belong to this sound, by what all other sources teach?

The untrained score knows only loudness. A linear model of the mouth from the spectrum knows vowels too, and
the collection itself is enough to fit it: every source is judged by a model that has seen only the others,
so a clip that is out of sync cannot teach the model that it is right.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from pipeline.curate.typed_scipy import gaussian_smooth
from schemas.config import RidgeConfig
from schemas.prints import MOUTH_FIELDS, NUM_BANDS, Prints
from schemas.scores import SyncScore

_MOVEMENT_SIGMA = 1.0  # frames, as in the untrained score
_NUM_SURROGATES = 199  # p can then be as small as .005
_SURROGATE_SEED = 20  # fixed: a score is a function of the collection alone
_STILL = 1e-6  # standard deviation of a series that does not change

Read = Callable[[str], Prints]


@dataclass(frozen=True, slots=True)
class _Talk:
    """A clip as the model sees it: K targets of the mouth, F features of the sound, weight 1 where a face is seen."""

    mouth: Float64[np.ndarray, "T K"]
    sound: Float64[np.ndarray, "T F"]
    weight: Float64[np.ndarray, " T"]


@dataclass(frozen=True, slots=True)
class _Moments:
    """All that a linear model needs to know of its clips; those of a part can be taken away again."""

    xx: Float64[np.ndarray, "F F"]
    xy: Float64[np.ndarray, "F K"]
    yy: Float64[np.ndarray, " K"]

    def __add__(self, other: "_Moments") -> "_Moments":
        return _Moments(self.xx + other.xx, self.xy + other.xy, self.yy + other.yy)

    def __sub__(self, other: "_Moments") -> "_Moments":
        return _Moments(self.xx - other.xx, self.xy - other.xy, self.yy - other.yy)


@dataclass(frozen=True, slots=True)
class _Model:
    """Weights from sound to mouth, and how much each target counts: its correlation where the model was fitted."""

    weights: Float64[np.ndarray, "F K"]
    shares: Float64[np.ndarray, " K"]


def score_ridge(
    groups: Mapping[str, Sequence[str]], teachers: Collection[str], read: Read, config: RidgeConfig, fps: int = 25
) -> dict[str, SyncScore]:
    """Score every clip by a model fitted on the teachers of all other groups.

    Ridge regression (Hoerl and Kennard, Technometrics 12, 1970) from ``NUM_BANDS`` log-mel bands in a context of
    frames to the high-passed mouth opening, lip width and jaw drop and the smoothed speed of the opening. The
    score is the mean correlation of prediction and mouth, each target weighted by its correlation in the fit, and
    of that the largest within ``max_lag_frames``. ``lag_frames``, ``z`` and ``p`` mean what they mean in the
    untrained score: the nulls are the prediction shifted by ``min_shift_s`` or more, and 199 surrogates of it
    that keep its spectra and the coherence of its targets (Prichard and Theiler, Physical Review Letters 73, 1994).

    Args:
        groups: clip ids by the name of what they share; the clips of a group never judge one another.
        teachers: the clips that may be learned from.
        read: gives the prints of a clip by its id; it is asked twice.
        config: features, penalty, lags and the least that is needed.
        fps: frames per second.

    Memory holds one matrix of F × F whatever the number of clips.
    """
    names = sorted(groups)
    taught = {name: sorted(set(groups[name]) & set(teachers)) for name in names}
    total = _zero(config)
    for name in names:
        total = total + _moments_of(taught[name], read, config, fps)
    num_teaching = sum(bool(clips) for clips in taught.values())
    scores: dict[str, SyncScore] = {}
    for name in names:
        others = num_teaching - bool(taught[name])
        if others < config.min_other_groups:
            why = f"{others} other sources can teach the model, {config.min_other_groups} needed"
            scores |= dict.fromkeys(sorted(groups[name]), SyncScore(status="unknown", why=why))
            continue
        model = _fit(total - _moments_of(taught[name], read, config, fps), config.penalty)
        scores |= {clip_id: _score(read(clip_id), model, config, fps) for clip_id in sorted(groups[name])}
    return scores


# ---- the model -----------------------------------------------------------------------------------------------------


def _zero(config: RidgeConfig) -> _Moments:
    F, K = NUM_BANDS * (config.context_before + config.context_after + 1), len(MOUTH_FIELDS) + 1
    return _Moments(np.zeros((F, F)), np.zeros((F, K)), np.zeros(K))


def _moments_of(clip_ids: Sequence[str], read: Read, config: RidgeConfig, fps: int) -> _Moments:
    total = _zero(config)
    for clip_id in clip_ids:
        prints = read(clip_id)
        if not _obstacle(prints, config.min_teaching_s, fps):
            talk = _talk(prints, config, fps)
            weighted = talk.sound * talk.weight[:, None]
            powers = talk.weight @ np.square(talk.mouth)
            total = total + _Moments(weighted.T @ talk.sound, weighted.T @ talk.mouth, powers)
    return total


def _fit(moments: _Moments, penalty: float) -> _Model:
    weights = np.linalg.solve(moments.xx + penalty * np.eye(len(moments.xx)), moments.xy)
    power = np.einsum("fk,fg,gk->k", weights, moments.xx, weights)
    fits = (weights * moments.xy).sum(axis=0) / np.sqrt(np.maximum(power * moments.yy, 1e-12))
    fits = np.maximum(fits, 0.0)
    return _Model(weights, fits / max(float(fits.sum()), 1e-12))


# ---- what it sees --------------------------------------------------------------------------------------------------


def _obstacle(prints: Prints, min_s: float, fps: int) -> str:
    """Why no answer is possible; empty when one is."""
    num_seen = int(prints.seen.sum())
    if num_seen < min_s * fps:
        return f"{num_seen / fps:.2f} s with a face's landmarks, {min_s} s needed"
    if float(prints.mouth[prints.seen, 0].std()) <= _STILL:
        return "the mouth never moves"
    if float(prints.bands.astype(np.float64).std(axis=0).max()) <= _STILL:
        return "no sound, or one that never changes"
    return ""


def _away(config: RidgeConfig, fps: int) -> int:
    """Least shift, in frames, at which no lag reaches nearer than ``min_shift_s`` to the true place."""
    return round(config.min_shift_s * fps) + config.max_lag_frames


def _talk(prints: Prints, config: RidgeConfig, fps: int) -> _Talk:
    """Everything in units of the clip's own spread, so that loud and quiet, large and small talkers teach alike."""
    at, seen = np.arange(len(prints.seen)), prints.seen
    fields: list[Float64[np.ndarray, " T"]] = [
        np.interp(at, at[seen], series[seen]) for series in prints.mouth.astype(np.float64).T
    ]
    mouth = np.stack(fields, axis=1)
    speed = gaussian_smooth(np.abs(np.gradient(mouth[:, 0])), _MOVEMENT_SIGMA, "reflect")
    slow = gaussian_smooth(mouth, config.highpass_s * fps, "nearest")
    targets = np.column_stack([mouth - slow, speed])
    bands = _standard(prints.bands.astype(np.float64), np.ones(len(at)))
    around = np.clip(at[:, None] + np.arange(-config.context_before, config.context_after + 1), 0, len(at) - 1)
    weight = seen.astype(np.float64)
    return _Talk(_standard(targets, weight), bands[around].reshape(len(at), -1), weight)


def _standard(series: Float64[np.ndarray, "T N"], weight: Float64[np.ndarray, " T"]) -> Float64[np.ndarray, "T N"]:
    share = weight / weight.sum()
    centred = series - share @ series
    spread = np.sqrt(share @ np.square(centred))
    return np.where(spread > _STILL, centred / np.maximum(spread, _STILL), 0.0)


# ---- the score -----------------------------------------------------------------------------------------------------


def _score(prints: Prints, model: _Model, config: RidgeConfig, fps: int) -> SyncScore:
    why = _obstacle(prints, config.min_s, fps)
    if not why and len(prints.seen) < 2 * _away(config, fps):
        why = "too short to shift the sound against"
    if why:
        return SyncScore(status="unknown", why=why)
    talk = _talk(prints, config, fps)
    predicted = (talk.sound @ model.weights).T[None]
    num_frames = len(talk.weight)
    lags = np.arange(-config.max_lag_frames, config.max_lag_frames + 1)
    everywhere = _agreement(talk, _delayed(predicted, np.arange(num_frames)), model.shares)[0]
    best = int(lags[np.argmax(everywhere[lags])])
    true = float(everywhere[best])
    away = _away(config, fps)
    centres = np.arange(away, num_frames - away + 1)
    shifts = everywhere[(centres[:, None] + lags[None, :]) % num_frames].max(axis=1)
    others = _agreement(talk, _delayed(_surrogates(predicted[0]), lags), model.shares).max(axis=1)
    return SyncScore(
        status="known",
        score=round(true, 4),
        lag_frames=best,
        z=round((true - float(others.mean())) / max(float(others.std()), 1e-6), 3),
        p=round(max(_p_value(true, shifts), _p_value(true, others)), 5),
    )


def _p_value(score: float, null: Float64[np.ndarray, " N"]) -> float:
    return (1 + int((null >= score).sum())) / (1 + len(null))


def _delayed(series: Float64[np.ndarray, "N K T"], by: np.ndarray) -> Float64[np.ndarray, "N L K T"]:
    """Every series delayed by each number of frames, circularly."""
    num_frames = series.shape[-1]
    return np.moveaxis(series[..., (np.arange(num_frames)[None, :] - by[:, None]) % num_frames], 2, 1)


def _surrogates(series: Float64[np.ndarray, "K T"]) -> Float64[np.ndarray, "N K T"]:
    """Series with the spectra of these, whose phases are all turned by the same random angles."""
    generator = np.random.default_rng(_SURROGATE_SEED)
    spectra = np.fft.rfft(series, axis=1)
    turns = np.exp(1j * generator.uniform(0.0, 2 * np.pi, (_NUM_SURROGATES, 1, spectra.shape[1])))
    return np.fft.irfft(spectra * turns, n=series.shape[1], axis=2)


def _agreement(
    talk: _Talk, predicted: Float64[np.ndarray, "N L K T"], shares: Float64[np.ndarray, " K"]
) -> Float64[np.ndarray, "N L"]:
    """Weighted correlation of every prediction with the mouth, over the targets by their shares."""
    share = talk.weight / talk.weight.sum()
    mouth = (talk.mouth * share[:, None]).T  # its mean is 0 and its spread 1
    covariance = np.einsum("nlkt,kt->nlk", predicted, mouth)
    spread = np.sqrt(np.maximum(np.square(predicted) @ share - np.square(predicted @ share), 1e-12))
    return (covariance / spread) @ shares
