"""Landmarkers that are one ONNX network from a square of the picture to a list of points: PFLD, and users' own.

Such a network answers everywhere, also where no face is, and says nothing of how sure it is. What tells a face is
that it agrees with itself: read again in the square that its own points give, they stay where they are. In labelled
frames the points of people, meshes and anime moved by .004 to .007 of the square's side, in frames without a face by
.08 (the medians); their distance from the average face told nothing (.06 to .10 both ways).
"""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float64

from pipeline.models.landmarkers import Image, Landmarker, Roi, centred_in
from pipeline.models.layouts import IBUG_68, FacePoints, Layout, with_depth
from pipeline.models.onnx_session import OnnxNetwork
from schemas.errors import UsageError
from schemas.face import XYXY, own_scheme
from schemas.landmarkers import PointNetwork

# PFLD (Guo et al., arXiv 1902.10859) as exported by cunjian/pytorch_face_landmark. The squares were chosen on three
# labelled photographs (einstein, takeo, aflw-test) and 9 rendered heads, from boxes of the packaged detector. Error at
# the first square by its side: .8 .061, .9 .067, 1.0 .10, 1.1 .13 (mostly einstein, whose box is loose); from side 1.0
# the rounds after it find the face in all of them. Error there by side of the next squares: 1.0 .058, 1.1 .046,
# 1.2 .046, 1.3 .046; on rendered heads .066, .051, .051, .053.
PFLD = PointNetwork(input_px=112, box_y_offset=0.05)

_MAX_ROUNDS = 6  # readings after the first, each in the square that the last one gives
_SETTLED = 0.01  # mean way of a point between two readings, as a share of the square's side
# The same, where the confidence is 0; it falls from 1 in a straight line, so .5 is 1.5 %. From boxes, that keeps all
# 143 labelled faces of people, meshes and anime, 17 of 21 of the Sintel trailer, and 7 of 89 frames without a face.
_LOST = 0.03
# Points further from the square's centre than this many sides are no answer about it.
_WILD = 3.0


