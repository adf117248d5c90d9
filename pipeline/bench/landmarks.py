"""How far landmarkers are from known points, and how far poses are from known angles.

Truth comes from three labelled photographs and from heads that are rendered here at known poses. How often a landmarker
finds a face at all is counted in the labelled frames of films, by kind of face.
"""

import csv
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from jaxtyping import Float, Float32

from pipeline.clip.headpose import estimate_poses
from pipeline.clip.landmarks import estimate_landmarks
from pipeline.demo.films import ADA, BRUNO, CLEO
from pipeline.demo.head import HeadPose, render_head
from pipeline.demo.solids import Character
from pipeline.models.files.model_files import POSE_FILES
from pipeline.models.landmarkers import FaceMesh468, Image, Landmarker
from pipeline.models.layouts import FACE_MESH_468, FacePoints
from pipeline.models.point_networks import PFLD, OnnxLandmarker
from pipeline.models.pose_networks import FsaNet
from pipeline.models.registry import ModelSet
from schemas.accuracy import LandmarkRow, PoseRow
from schemas.config import LandmarkConfig
from schemas.face import XYXY

_STILLS = (
    ("einstein.jpg", "einstein.pts", "labels"),
    ("takeo.ppm", "takeo.pts", "labels"),
    ("aflw-test.jpg", "aflw-test_fan68x3.csv", "FAN"),
)
_CHARACTERS = {"default": Character(), "ada": ADA, "bruno": BRUNO, "cleo": CLEO}
# Yaw, pitch, roll: each alone, and together.
POSES: tuple[tuple[float, float, float], ...] = (
    *((float(yaw), 0.0, 0.0) for yaw in (-45, -30, -15, 0, 15, 30, 45)),
    *((0.0, float(pitch), 0.0) for pitch in (-20, -10, 10, 20)),
    *((0.0, 0.0, float(roll)) for roll in (-20, 20)),
    *((yaw, pitch, yaw * pitch / 25) for yaw, pitch in itertools.product((-25.0, 25.0), (-10.0, 10.0))),
)
_HEAD_PX = 640
_TALKER = ("tps_driving.mp4", (110.0, 80.0, 300.0, 345.0))  # where the head stays throughout
# By kind of face, as the labels have it.
_DOMAINS = {
    "human": "real",
    "mesh": "mesh",
    "drawn": "disney_human",
    "animal": "disney_animal",
}
_CG_FILMS = ("sintel.mp4",)  # whose people are labelled as human


@dataclass(frozen=True, slots=True)
class _Face:
    """A picture with one face of known points; ``box`` runs from hairline to chin."""

    image: Image
    box: XYXY
    points: Float[np.ndarray, "68 2"]
    angles: tuple[float, float, float] = (0.0, 0.0, 0.0)


def measured_landmarkers(models: ModelSet) -> dict[str, Landmarker]:
    """The landmarkers that were measured with real weights, by their names in the configuration."""
    least = LandmarkConfig().min_confidence
    pfld = OnnxLandmarker(models.file("pfld").path, PFLD, least, "PFLD")
    return {"facemesh": FaceMesh468(least), "pfld": pfld}


def landmark_rows(assets: Path, models: ModelSet) -> list[LandmarkRow]:
    """Each landmarker on the photographs, on rendered heads, and on labelled frames of films.

    Args:
        assets: the folder of media and truth.
        models: find the weights files.
    """
    chosen = measured_landmarkers(models)
    sets = [("real", picture, by, [_still(assets, picture, truth)]) for picture, truth, by in _STILLS]
    for name, character in _CHARACTERS.items():
        sets.append(("mesh", f"rendered {name}", "exact", list(_rendered(character))))
    rows = [
        _points_row(domain, media, reference, name, landmarker, faces)
        for domain, media, reference, faces in sets
        for name, landmarker in chosen.items()
    ]
    return rows + list(_found_rows(assets, chosen))


