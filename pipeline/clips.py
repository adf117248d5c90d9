"""From a plan to a finished clip, in one pass over its frames.

The range is decoded once: every frame is cropped, encoded, landmarked and measured as it comes by,
so memory does not depend on the clip's size. The arrays are made from what that pass leaves behind.
"""

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from av.video import VideoFrame
from jaxtyping import Bool, Float32, Float64, UInt8

from pipeline.errors import DecodeError
from pipeline.headpose import estimate_poses
from pipeline.landmarks import LandmarkTrack, estimate_landmarks
from pipeline.media.audio import read_audio, write_flac
from pipeline.media.decode import Frame, iter_at_rate, iter_frames
from pipeline.media.encode import ClipWriter
from pipeline.media.pixels import to_coded, to_rgb
from pipeline.models.landmarkers import Landmarker
from pipeline.models.layouts import IBUG_68
from pipeline.models.registry import ModelSet
from pipeline.motion import MotionTrack, estimate_motion
from pipeline.prints import PrintMeter, to_bytes
from pipeline.quality import QualityMeter
from pipeline.speech import log_mel, speech_envelope, speech_ratio, voice_activity
from pipeline.sync import score_sync
from schemas.base import Box
from schemas.clip import Clip, ClipPlan, Provenance, Scores
from schemas.config import BuildConfig
from schemas.face import POSE_FIELDS, XYXY, FacePath, num_points
from schemas.media import Video
from schemas.prints import PRINTS_FILE
from schemas.sample import SAMPLE_RATE_HZ
from schemas.scores import SyncScore

if TYPE_CHECKING:  # starts a network runtime, which only some configurations need
    from pipeline.models.pose_networks import PoseNetwork

_PREVIEW_RATE_HZ = 48000
# Side of the copy on which a crop is measured. The networks see 192 px of a face and less, and averaging the picture
# once for all of them is cheaper, and kinder to fine detail, than each sampling 512 px for itself.
MEASURED_PX = 256
# A sighting vouches for frames up to this many strides of the detector away.
_SIGHTING_REACH = 1.01
FRONTAL_DEG = 30.0
HIGH_QUALITY_PX = 512
LOW_RESOLUTION_PX = 256


@dataclass(frozen=True, slots=True)
class _Sound:
    """A clip's audio and what was heard in it."""

    samples: Float32[np.ndarray, " A"]
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
        writer.declare_audio(_PREVIEW_RATE_HZ)
    repeats: list[bool] = []
    crops = _crops(path, video, plan, config.crop.size_px, repeats)
    pose_network, angles = models.pose_network(domain), []
    frames = _passing(crops, boxes, seen_px, writer, [meter, print_meter], pose_network, angles)
    landmarker = models.landmarker(domain)
    seen = _landmarks(frames, boxes, landmarker, config, plan)
    if len(repeats) != plan.num_frames:
        raise DecodeError(f"{path.name} holds no frame at {plan.span.start_s:.3f} s: the file is damaged there")
    faces = seen.scaled(config.crop.size_px / seen_px)
    layout = faces.layout or IBUG_68  # without one no frame is readable
    motion = estimate_motion(faces.raw, faces.readable, layout)
    valid = _validity(face, plan, video, faces, models.domain(domain).faces.stride, landmarker is not None)
    sound = _sound(path, video, plan, models)
    sync = _sync(motion, valid, sound, plan, config, faces.layout is not None)
    method = "pnp" if models.domain(domain).pose == "pnp" else "mesh"
    turns = np.array(angles, np.float32) if pose_network else method
    pose = estimate_poses(faces.raw, faces.readable, config.crop.size_px, config.crop.size_px, layout, turns)
    files = _members(writer, path, video, plan, faces, pose, motion, valid, sound, models)
    scores = _scores(plan, face, faces, pose, valid, meter, sound, sync, landmarker is not None)
    clip = Clip(
        plan=plan,
        face=face,
        domain=domain,
        landmark_scheme=landmarker.scheme if landmarker else "none",
        scores=scores,
        provenance=Provenance(
            tool_version=tool_version,
            profile=config.profile,
            models=models.files(domain),
            native_fps=f"{video.average_fps.numerator}/{video.average_fps.denominator}",
            detector=face.detector,
        ),
        flags=_flags(scores),
        files={suffix: hashlib.sha256(data).hexdigest() for suffix, data in sorted(files.items())},
    )
    mel = None if sound.ratio is None else np.load(io.BytesIO(files["mel.npy"]), allow_pickle=False)
    prints = print_meter.finish(seen.raw, faces.readable, motion.mouth_raw, mel, layout)
    return clip, {**files, PRINTS_FILE: to_bytes(prints)}


def boxes_on_crop(face: FacePath, plan: ClipPlan, size_px: int) -> list[XYXY]:
    """The face box of every output frame, in pixels of the crop, interpolated between sightings."""
    times = plan.span.start_s + np.arange(plan.num_frames) / plan.fps
    seen = np.array(face.times_s)
    path = np.array(face.boxes)
    at = np.stack([np.interp(times, seen, path[:, column]) for column in range(4)], axis=1)
    origin = np.array([plan.square.x0, plan.square.y0] * 2)
    scaled = (at - origin) * (size_px / plan.square.width_px)
    return [(float(a), float(b), float(c), float(d)) for a, b, c, d in scaled]


