"""What in a picture tells people, drawings, animals and rendered meshes apart: who sees a face in it, and its texture.

Everything is read from the crop at one size, since texture means nothing across sizes, and only with files that arrive
inside pip packages. What was tried beside it (palette, saturation, backdrop, proportions of the face) separates the
films it was fitted to and misleads on others.
"""

from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import UInt8

from pipeline.models.detectors import BgrImage, BlazeFace, CatCascade, Detector
from pipeline.models.landmarkers import load_mesh_network, roi_from_box
from schemas.boxes import pairwise_iou
from schemas.face import XYXY
from schemas.router import DomainEvidence

EVIDENCE_PX = 256
_CAT_PX = 160  # the cascade's cost grows with the area, and the face fills most of a crop
_MIN_IOU = 0.3  # of a detection with the face that the clip follows
_PRESENCE_SCALES = (1.25, 1.5, 2.0)  # squares around the box, as the presence gate tries them
_SURROUNDINGS = 2.0  # side of what is looked at, in face boxes: hair and shoulders are drawn in the same manner
_MIN_SIDE_PX = 16
_EVEN_LEVELS, _NEARLY_EVEN_LEVELS, _LINE_LEVELS = 3, 8, 40
_LEAST_GRAIN, _LEAST_DETAIL = 0.02, 0.1  # levels: a picture without any must not be infinitely far from others
_LINE = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))


@lru_cache(maxsize=1)
def _detectors() -> tuple[Detector, Detector]:
    """People's and cats' face detectors, read once per process, at scores where they still mean something."""
    return BlazeFace(0.2), CatCascade(0.5, min_face=0.25)


def frame_evidence(image: UInt8[np.ndarray, "S S 3"], face: XYXY) -> DomainEvidence:
    """The evidence of one RGB crop of ``EVIDENCE_PX`` a side; ``face`` is the face box on it."""
    people, cats = _detectors()
    bgr = np.ascontiguousarray(image[..., ::-1])
    small = cv2.resize(bgr, (_CAT_PX, _CAT_PX), interpolation=cv2.INTER_AREA)
    shrunk = tuple(edge * _CAT_PX / bgr.shape[0] for edge in face)
    mesh = load_mesh_network()
    grey = cv2.cvtColor(_surroundings(image, face), cv2.COLOR_RGB2GRAY)
    nearby = np.ones((3, 3), np.uint8)
    spread = cv2.dilate(grey, nearby) - cv2.erode(grey, nearby)
    return DomainEvidence(
        human=_score_at(people, bgr, face),
        presence=max(mesh.read(image, roi_from_box(face, scale)).confidence for scale in _PRESENCE_SCALES),
        cat=_score_at(cats, np.asarray(small, np.uint8), shrunk),
        evenness=float((spread <= _EVEN_LEVELS).mean()),
        grain=_grain(grey, spread <= _NEARLY_EVEN_LEVELS),
        crispness=_crispness(grey.astype(np.float32)),
        outline=float((cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, _LINE) >= _LINE_LEVELS).mean()),
    )


def _score_at(detector: Detector, bgr: BgrImage, face: tuple[float, ...]) -> float:
    """The best score of a detection that lies on the face; 0 where there is none."""
    detections = detector.detect(bgr)
    reached = [pairwise_iou(np.array([detection.box]), np.array([face]))[0, 0] >= _MIN_IOU for detection in detections]
    at_face = [detection.score for detection, is_there in zip(detections, reached, strict=True) if is_there]
    return float(max(at_face, default=0.0))


def _surroundings(image: UInt8[np.ndarray, "S S 3"], face: XYXY) -> UInt8[np.ndarray, "h w 3"]:
    """The face with what is around it; the whole picture where the box lies outside of it."""
    x, y = (face[0] + face[2]) / 2, (face[1] + face[3]) / 2
    half = max(face[2] - face[0], face[3] - face[1]) * _SURROUNDINGS / 2
    height, width = image.shape[:2]
    left, right = (min(max(round(edge), 0), width) for edge in (x - half, x + half))
    top, bottom = (min(max(round(edge), 0), height) for edge in (y - half, y + half))
    inside = min(right - left, bottom - top) >= _MIN_SIDE_PX
    return np.ascontiguousarray(image[top:bottom, left:right] if inside else image)


def _grain(grey: UInt8[np.ndarray, "h w"], even: np.ndarray) -> float:
    """What a small median takes away where the picture is nearly even: sensors and fur have it, renderers have not."""
    rest = np.abs(grey.astype(np.float32) - cv2.medianBlur(grey, 3))
    return float(np.log2((rest[even].mean() if even.any() else 0.0) + _LEAST_GRAIN))


def _crispness(grey: np.ndarray) -> float:
    """Detail between 1.4 and 2.8 px over that between 2.8 and 5.6 px: ink keeps it, lenses and skin lose it."""
    fine, middle, coarse = (cv2.GaussianBlur(grey, (0, 0), sigma) for sigma in (1.4, 2.8, 5.6))
    details = [float(np.abs(fine - middle).mean()), float(np.abs(middle - coarse).mean())]
    return float(np.log2((details[0] + _LEAST_DETAIL) / (details[1] + _LEAST_DETAIL)))