def pose_rows(assets: Path, models: ModelSet) -> list[PoseRow]:
    """Each way to the head's angles on rendered heads and on a talking clip.

    Args:
        assets: the folder of media and truth.
        models: find the weights files.
    """
    chosen = measured_landmarkers(models)
    heads = list(itertools.chain.from_iterable(_rendered(character) for character in _CHARACTERS.values()))
    film, box = _TALKER
    frames = list(_frames(assets / "video" / film))
    truth = np.array([head.angles for head in heads])
    rows = []
    for name, landmarker in chosen.items():
        located = [_located(landmarker, head) for head in heads]
        track = estimate_landmarks(frames, [box] * len(frames), landmarker, LandmarkConfig())
        layout, (height, width) = landmarker.layout or FACE_MESH_468, frames[0].shape[:2]
        kept = np.array([face is not None for face in located])
        points = np.stack([face.points for face in located if face is not None])
        for method in ("mesh", "pnp"):
            found = estimate_poses(points, np.ones(len(points), np.float32), _HEAD_PX, _HEAD_PX, layout, method)
            begin = time.process_time()
            clip = estimate_poses(track.raw, track.readable, width, height, layout, method)
            cost_ms = (time.process_time() - begin) / len(frames) * 1e3
            rows.append(_pose_row(name, method, found[:, :3] - truth[kept], clip[track.readable > 0, :3], cost_ms))
    return [*rows, _network_row(models, heads, frames, box)]


def _network_row(models: ModelSet, heads: Sequence[_Face], frames: Sequence[Image], box: XYXY) -> PoseRow:
    network = FsaNet(*(models.file(name).path for name in POSE_FILES["fsanet"]))
    found = np.array([network.read(head.image, head.box) for head in heads])
    begin = time.process_time()
    clip = np.array([network.read(frame, box) for frame in frames])
    cost_ms = (time.process_time() - begin) / len(frames) * 1e3
    return _pose_row("box alone", "fsanet", found - np.array([head.angles for head in heads]), clip, cost_ms)


def _pose_row(name: str, pose: str, errors: np.ndarray, clip: np.ndarray, cost_ms: float) -> PoseRow:
    yaw, pitch, roll = (round(float(value), 2) for value in np.abs(errors).mean(axis=0))
    jitter = [round(float(value), 2) for value in np.median(np.abs(np.diff(clip, 2, axis=0)), axis=0)]
    return PoseRow(
        landmarker=name,
        pose=pose,
        num_heads=len(errors),
        yaw_error_deg=yaw,
        pitch_error_deg=pitch,
        roll_error_deg=roll,
        num_frames=len(clip),
        yaw_jitter_deg=jitter[0],
        pitch_jitter_deg=jitter[1],
        roll_jitter_deg=jitter[2],
        ms_per_frame=round(cost_ms, 2),
    )


def _points_row(
    domain: str, media: str, reference: str, name: str, landmarker: Landmarker, faces: Sequence[_Face]
) -> LandmarkRow:
    begin = time.process_time()
    located = [_located(landmarker, face) for face in faces]
    cost_ms = (time.process_time() - begin) / len(faces) * 1e3
    errors = [
        normalised_error(_to68(landmarker, found), face.points)
        for found, face in zip(located, faces, strict=True)
        if found is not None
    ]
    return LandmarkRow(
        domain=domain,
        media=media,
        reference=reference,
        landmarker=name,
        num_faces=len(faces),
        num_found=len(errors),
        nme_68=round(float(np.mean([error.mean() for error in errors])), 4) if errors else None,
        nme_51=round(float(np.mean([error[17:].mean() for error in errors])), 4) if errors else None,
        ms_per_face=round(cost_ms, 2),
    )


def normalised_error(points: Float[np.ndarray, "68 2"], truth: Float[np.ndarray, "68 2"]) -> Float[np.ndarray, "68"]:
    """Distance of each point from its truth, as a share of the distance between the outer eye corners."""
    return np.linalg.norm(points - truth, axis=1) / np.linalg.norm(truth[36] - truth[45])


