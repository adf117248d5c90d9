"""Every setting of a training run; each default states its origin.

Lengths are counted in pairs of frames, not epochs: face-vid2vid's code calls 75 draws per identity an epoch, so 200
of them for about 1200 identities are 18 million pairs.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.base import Record
from training.data.config import AugmentConfig, PairsConfig
from training.losses.config import LossConfig
from training.recipes.anytalk.config import ModelConfig

Stage = Literal["pretrain", "finetune"]


class StageConfig(Record):
    """How long, how fast, and from whom."""

    num_pairs: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    domains: tuple[str, ...] = ()  # () is every domain of the release; how they are mixed, data.alpha and weights say


class AlarmConfig(Record):
    """When a run is told to be collapsing; it goes on."""

    min_distance: float = 0.03  # between any two keypoints, in [-1, 1]
    min_entropy: float = 1.0  # of a keypoint's volume, nats
    max_occlusion: float = 0.98  # mean; above it the map says that everything is seen
    min_occlusion: float = 0.02  # below it nothing of the source gets through, and every picture is the same (mine)
    min_deformation: float = 1e-4  # spread of δ over a batch: below it, expression is not used (mine)
    max_accuracy: float = 0.95  # of the discriminator, for as many steps as the next line says
    accurate_steps: int = 2000


class TrainConfig(Record):
    """One run of one stage."""

    model: ModelConfig = ModelConfig()
    data: PairsConfig = PairsConfig()
    augment: AugmentConfig = AugmentConfig()
    losses: LossConfig = LossConfig()
    alarms: AlarmConfig = AlarmConfig()
    stage: Stage = "pretrain"
    # 200 epochs of real people (C.1), rate of the reference code; then 100 of all domains, the real one among them, so
    # that it is not forgotten (C.1); that rate is mine.
    pretrain: StageConfig = StageConfig(num_pairs=18_000_000, learning_rate=2e-4, domains=("real",))
    finetune: StageConfig = StageConfig(num_pairs=11_600_000, learning_rate=5e-5)
    betas: tuple[float, float] = (0.5, 0.999)  # Adam's, reference code
    drop_at: float = Field(default=0.9, gt=0, le=1)  # share of a stage after which the rate drops, reference code
    drop: float = Field(default=0.1, gt=0, le=1)  # to this share of it
    average: float = Field(default=0.999, ge=0, lt=1)  # decay of the evaluated weights, per step
    clip: float = Field(default=10.0, gt=0)  # norm of a network's gradient
    precision: Literal["fp32", "bf16"] = "fp32"  # of layers; coordinates are fp32 in both
    channels_last: bool = False
    compile: bool = False
    seed: int = Field(default=0, ge=0)  # of weights and of what steps draw; data.seed is that of the batches
    num_validation_pairs: int = Field(default=64, ge=0)  # held out and fixed; 0: none are looked at
    log_every: int = Field(default=50, ge=1)  # steps, as the next three
    images_every: int = Field(default=1000, ge=1)
    validate_every: int = Field(default=1000, ge=1)
    save_every: int = Field(default=2000, ge=1)
    keep_last: int = Field(default=3, ge=1)  # checkpoints, beside the best

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if self.data.size_px not in (None, self.model.image_px):
            raise ValueError(f"data.size_px {self.data.size_px} is not the model's {self.model.image_px}: leave it out")
        if self.data.split != "train":
            raise ValueError(f"data.split {self.data.split} is held out: leave it out")
        return self

    @property
    def length(self) -> StageConfig:
        """The settings of this run's stage."""
        return self.finetune if self.stage == "finetune" else self.pretrain

    def rate(self, num_pairs: int) -> float:
        """Learning rate after so many pairs."""
        early = num_pairs < self.drop_at * self.length.num_pairs
        return self.length.learning_rate * (1.0 if early else self.drop)

    @property
    def loading(self) -> PairsConfig:
        """Which pairs this run's stage draws: scaled to the model, of ``data.domains`` or else of the stage's."""
        changes = {"size_px": self.model.image_px, "domains": self.data.domains or self.length.domains}
        return self.data.model_copy(update=changes)
