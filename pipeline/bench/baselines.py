"""Detectors that builds do not offer and that everybody knows: they say what a figure beside them is worth."""

from pathlib import Path

import cv2

from pipeline.errors import UsageError
from pipeline.models.detectors import BgrImage, FaceBox

_FILE = "haarcascade_frontalface_default.xml"


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
        path = Path(str(cv2.__file__)).parent / "data" / _FILE
        self._cascade = cv2.CascadeClassifier()
        if not path.is_file() or not self._cascade.load(str(path)):
            raise UsageError(f"OpenCV's {_FILE} is missing from its package: pip install 'opencv-python-headless<5'")

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
