"""The usual chain, with the same models: what a dataset script does that was grown step by step.

PySceneDetect reads the film by its own reader; ffmpeg splits it at the cuts by encoding it again; OpenCV reads each
part and the detector looks at every frame; ffmpeg cuts the crop of each face; OpenCV reads the crop and the landmarker
looks at every frame. Run as a child of ``benchmarks/build.py``; prints one JSON object with the seconds of each step.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from films import ffmpeg
from scenedetect import AdaptiveDetector, detect

from pipeline.models.detectors import BlazeFace
from pipeline.models.landmarkers import FaceMesh468

_SIDE_PX = 640  # what our own analysis shows the detector
_CROP_SCALE, _CROP_PX = 1.6, 512
_MIN_S = 64 / 25
_MIN_FACE_RATIO = 0.9


def iter_images(path: Path) -> Iterator[np.ndarray]:
    """Every frame of a file, BGR, as OpenCV reads it."""
    reader = cv2.VideoCapture(str(path))
    while True:
        there, image = reader.read()
        if not there:
            return
        yield image


def cuts(film: Path) -> list[tuple[float, float]]:
    """Scenes (start and end in seconds) by PySceneDetect's own reader."""
    scenes = detect(str(film), AdaptiveDetector(), start_in_scene=True)
    return [(start.seconds, stop.seconds) for start, stop in scenes]


def split(film: Path, scenes: list[tuple[float, float]], folder: Path) -> list[Path]:
    """One file per scene that is long enough, encoded again so that it begins at the cut."""
    parts = []
    for number, (start_s, stop_s) in enumerate(scenes):
        path = folder / f"scene{number:04d}.mp4"
        span = ["-ss", str(start_s), "-i", str(film), "-t", str(stop_s - start_s)]
        ffmpeg(*span, "-c:v", "libx264", "-preset", "veryfast", "-crf", "18", "-c:a", "aac", str(path))
        if stop_s - start_s >= _MIN_S:
            parts.append(path)
    return parts


def faces(scene: Path) -> tuple[float, np.ndarray | None, tuple[int, int]]:
    """The share of frames that show a face, the usual box of the best one (xyxy pixels), and the picture's size."""
    detector, boxes, num_frames, size = BlazeFace(), [], 0, (0, 0)
    for image in iter_images(scene):
        num_frames += 1
        size = image.shape[1], image.shape[0]
        scale = _SIDE_PX / max(size)
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        best = detector.detect(small)[:1]
        boxes += [np.array(face.box) / scale for face in best]
    box = np.median(np.stack(boxes), axis=0) if boxes else None
    return len(boxes) / max(1, num_frames), box, size


def crop(scene: Path, box: np.ndarray, size: tuple[int, int]) -> Path:
    """The square around the usual box, scaled, by ffmpeg."""
    side = min(_CROP_SCALE * max(box[2] - box[0], box[3] - box[1]), *size) // 2 * 2
    x, y = (
        min(max(0.0, (low + high - side) / 2), limit - side)
        for low, high, limit in zip(box[:2], box[2:], size, strict=True)
    )
    path = scene.with_name(f"crop-{scene.name}")
    how = f"crop={side:.0f}:{side:.0f}:{x:.0f}:{y:.0f},scale={_CROP_PX}:{_CROP_PX},fps=25"
    ffmpeg("-i", str(scene), "-vf", how, "-c:v", "libx264", "-preset", "veryfast", "-crf", "18", str(path))
    return path


def landmarks(path: Path) -> int:
    """Landmarks of every frame; how many frames had some."""
    tracker, side = FaceMesh468(), _CROP_PX
    inset = side * (1 - 1 / _CROP_SCALE) / 2
    box = (inset, inset, side - inset, side - inset)
    return sum(tracker.locate(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), box) is not None for image in iter_images(path))


def cpu_s() -> float:
    """CPU seconds of this process and of its children that ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def main() -> None:
    """Take the film ``sys.argv[1]`` through the chain in the empty folder ``sys.argv[2]``."""
    film, folder = Path(sys.argv[1]), Path(sys.argv[2])
    cv2.setNumThreads(os.cpu_count() or 1)  # as the script's author would leave it
    steps: dict[str, tuple[float, float]] = {}

    def step(name: str, work: Callable[[], Any]) -> Any:
        began, used = time.monotonic(), cpu_s()
        result = work()
        steps[name] = (time.monotonic() - began, cpu_s() - used)
        return result

    scenes = step("shots", lambda: cuts(film))
    parts = step("split", lambda: split(film, scenes, folder))
    seen = step("detect", lambda: [faces(part) for part in parts])
    kept = [
        (part, box, size)
        for part, (ratio, box, size) in zip(parts, seen, strict=True)
        if box is not None and ratio >= _MIN_FACE_RATIO
    ]
    crops = step("crop", lambda: [crop(*scene) for scene in kept])
    num = step("landmarks", lambda: sum(landmarks(path) for path in crops))
    print(json.dumps({"steps": steps, "num_scenes": len(scenes), "num_crops": len(crops), "num_landmarked": num}))


if __name__ == "__main__":
    main()
