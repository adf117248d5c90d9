"""FAN: 68 points of a face as heat maps of four stacked hourglasses (Bulat and Tzimiropoulos, ICCV 2017).

The network and its tensor names are those of the state dicts that the package face-alignment 1.5 reads (2DFAN-4). A
face is cut out where a box says, without that package's rounding to whole pixels.
"""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from training.networks.geometry import sample

_CROP_PX, _MAP_PX, _NUM_POINTS = 256, 64, 68
# Of the package: the crop's side is 200/195 of the box's width plus height, and it lies .12 of the height higher.
_SIDE, _RAISED = 200 / 195, 0.12
_NUM_HOURGLASSES, _DEPTH, _WIDTH = 4, 4, 256
# What each of the 68 points is called when left and right are exchanged.
_JAW, _BROWS, _NOSE = [*range(16, -1, -1)], [*range(26, 16, -1)], [27, 28, 29, 30, 35, 34, 33, 32, 31]
_EYES = [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
_LIPS = [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
_MIRRORED = [*_JAW, *_BROWS, *_NOSE, *_EYES, *_LIPS]


class _Block(nn.Module):
    """Three convolutions, each on the one before, side by side in the result (Fig. 1 of the paper, right)."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        widths = (width_in, width // 2, width // 4, width // 4)
        for number in (1, 2, 3):
            self.add_module(f"bn{number}", nn.BatchNorm2d(widths[number - 1]))
            convolution = nn.Conv2d(widths[number - 1], widths[number], 3, 1, 1, bias=False)
            self.add_module(f"conv{number}", convolution)
        shortcut = nn.Sequential(nn.BatchNorm2d(width_in), nn.ReLU(), nn.Conv2d(width_in, width, 1, bias=False))
        self.downsample = nn.Identity() if width_in == width else shortcut

    def forward(self, x: Tensor) -> Tensor:
        parts, last = [], x
        for number in (1, 2, 3):
            last = self.get_submodule(f"conv{number}")(functional.relu(self.get_submodule(f"bn{number}")(last)))
            parts.append(last)
        return torch.cat(parts, dim=1) + self.downsample(x)


class _Hourglass(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for level in range(_DEPTH, 0, -1):
            for part in ("b1", "b2", "b3"):
                self.add_module(f"{part}_{level}", _Block(_WIDTH, _WIDTH))
        self.b2_plus_1 = _Block(_WIDTH, _WIDTH)

    def forward(self, x: Tensor, level: int = _DEPTH) -> Tensor:
        low = self.get_submodule(f"b2_{level}")(functional.avg_pool2d(x, 2))
        low = self.b2_plus_1(low) if level == 1 else self.forward(low, level - 1)
        low = self.get_submodule(f"b3_{level}")(low)
        return self.get_submodule(f"b1_{level}")(x) + functional.interpolate(low, scale_factor=2, mode="nearest")


class FaceAlignment(nn.Module):
    """2DFAN-4: faces of 256 px to heat maps of 64."""

    UNUSED: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2, self.conv3, self.conv4 = _Block(64, 128), _Block(128, 128), _Block(128, _WIDTH)
        for index in range(_NUM_HOURGLASSES):
            self.add_module(f"m{index}", _Hourglass())
            self.add_module(f"top_m_{index}", _Block(_WIDTH, _WIDTH))
            self.add_module(f"conv_last{index}", nn.Conv2d(_WIDTH, _WIDTH, 1))
            self.add_module(f"bn_end{index}", nn.BatchNorm2d(_WIDTH))
            self.add_module(f"l{index}", nn.Conv2d(_WIDTH, _NUM_POINTS, 1))
            if index < _NUM_HOURGLASSES - 1:
                self.add_module(f"bl{index}", nn.Conv2d(_WIDTH, _WIDTH, 1))
                self.add_module(f"al{index}", nn.Conv2d(_NUM_POINTS, _WIDTH, 1))

    def forward(self, faces: Float[Tensor, "B 3 256 256"]) -> Float[Tensor, "B 68 64 64"]:
        """Heat maps of the last hourglass for faces in [0, 1]."""
        x = functional.relu(self.bn1(self.conv1(faces)))
        x = self.conv4(self.conv3(functional.avg_pool2d(self.conv2(x), 2)))
        maps = x
        for index in range(_NUM_HOURGLASSES):
            part = self.get_submodule
            features = part(f"top_m_{index}")(part(f"m{index}")(x))
            features = functional.relu(part(f"bn_end{index}")(part(f"conv_last{index}")(features)))
            maps = part(f"l{index}")(features)
            if index < _NUM_HOURGLASSES - 1:
                x = x + part(f"bl{index}")(features) + part(f"al{index}")(maps)
        return maps

    def locate(self, pictures: Float[Tensor, "B 3 S S"], faces: Float[Tensor, "B 4"]) -> Float[Tensor, "B 68 3"]:
        """Points in pixels of the pictures, centres at whole numbers, and the height of each one's heat map.

        Every face is seen twice, once mirrored, as in the package.

        Args:
            pictures: RGB in [0, 1].
            faces: hairline to chin, xyxy as shares of the picture.
        """
        size = pictures.shape[-1]
        low, high = faces[:, :2] * size, faces[:, 2:] * size
        extent = high - low
        side = extent.sum(dim=1) * _SIDE
        middle = (low + high) / 2 - torch.stack([torch.zeros_like(side), _RAISED * extent[:, 1]], dim=1)
        steps = ((torch.arange(_CROP_PX, device=pictures.device) + 0.5) / _CROP_PX - 0.5) * side[:, None]
        x, y = (2 * (middle[:, axis, None] + steps - 0.5) / (size - 1) - 1 for axis in (0, 1))
        grid = torch.stack([x[:, None].expand(-1, _CROP_PX, -1), y[:, :, None].expand(-1, -1, _CROP_PX)], dim=-1)
        crops = sample(pictures, grid)
        maps = (self(crops) + self(crops.flip(-1)).flip(-1)[:, _MIRRORED]) / 2
        peaks = _peaks(maps) * (side / _MAP_PX)[:, None, None] + (middle - side[:, None] / 2)[:, None]
        return torch.cat([peaks - 0.5, maps.amax(dim=(2, 3))[..., None].clamp(0, 1)], dim=2)


def _peaks(maps: Float[Tensor, "B P M M"]) -> Float[Tensor, "B P 2"]:
    """Where each map is highest, in its pixels with the corner at 0, a quarter towards the higher neighbour."""
    size = maps.shape[-1]
    best = maps.flatten(2).argmax(dim=2)
    row, column = best // size, best % size
    inside = (row > 0) & (row < size - 1) & (column > 0) & (column < size - 1)

    def at(down: int, across: int) -> Tensor:
        pixel = (row + down).clamp(0, size - 1) * size + (column + across).clamp(0, size - 1)
        return maps.flatten(2).gather(2, pixel[..., None])[..., 0]

    step = torch.stack([(at(0, 1) - at(0, -1)).sign(), (at(1, 0) - at(-1, 0)).sign()], dim=-1)
    return torch.stack([column, row], dim=-1) + 0.5 + 0.25 * step * inside[..., None]
