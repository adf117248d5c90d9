"""Whose sound is it? The true sound of every talking clip against those of all others, by each way to tell.

A sound that is shorter than the clip is repeated, a longer one cut. Two GRID clips last three seconds, so the least
length is lowered to that here; a build says *unknown* there.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from pipeline.analyse import analyse_run, join_runs, windows_of
from pipeline.crop import plan_clips
from pipeline.cutting import MEASURED_PX, boxes_on_crop, iter_crops
from pipeline.landmarks import estimate_landmarks
from pipeline.media.audio import read_audio
from pipeline.media.pixels import to_rgb
from pipeline.models.layouts import FACE_MESH_468
from pipeline.models.registry import ModelSet
from pipeline.models.speaker import LightAsd
from pipeline.motion import estimate_motion
from pipeline.prints import PrintMeter
from pipeline.probe import probe
from pipeline.ridge import score_ridge
from pipeline.speaker import LowerFaces, heard_frames, score_speaker
from pipeline.speech import log_mel, speech_envelope, voice_activity
from pipeline.sync import score_sync
from schemas.accuracy import SyncRow
from schemas.analysis import PlannedClip
from schemas.config import RidgeConfig, SpeakerConfig, SyncConfig
from schemas.media import Video
from schemas.prints import Prints
from schemas.sample import SAMPLE_RATE_HZ
from schemas.scores import SpeakerScore, SyncScore

# Every clip of the assets whose one face is heard to speak.
TALKERS = (
    ("WDA_AlexandriaOcasioCortez_000.mp4", "real"),
    ("tps_driving.mp4", "real"),
    ("bbaf2n.mpg", "real"),
    ("id2_vcd_swwp2s.mpg", "real"),
    ("man_FaceTalk_170809_00138_TA_condition_FaceTalk_170725_00137_TA_audio.mp4", "mesh"),
)
_MIN_S = 2.9

Score = SyncScore | SpeakerScore


@dataclass(frozen=True, slots=True)
class _Take:
    """A talking clip as the models see it, and its own sound."""

    media: str
    domain: str
    fps: int
    lower_faces: UInt8[np.ndarray, "T 112 112"]
    opening: Float32[np.ndarray, " T"]
    valid: Bool[np.ndarray, " T"]
    prints: Prints
    samples: Float32[np.ndarray, " A"]

    @property
    def num_frames(self) -> int:
        return len(self.valid)


def sync_rows(assets: Path, models: ModelSet, talkers: Sequence[tuple[str, str]] = TALKERS) -> list[SyncRow]:
    """One row per talker and model: untrained, ridge (fitted on the other talkers) and Light-ASD.

    Args:
        assets: the folder of media.
        models: of the embedded profile; find the weights file.
        talkers: file names under ``video`` and their domains.
    """
    takes = [_take(assets / "video" / name, domain, models) for name, domain in talkers]
    network = LightAsd(models.file(SpeakerConfig().weights).path)
    ways: dict[str, Callable[[_Take, _Take], Score]] = {
        "untrained": _untrained,
        "ridge": lambda take, voice: _ridge(take, voice, takes),
        "light_asd": lambda take, voice: _light_asd(take, voice, network, models),
    }
    return [_row(name, way, take, takes) for name, way in ways.items() for take in takes]


def _row(name: str, way: Callable[[_Take, _Take], Score], take: _Take, takes: Sequence[_Take]) -> SyncRow:
    began = time.process_time()
    own = way(take, take)
    took_s = time.process_time() - began
    others = [way(take, voice).score for voice in takes if voice is not take]
    rank = len(takes)
    if own.score is not None:
        rank = 1 + sum(other is not None and other >= own.score for other in others)
    return SyncRow(
        model=name,
        domain=take.domain,
        media=take.media,
        num_frames=take.num_frames,
        num_sounds=len(takes),
        rank=rank,
        score=own.score,
        z=own.z,
        p=own.p,
        ms_per_s=round(1000 * took_s * take.fps / take.num_frames, 1),
    )


def _sound_for(take: _Take, voice: _Take) -> Float32[np.ndarray, " A"]:
    return np.resize(voice.samples, len(take.samples))


def _untrained(take: _Take, voice: _Take) -> SyncScore:
    envelope = speech_envelope(_sound_for(take, voice), take.num_frames, take.fps)
    return score_sync(take.opening, take.valid, envelope, SyncConfig(min_s=_MIN_S), take.fps)


def _ridge(take: _Take, voice: _Take, takes: Sequence[_Take]) -> SyncScore:
    prints = {one.media: one.prints for one in takes}
    prints[take.media] = replace(take.prints, bands=np.resize(voice.prints.bands, take.prints.bands.shape))
    config = RidgeConfig(min_s=_MIN_S, min_other_groups=1)
    teachers = [one.media for one in takes if one is not take]
    groups = {one.media: [one.media] for one in takes}
    return score_ridge(groups, teachers, prints.__getitem__, config, take.fps)[take.media]


def _light_asd(take: _Take, voice: _Take, network: LightAsd, models: ModelSet) -> SpeakerScore:
    samples = _sound_for(take, voice)
    probabilities = voice_activity(samples, models.vad())
    heard = heard_frames(probabilities, models.config.speech.vad_threshold, take.num_frames, take.fps)
    loudness = speech_envelope(samples, take.num_frames, take.fps)
    return score_speaker(take.lower_faces, take.valid, samples, heard, loudness, network, SpeakerConfig(), take.fps)


def _take(path: Path, domain: str, models: ModelSet) -> _Take:
    """The longest clip of a file, by the stages of the embedded profile."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    video = probe(path, "bench", sha256, models.config.probe)
    planned = max(_plans(path, video, domain, models), key=lambda one: one.plan.num_frames)
    plan, size_px = planned.plan, models.config.crop.size_px
    seen_px = min(size_px, MEASURED_PX)
    boxes = boxes_on_crop(planned.face, plan, seen_px)
    crops = [to_rgb(crop, seen_px) for crop in iter_crops(path, video, plan, size_px, [])]
    lower_faces, meter = LowerFaces(), PrintMeter(plan.num_frames, plan.fps)
    for crop, box in zip(crops, boxes, strict=True):
        lower_faces.add(crop, box)
        meter.add(crop, box)
    landmarker = models.landmarker(domain)
    if landmarker is None or video.audio is None:
        raise ValueError(f"{path.name}: the bench needs a sound and a domain with landmarks")
    faces = estimate_landmarks(crops, boxes, landmarker, models.config.landmarks, plan.fps)
    layout = faces.layout or FACE_MESH_468
    motion = estimate_motion(faces.raw, faces.readable, layout)
    num_samples = plan.num_frames * SAMPLE_RATE_HZ // plan.fps
    samples = read_audio(path, video.audio.index, plan.span.start_s, num_samples)
    mel = log_mel(samples, models.config.speech)
    return _Take(
        media=path.name,
        domain=domain,
        fps=plan.fps,
        lower_faces=lower_faces.faces,
        opening=motion.mouth_raw,
        valid=faces.confidence > 0,
        prints=meter.finish(faces.raw, faces.readable, motion.mouth_raw, mel, layout),
        samples=samples,
    )


def _plans(path: Path, video: Video, domain: str, models: ModelSet) -> list[PlannedClip]:
    config = models.domain(domain)
    (window,) = windows_of(video, config.shots.run_s, None)
    run, times, rows = analyse_run(path, video, config, models.detectors(domain), models.presence(domain), window)
    shots, tracks = join_runs([run], times, [rows], config.faces)
    return plan_clips(video, shots, tracks, times, models.config.crop, stride=config.faces.stride)[0]
