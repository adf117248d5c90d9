"""Read the head's angles from the picture, with a network that was trained on labelled poses."""

from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from pipeline.models.landmarkers import Image
from pipeline.models.onnx_session import OnnxNetwork
from schemas.face import XYXY

_INPUT_PX = 64
_MARGIN = 0.3


class PoseNetwork(Protocol):
    """Reads yaw, pitch and roll of the head in a box, in degrees of ``schemas.face.POSE_CONVENTION``."""

    def read(self, image: Image, box: XYXY) -> tuple[float, float, float]:
        """Angles of the head whose face (hairline to chin) fills ``box``, xyxy in pixels of ``image`` (RGB)."""
        ...


class FsaNet:
    """FSA-Net (Yang et al., CVPR 2019): the mean of two networks with different scoring functions.

    Its own signs are those of 300W-LP: yaw + nose to image left, pitch + up, roll + clockwise on screen; ours are the
    same, so nothing is turned around. Exports by omasaht/headpose-fsanet-pytorch.

    Args:
        convolved: the file of the network with a 1 × 1 convolution as scoring function.
        variance: the file of the one with the variance.

    Raises:
        UsageError: when a file is missing or another network.
    """

    def __init__(self, convolved: Path, variance: Path) -> None:
        shape = (1, 3, _INPUT_PX, _INPUT_PX)
        self._networks = [OnnxNetwork(path, shape, "the pose network FSA-Net") for path in (convolved, variance)]
        for network in self._networks:
            network.probe(np.zeros(shape, np.float32), 3, "yaw, pitch and roll")

    def read(self, image: Image, box: XYXY) -> tuple[float, float, float]:
        """The mean of what both networks read in a square around the box, with a margin on every side."""
        x0, y0, x1, y1 = box
        zoom = _INPUT_PX / (max(x1 - x0, y1 - y0) * (1 + _MARGIN))
        half = (_INPUT_PX - 1) / 2
        matrix = np.array([[zoom, 0, half - (x0 + x1) / 2 * zoom], [0, zoom, half - (y0 + y1) / 2 * zoom]])
        patch = cv2.warpAffine(image, matrix, (_INPUT_PX, _INPUT_PX), borderMode=cv2.BORDER_REPLICATE)
        blob = np.ascontiguousarray((patch[..., ::-1].astype(np.float32).transpose(2, 0, 1)[None] - 127.5) / 128)
        yaw, pitch, roll = np.mean([network.run(blob)[0] for network in self._networks], axis=0)
        return float(yaw), float(pitch), float(roll)
