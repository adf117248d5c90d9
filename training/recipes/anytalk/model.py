"""AnyTalk: a source picture moved as a driving picture moves, by canonical 3D keypoints (AnyTalk, Fig. 3).

One motion estimator looks at all frames of a step in one call, so that batch norm sees them together and the
distributed wrapper sees one forward pass.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from training.networks.blocks import Shrink
from training.networks.geometry import head_rotation, transform_keypoints
from training.recipes.anytalk.appearance import AppearanceEncoder
from training.recipes.anytalk.config import ModelConfig
from training.recipes.anytalk.dense_motion import DenseMotion, DenseMotionNetwork
from training.recipes.anytalk.generator import Generator
from training.recipes.anytalk.keypoints import KeypointDetector, Keypoints
from training.recipes.anytalk.motion import Motion, MotionEstimator

Pictures = Float[Tensor, "B 3 S S"]  # RGB in [0, 1]


class Source(NamedTuple):
    """What is computed once per source picture."""

    features: Float[Tensor, "B C D H W"]
    canonical: Keypoints
    motion: Motion
    points: Float[Tensor, "B K 3"]

    def repeated(self, count: int) -> "Source":
        """A single source for ``count`` frames, as far as rendering looks at it; nothing is copied."""
        features, points = self.features.expand(count, -1, -1, -1, -1), self.points.expand(count, -1, -1)
        return self._replace(features=features, points=points)


class Rendered(NamedTuple):
    """A step's results; ``deformed_points`` are of the deformed driving pictures."""

    picture: Pictures
    canonical: Keypoints
    source_points: Float[Tensor, "B K 3"]
    driving_points: Float[Tensor, "B K 3"]
    deformed_points: Float[Tensor, "B K 3"]
    source_motion: Motion
    driving_motion: Motion
    dense: DenseMotion


class AnyTalk(nn.Module):
    """E_a, L, M, D and G. Calling it is one training pass; ``look`` and ``render`` are its halves for inference."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.shrink = Shrink(config.upscale)
        self.appearance = AppearanceEncoder(config)
        self.keypoints = KeypointDetector(config)
        self.motion = MotionEstimator(config)
        self.dense_motion = DenseMotionNetwork(config)
        self.generator = Generator(config)

    def forward(self, source: Pictures, driving: Pictures, deformed: Pictures) -> Rendered:
        """One training pass.

        Args:
            source: RGB in [0, 1].
            driving: another frame of the same clip.
            deformed: the driving frame under a known deformation.
        """
        count = len(source)
        small = self.shrink(torch.cat([source, driving, deformed]))
        motion = self.motion(small)
        canonical = self.keypoints(small[:count])
        features = self.appearance(small[:count])
        parts = [Motion(*of) for of in zip(*(values.split(count) for values in motion), strict=True)]
        points = [self.points(canonical.points, part) for part in parts]
        dense = self.dense_motion(features, points[0], points[1])
        picture = self.generator(features, dense)
        return Rendered(picture, canonical, points[0], points[1], points[2], parts[0], parts[1], dense)

    def points(self, canonical: Float[Tensor, "B K 3"], motion: Motion) -> Float[Tensor, "B K 3"]:
        """Keypoints of a frame: x = R x_c + t + δ."""
        rotation = head_rotation(motion.degrees, self.config.euler_order, self.config.pitch_sign)
        return transform_keypoints(canonical, rotation, motion.translation, motion.deformation)

    def look(self, source: Pictures) -> Source:
        """Everything about a source that no driving frame changes."""
        small = self.shrink(source)
        canonical, motion = self.keypoints(small), self.motion(small)
        return Source(self.appearance(small), canonical, motion, self.points(canonical.points, motion))

    def follow(self, frames: Pictures) -> Motion:
        """The motion of driving frames."""
        return self.motion(self.shrink(frames))

    def render(self, source: Source, points: Float[Tensor, "B K 3"]) -> Pictures:
        """The source with its keypoints at ``points``."""
        dense = self.dense_motion(source.features, source.points, points)
        return self.generator(source.features, dense)
