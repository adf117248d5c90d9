"""ArcFace (Deng et al., CVPR 2019): whose face it is, as 512 numbers; InsightFace's networks and tensor names."""

from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from training.networks.geometry import sample

_BLOCKS = {"iresnet50": (3, 4, 14, 3), "iresnet100": (3, 13, 30, 3)}
EMBEDDING_SIZE = 512
_SQUARE_PX = 112
# Where eyes (image left first), the nose's tip and the mouth's corners are in the squares that it was trained on.
_PLACES = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])


class _Block(nn.Module):
    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(width_in)
        self.conv1 = nn.Conv2d(width_in, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.prelu = nn.PReLU(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        bends = stride > 1 or width_in != width
        shortcut = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        self.downsample = shortcut if bends else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        features = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(features)) + self.downsample(x)


class ArcFace(nn.Module):
    """Aligned faces to embeddings, which are compared by their cosine.

    Args:
        network: the 50 or the 100 layer one.
    """

    UNUSED: ClassVar[tuple[str, ...]] = ()

    def __init__(self, network: Literal["iresnet50", "iresnet100"]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.prelu = nn.PReLU(64)
        width_in = 64
        for stage, count in enumerate(_BLOCKS[network]):
            width = 64 << stage
            blocks = [_Block(width_in if not index else width, width, 1 if index else 2) for index in range(count)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            width_in = width
        self.bn2 = nn.BatchNorm2d(width_in)
        self.fc = nn.Linear(width_in * (_SQUARE_PX // 16) ** 2, EMBEDDING_SIZE)
        self.features = nn.BatchNorm1d(EMBEDDING_SIZE)

    def forward(self, faces: Float[Tensor, "B 3 112 112"]) -> Float[Tensor, "B 512"]:
        """Embeddings of faces in [0, 1] that :func:`aligned` has put into place; not yet of unit length."""
        x = self.prelu(self.bn1(self.conv1(2 * faces - 1)))
        for stage in range(4):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        return self.features(self.fc(self.bn2(x).flatten(1)))


def aligned(pictures: Float[Tensor, "B 3 S S"], points: Float[np.ndarray, "B 68 2"]) -> Float[Tensor, "B 3 112 112"]:
    """Faces turned, scaled and shifted so that five points come to lie where ArcFace wants them; black outside.

    Args:
        pictures: RGB in [0, 1].
        points: iBUG's 68 in pixels of the pictures, centres at whole numbers.
    """
    y, x = np.mgrid[:_SQUARE_PX, :_SQUARE_PX]
    square = np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    pixels = np.stack([_from_square(five_points(face)) @ square for face in points])
    last = np.array([[pictures.shape[3] - 1], [pictures.shape[2] - 1]])
    grid = (2 * pixels / last - 1).transpose(0, 2, 1).reshape(-1, _SQUARE_PX, _SQUARE_PX, 2)
    return sample(pictures, torch.from_numpy(grid).to(pictures))


def five_points(ibug68: Float[np.ndarray, "68 2"]) -> Float[np.ndarray, "5 2"]:
    """Eye centres, nose tip and mouth corners."""
    return np.stack([ibug68[36:42].mean(axis=0), ibug68[42:48].mean(axis=0), ibug68[30], ibug68[48], ibug68[54]])


def _from_square(five: Float[np.ndarray, "5 2"]) -> Float[np.ndarray, "2 3"]:
    """From pixels of the aligned square to those of the picture, inverting the least-squares similarity."""
    # x' = a x - b y + s, y' = b x + a y + t carries the picture's points to their places
    x, y = five.T
    ones, zeros = np.ones(5), np.zeros(5)
    rows = np.concatenate([np.stack([x, -y, ones, zeros], 1), np.stack([y, x, zeros, ones], 1)])
    a, b, s, t = np.linalg.lstsq(rows, _PLACES.T.ravel(), rcond=None)[0]
    turn = np.array([[a, b], [-b, a]]) / (a * a + b * b)
    return np.concatenate([turn, turn @ np.array([[-s], [-t]])], axis=1)
