"""Render the demo's films with their manifest, and the truth about every frame, which the pipeline never sees."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from jaxtyping import Float32, UInt8

from pipeline.demo.film import AUDIO_RATE_HZ, write_film
from pipeline.demo.films import DEMO_FILMS, DemoFilm
from pipeline.demo.scenes import FaceTruth
from pipeline.demo.speech import Speech, chords, synthesise_speech, to_48k

Image = UInt8[np.ndarray, "H W 3"]
MANIFEST, TRUTH = "manifest.yaml", "truth.json"
_ROOM_NOISE = 0.0015  # no microphone is silent


@dataclass(frozen=True, slots=True)
class ShotTruth:
    """Where a shot lies: half-open frames of its picture (a dissolve's included), and the transition into it.

    ``frame`` is the first frame that counts as this shot's; ``start_frame`` to ``stop_frame`` is the transition.
    """

    start: int
    stop: int
    frame: int
    start_frame: int
    stop_frame: int
    join: str
    sound: str
    expect: str


def render_demo(folder: Path, films: tuple[DemoFilm, ...] = DEMO_FILMS) -> list[dict[str, Any]]:
    """Render the films, their manifest and ``truth.json`` into ``folder`` (made if absent), and return the truth.

    The same films give the same bytes on the same pins and CPU type. Frames are counted from 0, boxes are xyxy in
    pixels, angles in degrees.
    """
    folder.mkdir(parents=True, exist_ok=True)
    truths = [render_film(film, folder / f"{film.id}.mp4") for film in films]
    entries = [
        {
            "id": film.id,
            "uri": f"{film.id}.mp4",
            "domain": film.domain,
            "license": film.license,
            "title": film.title,
            "credit": film.credit,
            "language": "zxx",  # BCP 47: no linguistic content
        }
        for film in films
    ]
    manifest = yaml.safe_dump({"sources": entries}, sort_keys=False, allow_unicode=True, width=120)
    (folder / MANIFEST).write_text(manifest, encoding="utf-8")
    (folder / TRUTH).write_text(json.dumps(truths, indent=1) + "\n", encoding="utf-8")
    return truths


def render_film(film: DemoFilm, path: Path) -> dict[str, Any]:
    """Render one film to ``path`` and return its truth, ready for JSON."""
    spans = timeline(film)
    speeches = _speeches(film, spans)
    faces: list[list[dict[str, Any]]] = []

    def frames() -> Iterator[Image]:
        for frame in range(spans[-1].stop):
            image, seen = _draw(film, spans, speeches, frame)
            faces.append([asdict(face) for face in seen])
            yield image

    write_film(path, frames(), film.fps, _soundtrack(film, spans, speeches))
    return {
        "id": film.id,
        "domain": film.domain,
        "fps": f"{film.fps.numerator}/{film.fps.denominator}",
        "size": list(film.size),
        "num_frames": spans[-1].stop,
        "lag_s": film.lag_s,
        "shots": [asdict(span) for span in spans],
        "frames": [[_rounded(face) for face in seen] for seen in faces],
    }


def timeline(film: DemoFilm) -> list[ShotTruth]:
    """Where each shot lies on the film's frames."""
    spans: list[ShotTruth] = []
    stop = 0
    for shot in film.shots:
        overlap = shot.join_frames if shot.join == "dissolve" else 0
        start = stop - overlap
        reach = shot.join_frames if shot.join == "fade" else 0
        cut = start + overlap // 2
        spans.append(
            ShotTruth(
                start=start,
                stop=start + round(shot.duration_s * film.fps),
                frame=cut,
                start_frame=start - reach,
                stop_frame=stop + reach,
                join=shot.join if spans else "start",
                sound=shot.sound,
                expect=shot.expect,
            )
        )
        stop = spans[-1].stop
    return spans


def _draw(
    film: DemoFilm, spans: list[ShotTruth], speeches: list[Speech | None], frame: int
) -> tuple[Image, tuple[FaceTruth, ...]]:
    """One frame, transitions included; the faces are those of the shot that the frame counts as."""
    time_s = float(frame / film.fps)
    views = []
    for shot, span, speech in zip(film.shots, spans, speeches, strict=True):
        if not span.start <= frame < span.stop:
            continue
        opening = float(speech.opening_at(time_s - _sound_start_s(film, span))) if speech else 0.0
        views.append((span, shot.take.view(time_s - float(span.start / film.fps), shot.duration_s, film.size, opening)))
    span, view = views[-1]
    image = view.image
    if len(views) == 2:
        share = (frame - span.start + 1) / (span.stop_frame - span.start_frame + 1)
        image = cv2.addWeighted(image, share, views[0][1].image, 1.0 - share, 0.0)
        view = view if frame >= span.frame else views[0][1]
    brightness = _brightness(spans, frame)
    return image if brightness == 1.0 else cv2.convertScaleAbs(image, alpha=brightness), view.faces


def _brightness(spans: list[ShotTruth], frame: int) -> float:
    """1, and less towards the middle of a fade through black."""
    for span in spans:
        if span.join == "fade" and span.start_frame <= frame < span.stop_frame:
            away = frame - span.frame if frame >= span.frame else span.frame - 1 - frame
            return away / (span.stop_frame - span.frame)
    return 1.0


def _sound_start_s(film: DemoFilm, span: ShotTruth) -> float:
    return float(span.frame / film.fps)


def _speeches(film: DemoFilm, spans: list[ShotTruth]) -> list[Speech | None]:
    """A speech for every shot that has one, from the frame that counts as its first to its last."""
    return [
        synthesise_speech(float((span.stop - span.frame) / film.fps), film.seed + number, film.voice)
        if span.sound == "speech"
        else None
        for number, span in enumerate(spans)
    ]


def _soundtrack(film: DemoFilm, spans: list[ShotTruth], speeches: list[Speech | None]) -> Float32[np.ndarray, "L"]:
    """Mono, 48 kHz, from the film's first frame; everything said comes ``lag_s`` late."""
    length = round(spans[-1].stop / film.fps * AUDIO_RATE_HZ)
    random = np.random.default_rng(film.seed)
    track = (_ROOM_NOISE * random.standard_normal(length)).astype(np.float32)
    for number, (span, speech) in enumerate(zip(spans, speeches, strict=True)):
        if span.sound == "silence":
            continue
        spoken = speech.samples if speech else chords(float((span.stop - span.frame) / film.fps), film.seed + number)
        samples = to_48k(spoken)
        start = round((_sound_start_s(film, span) + film.lag_s) * AUDIO_RATE_HZ)
        part = track[start : start + len(samples)]
        part += samples[: len(part)]
    return np.clip(track, -1.0, 1.0)


def _rounded(face: dict[str, Any]) -> dict[str, Any]:
    """Hundredths are finer than anything here can be measured, and keep the file readable."""
    numbers = {name: round(value, 3) for name, value in face.items() if isinstance(value, float)}
    return face | numbers | {"box": [round(float(side), 2) for side in face["box"]]}
