"""From a plan to a finished clip, in one pass over its frames.

The range is decoded once: every frame is cropped, encoded, landmarked and measured as it comes by,
so memory does not depend on the clip's size. The arrays are made from what that pass leaves behind.
"""

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from pipeline.clip.crop import MEASURED_PX, Tap, boxes_on_crop, iter_crops, passing
from pipeline.clip.embedding import EmbeddingMeter
from pipeline.clip.expression import ExpressionMeter
from pipeline.clip.headpose import AngleReader, estimate_poses
from pipeline.clip.landmarks import LandmarkTrack, estimate_landmarks
from pipeline.clip.motion import MotionTrack, estimate_motion
from pipeline.clip.optional_scores import OptionalScores
from pipeline.clip.prints import PrintMeter
from pipeline.clip.prints_file import to_bytes
from pipeline.clip.quality import QualityMeter
from pipeline.clip.speaker import LowerFaces, heard_frames, score_speaker
from pipeline.clip.speech import log_mel, speech_envelope, speech_ratio, voice_activity
from pipeline.clip.sync import score_sync
from pipeline.media.audio import read_audio, write_flac
from pipeline.media.encode import ClipWriter
from pipeline.models.landmarkers import Landmarker
from pipeline.models.layouts import IBUG_68
from pipeline.models.registry import ModelSet
from pipeline.models.speaker import LightAsd
from schemas.clip import Clip, ClipPlan, Provenance, Scores
from schemas.config import BuildConfig
from schemas.errors import DecodeError
from schemas.face import POSE_FIELDS, XYXY, FacePath, num_points
from schemas.media import Video
from schemas.prints import EMBEDDING_FILE, PRINTS_FILE
from schemas.router import DOUBTFUL_FLAG
from schemas.sample import SAMPLE_RATE_HZ
from schemas.scores import SpeakerScore, SyncScore

PREVIEW_RATE_HZ = 48000
# A sighting vouches for frames up to this many strides of the detector away.
_SIGHTING_REACH = 1.01
FRONTAL_DEG = 30.0
HIGH_QUALITY_PX = 512
LOW_RESOLUTION_PX = 256
NO_IDENTITY = "no_identity"


@dataclass(frozen=True, slots=True)
class Sound:
    """A clip's audio and what was heard in it."""

    samples: Float32[np.ndarray, " A"]
    voice: Float32[np.ndarray, " N"]  # probability of speech per 32 ms
    ratio: float | None
    rms: float | None


