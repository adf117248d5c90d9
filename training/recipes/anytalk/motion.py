"""M: head pose and expression of one frame, relative to its canonical keypoints."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from training.networks.blocks import Conv
from training.networks.geometry import NUM_ANGLE_BINS, expected_degrees
from training.recipes.anytalk.config import ModelConfig

_SQUEEZE = 4  # a bottleneck's inner width is a quarter of its outer one
_FIRST_SCALE = 0.1  # of the weights of t and δ before training


class Motion(NamedTuple):
    """Yaw, pitch and roll in degrees, t and δ in coordinates of [-1, 1]; single precision."""

    degrees: Float[Tensor, "B 3"]
    translation: Float[Tensor, "B 3"]
    deformation: Float[Tensor, "B K 3"]


class _Bottleneck(nn.Module):
    def __init__(self, width: int, stride: int = 1) -> None:
        super().__init__()
        inner = width // _SQUEEZE
        self.body = nn.Sequential(
            *Conv(width, inner, 1),
            nn.Conv2d(inner, inner, 3, stride, 1),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, width, 1),
            nn.BatchNorm2d(width),
        )
        shortcut = nn.Sequential(nn.Conv2d(width, width, 1, stride), nn.BatchNorm2d(width))
        self.shortcut = shortcut if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


class MotionEstimator(nn.Module):
    """A ResNet of bottlenecks with a 1×1 convolution before each stage (supplement, Fig. 1c)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.base_channels
        layers: list[nn.Module] = [
            nn.Conv2d(3, width, 7, 2, 3),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        ]
        for stage, num_blocks in enumerate(config.motion_blocks):
            wider = (config.base_channels * _SQUEEZE) << stage
            layers.append(Conv(width, wider, 1))
            layers += [_Bottleneck(wider, 2 if stage and not block else 1) for block in range(num_blocks)]
            width = wider
        self.trunk = nn.Sequential(*layers)
        self.yaw, self.pitch, self.roll = (nn.Linear(width, NUM_ANGLE_BINS) for _ in range(3))
        self.translation = nn.Linear(width, 3)
        self.deformation = nn.Linear(width, 3 * config.num_keypoints)
        self.offset_deg = config.angle_offset_deg
        # At torch's own scale t and δ of a new network scatter keypoints over a third of the picture at random, and
        # the first thing a run would learn is that they mean nothing.
        for head in (self.translation, self.deformation):
            head.weight.data.mul_(_FIRST_SCALE)
            head.bias.data.zero_()

    def forward(self, frames: Float[Tensor, "B 3 S S"]) -> Motion:  # noqa: D102
        features = self.trunk(frames).mean(dim=(2, 3))
        angles = [expected_degrees(head(features), self.offset_deg) for head in (self.yaw, self.pitch, self.roll)]
        deformation = self.deformation(features).float().unflatten(1, (-1, 3))
        return Motion(torch.stack(angles, dim=1), self.translation(features).float(), deformation)
