"""L: canonical keypoints of a face, without its pose and expression."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from training.networks.blocks import Down, Shrink, Up
from training.networks.geometry import expected_keypoints
from training.recipes.anytalk.config import ModelConfig


class Keypoints(NamedTuple):
    """Canonical points in [-1, 1]³ and, per point, the entropy in nats of where it was found."""

    points: Float[Tensor, "B K 3"]
    entropy: Float[Tensor, "B K"]


class KeypointDetector(nn.Module):
    """A U-Net without skips from the shrunk picture to a volume per keypoint (supplement, Fig. 1b)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        widths = config.widths(config.hourglass_levels)
        self.temperature = config.temperature
        self.depth = config.depth
        self.shrink = Shrink(config.feature_stride)
        self.down = nn.Sequential(*map(Down, (3, *widths[:-1]), widths))
        self.lift = nn.Conv2d(widths[-1], widths[-1] * config.depth, 1)
        halves = tuple(width // 2 for width in reversed(widths))
        ups = [Up(before, after, dims=3) for before, after in zip((widths[-1], *halves[:-1]), halves, strict=True)]
        self.up = nn.Sequential(*ups)
        kernel = config.keypoint_kernel
        self.head = nn.Conv3d(halves[-1], config.num_keypoints, kernel, padding=kernel // 2)

    def forward(self, source: Float[Tensor, "B 3 S S"]) -> Keypoints:  # noqa: D102
        flat = self.lift(self.down(self.shrink(source)))
        logits = self.head(self.up(flat.unflatten(1, (-1, self.depth))))
        return Keypoints(*expected_keypoints(logits, self.temperature))
