"""Face detectors whose weights are files of their own: SCRFD, YuNet, and a cascade for drawn faces.

All three scale the picture to a side of their own first, and that side decides more than the model does: on
faces that are not human a smaller one finds more, because only the large shapes resemble a human face.
"""

import math
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from pipeline.models.detectors import BgrImage, FaceBox
from pipeline.models.insightface_models import load_insightface
from pipeline.models.onnx_session import Device, check_file
from schemas.errors import UsageError

_MAX_CANDIDATES = 5000
# Where YuNet's coarsest grid is a single cell wide, OpenCV 4.14 answers from memory that nobody wrote: other faces at
# every call. Two cells are safe.
_MIN_SIDE_PX = 64


class Scrfd:
    """SCRFD (Guo et al., arXiv 2105.04714) through InsightFace.

    The picture is scaled to fit ``input_px`` squared and padded with black at the right and below.

    Its box needs no correction. The mean IoU with boxes that were drawn by hand is .74 on rendered humans, .92 on an
    anime figure, .54 on a flat cartoon and .85 on a bald mesh (500m; 2.5g: .75, .88, .58, .85). The one shift that fits
    the mesh better (.97) takes .01 to .09 off the rendered humans and the anime figure. Labels of filmed people (.88 to
    .99) are no witness: a detector of this family proposed them.

    Args:
        path: the ONNX file, or a folder of InsightFace's models.
        name: the one its faces bear; the sizes differ in what they find.
        min_score: inclusive.
        input_px: long side the network sees; files with a fixed input take no other than their own.
        dense: whether it may look at every frame.
        device: where it runs.

    Raises:
        UsageError: when the file is missing, is no SCRFD, or cannot see ``input_px``.
    """

    default_input_px = 640
    # Two anchors per cell at strides 8, 16 and 32, without or with key points.
    num_outputs: ClassVar[tuple[int, ...]] = (6, 9)

    def __init__(
        self,
        path: Path,
        name: str = "scrfd_500m",
        min_score: float = 0.5,
        input_px: int = default_input_px,
        *,
        dense: bool = True,
        device: Device = "cpu",
    ) -> None:
        self.name, self.dense = name, dense
        self._model = load_insightface(path, "detection", device)
        if len(self._model.output_names) not in self.num_outputs:
            raise UsageError(
                f"{path} is no SCRFD with strides 8, 16 and 32: it has {len(self._model.output_names)} outputs, "
                f"expected 6 or 9 (YuNet has 12: choose the model 'yunet' for it)"
            )
        fixed = self._model.static_input_size
        if fixed is not None and max(fixed) != input_px:
            raise UsageError(
                f"{path} sees {fixed[0]}×{fixed[1]} pixels and no others: set input_px to {max(fixed)}, or leave it out"
            )
        self._model.prepare(0 if device == "cuda" else -1, det_thresh=min_score, input_size=(input_px, input_px))

    def detect(self, image: BgrImage) -> list[FaceBox]:
        """All faces from ``min_score``, best first. ``image`` is BGR."""
        faces, _ = self._model.detect(image)
        return [_face(row[:4], row[4]) for row in faces.astype(np.float64)]