def make_clip(
    path: Path, video: Video, plan: ClipPlan, face: FacePath, domain: str, models: ModelSet, tool_version: str
) -> tuple[Clip, dict[str, bytes]]:
    """Cut, crop, encode and annotate one clip.

    Args:
        path: the local file.
        video: what probing found.
        plan: span and square.
        face: where the face was seen that the plan follows.
        domain: the source's domain.
        models: loaded once per process.
        tool_version: recorded in the provenance.

    Returns:
        The record, the sample's members by suffix, and beside them the prints, which are no member.

    Raises:
        DecodeError: when the range yields no frame.
    """
    config = models.config
    seen_px = min(config.crop.size_px, MEASURED_PX)
    boxes = boxes_on_crop(face, plan, seen_px)
    meter, print_meter = QualityMeter(), PrintMeter(plan.num_frames, plan.fps)
    writer = ClipWriter(config.crop.size_px, plan.fps, crf=config.crop.crf, preset=config.crop.preset)
    if video.audio is not None:
        writer.declare_audio(PREVIEW_RATE_HZ)
    repeats: list[bool] = []
    crops = iter_crops(path, video, plan, config.crop.size_px, repeats)
    speaker, lower_faces = models.speaker(domain), LowerFaces()
    angles = AngleReader(network) if (network := models.pose_network(domain)) else None
    expression = ExpressionMeter(network, plan, config.crop.size_px) if (network := models.expression(domain)) else None
    optional = OptionalScores(models, domain, plan, seen_px)
    taps: list[Tap] = [meter, print_meter, *([lower_faces] if speaker else []), *([angles] if angles else [])]
    embedding = _embedding_meter(models, domain, plan)
    whole_taps: list[Tap] = [*([expression] if expression else []), *([embedding] if embedding else [])]
    frames = passing(crops, boxes, seen_px, writer, [*taps, *optional.taps], whole_taps)
    landmarker = models.landmarker(domain)
    seen = _landmarks(frames, boxes, landmarker, config, plan)
    if len(repeats) != plan.num_frames:
        raise DecodeError(f"{path.name} holds no frame at {plan.span.start_s:.3f} s: the file is damaged there")
    faces = seen.scaled(config.crop.size_px / seen_px)
    layout = faces.layout or IBUG_68  # without one no frame is readable
    motion = estimate_motion(faces.raw, faces.readable, layout)
    valid = _validity(face, plan, video, faces, models.domain(domain).faces.stride, landmarker is not None)
    sound = _sound(path, video, plan, models)
    sync = sync_of(motion.mouth_raw, valid, sound, plan, config, faces.layout is not None)
    turns = angles.angles if angles else "pnp" if models.domain(domain).pose == "pnp" else "mesh"
    pose = estimate_poses(faces.raw, faces.readable, config.crop.size_px, config.crop.size_px, layout, turns)
    files = _members(writer, path, video, plan, faces, pose, motion, valid, sound, models)
    if expression:
        logits, features = expression.finish()
        files |= {"emotion.npy": npy(logits), "emotion_feat.npy": npy(features)}
    known = embedding.finish(faces.points, faces.readable) if embedding else None
    if known is not None:
        files[EMBEDDING_FILE] = npy(known)
    confidence = faces.confidence if landmarker else None
    scores = scores_of(plan, face, confidence, pose, valid, meter, sound, sync)
    if speaker:
        scores = scores.model_copy(update={"speaker": speaker_of(lower_faces, valid, sound, plan, config, speaker)})
    scores = scores.model_copy(update=optional.measured())
    clip = Clip(
        plan=plan,
        face=face,
        domain=domain,
        landmark_scheme=landmarker.scheme if landmarker else "none",
        scores=scores,
        provenance=Provenance(
            tool_version=tool_version,
            profile=config.profile,
            models=models.files.digests(domain),
            native_fps=f"{video.average_fps.numerator}/{video.average_fps.denominator}",
            detector=face.detector,
        ),
        flags=(*flags_of(scores), *((NO_IDENTITY,) if embedding and known is None else ())),
        files=digests_of(files),
    )
    mel = None if sound.ratio is None else np.load(io.BytesIO(files["mel.npy"]), allow_pickle=False)
    prints = print_meter.finish(seen.raw, faces.readable, motion.mouth_raw, mel, layout)
    return clip, {**files, PRINTS_FILE: to_bytes(prints)}


def _embedding_meter(models: ModelSet, domain: str, plan: ClipPlan) -> EmbeddingMeter | None:
    network, settings = models.identity(domain), models.config.identity
    return EmbeddingMeter(network, plan.num_frames, settings.num_frames) if network and settings else None


def _landmarks(
    frames: Iterator[UInt8[np.ndarray, "S S 3"]],
    boxes: list[XYXY],
    landmarker: Landmarker | None,
    config: BuildConfig,
    plan: ClipPlan,
) -> LandmarkTrack:
    if landmarker is not None:
        return estimate_landmarks(frames, boxes, landmarker, config.landmarks, plan.fps)
    for _ in frames:
        pass
    points = np.zeros((plan.num_frames, num_points("none"), 3), np.float32)
    return LandmarkTrack(points, points, points, np.zeros(plan.num_frames, np.float32), None)


def _validity(
    face: FacePath, plan: ClipPlan, video: Video, faces: LandmarkTrack, stride: int, has_landmarker: bool
) -> Bool[np.ndarray, " T"]:
    """A face is there: the landmarker saw it, or, where none covers the domain, the detector did nearby."""
    if has_landmarker:
        return faces.confidence > 0
    times: Float64[np.ndarray, " T"] = plan.span.start_s + np.arange(plan.num_frames) / plan.fps
    gaps = np.abs(times[:, None] - np.array(face.times_s)[None, :]).min(axis=1)
    return gaps <= _SIGHTING_REACH * stride / float(video.average_fps)


def _sound(path: Path, video: Video, plan: ClipPlan, models: ModelSet) -> Sound:
    num_samples = plan.num_frames * SAMPLE_RATE_HZ // plan.fps
    if video.audio is None:
        return Sound(np.zeros(num_samples, np.float32), np.zeros(0, np.float32), None, None)
    return sound_of(read_audio(path, video.audio.index, plan.span.start_s, num_samples), models)