def cut_square(frame: Frame, upright: tuple[int, int], square: Box, size_px: int) -> VideoFrame:
    """Cut a square (whole pixels of the upright picture, may reach beyond it: black) and scale it to ``size_px``.

    The result is as the encoder wants it; see :func:`pipeline.media.pixels.to_rgb`.
    """
    x0, y0, x1, y1 = (round(v) for v in (square.x0, square.y0, square.x1, square.y1))
    inside = max(x0, 0), max(y0, 0), min(x1, upright[0]), min(y1, upright[1])
    if inside == (x0, y0, x1, y1):
        return frame.crop_coded(inside, upright, (size_px, size_px))
    scale = size_px / (x1 - x0)
    left, top = round((inside[0] - x0) * scale), round((inside[1] - y0) * scale)
    right, bottom = round((inside[2] - x0) * scale), round((inside[3] - y0) * scale)
    canvas = np.zeros((size_px, size_px, 3), np.uint8)
    canvas[top:bottom, left:right] = frame.crop(inside, upright, (right - left, bottom - top), "rgb24")
    return to_coded(canvas)


def _crops(path: Path, video: Video, plan: ClipPlan, size_px: int, repeats: list[bool]) -> Iterator[VideoFrame]:
    last: VideoFrame | None = None
    upright = (video.width_px, video.height_px)
    frames = _within(iter_frames(path, video, start_s=plan.span.start_s), plan.span.stop_s)
    for frame, repeated in iter_at_rate(frames, plan.span.start_s, plan.fps, plan.num_frames):
        if last is None or not repeated:
            last = cut_square(frame, upright, plan.square, size_px)
        repeats.append(repeated)
        yield last


def _within(frames: Iterator[Frame], stop_s: float) -> Iterator[Frame]:
    """Frames before the span's end: the next shot's first frame must never be the nearest."""
    for frame in frames:
        if frame.time_s >= stop_s - 1e-9:
            return
        yield frame


def _passing(
    crops: Iterator[VideoFrame],
    boxes: list[XYXY],
    seen_px: int,
    writer: ClipWriter,
    meters: list[QualityMeter | PrintMeter],
    pose_network: "PoseNetwork | None",
    angles: list[tuple[float, float, float]],
) -> Iterator[UInt8[np.ndarray, "S S 3"]]:
    """Encode each crop, and measure a smaller copy of it on its way to the landmarker."""
    for crop, box in zip(crops, boxes, strict=False):
        writer.add(crop)
        image = to_rgb(crop, seen_px)
        for meter in meters:
            meter.add(image, box)
        if pose_network is not None:
            angles.append(pose_network.read(image, box))
        yield image


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


def _sound(path: Path, video: Video, plan: ClipPlan, models: ModelSet) -> _Sound:
    num_samples = plan.num_frames * SAMPLE_RATE_HZ // plan.fps
    if video.audio is None:
        return _Sound(np.zeros(num_samples, np.float32), None, None)
    samples = read_audio(path, video.audio.index, plan.span.start_s, num_samples)
    heard = voice_activity(samples, models.vad())
    ratio = speech_ratio(heard, models.config.speech)
    return _Sound(samples, round(ratio, 4), round(float(np.sqrt(np.mean(np.square(samples)))), 6))


def _sync(
    motion: MotionTrack,
    valid: Bool[np.ndarray, " T"],
    sound: _Sound,
    plan: ClipPlan,
    config: BuildConfig,
    covered: bool,
) -> SyncScore:
    if not covered:
        return SyncScore(status="unknown", why="no landmarks in this domain")
    if sound.ratio is None:
        return SyncScore(status="unknown", why="no audio")
    envelope = speech_envelope(sound.samples, plan.num_frames, plan.fps)
    return score_sync(motion.mouth_raw, valid, envelope, config.sync, plan.fps)


def _members(
    writer: ClipWriter,
    path: Path,
    video: Video,
    plan: ClipPlan,
    faces: LandmarkTrack,
    pose: Float32[np.ndarray, "T 7"],
    motion: MotionTrack,
    valid: Bool[np.ndarray, " T"],
    sound: _Sound,
    models: ModelSet,
) -> dict[str, bytes]:
    config = models.config
    if video.audio is not None:
        num_samples = plan.num_frames * _PREVIEW_RATE_HZ // plan.fps
        writer.add_audio(read_audio(path, video.audio.index, plan.span.start_s, num_samples, _PREVIEW_RATE_HZ))
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


def _scores(
    plan: ClipPlan,
    face: FacePath,
    faces: LandmarkTrack,
    pose: Float32[np.ndarray, "T 7"],
    valid: Bool[np.ndarray, " T"],
    meter: QualityMeter,
    sound: _Sound,
    sync: SyncScore,
    covered: bool,
) -> Scores:
    seen = faces.confidence > 0
    turned = pose[:, POSE_FIELDS.index("confidence")] > 0
    yaw = pose[turned, POSE_FIELDS.index("yaw_deg")]
    return Scores(
        native_crop_px=plan.native_crop_px,
        padding=round(plan.padding, 5),
        face_ratio=round(float(valid.mean()), 5),
        face_px=round(plan.face.height_px, 2),
        num_neighbours=plan.num_neighbours,
        landmark_ratio=round(float(seen.mean()), 5) if covered else None,
        landmark_confidence=round(float(faces.confidence[seen].mean()), 5) if seen.any() else None,
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


def _flags(scores: Scores) -> tuple[str, ...]:
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
