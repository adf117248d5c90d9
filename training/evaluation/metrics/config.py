"""Where the networks lie that metrics look with, and how a set of pairs is drawn; each default says its origin."""

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from schemas.base import Record
from schemas.expression import ExpressionInput
from training.networks.frozen import FrozenFile


class LpipsConfig(Record):
    """LPIPS: the features of a network, and the weights per channel that its authors publish."""

    backbone: Literal["alexnet", "squeezenet1_1"] = "alexnet"
    """The network whose features are compared; AlexNet is what papers report."""
    file: FrozenFile = FrozenFile()
    heads: FrozenFile = FrozenFile()


class IdentityConfig(Record):
    """Whose face it is: ArcFace, in the layout of InsightFace's arcface_torch."""

    network: Literal["iresnet50", "iresnet100"] = "iresnet100"
    file: FrozenFile = FrozenFile()


class ExpressionConfig(Record):
    """What a face expresses: a ResNet-50 with eight logits, or EMOCA's.

    ``input`` None is what the network was trained with: ImageNet's mean and spread, or for EMOCA's plain [0, 1]
    (its issue 7).
    """

    network: Literal["expression_resnet50", "emoca_resnet50"] = "expression_resnet50"
    file: FrozenFile = FrozenFile()
    input: ExpressionInput | None = None

    @property
    def given(self) -> ExpressionInput:
        """How a face is shown to the network."""
        if self.input is not None:
            return self.input
        plain = ExpressionInput(mean=(0.0, 0.0, 0.0), spread=(1.0, 1.0, 1.0))
        return plain if self.network == "emoca_resnet50" else ExpressionInput()


class MetricsConfig(Record):
    """A file for every metric that needs one."""

    lpips: LpipsConfig = LpipsConfig()
    fid: FrozenFile = FrozenFile()
    """Inception-v3 as pytorch-fid publishes it."""
    points: FrozenFile = FrozenFile()
    """2DFAN-4, the state dict of face-alignment 1.5."""
    identity: IdentityConfig = IdentityConfig()
    expression: ExpressionConfig = ExpressionConfig()
    niqe: FrozenFile = FrozenFile()
    """Statistics of natural pictures: .npz or .safetensors with mu_pris_param and cov_pris_param."""


class EvaluationConfig(Record):
    """Every setting of an evaluation."""

    seed: NonNegativeInt = 0
    """Of the drawing of pairs."""
    num_pairs: PositiveInt = 200
    """Pairs per group of domains; the paper's videos of a test of one domain."""
    num_frames: PositiveInt = 32
    """Frames of each driving clip, evenly spread; 200 pairs are then 6400, more than FID's 2048."""
    batch_size: PositiveInt = 8
    """Frames at once; beside speed only the last digits depend on it."""
    cache_dir: str | None = None
    """Where fetched shards lie; None: the user's cache folder."""
    metrics: MetricsConfig = MetricsConfig()
