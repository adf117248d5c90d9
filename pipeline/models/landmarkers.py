"""Put a 468-point face mesh on one face, with MediaPipe's network but without its runtime.

The network looks at an upright square around the face and answers in that square, so most of the accuracy
is decided here: a square from a detector's box is only a first guess, and each answer gives a better one.
The tracker carries the square of the last frame; it must be fresh per clip, or a clip's numbers would
depend on what was read before it.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8

from pipeline.models.files.packaged import packaged_model
from pipeline.models.layouts import FACE_MESH_468, FacePoints, Layout
from pipeline.models.tflite import TfliteNetwork
from schemas.face import XYXY

NUM_MESH_POINTS = 468
INPUT_PX = 192
# Outer eye corners of the mesh: image left first on a face that looks at the camera.
EYE_CORNERS = (33, 263)
# Side of the network's square in face sizes, as in MediaPipe's own graphs (Kartynnik et al., arXiv 1907.06724).
ROI_SCALE = 1.5
# Tried in this order around a box from a detector. The first alone sees 14 of 21 faces of the Sintel trailer and 7 of
# 16 of a flat cartoon; all of them 16 and 12, with no more false alarms, and a tilted head in a loose box as well.
_START_SCALES = (ROI_SCALE, 1.25, 1.0, 1.8)
_CERTAIN = 0.9  # a face flag that needs no second opinion
# For the gate, which asks for no points: the square that sees most faces alone, then the one least like it. A box below
# this in both was none in the others either (1,036 boxes of 20 films), which spares the false alarms half their looks.
_GATE_SCALES = (1.0, 1.8, 1.5, 1.25)
_HOPELESS = 0.01
# Readings after the first, each in the square that the last one gives, until that moves by less than a share of its
# side: two on most faces, nearly all on a tilted head in a loose box.
_MAX_REFINEMENTS = 10
_SETTLED = 0.01

Image = UInt8[np.ndarray, "H W 3"]
MeshPoints = Float32[np.ndarray, "468 3"]


class MeshFace(FacePoints):
    """The 468 points of one face; ``confidence`` is the network's face flag."""


class Landmarker(Protocol):
    """Finds the points of one face, frame after frame of one clip.

    ``layout`` says where its points lie on the face; None where nobody knows. ``scheme`` is the one that its points
    are stored in: ``ibug68`` for every known layout.
    """

    scheme: str
    layout: Layout | None

    def reset(self) -> None:
        """Forget the clip seen so far; the next frame starts from its box."""
        ...

    def locate(self, image: Image, box: XYXY) -> FacePoints | None:
        """Find the face that is expected in ``box`` (xyxy pixels); None where there is none."""
        ...

    def locate_each(self, images: Iterable[Image], boxes: Iterable[XYXY]) -> Iterator[FacePoints | None]:
        """Find the face in every frame of a clip from its first one; networks without memory read several at once.

        Raises:
            ValueError: for more boxes than images, or more images than boxes.
        """
        self.reset()
        for image, box in zip(images, boxes, strict=True):
            yield self.locate(image, box)


@dataclass(frozen=True, slots=True)
class Roi:
    """A square the network looks at: centre and side in pixels, angle clockwise on screen."""

    x: float
    y: float
    side_px: float
    angle_rad: float

    def to_image(self) -> Float64[np.ndarray, "2 3"]:
        """The matrix from network pixels (0 to ``INPUT_PX``, square's corner at 0) to image pixels."""
        scale = self.side_px / INPUT_PX
        cos, sin = math.cos(self.angle_rad) * scale, math.sin(self.angle_rad) * scale
        half = INPUT_PX / 2
        return np.array(
            [
                [cos, -sin, self.x - cos * half + sin * half],
                [sin, cos, self.y - sin * half - cos * half],
            ]
        )

    def distance(self, other: "Roi") -> float:
        """The larger change of place and of size, as a share of the side."""
        moved = math.hypot(self.x - other.x, self.y - other.y)
        return max(moved, abs(self.side_px - other.side_px)) / self.side_px


def roi_from_box(box: XYXY, scale: float = ROI_SCALE) -> Roi:
    """An upright square around a box; which way the head leans is not known yet."""
    x0, y0, x1, y1 = box
    return Roi((x0 + x1) / 2, (y0 + y1) / 2, max(x1 - x0, y1 - y0) * scale, 0.0)


def roi_from_points(points: MeshPoints, scale: float = ROI_SCALE) -> Roi:
    """The square around known points, turned so that the eyes are level in it.

    The bounding box is taken in the turned frame; taken upright it would grow with the head's roll.
    """
    left, right = points[EYE_CORNERS[0], :2], points[EYE_CORNERS[1], :2]
    angle = math.atan2(float(right[1] - left[1]), float(right[0] - left[0]))
    cos, sin = math.cos(angle), math.sin(angle)
    level = points[:, :2] @ np.array([[cos, -sin], [sin, cos]])
    low, high = level.min(axis=0), level.max(axis=0)
    x, y = (low + high) / 2
    return Roi(float(cos * x - sin * y), float(sin * x + cos * y), float((high - low).max()) * scale, angle)


