"""Read the hand-labelled faces and score boxes against them.

A source has one domain in a manifest, so all faces of a film count for the film's domain.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.fetch.probe import probe
from pipeline.media.decode import fit_within, iter_frames
from pipeline.models.detectors import BgrImage, FaceBox
from schemas.boxes import pairwise_iou
from schemas.config import FaceConfig, ProbeConfig
from schemas.errors import UsageError
from schemas.face import XYXY

FILM_DOMAINS = {
    "WDA_AlexandriaOcasioCortez_000.mp4": "real",
    "tps_driving.mp4": "real",
    "id2_vcd_swwp2s.mpg": "real",
    "d9.mp4": "real",
    "sintel.mp4": "disney_human",
    "yongen.mp4": "disney_human",
    "penny_and_chip_beach_surfing.mp4": "disney_human",
    "bigbuckbunny.mp4": "disney_animal",
    "dog_22.mp4": "disney_animal",
    "cat_nobel.mp4": "disney_animal",
    "man_FaceTalk_170809_00138_TA_condition_FaceTalk_170725_00137_TA_audio.mp4": "mesh",
}
MIN_HIT_IOU = 0.3
_EDGES = ("x0", "y0", "x1", "y1")


@dataclass(frozen=True, slots=True)
class LabelledFrame:
    """One frame. ``box`` is the largest clear face, xyxy in its pixels; None where there is none."""

    film: str
    frame: int
    image: BgrImage
    box: XYXY | None
    num_faces: int
    ambiguous: bool


@dataclass(frozen=True, slots=True)
class Score:
    """Counts over frames; they add up."""

    hits: int = 0
    num_faces: int = 0
    false_alarms: int = 0
    num_frames: int = 0

    def __add__(self, other: "Score") -> "Score":
        return Score(
            self.hits + other.hits,
            self.num_faces + other.num_faces,
            self.false_alarms + other.false_alarms,
            self.num_frames + other.num_frames,
        )

    @property
    def merit(self) -> float:
        """Share of the faces found less false alarms per frame: what models are chosen by."""
        return self.hits / max(self.num_faces, 1) - self.false_alarms / max(self.num_frames, 1)


def labelled_frames(assets: Path, film: str, side_px: int = FaceConfig().analysis_side_px) -> Iterator[LabelledFrame]:
    """The labelled frames of one film with a long side of at most ``side_px``, by default as detectors see them.

    Raises:
        UsageError: when the labels or the film are missing, or the film ends before its last label.
    """
    labels = _labels(assets, film)
    path = assets / "video" / film
    if not path.is_file():
        raise UsageError(f"the labelled film {path} is missing: check the folder of assets")
    video = probe(path, "labelled", "0" * 64, ProbeConfig())
    size = fit_within(video.width_px, video.height_px, side_px)
    scale = (size[0] / video.width_px, size[1] / video.height_px)
    for number, frame in enumerate(iter_frames(path, video)):
        label = labels.pop(number, None)
        if label is not None:
            yield _labelled(film, number, frame.to_array(size, "bgr24"), label, scale)
    if labels:
        raise UsageError(f"{path} has no frame {min(labels)}, which {assets / 'truth' / 'faces.csv'} labels")


def _labels(assets: Path, film: str) -> dict[int, dict[str, str]]:
    path = assets / "truth" / "faces.csv"
    if not path.is_file():
        raise UsageError(f"the labels {path} are missing: check the folder of assets")
    with path.open(encoding="utf-8", newline="") as file:
        return {int(row["frame"]): row for row in csv.DictReader(file) if row["file"] == film}


def _labelled(
    film: str, number: int, image: BgrImage, label: dict[str, str], scale: tuple[float, float]
) -> LabelledFrame:
    box = None
    if label["x0"]:
        x0, y0, x1, y1 = (float(label[edge]) for edge in _EDGES)
        box = (x0 * scale[0], y0 * scale[1], x1 * scale[0], y1 * scale[1])
    ambiguous = "AMBIGUOUS" in label["note"]
    return LabelledFrame(film, number, image, box, int(label["num_faces_clear"]), ambiguous)


def is_hit(face: XYXY, truth: XYXY) -> bool:
    """Whether a box finds a labelled face: its centre lies inside, and their IoU is at least ``MIN_HIT_IOU``."""
    x, y = (face[0] + face[2]) / 2, (face[1] + face[3]) / 2
    inside = truth[0] <= x <= truth[2] and truth[1] <= y <= truth[3]
    return bool(inside and pairwise_iou(np.array([face]), np.array([truth]))[0, 0] >= MIN_HIT_IOU)


def score_frame(frame: LabelledFrame, faces: Sequence[FaceBox]) -> Score:
    """Count one frame.

    False alarms are the boxes beyond the one that hits and beyond the clear faces that have no label (only the largest
    has one); frames whose label is called ambiguous have none.
    """
    hit = frame.box is not None and any(is_hit(face.box, frame.box) for face in faces)
    unlabelled = frame.num_faces - (frame.box is not None)
    false = 0 if frame.ambiguous else max(0, len(faces) - hit - unlabelled)
    return Score(int(hit), int(frame.box is not None), false, 1)