class OnnxLandmarker(Landmarker):
    """A network of plain points as a tracker.

    The confidence is the mean certainty where the network gives one; else 1 less the mean way of its points between
    two readings, over 3 % of the square's side. Points that lie in the picture alone get the average face's depth.

    Args:
        path: an ONNX file.
        network: how it is asked.
        min_confidence: below it there is no face.
        what: names it in messages.

    Raises:
        UsageError: when the file does not fit its description.
    """

    def __init__(self, path: Path, network: PointNetwork, min_confidence: float, what: str = "the landmarker") -> None:
        side = network.input_px
        self._spec = network
        self._network = OnnxNetwork(path, (1, 3, side, side), what)
        self._num_columns = 2 if network.third == "none" else 3
        self.layout: Layout | None = IBUG_68 if network.num_points == IBUG_68.num_points else None
        self.scheme = "ibug68" if self.layout else own_scheme(network.num_points)
        self._min_confidence = min_confidence
        self._last: FacePoints | None = None
        self._check(f"{what} ({path})")

    def reset(self) -> None:
        """Forget the clip seen so far; the next frame starts from its box."""
        self._last = None

    def locate(self, image: Image, box: XYXY) -> FacePoints | None:
        """Find the face, first where it was in the last frame, else in ``box``.

        Args:
            image: RGB.
            box: xyxy in pixels of ``image``; where the face is expected, from hairline to chin.
        """
        face = self._follow(image, box) or self._start(image, box)
        self._last = face
        if face is None or self.layout is None or self._spec.third == "depth":
            return face
        points = with_depth(face.points[:, :2], self.layout).astype(np.float32)
        return replace(face, points=points)

    def read(self, image: Image, roi: Roi) -> FacePoints:
        """One reading of one square: z only where the network gives it, a confidence only where it gives certainty."""
        side = self._spec.input_px
        matrix = _to_image(roi, side)
        columns = self._network.run(_blob(image, matrix, self._spec)).reshape(-1, self._num_columns).astype(np.float64)
        if self._spec.units == "crop":
            columns[:, :2] *= side
        xy = (columns[:, :2] - 0.5) @ matrix[:, :2].T + matrix[:, 2]
        points = np.zeros((len(xy), 3), np.float32)
        points[:, :2] = xy
        if self._spec.third == "depth":
            points[:, 2] = columns[:, 2] * (roi.side_px / (side if self._spec.units == "pixels" else 1.0))
        certainty = np.clip(columns[:, 2], 0, 1).astype(np.float32) if self._spec.third == "certainty" else None
        return FacePoints(points, 0.0 if certainty is None else float(certainty.mean()), certainty)

    def _follow(self, image: Image, box: XYXY) -> FacePoints | None:
        if self._last is None:
            return None
        first = self.read(image, self._square(self._last))
        face, _ = self._again(image, first)
        return face if face.confidence >= self._min_confidence and centred_in(face.points, box) else None

    def _start(self, image: Image, box: XYXY) -> FacePoints | None:
        x0, y0, x1, y1 = box
        height = y1 - y0
        y = (y0 + y1) / 2 + self._spec.box_y_offset * height
        face = self.read(image, Roi((x0 + x1) / 2, y, height * self._spec.box_scale, 0.0))
        for _ in range(_MAX_ROUNDS):
            face, moved = self._again(image, face)
            if moved < _SETTLED:
                break
        return face if face.confidence >= self._min_confidence and centred_in(face.points, box) else None

    def _again(self, image: Image, first: FacePoints) -> tuple[FacePoints, float]:
        """Read in the square that a reading gives; also the mean way of its points, in sides of that square."""
        roi = self._square(first)
        second = self.read(image, roi)
        moved = float(np.linalg.norm(second.points[:, :2] - first.points[:, :2], axis=1).mean()) / roi.side_px
        if second.certainty is not None:
            return second, moved
        return FacePoints(second.points, max(0.0, 1.0 - moved / _LOST)), moved

    def _square(self, face: FacePoints) -> Roi:
        """The square around known points; where the eyes are known, turned so that they are level in it."""
        xy, angle = face.points[:, :2].astype(np.float64), 0.0
        if self.layout is not None:
            across = xy[self.layout.outer_eyes[1]] - xy[self.layout.outer_eyes[0]]
            angle = float(np.arctan2(across[1], across[0]))
        cos, sin = np.cos(angle), np.sin(angle)
        level = xy @ np.array([[cos, -sin], [sin, cos]])
        low, high = level.min(axis=0), level.max(axis=0)
        x, y = (low + high) / 2
        # A network that puts all its points on one spot must not end in an empty square.
        side = max(float((high - low).max()) * self._spec.point_scale, 1.0)
        return Roi(float(cos * x - sin * y), float(sin * x + cos * y), side, angle)

    def _check(self, what: str) -> None:
        """Show it a face-like picture: a file that is described wrongly fails here, not in every clip."""
        spec, side = self._spec, self._spec.input_px
        expected = f"{spec.num_points} points of {self._num_columns} numbers each"
        blob = _normalised(_probe_picture(side), spec)
        values = self._network.probe(blob, spec.num_points * self._num_columns, expected)
        reach = float(np.abs(values.reshape(-1, self._num_columns)[:, :2]).max()) / (
            1 if spec.units == "crop" else side
        )
        if reach > _WILD:
            raise UsageError(
                f"{what} puts points {reach:.1f} sides away from a square that it is shown: with units "
                f"{spec.units!r} they should lie within it; set units, mean and scale to what it was trained with"
            )
        if spec.units == "pixels" and reach * side < 2.0:
            raise UsageError(
                f"{what} puts all points within two pixels of a corner: set units to 'crop' if it gives shares of "
                f"the square, else mean and scale to what it was trained with"
            )


def _to_image(roi: Roi, side: int) -> Float64[np.ndarray, "2 3"]:
    """From the network's pixels to the picture's, both with centres at whole numbers."""
    scale = roi.side_px / side
    cos, sin = np.cos(roi.angle_rad) * scale, np.sin(roi.angle_rad) * scale
    turn = np.array([[cos, -sin], [sin, cos]])
    corner = np.array([roi.x, roi.y]) - turn @ np.full(2, (side - 1) / 2)
    return np.concatenate([turn, corner[:, None]], axis=1)


def _blob(image: Image, matrix: Float64[np.ndarray, "2 3"], spec: PointNetwork) -> np.ndarray:
    patch = cv2.warpAffine(
        image,
        matrix,
        (spec.input_px, spec.input_px),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return _normalised(patch, spec)


def _normalised(patch: Image, spec: PointNetwork) -> np.ndarray:
    ordered = patch if spec.channels == "rgb" else patch[..., ::-1]
    return np.ascontiguousarray((ordered.astype(np.float32).transpose(2, 0, 1)[None] - spec.mean) / spec.scale)


def _probe_picture(side: int) -> Image:
    """A light oval with two dark eyes and a mouth on grey."""
    picture = np.full((side, side, 3), 110, np.uint8)
    centre, axes = (side // 2, side // 2), (round(side * 0.36), round(side * 0.46))
    cv2.ellipse(picture, centre, axes, 0, 0, 360, (224, 180, 160), -1)
    for x in (0.35, 0.65):
        cv2.ellipse(
            picture, (round(side * x), round(side * 0.42)), (side // 14, side // 28), 0, 0, 360, (40, 30, 30), -1
        )
    cv2.ellipse(picture, (side // 2, round(side * 0.74)), (side // 7, side // 22), 0, 0, 360, (150, 60, 60), -1)
    return picture
