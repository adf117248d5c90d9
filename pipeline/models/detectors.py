"""Find faces in one picture, with networks and cascades that arrive inside pip packages.

BlazeFace sees 128 × 128 pixels and loses any face below an eighth of what it is shown, which in a wide film
frame is most of them. It is so fast that the frame is shown to it several times: once whole, then in
overlapping squares. What the squares invent is removed later, by the presence gate and by the tracker.

MediaPipe's full-range network is absent on purpose: with one look each, it finds 48 of 60 rendered and drawn faces with
12 false alarms, the short-range one 43 with none, and the squares 51 with 2 (the accuracy bench has all three).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from pipeline.models.files.packaged import packaged_model
from pipeline.models.tflite import TfliteNetwork
from schemas.boxes import areas, pairwise_iou, pairwise_overlap
from schemas.face import XYXY

BgrImage = UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True, slots=True)
class FaceBox:
    """One face: ``box`` is xyxy in pixels of the picture that was given and may reach outside it.

    The box runs from the hairline to the chin and leaves out the ears, whatever the model itself outlines.
    ``score`` is 0 to 1 and comparable only between boxes of one detector.
    """

    box: XYXY
    score: float


class Detector(Protocol):
    """Finds the faces of a picture of any size.

    ``name`` is the one that ``DetectorChoice.model`` gives it; ``dense`` says that it is cheap enough for any number
    of frames.
    """

    name: str
    dense: bool

    def detect(self, image: BgrImage) -> list[FaceBox]:
        """All faces from the detector's own minimum score, best first. ``image`` is BGR."""
        ...


def weighted_nms(
    boxes: Float[np.ndarray, "N 4"],
    scores: Float[np.ndarray, " N"],
    min_iou: float = 0.3,
    max_containment: float = 0.7,
) -> list[tuple[Float[np.ndarray, " 4"], float]]:
    """Merge boxes of one face into their score-weighted mean, best first.

    This is BlazeFace's "tie resolution by blending" (Bazarevsky et al., arXiv 1907.05047, section 4), with one
    addition: of two merged boxes one of which lies inside the other, the better survives, because a square
    that cuts a face finds a smaller one inside it.

    Args:
        boxes: xyxy.
        scores: one per box.
        min_iou: overlap with the best remaining box from which a box joins it (MediaPipe's 0.3).
        max_containment: share of the smaller box inside a better one above which it is dropped.
    """
    order = np.lexsort((*boxes.T, -scores))
    merged: list[tuple[Float[np.ndarray, " 4"], float]] = []
    while order.size:
        best = order[0]
        same = pairwise_iou(boxes[best : best + 1], boxes[order])[0] > min_iou
        same[0] = True
        group = order[same]
        box = np.average(boxes[group], axis=0, weights=scores[group])
        if not any(_containment(box, kept) > max_containment for kept, _ in merged):
            merged.append((box, float(scores[best])))
        order = order[~same]
    return merged


def _containment(a: Float[np.ndarray, " 4"], b: Float[np.ndarray, " 4"]) -> float:
    smaller = min(areas(a[None])[0], areas(b[None])[0])
    return float(pairwise_overlap(a[None], b[None])[0, 0] / max(smaller, 1e-9))


@dataclass(frozen=True, slots=True)
class PictureSquare:
    """A square of the picture, in its pixels; it may reach outside, where the network sees black."""

    x0: float
    y0: float
    side: float


def windows(width: int, height: int, min_aspect: float = 1.2, max_tiles: int = 5) -> list[PictureSquare]:
    """The whole picture letterboxed, then squares of its short side that overlap by at least half.

    Args:
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        min_aspect: long side over short side below which the whole picture is enough.
        max_tiles: bound on the squares; a strip longer than they reach is seen with gaps.
    """
    long, short = max(width, height), min(width, height)
    whole = PictureSquare((width - long) / 2, (height - long) / 2, long)
    if long < min_aspect * short:
        return [whole]
    num_tiles = min(max_tiles, 1 + math.ceil((long - short) / (short / 2)))
    offsets = np.linspace(0, long - short, num_tiles)
    tiles = [
        PictureSquare(float(o), 0, short) if width > height else PictureSquare(0, float(o), short) for o in offsets
    ]
    return [whole, *tiles]


def blazeface_anchors(input_px: int = 128) -> Float32[np.ndarray, "896 2"]:
    """Anchor centres (x, y) as a share of the input, in the order of the network's answers.

    MediaPipe's SsdAnchorsCalculator with the short-range options (strides 8, 16, 16, 16, one aspect ratio plus
    the interpolated one, fixed anchor size 1): layers of equal stride share a grid, so each cell of the
    16 × 16 grid has 2 anchors and each of the 8 × 8 grid 6.
    """
    layers = []
    for stride, anchors_per_cell in ((8, 2), (16, 6)):
        cells = input_px // stride
        y, x = np.mgrid[0:cells, 0:cells]
        centres = np.stack([x, y], axis=-1).reshape(-1, 2)
        layers.append(np.repeat((centres + 0.5) / cells, anchors_per_cell, axis=0))
    return np.concatenate(layers).astype(np.float32)


