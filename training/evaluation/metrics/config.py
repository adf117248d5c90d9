"""Where the networks lie that metrics look with, and how a set of pairs is drawn; each default says its origin."""

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from schemas.base import Record
from schemas.expression import ExpressionInput
from training.networks.frozen import FrozenFile


class LpipsConfig(Record):
    """LPIPS: the features of a network, and the weights per channel that its authors publish."""

    backbone: Literal["alexnet", "squeezenet1_1"] = "alexnet"
    """The network whose features are compared; papers report AlexNet's."""
    file: FrozenFile = FrozenFile()
    """The network's weights."""
    heads: FrozenFile = FrozenFile()
    """The weights per channel."""


class IdentityConfig(Record):
    """Whose face it is: ArcFace, in the layout of InsightFace's arcface_torch."""

    network: Literal["iresnet50", "iresnet100"] = "iresnet100"
    """Its layout."""
    file: FrozenFile = FrozenFile()
    """Its weights."""


class ExpressionConfig(Record):
    """What a face expresses: a ResNet-50 with eight logits, or EMOCA's."""

    network: Literal["expression_resnet50", "emoca_resnet50"] = "expression_resnet50"
    """Its layout."""
    file: FrozenFile = FrozenFile()
    """Its weights."""
    input: ExpressionInput | None = None
    """How a face is shown to it; None: as it was trained, with ImageNet's mean and spread, or for EMOCA's plain [0, 1]
    (its issue 7)."""

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
    """How alike two pictures look."""
    fid: FrozenFile = FrozenFile()
    """Inception-v3 as pytorch-fid publishes it."""
    points: FrozenFile = FrozenFile()
    """2DFAN-4, the state dict of face-alignment 1.5."""
    identity: IdentityConfig = IdentityConfig()
    """Whose face it is."""
    expression: ExpressionConfig = ExpressionConfig()
    """What a face expresses."""
    niqe: FrozenFile = FrozenFile()
    """NIQE's model: .npz or .safetensors with mu_pris_param and cov_pris_param."""


class EvaluationConfig(Record):
    """Every setting of an evaluation."""

    seed: NonNegativeInt = 0
    """Seed of the draw of pairs."""
    num_pairs: PositiveInt = 200
    """Pairs per group of domains; the paper's videos of a test of one domain."""
    num_frames: PositiveInt = 32
    """Frames of each driving clip, evenly spread; 200 pairs are then 6400, more than FID's 2048."""
    batch_size: PositiveInt = 8
    """Frames at once; beside speed only the last digits depend on it."""
    cache_dir: str | None = None
    """Folder of fetched shards; None: the user's cache folder."""
    metrics: MetricsConfig = MetricsConfig()
    """Where the metrics' networks lie."""
