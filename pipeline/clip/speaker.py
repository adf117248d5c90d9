"""Whose voice is it? A network's answer for one clip.

Light-ASD's logit is high for any face that looks like talking: a foreign voice, or none, costs a talking mouth little
(measured: 4.0 with its own voice, 4.5 without any). What belongs together shows in time: the logit follows the
loudness of the face's own voice and of no other.
"""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, UInt8

from pipeline.clip.meter import Measured, Measurement, Meter, Reading
from schemas.clip import ClipPlan
from schemas.config import BuildConfig, SpeakerConfig
from schemas.errors import UsageError
from schemas.face import XYXY
from schemas.scores import SpeakerScore

if TYPE_CHECKING:  # starts network runtimes
    from pipeline.models.registry import ModelSet
    from pipeline.models.speaker import LightAsd

_KNOWN_FPS = 25  # of Light-ASD

_VAD_STEP_S = 0.032
_STEADY = 1e-6


class SpeakerMeter(Meter[SpeakerConfig]):
    """Adds the score ``speaker``."""

    name = "speaker"

    def check(self, config: BuildConfig) -> None:  # noqa: D102
        if config.speaker and config.crop.fps != _KNOWN_FPS:
            raise UsageError(
                f"the speaker network reads {_KNOWN_FPS} frames per second: leave crop.fps at that, or speaker out"
            )

    def load(self, models: "ModelSet", domain: str) -> "LightAsd":  # noqa: D102
        from pipeline.models.speaker import LightAsd

        weights = self.settings_where_on(models.config, domain).weights
        return models.once(self.name, lambda: LightAsd(models.file(weights).path))

    def start(self, models: "ModelSet", domain: str, plan: ClipPlan, frame_px: int) -> Measurement:  # noqa: D102
        del plan, frame_px
        settings, network, tap = self.settings_where_on(models.config, domain), self.load(models, domain), LowerFaces()
        return Measurement(tap, lambda measured: Reading(scores={"speaker": _scored(measured, tap, network, settings)}))


def _scored(measured: Measured, seen: "LowerFaces", network: "LightAsd", settings: SpeakerConfig) -> SpeakerScore:
    config, plan, sound, loudness = measured.config, measured.plan, measured.sound, measured.loudness
    if loudness is None:
        return SpeakerScore(status="unknown", why="no audio")
    heard = heard_frames(sound.voice, config.speech.vad_threshold, plan.num_frames, plan.fps)
    return score_speaker(seen.faces, measured.valid, sound.samples, heard, loudness, network, settings, plan.fps)


class LowerFaces:
    """Feed every output frame of a clip in order; keeps what the network wants to see of each, 12.5 kB."""

    def __init__(self) -> None:
        self._faces: list[UInt8[np.ndarray, "112 112"]] = []

    def add(self, frame: UInt8[np.ndarray, "H W 3"], face: XYXY) -> None:
        """One RGB frame; ``face`` is the face box on it."""
        from pipeline.models.speaker import lower_face

        self._faces.append(lower_face(frame, face))

    @property
    def faces(self) -> UInt8[np.ndarray, "T 112 112"]:
        """All of them."""
        return np.stack(self._faces)


def score_speaker(
    faces: UInt8[np.ndarray, "T 112 112"],
    valid: Bool[np.ndarray, " T"],
    samples: Float32[np.ndarray, " A"],
    heard: Bool[np.ndarray, " T"],
    loudness: Float32[np.ndarray, " T"],
    network: "LightAsd",
    config: SpeakerConfig,
    fps: int = 25,
) -> SpeakerScore:
    """Judge one clip by one network.

    Args:
        faces: what ``lower_face`` cuts.
        valid: frames with a face; others take no part.
        samples: 16 kHz mono from the first frame's time.
        heard: frames in which somebody speaks, by a voice activity detector: the network itself does not reject
            silence.
        loudness: of the speech band, per frame.
        network: loaded.
        config: lengths and shifts.
        fps: frames per second; the network knows 25.

    Returns:
        Unknown where too little speech is heard while the face is there, the loudness never changes, or the clip is
        too short to shift its sound.
    """
    away = round(config.min_shift_s * fps) + config.max_lag_frames  # so that no lag reaches nearer to the true place
    why = _obstacle(valid, heard, loudness, config, away, fps)
    if why:
        return SpeakerScore(status="unknown", why=why)
    step = -(-(len(faces) - 2 * away + 1) // config.num_shifts)
    shifts = [0, *range(away, len(faces) - away + 1, step)]
    sound = network.sound(samples, len(faces))
    rolled = np.stack([np.roll(sound, shift, axis=0) for shift in shifts])
    logits = network.logits(network.faces(faces), rolled).astype(np.float64)
    loud = loudness.astype(np.float64)
    following = np.array([_follows(a, np.roll(loud, k), valid, config) for a, k in zip(logits, shifts, strict=True)])
    share = float(np.mean(1 / (1 + np.exp(-logits[0][valid & heard]))))
    true, others = float(following[0]), following[1:]
    return SpeakerScore(
        status="known",
        score=round(share * true, 4),
        share=round(share, 4),
        following=round(true, 4),
        z=round((true - float(others.mean())) / max(float(others.std()), _STEADY), 3),
        p=round((1 + int((others >= true).sum())) / len(following), 5),
    )


def heard_frames(
    probabilities: Float32[np.ndarray, " N"], threshold: float, num_frames: int, fps: int = 25
) -> Bool[np.ndarray, " T"]:
    """Which video frames hold speech, of a voice activity detector's probabilities per 32 ms."""
    middles_s = (np.arange(num_frames) + 0.5) / fps
    steps = np.minimum((middles_s / _VAD_STEP_S).astype(int), len(probabilities) - 1)
    return probabilities[steps] >= threshold


def _obstacle(
    valid: Bool[np.ndarray, " T"],
    heard: Bool[np.ndarray, " T"],
    loudness: Float32[np.ndarray, " T"],
    config: SpeakerConfig,
    away: int,
    fps: int,
) -> str:
    """Why no answer is possible; empty when one is."""
    heard_s = float((valid & heard).sum()) / fps
    if heard_s < config.min_heard_s:
        return f"{heard_s:.2f} s of speech with a face, {config.min_heard_s} s needed"
    if len(valid) < 2 * away + 2:
        return "too short to shift the sound against"
    if float(np.std(loudness[valid])) <= _STEADY * float(np.abs(loudness).max()):
        return "the sound's loudness never changes"
    return ""


def _follows(
    logits: Float64[np.ndarray, " T"],
    loud: Float64[np.ndarray, " T"],
    valid: Bool[np.ndarray, " T"],
    config: SpeakerConfig,
) -> float:
    """The largest correlation within the lags, over the frames with a face."""
    lags = range(-config.max_lag_frames, config.max_lag_frames + 1)
    return max(_correlation(logits[valid], np.roll(loud, lag)[valid]) for lag in lags)


def _correlation(a: Float[np.ndarray, " N"], b: Float[np.ndarray, " N"]) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / max(np.sqrt((a @ a) * (b @ b)), 1e-12))
