"""Prints of takes that never were: whatever must not matter is random, whatever must is given."""

from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter1d

from pipeline.clip.prints import PrintTap
from pipeline.clip.speech import log_mel
from pipeline.demo.speech import synthesise_speech
from schemas.config import SpeechConfig
from schemas.prints import Prints

FPS = 25
NO_MESH = np.zeros((468, 3), np.float32)
FULL = (0.0, 0.0, 64.0, 64.0)


def make_prints(num_frames: int = 100, *, seed: int = 0, **changes: np.ndarray) -> Prints:
    """A take of its own: pictures, movement, sound and mouth are functions of the seed."""
    rng = np.random.default_rng(seed)
    values = {
        "hashes": np.full(8, rng.integers(0, 2**63), np.uint64),
        "grid": (128 + np.cumsum(rng.normal(size=(num_frames, 16)), axis=0)).astype(np.float16),
        "mouth": np.abs(rng.normal(size=(num_frames, 3))).astype(np.float32),
        "seen": np.ones(num_frames, bool),
        "bands": rng.normal(size=(num_frames, 20)).astype(np.float16),
        "chords": rng.integers(0, 2**32, num_frames, dtype=np.uint32),
        "heard": np.ones(num_frames, bool),
        "face": np.zeros(0, np.float16),
    }
    return Prints(**(values | changes))


def cut(prints: Prints, start: int, stop: int) -> Prints:
    """The same take from one frame up to another."""
    series = ("grid", "mouth", "seen", "bands", "chords", "heard")
    return replace(prints, **{name: getattr(prints, name)[start:stop] for name in series})


def talking_prints(seed: int, duration_s: float = 6.0, *, noise: float = 0.0) -> Prints:
    """Synthetic speech and the mouth that made it; width and jaw follow the opening."""
    speech = synthesise_speech(duration_s, seed)
    num_frames = round(duration_s * FPS)
    rng = np.random.default_rng(seed)
    opening = speech.opening_at(np.arange(num_frames) / FPS) + noise * rng.normal(size=num_frames)
    meter = PrintTap(num_frames, FPS)
    for _ in range(num_frames):
        meter.add(np.zeros((64, 64, 3), np.uint8), FULL)
    mesh = np.zeros((num_frames, 468, 3), np.float32)
    mel = log_mel(speech.samples[: num_frames * 640], SpeechConfig())
    prints = meter.finish(mesh, np.zeros(num_frames, np.float32), opening.astype(np.float32), mel)
    jaw = gaussian_filter1d(opening, 1.0)
    mouth = np.stack([opening, -0.5 * opening + 0.1 * rng.normal(size=num_frames), jaw], axis=1)
    return replace(prints, mouth=mouth.astype(np.float32), seen=np.ones(num_frames, bool))