def sound_of(samples: Float32[np.ndarray, " A"], models: ModelSet) -> Sound:
    """What is heard in 16 kHz mono samples."""
    heard = voice_activity(samples, models.vad())
    ratio = speech_ratio(heard, models.config.speech)
    return Sound(samples, heard, round(ratio, 4), round(float(np.sqrt(np.mean(np.square(samples)))), 6))


def sync_of(
    opening: Float32[np.ndarray, " T"],
    valid: Bool[np.ndarray, " T"],
    sound: Sound,
    plan: ClipPlan,
    config: BuildConfig,
    covered: bool,
) -> SyncScore:
    """The untrained sync score; ``covered`` says whether the mouth's opening was measured at all."""
    if not covered:
        return SyncScore(status="unknown", why="no landmarks in this domain")
    if sound.ratio is None:
        return SyncScore(status="unknown", why="no audio")
    envelope = speech_envelope(sound.samples, plan.num_frames, plan.fps)
    return score_sync(opening, valid, envelope, config.sync, plan.fps)


def speaker_of(
    lower_faces: LowerFaces,
    valid: Bool[np.ndarray, " T"],
    sound: Sound,
    plan: ClipPlan,
    config: BuildConfig,
    network: LightAsd,
) -> SpeakerScore | None:
    """The speaker network's score, where one is configured."""
    if config.speaker is None:
        return None
    if sound.ratio is None:
        return SpeakerScore(status="unknown", why="no audio")
    heard = heard_frames(sound.voice, config.speech.vad_threshold, plan.num_frames, plan.fps)
    loudness = speech_envelope(sound.samples, plan.num_frames, plan.fps)
    return score_speaker(lower_faces.faces, valid, sound.samples, heard, loudness, network, config.speaker, plan.fps)


def _members(
    writer: ClipWriter,
    path: Path,
    video: Video,
    plan: ClipPlan,
    faces: LandmarkTrack,
    pose: Float32[np.ndarray, "T 7"],
    motion: MotionTrack,
    valid: Bool[np.ndarray, " T"],
    sound: Sound,
    models: ModelSet,
) -> dict[str, bytes]:
    config = models.config
    if video.audio is not None:
        num_samples = plan.num_frames * PREVIEW_RATE_HZ // plan.fps
        writer.add_audio(read_audio(path, video.audio.index, plan.span.start_s, num_samples, PREVIEW_RATE_HZ))
    files = {
        "mp4": writer.finish(),
        "flac": write_flac(sound.samples, SAMPLE_RATE_HZ),
        "landmarks.npy": npy(faces.points),
        "landmarks_smooth.npy": npy(faces.smoothed),
        "pose.npy": npy(pose),
        "motion.npy": npy(motion.channels),
        "valid.npy": npy(valid),
        "mel.npy": npy(log_mel(sound.samples, config.speech)),
    }
    hubert = models.hubert()
    if hubert is not None:
        files["hubert.npy"] = npy(hubert.features(sound.samples, plan.num_frames, config.speech.hubert_rate_conversion))
    return files


def npy(array: np.ndarray) -> bytes:
    """An array as the bytes of a .npy file, without pickle."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def digests_of(files: dict[str, bytes]) -> dict[str, str]:
    """SHA-256 of a sample's members by suffix."""
    return {suffix: hashlib.sha256(data).hexdigest() for suffix, data in sorted(files.items())}


def scores_of(
    plan: ClipPlan,
    face: FacePath,
    confidence: Float32[np.ndarray, " T"] | None,
    pose: Float32[np.ndarray, "T 7"],
    valid: Bool[np.ndarray, " T"],
    meter: QualityMeter,
    sound: Sound,
    sync: SyncScore,
) -> Scores:
    """All scores but the speaker's; ``confidence`` is the landmarker's per frame, None where none covers the domain."""
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
        speech_ratio=sound.ratio,
        audio_rms=sound.rms,
        sync=sync,
        sharpness=round(meter.sharpness, 3),
        exposure=round(meter.exposure, 5),
        motion=round(meter.motion, 6),
        internal_cut=round(meter.internal_cut, 4),
        duplicate_frame_ratio=round(meter.duplicate_frame_ratio, 4),
        hold_frames=round(meter.hold_frames, 2),
        track_purity=round(face.purity, 4),
    )


def flags_of(scores: Scores) -> tuple[str, ...]:
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
    if scores.router is not None and scores.router.doubtful:
        flags.append(DOUBTFUL_FLAG)
    return tuple(flags)
