"""What every clip says of itself, whether it was cut from a source or from a longer clip: sound, scores, flags."""

import hashlib
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float32

from pipeline.clip.meter import ClipSound, Measured, Reading
from pipeline.clip.quality import QualityTap
from pipeline.clip.speech import log_mel, speech_envelope, speech_ratio, voice_activity
from pipeline.clip.sync import score_sync
from pipeline.media.arrays import npy
from pipeline.media.audio import write_flac
from pipeline.models.registry import ModelSet
from schemas.clip import ClipPlan, Scores
from schemas.face import POSE_FIELDS
from schemas.sample import SAMPLE_RATE_HZ
from schemas.scores import SyncScore

PREVIEW_RATE_HZ = 48000  # of the sound in a clip's mp4, for people who look at it
FRONTAL_DEG = 30.0
HIGH_QUALITY_PX = 512
LOW_RESOLUTION_PX = 256


def heard_in(samples: Float32[np.ndarray, " A"], models: ModelSet) -> ClipSound:
    """What is heard in 16 kHz mono samples."""
    voice = voice_activity(samples, models.vad())
    ratio = speech_ratio(voice, models.config.speech)
    return ClipSound(samples, voice, round(ratio, 4), round(float(np.sqrt(np.mean(np.square(samples)))), 6))


def silence(samples: Float32[np.ndarray, " A"]) -> ClipSound:
    """The sound of a clip whose source has none; ``samples`` are zeros."""
    return ClipSound(samples, np.zeros(0, np.float32), None, None)


def loudness_of(sound: ClipSound, plan: ClipPlan) -> Float32[np.ndarray, " T"] | None:
    """Of the speech band, per frame; None without sound."""
    return None if sound.ratio is None else speech_envelope(sound.samples, plan.num_frames, plan.fps)


def sound_members(samples: Float32[np.ndarray, " A"], plan: ClipPlan, models: ModelSet) -> dict[str, bytes]:
    """The members that are made of a clip's 16 kHz samples alone, by suffix.

    A part of a clip has its own: HuBERT's attention is global, so a slice of the whole clip's would be another.
    """
    speech, hubert = models.config.speech, models.hubert()
    members = {"flac": write_flac(samples, SAMPLE_RATE_HZ), "mel.npy": npy(log_mel(samples, speech))}
    if hubert is not None:
        members["hubert.npy"] = npy(hubert.features(samples, plan.num_frames, speech.hubert_rate_conversion))
    return members


def digests_of(members: Mapping[str, bytes]) -> dict[str, str]:
    """SHA-256 of a sample's members by suffix."""
    return {suffix: hashlib.sha256(data).hexdigest() for suffix, data in sorted(members.items())}


def verdict(measured: Measured, quality: QualityTap, reading: Reading) -> tuple[Scores, tuple[str, ...]]:
    """All scores of a clip and its flags; ``reading`` is what the meters add."""
    scores = _scores(measured, quality).model_copy(update=dict(reading.scores))
    return scores, (*_flags(scores), *reading.flags)


def _sync(measured: Measured) -> SyncScore:
    """The untrained sync score."""
    if not measured.has_opening:
        return SyncScore(status="unknown", why="no landmarks in this domain")
    if measured.loudness is None:
        return SyncScore(status="unknown", why="no audio")
    config, plan = measured.config.sync, measured.plan
    return score_sync(measured.opening, measured.valid, measured.loudness, config, plan.fps)


def _scores(measured: Measured, quality: QualityTap) -> Scores:
    """What every clip is judged by."""
    plan, valid, pose, confidence = measured.plan, measured.valid, measured.pose, measured.confidence
    seen = np.zeros(len(valid), bool) if confidence is None else confidence > 0
    turned = pose[:, POSE_FIELDS.index("confidence")] > 0
    yaw = pose[turned, POSE_FIELDS.index("yaw_deg")]
    return Scores(
        native_crop_px=plan.native_crop_px,
        padding=round(plan.padding, 5),
        face_ratio=round(float(valid.mean()), 5),
        face_px=round(plan.face.height_px, 2),
        num_neighbours=plan.num_neighbours,
        landmark_ratio=None if confidence is None else round(float(seen.mean()), 5),
        landmark_confidence=None if confidence is None or not seen.any() else round(float(confidence[seen].mean()), 5),
        yaw_abs_median_deg=round(float(np.median(np.abs(yaw))), 3) if turned.any() else None,
        yaw_range_deg=round(float(np.ptp(yaw)), 3) if turned.any() else None,
        speech_ratio=measured.sound.ratio,
        audio_rms=measured.sound.rms,
        sync=_sync(measured),
        sharpness=round(quality.sharpness, 3),
        exposure=round(quality.exposure, 5),
        motion=round(quality.motion, 6),
        internal_cut=round(quality.internal_cut, 4),
        duplicate_frame_ratio=round(quality.duplicate_frame_ratio, 4),
        hold_frames=round(quality.hold_frames, 2),
        track_purity=round(measured.face.purity, 4),
    )


def _flags(scores: Scores) -> tuple[str, ...]:
    """What a reader may want to filter by, in words."""
    flags = []
    if scores.native_crop_px < LOW_RESOLUTION_PX:
        flags.append("low_res")
    if scores.native_crop_px >= HIGH_QUALITY_PX:
        flags.append("hq")
    if scores.yaw_abs_median_deg is not None and scores.yaw_abs_median_deg < FRONTAL_DEG:
        flags.append("frontal")
    if scores.sync.status == "unknown":
        flags.append("sync_unknown")
    return tuple(flags)
