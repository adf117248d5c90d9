"""Weights and settings of the losses; a weight of 0 removes the term and the need for its network."""

from typing import Literal

from pydantic import Field

from schemas.base import Record
from schemas.expression import ExpressionInput
from training.networks.frozen import FrozenFile


class PerceptualConfig(Record):
    """L_P: features of a frozen network over a pyramid of pictures."""

    weight: float = Field(default=10.0, ge=0)
    """Of this term; the paper's λ_P."""
    backbone: Literal["vgg19", "squeezenet1_1"] = "vgg19"
    """The network whose features are compared."""
    num_scales: int = Field(default=4, ge=1)
    """Sizes of the pictures, each half the one before; 4 are 256, 128, 64 and 32 px."""
    file: FrozenFile = FrozenFile()
    """Its weights."""


class ExpressionLossConfig(Record):
    """L_exp: the same expression in the driving and the generated picture."""

    weight: float = Field(default=0.1, ge=0)
    """Of this term; the paper's λ_exp."""
    file: FrozenFile = FrozenFile()
    """Its weights."""
    input: ExpressionInput = ExpressionInput()
    """How it sees a face."""
    target: Literal["network", "shards"] = "network"
    """Where the driving frame's logits come from. "shards" needs a release whose emotion logits this very network
    made; "network" asks it again, of the picture as it is trained with: scaled, recoloured."""
