"""Synthesise speech-like sound together with the mouth that would make it.

A voice detector must take it for speech, and it rejects modulated tones and noise. So the sound is made as
speech is: glottal pulses through moving formants, in syllables, with closures, hisses and pauses. It says nothing,
but the opening of the mouth is known exactly.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32
from scipy.ndimage import gaussian_filter1d
from scipy.signal import resample_poly, sosfilt

RATE_HZ = 16_000
CONTROL_HZ = 200  # steps of the articulation; formants move no faster
_BLOCK = RATE_HZ // CONTROL_HZ
OPENING_HZ = 100

# Formants of a man's vowels in Hz (Peterson and Barney 1952, table II), loudness and mouth opening, 0 to 1.
_VOWELS = {
    "a": (730, 1090, 2440, 1.0, 1.0),
    "ae": (660, 1720, 2410, 0.95, 0.9),
    "o": (570, 840, 2410, 0.85, 0.75),
    "e": (530, 1840, 2480, 0.8, 0.65),
    "i": (270, 2290, 3010, 0.6, 0.38),
    "u": (300, 870, 2240, 0.55, 0.3),
}
# Onsets: voicing, hiss, mouth opening, seconds. m, b and p close the lips, which is what a viewer notices.
_ONSETS = {
    "m": (0.25, 0.0, 0.0, 0.07),
    "b": (0.08, 0.0, 0.0, 0.06),
    "p": (0.0, 0.05, 0.0, 0.07),
    "d": (0.15, 0.02, 0.18, 0.05),
    "l": (0.45, 0.0, 0.3, 0.05),
    "s": (0.0, 0.5, 0.15, 0.08),
    "f": (0.0, 0.25, 0.08, 0.07),
}
_BANDWIDTHS_HZ = (70.0, 100.0, 140.0, 250.0)


@dataclass(frozen=True, slots=True)
class Voice:
    """Who speaks: mean pitch in Hz, formants relative to a man's, syllables per second."""

    pitch_hz: float = 120.0
    formant_scale: float = 1.0
    syllables_hz: float = 4.6


@dataclass(frozen=True, slots=True)
class Speech:
    """Sound and the mouth that made it, on one clock that starts at 0 s.

    ``samples`` has shape [L], ``RATE_HZ``, peak .7. ``opening`` has one value per 1/100 s, 0 (closed) to 1.
    """

    samples: Float32[np.ndarray, "L"]
    opening: Float32[np.ndarray, "K"]

    def opening_at(self, time_s: Float[np.ndarray, "T"] | float) -> Float[np.ndarray, "T"]:
        """Mouth opening at ``time_s``, linearly between its 1/100 s; held at the ends."""
        return np.asarray(np.interp(time_s, np.arange(len(self.opening)) / OPENING_HZ, self.opening))