class YuNet:
    """YuNet (Wu et al., Machine Intelligence Research 20, 2023) through OpenCV.

    Its fixed-size file runs at any size, because OpenCV gives the network the padded picture as it comes.

    Its box needs no correction either: the mean IoU on the films named at ``Scrfd`` is .74, .90, .58 and .80 (at a side
    of 480: .74, .91, .59, .86), on filmed people .85 to .95.

    Args:
        path: the ONNX file.
        min_score: inclusive.
        input_px: long side the network sees, smaller pictures enlarged.

    Raises:
        UsageError: when the file is missing or is no YuNet.
    """

    name = "yunet"
    dense = True
    default_input_px = 640
    max_iou = 0.3  # of two boxes that both stay (OpenCV's sample)

    def __init__(self, path: Path, min_score: float = 0.6, input_px: int = default_input_px) -> None:
        check_file(path)
        self._input_px = input_px
        self._min_score = min_score
        try:
            self._net = cv2.FaceDetectorYN.create(
                str(path), "", (input_px, input_px), min_score, self.max_iou, _MAX_CANDIDATES
            )
            self._net.detect(np.zeros((input_px, input_px, 3), np.uint8))
        except cv2.error as error:
            raise UsageError(
                f"{path} is no YuNet that OpenCV can run: point to face_detection_yunet or yunet_n of OpenCV's or "
                "libfacedetection's models"
            ) from error

    def detect(self, image: BgrImage) -> list[FaceBox]:
        """All faces from ``min_score``, best first. ``image`` is BGR."""
        height, width = image.shape[:2]
        factor = self._input_px / max(height, width)
        size = max(1, round(width * factor)), max(1, round(height * factor))
        # Area averaging: bilinear sampling of a much larger frame would alias.
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        seen = cv2.resize(image, size, interpolation=how)
        low, wide = (max(0, _MIN_SIDE_PX - side) for side in seen.shape[:2])
        seen = cv2.copyMakeBorder(seen, 0, low, 0, wide, cv2.BORDER_CONSTANT)
        self._net.setInputSize((seen.shape[1], seen.shape[0]))
        _, rows = self._net.detect(seen)
        if rows is None:
            return []
        back = np.array([width / size[0], height / size[1]] * 2)
        # Rows are x, y, width, height, ten of key points, score.
        corners = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1).astype(np.float64) * back
        order = np.argsort(-rows[:, 14], kind="stable")
        return [_face(corners[k], rows[k, 14]) for k in order]


class AnimeCascade:
    """nagadomi's local-binary-pattern cascade for drawn faces (Ueno, lbpcascade_animeface).

    It knows upright, frontal faces in the style of Japanese animation. The score is the logistic of the last stage's
    margin: it orders faces but is no probability.

    Its square shows ears and hair. On 37 labelled frames of two films (medians) each side is .17 of its width too far
    out, the top .05 and the chin .04 of its height; with that, the mean IoU rises from .59 to .81.

    Args:
        path: the cascade's XML file.
        min_score: inclusive.

    Raises:
        UsageError: when the file is missing or is no cascade.
    """

    name = "anime_cascade"
    dense = False
    # As its author's example has them.
    scale_step = 1.1
    min_neighbours = 5
    min_face_px = 24
    side_inset, top_inset, chin_inset = 0.17, 0.05, 0.04

    def __init__(self, path: Path, min_score: float = 0.5) -> None:
        check_file(path)
        self._min_score = min_score
        self._cascade = cv2.CascadeClassifier()
        try:
            loaded = self._cascade.load(str(path))
        except cv2.error as error:
            raise _no_cascade(path) from error
        if not loaded:
            raise _no_cascade(path)

    def detect(self, image: BgrImage) -> list[FaceBox]:
        """All drawn faces from ``min_score``, best first. ``image`` is BGR."""
        grey: UInt8[np.ndarray, "H W"] = cv2.equalizeHist(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
        boxes, _, margins = self._cascade.detectMultiScale3(
            grey,
            self.scale_step,
            self.min_neighbours,
            minSize=(self.min_face_px, self.min_face_px),
            outputRejectLevels=True,
        )
        faces = []
        for (x, y, width, height), margin in zip(boxes, np.ravel(margins), strict=True):
            score = 1 / (1 + math.exp(-float(margin)))
            if score >= self._min_score:
                inset = self.side_inset * width
                top, chin = y + self.top_inset * height, y + (1 - self.chin_inset) * height
                faces.append(_face(np.array([x + inset, top, x + width - inset, chin]), score))
        return sorted(faces, key=lambda face: (-face.score, face.box))


def _no_cascade(path: Path) -> UsageError:
    return UsageError(f"{path} is no cascade that OpenCV can read: point to lbpcascade_animeface.xml")


def _face(box: Float[np.ndarray, " 4"], score: Any) -> FaceBox:
    x0, y0, x1, y1 = (float(edge) for edge in box)
    return FaceBox((x0, y0, x1, y1), float(score))
