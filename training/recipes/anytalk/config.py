"""The sizes of the AnyTalk networks: one frozen record, kept in every checkpoint.

The paper's supplement copies two widths (137 and 2192) from a drawing with 20 keypoints; with its 15 they are 112
and 1792, which follow here from the rest.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.base import Record


class ModelConfig(Record):
    """Sizes of E_a, L, M, D, G and the discriminator; the defaults are AnyTalk's at 256 px with the SPADE generator."""

    image_px: int = Field(default=256, ge=16)
    """Side of pictures in and out."""
    network_px: int = Field(default=256, ge=16)
    """Side at which E_a, L and M look; half of image_px for 512."""
    num_keypoints: int = Field(default=15, ge=2)
    """Number of keypoints; the paper's K."""
    depth: int = Field(default=16, ge=2)
    """Cells of the feature volume along z."""
    feature_channels: int = Field(default=32, ge=1)
    """Channels per cell of the feature volume."""
    base_channels: int = Field(default=64, ge=2)
    """Channels after the first layer of each network; 64 throughout the figure."""
    max_channels: int = Field(default=1024, ge=2)
    """Most channels of a layer."""
    appearance_kernel: Literal[3, 7] = 7
    """Kernel of E_a's first layer: 7 in the figure, 3 in face-vid2vid's code with SPADE."""
    appearance_blocks: int = Field(default=6, ge=1)
    """Residual blocks of E_a."""
    feature_levels: Literal[1, 2] = 2
    """How often E_a halves the picture; once keeps what 64 px show, see DECISIONS 77."""
    hourglass_levels: int = Field(default=5, ge=1)
    """Halvings in L and D."""
    keypoint_kernel: Literal[3, 7] = 3
    """Kernel of L's last layer: 3 in face-vid2vid's code, 7 in the figure."""
    temperature: float = Field(default=0.1, gt=0)
    """Of the softmax over L's volume."""
    heatmap_variance: float = Field(default=0.01, gt=0)
    """Of the Gaussians around keypoints that D looks at."""
    compressed_channels: int = Field(default=4, ge=1)
    """Channels to which the features that D looks at are reduced."""
    mask_kernel: Literal[3, 7] = 7
    """Kernel of D's weights over its candidates; 7 in the figure, 3 costs a third of D less."""
    motion_blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    """Bottlenecks per stage of M; these are a ResNet-50's."""
    generator: Literal["spade", "plain"] = "spade"
    """With or without SPADE."""
    generator_blocks: int = Field(default=6, ge=1)
    """Residual blocks of G."""
    spade_channels: int = Field(default=128, ge=1)
    """Hidden width of every SPADE."""
    discriminator_blocks: int = Field(default=4, ge=1)
    """Blocks of the discriminator."""
    discriminator_scales: int = Field(default=1, ge=1)
    """Sizes at which pictures are judged; two at 512 px (supplement B.2)."""
    angle_offset_deg: float = 97.5
    """Angle of the first bin, negated; 99 for face-vid2vid's weights."""
    euler_order: Literal["xyz", "zyx"] = "xyz"
    """Order of the rotations."""
    pitch_sign: Literal[-1, 1] = -1
    """As labels mean it; face-vid2vid's weights have 1."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.image_px % self.network_px:
            raise ValueError(f"image_px {self.image_px} is no multiple of network_px {self.network_px}")
        cells, least = self.feature_px, 2**self.hourglass_levels
        if self.network_px % self.feature_stride or cells % least:
            raise ValueError(
                f"network_px {self.network_px} must be a multiple of {self.feature_stride * least} "
                f"for {self.hourglass_levels} hourglass levels"
            )
        return self

    @property
    def feature_stride(self) -> int:
        """Pixels of a network's picture per cell of the feature plane."""
        return 2**self.feature_levels

    @property
    def feature_px(self) -> int:
        """Side of the feature plane in cells."""
        return self.network_px // self.feature_stride

    @property
    def upscale(self) -> int:
        """Pixels made per pixel of a network's picture, by the generator's last layer."""
        return self.image_px // self.network_px

    def widths(self, levels: int) -> tuple[int, ...]:
        """Channels that double from level to level."""
        return tuple(min(self.base_channels << level, self.max_channels) for level in range(levels))


ANYTALK_256 = ModelConfig()
ANYTALK_256_PLAIN = ModelConfig(generator="plain")
ANYTALK_512 = ModelConfig(image_px=512, discriminator_scales=2)
# For tests and a first look on a CPU: every part is there, nothing is wide.
TINY = ModelConfig(
    image_px=64,
    network_px=64,
    num_keypoints=8,
    depth=4,
    feature_channels=8,
    base_channels=8,
    max_channels=32,
    appearance_blocks=2,
    hourglass_levels=3,
    motion_blocks=(1, 1, 1, 1),
    generator_blocks=2,
    spade_channels=16,
    discriminator_blocks=3,
)
# What learns to move heads within an hour on a processor: the plain generator, and cells of 2 px. At 64 px cells of 4
# leave little of a picture but their mean colours: a convolution and a mean over 2 × 2 pixels, twice, take the rest.
SMALL = TINY.model_copy(
    update={
        "generator": "plain",
        "base_channels": 16,
        "max_channels": 128,
        "feature_channels": 16,
        "feature_levels": 1,
        "compressed_channels": 2,
        "mask_kernel": 3,
        "appearance_kernel": 3,
        "appearance_blocks": 1,
        "generator_blocks": 1,
    }
)
PRESETS = {"256": ANYTALK_256, "256-plain": ANYTALK_256_PLAIN, "512": ANYTALK_512, "tiny64": TINY, "small64": SMALL}
