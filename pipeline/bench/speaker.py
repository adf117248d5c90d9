"""Whose sound is it? Every talking clip's own sound against those of all others and against its own at other times.

A sound that is shorter than the clip is repeated, a longer one cut. Two GRID clips last three seconds, so the least
length is lowered to that here; a build says *unknown* there. The two plain correlations are what the scouting for this
project tried first: they give a score and nothing to judge it by, so only their ranks can be compared.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32
from scipy.ndimage import gaussian_filter1d

from pipeline.bench.takes import TalkingClip
from pipeline.clip.speaker import heard_frames, score_speaker
from pipeline.clip.speech import speech_envelope, voice_activity
from pipeline.clip.sync import score_sync
from pipeline.curate.ridge import score_ridge
from pipeline.models.registry import ModelSet
from pipeline.models.speaker import LightAsd
from schemas.accuracy import SyncRow, SyncSummary
from schemas.config import RidgeConfig, SpeakerConfig, SyncConfig
from schemas.sample import SAMPLE_RATE_HZ
from schemas.scores import SpeakerScore, SyncScore

WAYS = ("untrained", "ridge", "light_asd", "movement × loudness", "change × change")
Pool = Literal["filmed", "rendered"]
_MIN_S = 2.9
# The first copy of a sound is moved by this much, each further one by a second more, none to nearer than this.
_LEAST_SHIFT_S = 1.5


@dataclass(frozen=True, slots=True)
class ShiftedVoice:
    """A voice laid under a take: whose, and how much later it begins (circularly)."""

    voice: TalkingClip
    shift_s: float = 0.0

    def samples_for(self, take: TalkingClip) -> Float32[np.ndarray, " A"]:
        """At 16 kHz, as long as the take."""
        return np.roll(np.resize(self.voice.samples, len(take.samples)), round(self.shift_s * SAMPLE_RATE_HZ))


@dataclass(frozen=True, slots=True)
class _Plain:
    """The answer of a correlation that is not set against anything."""

    score: float | None
    lag_frames: int | None


Score = SyncScore | SpeakerScore | _Plain
Way = Callable[[TalkingClip, ShiftedVoice], Score]


def sync_rows(takes: Sequence[TalkingClip], models: ModelSet, pool: Pool, names: Sequence[str] = WAYS) -> list[SyncRow]:
    """One row per take and model; the ridge is fitted on the other takes.

    Args:
        takes: of one pool, whose sounds are compared.
        models: of the embedded profile; find the weights file.
        pool: what the takes are.
        names: of the models to ask.
    """
    network = LightAsd(models.file(SpeakerConfig().weights).path)
    ways: dict[str, Way] = {
        "untrained": _untrained,
        "ridge": lambda take, sound: _ridge(take, sound, takes),
        "light_asd": lambda take, sound: _light_asd(take, sound, network, models),
        "movement × loudness": _movement,
        "change × change": _changes,
    }
    return [_row(name, ways[name], take, takes, pool) for name in names for take in takes]


def summarise(rows: Sequence[SyncRow]) -> list[SyncSummary]:
    """One row per pool, domain and model, in the order in which they come."""
    groups: dict[tuple[Pool, str, str], list[SyncRow]] = {}
    for row in rows:
        groups.setdefault((row.pool, row.domain, row.model), []).append(row)
    return [
        SyncSummary(
            model=model,
            pool=pool,
            domain=domain,
            num_clips=len(group),
            first_of_sounds=sum(row.rank == 1 for row in group),
            first_of_shifts=sum(row.shift_rank == 1 for row in group),
            median_z=round(median(known), 2) if (known := [row.z for row in group if row.z is not None]) else None,
        )
        for (pool, domain, model), group in groups.items()
    ]


def rank_of(own: float | None, others: Sequence[float | None]) -> int:
    """Place of a score among others, 1 for the highest; of equals it takes the last, and without one it is last."""
    if own is None:
        return 1 + len(others)
    return 1 + sum(other is not None and other >= own for other in others)


def shifts_of(duration_s: float) -> list[float]:
    """By how many seconds a sound of this length is moved, circularly: never by less than 1.5 s either way."""
    return np.arange(_LEAST_SHIFT_S, duration_s - _LEAST_SHIFT_S + 1e-9, 1.0).tolist()


def _row(name: str, way: Way, take: TalkingClip, takes: Sequence[TalkingClip], pool: Pool) -> SyncRow:
    began = time.process_time()
    own = way(take, ShiftedVoice(take))
    took_s = time.process_time() - began
    duration_s = take.num_frames / take.fps
    others = [way(take, ShiftedVoice(voice)).score for voice in takes if voice is not take]
    moved = [way(take, ShiftedVoice(take, shift_s)).score for shift_s in shifts_of(duration_s)]
    return SyncRow(
        model=name,
        pool=pool,
        domain=take.domain,
        media=take.media,
        num_frames=take.num_frames,
        num_sounds=len(takes),
        rank=rank_of(own.score, others),
        num_shifts=len(moved),
        shift_rank=rank_of(own.score, moved),
        score=own.score,
        best_other=_highest(others),
        best_shift=_highest(moved),
        z=None if isinstance(own, _Plain) else own.z,
        p=None if isinstance(own, _Plain) else own.p,
        lag_frames=None if isinstance(own, SpeakerScore) else own.lag_frames,
        true_lag_frames=None if take.lag_s is None else round(-take.lag_s * take.fps, 2) + 0.0,
        ms_per_s=round(1000 * took_s / duration_s, 1),
    )


def _highest(scores: Sequence[float | None]) -> float | None:
    return max((score for score in scores if score is not None), default=None)


# ---- the ways ------------------------------------------------------------------------------------------------------


def _untrained(take: TalkingClip, sound: ShiftedVoice) -> SyncScore:
    envelope = speech_envelope(sound.samples_for(take), take.num_frames, take.fps)
    return score_sync(take.opening, take.valid, envelope, SyncConfig(min_s=_MIN_S), take.fps)


def _ridge(take: TalkingClip, sound: ShiftedVoice, takes: Sequence[TalkingClip]) -> SyncScore:
    prints = {talker.media: talker.prints for talker in takes}
    bands = np.resize(sound.voice.prints.bands, take.prints.bands.shape)
    prints[take.media] = replace(take.prints, bands=np.roll(bands, round(sound.shift_s * take.fps), axis=0))
    config = RidgeConfig(min_s=_MIN_S, min_other_groups=1)
    teachers = [talker.media for talker in takes if talker is not take]
    groups = {talker.media: [talker.media] for talker in takes}
    return score_ridge(groups, teachers, prints.__getitem__, config, take.fps)[take.media]


def _light_asd(take: TalkingClip, sound: ShiftedVoice, network: LightAsd, models: ModelSet) -> SpeakerScore:
    samples = sound.samples_for(take)
    probabilities = voice_activity(samples, models.vad())
    heard = heard_frames(probabilities, models.config.speech.vad_threshold, take.num_frames, take.fps)
    loudness = speech_envelope(samples, take.num_frames, take.fps)
    return score_speaker(take.lower_faces, take.valid, samples, heard, loudness, network, SpeakerConfig(), take.fps)


def _movement(take: TalkingClip, sound: ShiftedVoice) -> _Plain:
    """How fast the mouth moves against the loudness."""
    envelope = speech_envelope(sound.samples_for(take), take.num_frames, take.fps)
    return _plain(_speed(take), envelope, SyncConfig().max_lag_frames)


def _changes(take: TalkingClip, sound: ShiftedVoice) -> _Plain:
    """The mouth's change against the loudness's, within 15 frames."""
    envelope = speech_envelope(sound.samples_for(take), take.num_frames, take.fps)
    return _plain(np.gradient(_filled(take)), np.gradient(envelope), 15)


def _filled(take: TalkingClip) -> Float[np.ndarray, " T"]:
    at = np.arange(take.num_frames)
    return np.interp(at, at[take.valid], take.opening[take.valid].astype(np.float64))


def _speed(take: TalkingClip) -> Float[np.ndarray, " T"]:
    return gaussian_filter1d(np.abs(np.gradient(_filled(take))), 1.0)


def _plain(mouth: Float[np.ndarray, " T"], loudness: Float[np.ndarray, " T"], max_lag: int) -> _Plain:
    """The highest correlation within the lags, positive where the picture comes later."""
    if not mouth.std() or not loudness.std():
        return _Plain(None, None)
    lags = range(-max_lag, max_lag + 1)
    correlations = [float(np.corrcoef(mouth, np.roll(loudness, lag))[0, 1]) for lag in lags]
    best = int(np.argmax(correlations))
    return _Plain(round(correlations[best], 4), lags[best])