class BlazeFace:
    """MediaPipe's short-range face detector."""

    name = "blazeface_short"
    dense = True
    input_px = 128
    # Raw scores are clipped before the logistic (MediaPipe's score_clipping_thresh).
    max_raw_score = 100.0
    # Boxes below this never help a better one in the blending.
    min_candidate_score = 0.1
    # The network outlines brows to chin and ear to ear. On 143 labelled frames of people, a mesh and an anime
    # figure (medians per film) the hairline lies 0.13 to 0.25 of its height above, the face without ears is
    # 0.81 to 0.94 as wide, and the mean IoU with the labels rises from 0.75 to 0.91.
    hairline = 0.20
    ear_inset = 0.04

    def __init__(self, min_score: float = 0.5, path: Path | None = None) -> None:
        self.min_score = min_score
        self._net = TfliteNetwork(path or packaged_model("face_detection_short_range").path)
        self._anchors = blazeface_anchors(self.input_px)

    def detect(self, image: BgrImage) -> list[FaceBox]:
        """All faces from ``min_score``, best first. ``image`` is BGR."""
        height, width = image.shape[:2]
        boxes, scores = [], []
        for window, patch in _patches(image, self.input_px):
            seen, seen_scores = self._read(patch, window)
            whole = _uncut(seen, window, width, height)
            boxes.append(seen[whole])
            scores.append(seen_scores[whole])
        merged = weighted_nms(np.concatenate(boxes), np.concatenate(scores))
        return [FaceBox(self._to_convention(box), score) for box, score in merged if score >= self.min_score]

    def _read(
        self, patch: UInt8[np.ndarray, "S S 3"], window: PictureSquare
    ) -> tuple[Float[np.ndarray, "N 4"], Float[np.ndarray, " N"]]:
        """Candidates of one window: boxes (as the network outlines them) in pixels of the picture, and scores."""
        answers = self._net.run(cv2.cvtColor(patch, cv2.COLOR_BGR2RGB).astype(np.float32) / 127.5 - 1)
        raw_scores, raw_boxes = answers["classificators"], answers["regressors"]
        clipped = np.clip(raw_scores[0, :, 0].astype(np.float64), -self.max_raw_score, self.max_raw_score)
        scores = 1 / (1 + np.exp(-clipped))
        candidates = np.flatnonzero(scores >= self.min_candidate_score)
        scores, raw = scores[candidates], raw_boxes[0, candidates, :4].astype(np.float64) / self.input_px
        centre, half = raw[:, :2] + self._anchors[candidates], raw[:, 2:] / 2
        kept = (half > 0).all(axis=1)
        unit = np.concatenate([centre - half, centre + half], axis=1)[kept]
        return unit * window.side + [window.x0, window.y0, window.x0, window.y0], scores[kept]

    def _to_convention(self, box: Float[np.ndarray, " 4"]) -> XYXY:
        x0, y0, x1, y1 = (float(edge) for edge in box)
        inset = self.ear_inset * (x1 - x0)
        return x0 + inset, y0 - self.hairline * (y1 - y0), x1 - inset, y1


def _patches(image: BgrImage, size_px: int) -> Iterator[tuple[PictureSquare, UInt8[np.ndarray, "S S 3"]]]:
    """What the network looks at: each window with its picture, all of them cut from one that is scaled once."""
    height, width = image.shape[:2]
    whole, *tiles = windows(width, height)
    scale = size_px / min(height, width)
    if tiles:
        image = _scaled(image, round(width * scale), round(height * scale))
    else:
        scale = 1.0
    yield whole, _letterbox(image, PictureSquare(whole.x0 * scale, whole.y0 * scale, whole.side * scale), size_px)
    for tile in tiles:
        x, y = round(tile.x0 * scale), round(tile.y0 * scale)
        yield PictureSquare(x / scale, y / scale, tile.side), image[y : y + size_px, x : x + size_px]


def _scaled(image: BgrImage, width: int, height: int) -> BgrImage:
    """At another size. Area averaging where it shrinks: bilinear sampling of a five times larger frame would alias.

    OpenCV averages quickly only by whole numbers, so it halves first.
    """
    while image.shape[1] >= 2 * width and image.shape[1] % 2 == image.shape[0] % 2 == 0:
        half = (image.shape[1] // 2, image.shape[0] // 2)
        image = np.asarray(cv2.resize(image, half, interpolation=cv2.INTER_AREA), np.uint8)
    how = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=how), np.uint8)


