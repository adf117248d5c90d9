"""From a plan to a finished clip, in one pass over its frames.

The range is decoded once: every frame is cropped, encoded, landmarked and measured as it comes by,
so memory does not depend on the clip's size. The arrays are made from what that pass leaves behind.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from pipeline.clip.crop import boxes_on_crop, iter_crops, passing, seen_side_px
from pipeline.clip.headpose import AngleReader, estimate_poses
from pipeline.clip.landmarks import LandmarkTrack, estimate_landmarks
from pipeline.clip.meter import ClipSound, Measured, Reading
from pipeline.clip.meters import Measuring, meters_of, start
from pipeline.clip.motion import MotionTrack, estimate_motion
from pipeline.clip.prints import PrintTap
from pipeline.clip.prints_file import to_bytes
from pipeline.clip.quality import QualityTap
from pipeline.clip.record import PREVIEW_RATE_HZ, digests_of, heard_in, loudness_of, silence, sound_members, verdict
from pipeline.media.arrays import npy, read_npy
from pipeline.media.audio import read_audio
from pipeline.media.encode import ClipWriter
from pipeline.models.landmarkers import Landmarker
from pipeline.models.layouts import IBUG_68
from pipeline.models.registry import ModelSet
from schemas.clip import Clip, ClipPlan, Provenance
from schemas.config import BuildConfig
from schemas.errors import DecodeError
from schemas.face import XYXY, FacePath, num_points
from schemas.media import Video
from schemas.prints import PRINTS_FILE
from schemas.sample import SAMPLE_RATE_HZ

# A sighting vouches for frames up to this many strides of the detector away.
_SIGHTING_REACH = 1.01


@dataclass(frozen=True, slots=True)
class _Job:
    """The clip that is to be made, and with what; see :func:`make_clip`."""

    path: Path
    video: Video
    plan: ClipPlan
    face: FacePath
    domain: str
    models: ModelSet

    @property
    def config(self) -> BuildConfig:
        return self.models.config


@dataclass(frozen=True, slots=True)
class _Passed:
    """What the pass over the frames leaves behind. ``seen`` is in pixels of the copy that was measured."""

    writer: ClipWriter
    seen: LandmarkTrack
    faces: LandmarkTrack
    quality: QualityTap
    prints: PrintTap
    angles: AngleReader | None
    measuring: Measuring


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
    job = _Job(path, video, plan, face, domain, models)
    passed = _pass(job)
    motion = estimate_motion(passed.faces.raw, passed.faces.readable, passed.faces.layout or IBUG_68)
    measured = _measured(job, passed, motion)
    reading = passed.measuring.finish(measured)
    scores, flags = verdict(measured, passed.quality, reading)
    files = _members(job, passed, measured, reading)
    landmarker = models.landmarker(domain)
    clip = Clip(
        plan=plan,
        face=face,
        domain=domain,
        landmark_scheme=landmarker.scheme if landmarker else "none",
        scores=scores,
        provenance=_provenance(job, tool_version),
        flags=flags,
        files=digests_of(files),
    )
    mel = None if measured.sound.ratio is None else read_npy(files["mel.npy"])
    layout = passed.faces.layout or IBUG_68
    prints = passed.prints.finish(passed.seen.raw, passed.faces.readable, motion.mouth_raw, mel, layout)
    return clip, {**files, PRINTS_FILE: to_bytes(prints)}


def _provenance(job: _Job, tool_version: str) -> Provenance:
    return Provenance(
        tool_version=tool_version,
        profile=job.config.profile,
        models=job.models.files.digests(job.domain),
        native_fps=f"{job.video.average_fps.numerator}/{job.video.average_fps.denominator}",
        detector=job.face.detector,
    )


# ---- frames ------------------------------------------------------------------------------------------------------


def _pass(job: _Job) -> _Passed:
    """Every frame once: cut, encoded, landmarked, and shown to all taps."""
    config, plan, models = job.config, job.plan, job.models
    seen_px = seen_side_px(config.crop)
    boxes = boxes_on_crop(job.face, plan, seen_px)
    quality, prints = QualityTap(), PrintTap(plan.num_frames, plan.fps)
    angles = AngleReader(network) if (network := models.pose_network(job.domain)) else None
    measuring = start(meters_of(config, job.domain), models, job.domain, plan, seen_px)
    writer = ClipWriter(config.crop.size_px, plan.fps, crf=config.crop.crf, preset=config.crop.preset)
    if job.video.audio is not None:
        writer.declare_audio(PREVIEW_RATE_HZ)
    repeats: list[bool] = []
    crops = iter_crops(job.path, job.video, plan, config.crop.size_px, repeats)
    taps = [quality, prints, *([angles] if angles else []), *measuring.taps("copy")]
    frames = passing(crops, boxes, seen_px, writer, taps, measuring.taps("whole"))
    seen = _landmarks(frames, boxes, models.landmarker(job.domain), config, plan)
    if len(repeats) != plan.num_frames:
        raise DecodeError(f"{job.path.name} holds no frame at {plan.span.start_s:.3f} s: the file is damaged there")
    faces = seen.scaled(config.crop.size_px / seen_px)
    return _Passed(writer, seen, faces, quality, prints, angles, measuring)


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


# ---- what follows from them --------------------------------------------------------------------------------------


def _measured(job: _Job, passed: _Passed, motion: MotionTrack) -> Measured:
    faces, config = passed.faces, job.config
    has_landmarker = job.models.landmarker(job.domain) is not None
    sound = _sound(job)
    return Measured(
        plan=job.plan,
        face=job.face,
        config=config,
        points=faces.points,
        readable=faces.readable,
        confidence=faces.confidence if has_landmarker else None,
        pose=_poses(job, passed),
        motion=motion.channels,
        opening=motion.mouth_raw,
        has_opening=faces.layout is not None,
        valid=_validity(job, faces, has_landmarker),
        sound=sound,
        loudness=loudness_of(sound, job.plan),
    )


def _poses(job: _Job, passed: _Passed) -> Float32[np.ndarray, "T 7"]:
    faces, side_px = passed.faces, job.config.crop.size_px
    by_points = "pnp" if job.models.domain(job.domain).pose == "pnp" else "mesh"
    turns = passed.angles.angles if passed.angles else by_points
    return estimate_poses(faces.raw, faces.readable, side_px, side_px, faces.layout or IBUG_68, turns)


def _validity(job: _Job, faces: LandmarkTrack, has_landmarker: bool) -> Bool[np.ndarray, " T"]:
    """A face is there: the landmarker saw it, or, where none covers the domain, the detector did nearby."""
    if has_landmarker:
        return faces.confidence > 0
    plan, stride = job.plan, job.models.domain(job.domain).faces.stride
    times: Float64[np.ndarray, " T"] = plan.span.start_s + np.arange(plan.num_frames) / plan.fps
    gaps = np.abs(times[:, None] - np.array(job.face.times_s)[None, :]).min(axis=1)
    return gaps <= _SIGHTING_REACH * stride / float(job.video.average_fps)


def _sound(job: _Job) -> ClipSound:
    plan, audio = job.plan, job.video.audio
    num_samples = plan.num_frames * SAMPLE_RATE_HZ // plan.fps
    if audio is None:
        return silence(np.zeros(num_samples, np.float32))
    return heard_in(read_audio(job.path, audio.index, plan.span.start_s, num_samples), job.models)


def _members(job: _Job, passed: _Passed, measured: Measured, reading: Reading) -> dict[str, bytes]:
    plan, audio = job.plan, job.video.audio
    if audio is not None:
        num_samples = plan.num_frames * PREVIEW_RATE_HZ // plan.fps
        passed.writer.add_audio(read_audio(job.path, audio.index, plan.span.start_s, num_samples, PREVIEW_RATE_HZ))
    return {
        "mp4": passed.writer.finish(),
        "landmarks.npy": npy(passed.faces.points),
        "landmarks_smooth.npy": npy(passed.faces.smoothed),
        "pose.npy": npy(measured.pose),
        "motion.npy": npy(measured.motion),
        "valid.npy": npy(measured.valid),
        **sound_members(measured.sound.samples, plan, job.models),
        **{name: npy(array) for name, array in reading.members.items()},
    }