def synthesise_speech(duration_s: float, seed: int, voice: Voice = Voice()) -> Speech:
    """Say ``duration_s`` of nothing in particular; the same arguments give the same samples.

    Source-filter synthesis after Klatt, "Software for a cascade/parallel formant synthesizer", JASA 67 (1980):
    a cascade of four resonators, fed by Rosenberg's glottal pulse (JASA 49, 1971, type B) with jitter and by noise.

    Raises:
        ValueError: for a duration that is not positive.
    """
    if duration_s <= 0:
        raise ValueError(f"speech needs a positive duration, found {duration_s} s")
    random = np.random.default_rng(seed)
    tracks = _articulate(round(duration_s * CONTROL_HZ), random, voice)
    formants, voicing, hiss, opening, pitch = tracks[:, :3], tracks[:, 3], tracks[:, 4], tracks[:, 5], tracks[:, 6]
    voiced = _glottal_pulses(pitch, random) * np.repeat(voicing, _BLOCK)
    noise = random.standard_normal(len(voiced))
    breath = 0.02 * noise * np.repeat(voicing, _BLOCK)
    samples = _resonate(voiced + breath, formants, voice.formant_scale)
    # Hiss is made at the teeth: the throat's formants do not shape it, so it joins after them, high-passed.
    samples += 0.12 * np.diff(noise, prepend=0.0) * np.repeat(hiss, _BLOCK)
    samples *= 0.7 / np.abs(samples).max()
    return Speech(
        samples=samples.astype(np.float32)[: round(duration_s * RATE_HZ)],
        opening=opening[:: CONTROL_HZ // OPENING_HZ].astype(np.float32),
    )


def to_48k(samples: Float32[np.ndarray, "L"]) -> Float32[np.ndarray, "L3"]:
    """Resample from 16 to 48 kHz, the rate of sound in films; sample n lands on sample 3 n."""
    return resample_poly(samples, 3, 1).astype(np.float32)


def chords(duration_s: float, seed: int) -> Float32[np.ndarray, "L"]:
    """Music-like tones at ``RATE_HZ``, peak .5: sound that no voice detector should take for speech."""
    random = np.random.default_rng(seed)
    time_s = np.arange(round(duration_s * RATE_HZ)) / RATE_HZ
    samples = np.zeros(len(time_s))
    for begin in np.arange(0.0, duration_s, 0.75):
        since = time_s - begin
        swell = np.where(since >= 0, np.exp(-1.6 * since) * -np.expm1(-60 * np.maximum(since, 0)), 0.0)
        root = 220.0 * 2 ** (random.choice([0, 3, 5, 7, 10]) / 12)
        samples += swell * sum(np.sin(2 * np.pi * root * ratio * time_s) for ratio in (1.0, 1.26, 1.5))
    return (samples * 0.5 / np.abs(samples).max()).astype(np.float32)


def _articulate(num_steps: int, random: np.random.Generator, voice: Voice) -> Float[np.ndarray, "K 7"]:
    """Targets per control step (F1, F2, F3, voicing, hiss, opening, pitch), moved between as jaws do."""
    rows = np.empty((num_steps, 7))
    at = 0
    for seconds, row in _phones(random, voice):
        stop = min(at + max(1, round(seconds * CONTROL_HZ)), num_steps)
        rows[at:stop] = row
        at = stop
        if at == num_steps:
            break
    # Lips and jaw are slower than the larynx: 25 and 12 ms.
    smoothed = gaussian_filter1d(rows, 0.012 * CONTROL_HZ, axis=0, mode="nearest")
    smoothed[:, 5] = gaussian_filter1d(rows[:, 5], 0.025 * CONTROL_HZ, mode="nearest")
    smoothed[:, 6] = gaussian_filter1d(rows[:, 6], 0.06 * CONTROL_HZ, mode="nearest")
    return smoothed


def _phones(random: np.random.Generator, voice: Voice) -> Iterator[tuple[float, tuple[float, ...]]]:
    """Endless phrases: seconds and targets per phone, pauses between phrases, pitch falling through each."""
    while True:
        num_syllables = int(random.integers(5, 11))
        for index in range(num_syllables):
            fall = 1.12 - 0.25 * index / num_syllables
            pitch = voice.pitch_hz * fall * random.uniform(0.93, 1.07)
            f1, f2, f3, loudness, opening = _VOWELS[str(random.choice(list(_VOWELS)))]
            voicing, hiss, onset_opening, onset_s = _ONSETS[str(random.choice(list(_ONSETS)))]
            yield onset_s, (f1 * 0.7, f2, f3, voicing, hiss, onset_opening, pitch)
            stress = random.uniform(0.75, 1.0)
            vowel_s = max(0.06, random.uniform(0.8, 1.2) / voice.syllables_hz - onset_s)
            yield vowel_s, (f1, f2, f3, loudness * stress, 0.0, opening * stress, pitch)
        yield random.uniform(0.14, 0.3), (500.0, 1500.0, 2500.0, 0.0, 0.0, 0.0, voice.pitch_hz)


def _glottal_pulses(pitch_hz: Float[np.ndarray, "K"], random: np.random.Generator) -> Float[np.ndarray, "L"]:
    jitter = gaussian_filter1d(random.standard_normal(len(pitch_hz)), 2.0) * 0.03
    phase = np.cumsum(np.repeat(pitch_hz * (1 + jitter), _BLOCK) / RATE_HZ) % 1.0
    opened = np.clip(phase / 0.6, 0.0, 1.0)  # open for 60 % of a period
    # The lips radiate the derivative of the flow: it is what makes the closing instant bright.
    return np.diff(opened**2 * (1.0 - opened) * 6.75, prepend=0.0)


def _resonate(
    source: Float[np.ndarray, "L"], formants_hz: Float[np.ndarray, "K 3"], scale: float
) -> Float[np.ndarray, "L"]:
    """Pass ``source`` through four resonators in cascade, whose centres change every control step."""
    centres = np.column_stack([formants_hz, np.full(len(formants_hz), 3500.0)]) * scale
    centres = np.minimum(centres, 0.46 * RATE_HZ)
    radius = np.exp(-np.pi * np.array(_BANDWIDTHS_HZ) / RATE_HZ)
    sections = np.zeros((len(centres), 4, 6))
    sections[..., 3] = 1.0
    sections[..., 4] = -2.0 * radius * np.cos(2 * np.pi * centres / RATE_HZ)
    sections[..., 5] = radius**2
    sections[..., 0] = 1.0 + sections[..., 4] + sections[..., 5]  # unit gain at 0 Hz (Klatt)
    filtered = np.empty_like(source)
    state = np.zeros((4, 2))
    for step, sos in enumerate(sections):
        block = slice(step * _BLOCK, (step + 1) * _BLOCK)
        filtered[block], state = sosfilt(sos, source[block], zi=state)
    return filtered