def _located(landmarker: Landmarker, face: _Face) -> FacePoints | None:
    landmarker.reset()
    return landmarker.locate(face.image, face.box)


def _to68(landmarker: Landmarker, face: FacePoints) -> Float32[np.ndarray, "68 2"]:
    if landmarker.layout is None:
        raise ValueError(f"points of {landmarker.scheme} cannot be compared with 68 labelled ones")
    return landmarker.layout.to_ibug68(face.points)


# ---- media ---------------------------------------------------------------------------------------------------------


def _still(assets: Path, picture: str, truth: str) -> _Face:
    """A labelled photograph; its box runs from the chin to a hairline .3 of the points' height above the brows."""
    image = np.ascontiguousarray(cv2.imread(str(assets / "stills" / picture), cv2.IMREAD_COLOR_RGB))
    points = known_points(assets / "stills" / truth)
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    return _Face(image, (float(x0), float(y0 - 0.3 * (y1 - y0)), float(x1), float(y1)), points)


def known_points(path: Path) -> Float[np.ndarray, "68 2"]:
    """X and y of a .pts file, which counts pixels from 1, or of a CSV, which counts from 0."""
    if path.suffix != ".pts":
        return np.loadtxt(path, delimiter=",")[:, :2]
    text = path.read_text(encoding="ascii")
    rows = text[text.index("{") + 1 : text.index("}")].strip().splitlines()
    return np.array([row.split() for row in rows], float) - 1


def _rendered(character: Character) -> Iterator[_Face]:
    background = np.full((_HEAD_PX, _HEAD_PX, 3), 110, np.uint8)
    for number, angles in enumerate(POSES):
        image, truth = render_head(background, character, HeadPose(*angles), mouth_open=number % 3 * 0.3)
        points = FACE_MESH_468.to_ibug68(truth.landmarks)
        yield _Face(image, truth.box, points.astype(np.float64), angles)


def _frames(path: Path) -> Iterator[Image]:
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def _found_rows(assets: Path, landmarkers: dict[str, Landmarker]) -> Iterator[LandmarkRow]:
    """In how many labelled faces of films, and in how many frames without one, a landmarker sees a face."""
    kinds: dict[tuple[str, str], list[tuple[Image, XYXY]]] = {}
    for film, labels in _labels(assets / "truth" / "faces.csv").items():
        for index, image in enumerate(_frames(assets / "video" / film)):
            if (label := labels.get(index)) is None:
                continue
            height, width = image.shape[:2]
            if label["x0"]:
                kind = "drawn" if film in _CG_FILMS and label["kind"] == "human" else label["kind"]
                domain = _DOMAINS[kind]
                box = (float(label["x0"]), float(label["y0"]), float(label["x1"]), float(label["y1"]))
                kinds.setdefault((domain, film), []).append((image, box))
            elif label["num_faces_clear"] == "0":
                middle = (width / 2 - height / 5, height / 4, width / 2 + height / 5, height * 3 / 4)
                kinds.setdefault(("any", "frames without a face"), []).append((image, middle))
    for (domain, media), looks in sorted(kinds.items(), key=lambda item: item[0]):
        for name, landmarker in landmarkers.items():
            begin = time.process_time()
            count = sum(_sees(landmarker, image, box) for image, box in looks)
            yield LandmarkRow(
                domain=domain,
                media=media,
                reference="none",
                landmarker=name,
                num_faces=len(looks),
                num_found=count,
                ms_per_face=round((time.process_time() - begin) / len(looks) * 1e3, 2),
            )


def _sees(landmarker: Landmarker, image: Image, box: XYXY) -> bool:
    landmarker.reset()
    return landmarker.locate(image, box) is not None


def _labels(path: Path) -> dict[str, dict[int, dict[str, str]]]:
    """Rows of the labelled frames by film and frame."""
    films: dict[str, dict[int, dict[str, str]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            films.setdefault(row["file"], {})[int(row["frame"])] = row
    return films
