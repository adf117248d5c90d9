"""Detectors that builds do not offer and that everybody knows: they say what a figure beside them is worth."""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
from jaxtyping import Float32

from pipeline.models.detectors import BgrImage, BlazeFace, Detector, FaceBox
from pipeline.models.files.packaged import packaged_model
from pipeline.models.tflite import TfliteNetwork
from schemas.errors import UsageError
from schemas.face import XYXY

_HAAR_FILE = "haarcascade_frontalface_default.xml"
_FULL_RANGE_FILE = "face_detection_full_range_sparse.tflite"


class HaarFrontal:
    """OpenCV's cascade for frontal faces (Viola and Jones, CVPR 2001), with the settings of its sample.

    The box is left as it comes, and every face has the score 1: this cascade says yes or no.
    """

    name = "haar_frontal"
    dense = False
    scale_step = 1.1
    min_neighbours = 5
    min_face_px = 24

    def __init__(self) -> None:
        path = Path(str(cv2.__file__)).parent / "data" / _HAAR_FILE
        self._cascade = cv2.CascadeClassifier()
        if not path.is_file() or not self._cascade.load(str(path)):
            raise UsageError(f"OpenCV's {_HAAR_FILE} is missing: pip install 'opencv-python-headless<5'")

    def detect(self, image: BgrImage) -> list[FaceBox]:
        """All faces, from left to right. ``image`` is BGR."""
        boxes = self._cascade.detectMultiScale(
            cv2.cvtColor(image, cv2.COLOR_BGR2GRAY),
            self.scale_step,
            self.min_neighbours,
            minSize=(self.min_face_px, self.min_face_px),
        )
        return [
            FaceBox((float(x), float(y), float(x + width), float(y + height)), 1.0)
            for x, y, width, height in sorted(map(tuple, boxes))
        ]


class OneLook:
    """A BlazeFace as MediaPipe's own solutions ask it: once, at the whole picture with black around it."""

    dense = False

    def __init__(self, name: str, network: BlazeFace) -> None:
        self.name = name
        self._network = network

    def detect(self, image: BgrImage) -> list[FaceBox]:
        """All faces from the network's own minimum score, best first. ``image`` is BGR."""
        height, width = image.shape[:2]
        side = max(height, width)
        left, top = (side - width) // 2, (side - height) // 2
        square = cv2.copyMakeBorder(
            image, top, side - height - top, left, side - width - left, cv2.BORDER_CONSTANT
        )  # of a square there is one look only
        faces = self._network.detect(np.asarray(square, np.uint8))
        return [FaceBox(_moved(face.box, -left, -top), face.score) for face in faces]


def _moved(box: XYXY, right: float, down: float) -> XYXY:
    return box[0] + right, box[1] + down, box[2] + right, box[3] + down


class FullRangeBlazeFace(BlazeFace):
    """MediaPipe's full-range network, the sparse variant that its wheel carries.

    One anchor in the middle of each cell of a 48 × 48 grid (the options of MediaPipe's full-range graph); answers under
    other names than those of the short-range file.
    """

    name = "blazeface_full"
    input_px = 192
    num_cells: ClassVar[int] = 48

    def __init__(self, min_score: float = 0.5) -> None:
        path = packaged_model("face_detection_short_range").path.parent / _FULL_RANGE_FILE
        if not path.is_file():
            raise UsageError(f"MediaPipe's {_FULL_RANGE_FILE} is missing: pip install mediapipe==0.10.14")
        super().__init__(min_score, path)
        y, x = np.mgrid[0 : self.num_cells, 0 : self.num_cells]
        self._anchors = ((np.stack([x, y], axis=-1).reshape(-1, 2) + 0.5) / self.num_cells).astype(np.float32)
        self._net = _Renamed(path)


class _Renamed(TfliteNetwork):
    """The answers under the names of the short-range file."""

    def run(self, picture: Float32[np.ndarray, "H W 3"]) -> dict[str, np.ndarray]:
        answers = super().run(picture)
        return {"classificators": answers["Identity_1"], "regressors": answers["Identity"]}


# By the name that a candidate gives; called with its lowest threshold.
BASELINES: dict[str, Callable[[float], Detector]] = {
    HaarFrontal.name: lambda _: HaarFrontal(),
    "mediapipe_short": lambda min_score: OneLook("mediapipe_short", BlazeFace(min_score)),
    "mediapipe_full": lambda min_score: OneLook("mediapipe_full", FullRangeBlazeFace(min_score)),
}
