"""Talking clips as a build sees them, each with its own sound: filmed ones, and rendered ones whose truth is known.

They go through the stages of the embedded profile from the file on, so that decoding, timing, tracking and cropping
are part of what is measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from pipeline.analyse.plan import plan_clips
from pipeline.analyse.runs import analyse_run, join_runs
from pipeline.analyse.windows import windows_of
from pipeline.clip.crop import MEASURED_PX, boxes_on_crop, iter_crops
from pipeline.clip.landmarks import estimate_landmarks
from pipeline.clip.motion import estimate_motion
from pipeline.clip.prints import PrintTap
from pipeline.clip.speaker import LowerFaces
from pipeline.clip.speech import log_mel
from pipeline.demo.films import DEMO_FILMS, DemoFilm
from pipeline.demo.sources import ShotTruth, render_film, timeline
from pipeline.fetch.probe import probe
from pipeline.media.audio import read_audio
from pipeline.media.pixels import to_rgb
from pipeline.models.layouts import FACE_MESH_468
from pipeline.models.registry import ModelSet
from schemas.analysis import PlannedClip
from schemas.face import XYXY
from schemas.files import sha256_of_file
from schemas.media import Video
from schemas.prints import Prints
from schemas.sample import SAMPLE_RATE_HZ

# Every clip of the assets whose one face is heard to speak.
TALKERS = (
    ("WDA_AlexandriaOcasioCortez_000.mp4", "real"),
    ("tps_driving.mp4", "real"),
    ("bbaf2n.mpg", "real"),
    ("id2_vcd_swwp2s.mpg", "real"),
    ("man_FaceTalk_170809_00138_TA_condition_FaceTalk_170725_00137_TA_audio.mp4", "mesh"),
)


@dataclass(frozen=True, slots=True)
class Take:
    """A talking clip as the models see it, and its own sound.

    ``crops`` are RGB at the measured size, ``boxes`` the face in each. ``opening`` is the mouth's as measured, in any
    unit; ``true_opening`` the one that was drawn, 0 to 1, and ``lag_s`` how late the sound was made to come; None where
    nobody knows.
    """

    media: str
    domain: str
    fps: int
    crops: list[UInt8[np.ndarray, "H W 3"]]
    boxes: list[XYXY]
    lower_faces: UInt8[np.ndarray, "T 112 112"]
    opening: Float32[np.ndarray, " T"]
    valid: Bool[np.ndarray, " T"]
    prints: Prints
    samples: Float32[np.ndarray, " A"]
    true_opening: Float64[np.ndarray, " T"] | None = None
    lag_s: float | None = None

    @property
    def num_frames(self) -> int:
        """Length of the clip."""
        return len(self.valid)


@dataclass(frozen=True, slots=True)
class RenderedFilm:
    """One film of the demo on disk, with the truth about its shots and about the mouth in every frame."""

    film: DemoFilm
    path: Path
    shots: tuple[ShotTruth, ...]
    openings: Float64[np.ndarray, " N"]


def render_films(folder: Path, films: Sequence[DemoFilm] = DEMO_FILMS) -> list[RenderedFilm]:
    """Render the demo's films; where a frame shows no face, or two, the opening is NaN."""
    rendered = []
    for film in films:
        path = folder / f"{film.id}.mp4"
        seen = render_film(film, path)["frames"]
        openings = np.array([faces[0]["mouth_open"] if len(faces) == 1 else np.nan for faces in seen])
        rendered.append(RenderedFilm(film, path, tuple(timeline(film)), openings))
    return rendered


def filmed_takes(assets: Path, models: ModelSet, talkers: Sequence[tuple[str, str]] = TALKERS) -> list[Take]:
    """The longest clip of every talker; ``talkers`` are file names under ``video`` and their domains."""
    return [_take(assets / "video" / name, name, domain, models) for name, domain in talkers]


def rendered_takes(films: Sequence[RenderedFilm], models: ModelSet) -> list[Take]:
    """The longest clip of every rendered film in which somebody speaks."""
    speaking = [one for one in films if any(shot.sound == "speech" for shot in one.film.shots)]
    return [_take(one.path, f"rendered {one.film.id}", one.film.domain, models, one) for one in speaking]


def _take(path: Path, media: str, domain: str, models: ModelSet, rendered: RenderedFilm | None = None) -> Take:
    sha256 = sha256_of_file(path)
    video = probe(path, "bench", sha256, models.config.probe)
    planned = max(_plans(path, video, domain, models), key=lambda one: one.plan.num_frames)
    plan, size_px = planned.plan, models.config.crop.size_px
    seen_px = min(size_px, MEASURED_PX)
    boxes = boxes_on_crop(planned.face, plan, seen_px)
    crops = [to_rgb(crop, seen_px) for crop in iter_crops(path, video, plan, size_px, [])]
    lower_faces, meter = LowerFaces(), PrintTap(plan.num_frames, plan.fps)
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
    return Take(
        media=media,
        domain=domain,
        fps=plan.fps,
        crops=crops,
        boxes=boxes,
        lower_faces=lower_faces.faces,
        opening=motion.mouth_raw,
        valid=faces.confidence > 0,
        prints=meter.finish(faces.raw, faces.readable, motion.mouth_raw, mel, layout),
        samples=samples,
        true_opening=_openings_at(rendered, plan.span.start_s, plan.num_frames, plan.fps) if rendered else None,
        lag_s=rendered.film.lag_s if rendered else None,
    )


def _openings_at(rendered: RenderedFilm, start_s: float, num_frames: int, fps: int) -> Float64[np.ndarray, " T"]:
    """What was drawn in the film's frame nearest to each of the clip's."""
    nearest = np.rint((start_s + np.arange(num_frames) / fps) * float(rendered.film.fps)).astype(int)
    return rendered.openings[nearest]


def _plans(path: Path, video: Video, domain: str, models: ModelSet) -> list[PlannedClip]:
    config = models.domain(domain)
    (window,) = windows_of(video, config.shots.run_s, None)
    run, times, rows = analyse_run(path, video, config, models.detectors(domain), models.presence(domain), window)
    shots, tracks = join_runs([run], times, [rows], config.faces)
    return plan_clips(video, shots, tracks, times, models.config.crop, stride=config.faces.stride)[0]