class MeshNetwork:
    """The network itself: a square of an image in, 468 points and the face flag out. Keeps no state."""

    def __init__(self, path: Path) -> None:
        self._net = TfliteNetwork(path)

    def read(self, image: Image, roi: Roi) -> MeshFace:
        """Points in image pixels and the face flag (a logistic of the network's raw score) for one square."""
        patch = cv2.warpAffine(
            image,
            roi.to_image(),
            (INPUT_PX, INPUT_PX),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        # The points come as [1, 1, 1, 1404], the flag as [1, 1, 1, 1]; the converter chose their names.
        small, large = sorted(self._net.run(patch.astype(np.float32) / 255).values(), key=np.size)
        local = large.reshape(NUM_MESH_POINTS, 3)
        matrix = roi.to_image()
        points = np.empty((NUM_MESH_POINTS, 3), np.float32)
        points[:, :2] = local[:, :2] @ matrix[:, :2].T + matrix[:, 2]
        points[:, 2] = local[:, 2] * (roi.side_px / INPUT_PX)
        return MeshFace(points, 1 / (1 + math.exp(-float(small.ravel()[0]))))


@lru_cache(maxsize=1)
def load_mesh_network() -> MeshNetwork:
    """The packaged network, read once per process.

    Raises:
        UsageError: when the mediapipe wheel that carries it is missing or another one.
    """
    return MeshNetwork(packaged_model("face_landmark").path)


def shows_face(image: Image, box: XYXY, min_presence: float) -> bool:
    """Whether the network's face flag exceeds ``min_presence`` in one of a few squares around a box.

    Args:
        image: RGB.
        box: xyxy in pixels of ``image``; detectors draw it loosely.
        min_presence: 0 to 1.

    The network knows human faces, photographed, rendered or drawn with human features; of most flat cartoons and of
    animals it says no. Of what the short-range detector finds at .3 on the Sintel trailer it keeps, at .5, 16 of 21
    faces and 3 of 116 false alarms. No further square is looked at once the answer is clear.
    """
    network, best = load_mesh_network(), 0.0
    for number, scale in enumerate(_GATE_SCALES):
        best = max(best, network.read(image, roi_from_box(box, scale)).confidence)
        if best > min_presence or (number and best < _HOPELESS):
            break
    return best > min_presence


class FaceMesh468(Landmarker):
    """The packaged face mesh as a tracker; ``min_confidence`` is the face flag from which a face is there."""

    scheme = "ibug68"
    layout = FACE_MESH_468

    def __init__(self, min_confidence: float = 0.5) -> None:
        self._network = load_mesh_network()
        self._min_confidence = min_confidence
        self._roi: Roi | None = None

    def reset(self) -> None:
        """Forget the clip seen so far; the next frame starts from its box."""
        self._roi = None

    def locate(self, image: Image, box: XYXY) -> MeshFace | None:
        """Find the face, first where it was in the last frame, else in ``box``.

        Args:
            image: RGB.
            box: xyxy in pixels of ``image``; where the face is expected.
        """
        face = self._follow(image, box) or self._start(image, box)
        self._roi = None if face is None else roi_from_points(face.points)
        return face

    def _follow(self, image: Image, box: XYXY) -> MeshFace | None:
        if self._roi is None:
            return None
        face = self._network.read(image, self._roi)
        return face if face.confidence >= self._min_confidence and centred_in(face.points, box) else None

    def _start(self, image: Image, box: XYXY) -> MeshFace | None:
        best: MeshFace | None = None
        for scale in _START_SCALES:
            face = self._settle(image, self._network.read(image, roi_from_box(box, scale)))
            if face is not None and (best is None or face.confidence > best.confidence):
                best = face
            if best is not None and best.confidence >= _CERTAIN:
                break
        return best

    def _settle(self, image: Image, face: MeshFace) -> MeshFace | None:
        """Read again in the square that the last reading gives, until that stays where it is."""
        if face.confidence < self._min_confidence:
            return None
        roi = roi_from_points(face.points)
        for _ in range(_MAX_REFINEMENTS):
            face = self._network.read(image, roi)
            last, roi = roi, roi_from_points(face.points)
            if last.distance(roi) < _SETTLED:
                break
        return face if face.confidence >= self._min_confidence else None


def centred_in(points: Float32[np.ndarray, "P 3"], box: XYXY) -> bool:
    """Whether the face is still the one the box means: a tracker that slid off to a neighbour must restart."""
    x, y = (points[:, :2].min(axis=0) + points[:, :2].max(axis=0)) / 2
    x0, y0, x1, y1 = box
    reach = max(x1 - x0, y1 - y0) / 2
    return bool(abs(x - (x0 + x1) / 2) <= reach and abs(y - (y0 + y1) / 2) <= reach)