def _letterbox(image: BgrImage, window: PictureSquare, size_px: int) -> UInt8[np.ndarray, "S S 3"]:
    """The window scaled to a square; black where it reaches outside the picture."""
    height, width = image.shape[:2]
    scale = size_px / window.side
    left, top = max(0, round(window.x0)), max(0, round(window.y0))
    right, bottom = min(width, round(window.x0 + window.side)), min(height, round(window.y0 + window.side))
    fit = tuple(min(size_px, max(1, round(side * scale))) for side in (right - left, bottom - top))
    x = min(max(0, round((left - window.x0) * scale)), size_px - fit[0])
    y = min(max(0, round((top - window.y0) * scale)), size_px - fit[1])
    canvas = np.zeros((size_px, size_px, 3), np.uint8)
    canvas[y : y + fit[1], x : x + fit[0]] = _scaled(image[top:bottom, left:right], *fit)
    return canvas


def _uncut(boxes: Float[np.ndarray, "N 4"], window: PictureSquare, width: int, height: int) -> np.ndarray:
    """Which boxes do not touch an edge where the window cuts the picture: there half a face looks whole."""
    margin = 0.01 * window.side
    right, bottom = window.x0 + window.side, window.y0 + window.side
    whole = np.ones(len(boxes), bool)
    if window.x0 >= 1:
        whole &= boxes[:, 0] > window.x0 + margin
    if window.y0 >= 1:
        whole &= boxes[:, 1] > window.y0 + margin
    if right <= width - 1:
        whole &= boxes[:, 2] < right - margin
    if bottom <= height - 1:
        whole &= boxes[:, 3] < bottom - margin
    return whole


class CatCascade:
    """OpenCV's frontal cat face cascade on the picture turned by 0, 20 and -20 degrees.

    The cascade knows upright heads only, and a cat on film rarely holds its head upright. Equalising the
    histogram, as the cascade's authors do, adds false alarms. The score is the logistic of the last stage's
    margin: it orders cats but is no probability.
    """

    name = "cat_cascade"
    dense = False
    analysis_side_px = 480  # as many cats as at 640 in two thirds of the time
    angles_deg = (0.0, 20.0, -20.0)
    scale_step = 1.1
    min_neighbours = 3
    # The cascade's square begins below the brow: on 15 labelled frames of one cat the head lies this much higher.
    rise = 0.1

    def __init__(self, min_score: float = 0.5, path: Path | None = None, *, min_face: float = 0.1) -> None:
        self.min_score = min_score
        self.min_face = min_face  # of the long side
        self._cascade = cv2.CascadeClassifier(str(path or packaged_model("haarcascade_frontalcatface.xml").path))

    def detect(self, image: BgrImage) -> list[FaceBox]:
        """All cat faces from ``min_score``, best first. ``image`` is BGR."""
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        scale = min(1.0, self.analysis_side_px / max(grey.shape))
        if scale < 1:
            grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        faces = [face for angle in self.angles_deg for face in self._read(grey, angle)]
        if not faces:
            return []
        boxes = np.array([box for box, _ in faces]) / scale
        merged = weighted_nms(boxes, np.array([score for _, score in faces]))
        return [FaceBox((float(b[0]), float(b[1]), float(b[2]), float(b[3])), s) for b, s in merged]

    def _read(self, grey: UInt8[np.ndarray, "H W"], angle_deg: float) -> list[tuple[list[float], float]]:
        """Boxes (upright, in pixels of ``grey``) and scores of one rotation."""
        turned, back = _turn(grey, angle_deg)
        smallest = max(24, int(self.min_face * max(grey.shape)))
        boxes, _, margins = self._cascade.detectMultiScale3(
            turned, self.scale_step, self.min_neighbours, minSize=(smallest, smallest), outputRejectLevels=True
        )
        faces = []
        for (x, y, width, height), margin in zip(boxes, np.ravel(margins), strict=True):
            score = 1 / (1 + math.exp(-float(margin)))
            cx, cy = back @ [x + width / 2, y + height / 2, 1]
            if score >= self.min_score:
                top = cy - height / 2 - self.rise * height
                faces.append(([cx - width / 2, top, cx + width / 2, top + height], score))
        return faces


def _turn(grey: UInt8[np.ndarray, "H W"], angle_deg: float) -> tuple[np.ndarray, Float[np.ndarray, "2 3"]]:
    """The picture turned about its centre on a canvas that holds all of it, and the matrix that turns back."""
    height, width = grey.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle_deg, 1.0)
    cos, sin = abs(matrix[0, 0]), abs(matrix[0, 1])
    size = (math.ceil(height * sin + width * cos), math.ceil(height * cos + width * sin))
    matrix[:, 2] += (size[0] - width) / 2, (size[1] - height) / 2
    turned = cv2.warpAffine(grey, matrix, size) if angle_deg else grey
    return turned, cv2.invertAffineTransform(matrix)
