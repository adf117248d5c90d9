"""Weights and settings of the losses; a weight of 0 removes the term and the need for its network."""

from typing import Literal

from pydantic import Field

from schemas.base import Record
from schemas.expression import ExpressionInput
from training.networks.frozen import FrozenFile


class PerceptualConfig(Record):
    """L_P: features of a frozen network over a pyramid of pictures."""

    weight: float = Field(default=10.0, ge=0)  # the paper's λ_P
    backbone: Literal["vgg19", "squeezenet1_1"] = "vgg19"
    num_scales: int = Field(default=4, ge=1)  # 256, 128, 64 and 32 px
    file: FrozenFile = FrozenFile()


class ExpressionLossConfig(Record):
    """L_exp: the same expression in the driving and the generated picture."""

    weight: float = Field(default=0.1, ge=0)  # the paper's λ_exp
    file: FrozenFile = FrozenFile()
    input: ExpressionInput = ExpressionInput()
    # Where the driving frame's logits come from. "shards" needs a release whose emotion logits this very network made;
    # "network" asks it again, of the picture as it is trained with: scaled, recoloured.
    target: Literal["network", "shards"] = "network"


class LossConfig(Record):
    """All weights, by the supplement (C.1) where it gives them."""

    perceptual: PerceptualConfig = PerceptualConfig()
    expression: ExpressionLossConfig = ExpressionLossConfig()
    pixel: float = Field(default=0.0, ge=0)  # mean |Δ| of pictures; not AnyTalk's, a crutch where runs are short
    adversarial: float = Field(default=1.0, ge=0)  # λ_G
    feature_matching: float = Field(default=10.0, ge=0)  # face-vid2vid's, inside λ_G; the supplement gives none
    equivariance: float = Field(default=10.0, ge=0)  # λ_E
    spread: float = Field(default=10.0, ge=0)  # λ_dist
    pose: float = Field(default=20.0, ge=0)  # λ_M, per degree
    deformation: float = Field(default=5.0, ge=0)  # λ_Δ
    min_distance_squared: float = Field(default=0.1, ge=0)  # D_t
    mean_depth: float = 0.33  # z_t
    min_pose_confidence: float = Field(default=0.5, ge=0, le=1)  # below it a label counts nothing
