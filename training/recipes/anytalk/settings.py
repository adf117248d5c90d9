"""Every setting of a training of AnyTalk; each default states its origin."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from schemas.base import Record
from schemas.errors import UsageError
from schemas.layers import merged
from training.losses.config import ExpressionLossConfig, PerceptualConfig
from training.recipes.anytalk.config import PRESETS, ModelConfig
from training.recipes.base import Stage, StageConfig, TrainConfig

DEFAULT_PRESET = "256"

# What settings were called before the losses had the literature's names.
RENAMED = {
    "losses.adversarial": "losses.generator_loss",
    "losses.spread": "losses.keypoint_prior",
    "losses.pose": "losses.head_pose",
    "losses.deformation": "losses.deformation_prior",
}


class LossConfig(Record):
    """All weights, by the supplement (C.1) where it gives them."""

    perceptual: PerceptualConfig = PerceptualConfig()
    expression: ExpressionLossConfig = ExpressionLossConfig()
    pixel: float = Field(default=0.0, ge=0)
    """Weight of the mean |Δ| of pictures; not AnyTalk's, a crutch where runs are short."""
    generator_loss: float = Field(default=1.0, ge=0)
    """Weight of the generator's hinge loss, λ_G."""
    feature_matching: float = Field(default=10.0, ge=0)
    """Weight of feature matching; face-vid2vid's, inside λ_G: the supplement gives none."""
    equivariance: float = Field(default=10.0, ge=0)
    """Weight of the equivariance of keypoints, λ_E."""
    keypoint_prior: float = Field(default=10.0, ge=0)
    """Weight of the prior that spreads keypoints, λ_dist."""
    head_pose: float = Field(default=20.0, ge=0)
    """Weight of the head pose's error, λ_M, per degree."""
    deformation_prior: float = Field(default=5.0, ge=0)
    """Weight of the prior that keeps deformations small, λ_Δ."""
    min_distance_squared: float = Field(default=0.1, ge=0)
    """Squared distance below which two keypoints cost something, D_t."""
    mean_depth: float = 0.33
    """Mean depth of keypoints that costs nothing, z_t."""
    min_pose_confidence: float = Field(default=0.5, ge=0, le=1)
    """Confidence below which a pose label counts nothing."""


class AlarmConfig(Record):
    """When a run is told to be collapsing; it goes on."""

    min_distance: float = 0.03
    """Least distance between any two keypoints, in [-1, 1]."""
    min_entropy: float = 1.0
    """Least entropy of a keypoint's volume, nats."""
    max_occlusion: float = 0.98
    """Highest mean of the occlusion map; above it the map says that everything is seen."""
    min_occlusion: float = 0.02
    """Lowest mean of the occlusion map; below it nothing of the source gets through, and every picture is the same;
    chosen."""
    min_deformation: float = 1e-4
    """Least spread of δ over a batch; below it expression is not used; chosen."""
    max_accuracy: float = 0.95
    """Highest accuracy of the discriminator, where it lasts for ``accurate_steps``."""
    accurate_steps: int = 2000
    """Steps for which the discriminator may be that accurate."""


class AnyTalkConfig(TrainConfig):
    """One run of one stage."""

    STAGES: ClassVar[Mapping[str, Stage]] = {"pretrain": Stage(), "finetune": Stage(after="pretrain")}

    model: ModelConfig = ModelConfig()
    losses: LossConfig = LossConfig()
    alarms: AlarmConfig = AlarmConfig()
    stage: Literal["pretrain", "finetune"] = "pretrain"  # pyright: ignore[reportIncompatibleVariableOverride]
    """Which stage is trained."""
    pretrain: StageConfig = StageConfig(num_pairs=18_000_000, learning_rate=2e-4, domains=("real",))
    """200 epochs of real people (C.1) at the rate of the reference code."""
    finetune: StageConfig = StageConfig(num_pairs=11_600_000, learning_rate=5e-5)
    """100 epochs of all domains, the real one among them, so that it is not forgotten (C.1); the rate was chosen."""

    @property
    def networks(self) -> ModelConfig:
        """The sizes of the networks, the same in both stages."""
        return self.model

    @property
    def image_px(self) -> int:
        """Side of the pictures."""
        return self.model.image_px


def preset_resolved(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Settings with the sizes of ``model.preset`` under those given.

    Raises:
        UsageError: for a preset that there is none of.
    """
    model = given.get("model", {})
    if not isinstance(model, dict):
        raise UsageError(f"{where}: model: expected settings such as model.preset=tiny64, found {model!r}")
    preset = str(model.get("preset", DEFAULT_PRESET))
    if preset not in PRESETS:
        raise UsageError(f"{where}: model.preset: there is no {preset!r}: choose from {', '.join(PRESETS)}")
    changes = {name: value for name, value in model.items() if name != "preset"}
    return {**given, "model": merged(PRESETS[preset].model_dump(mode="json"), changes)}
