"""What the settings of all recipes share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from schemas.base import Record
from training.data.config import AugmentConfig, PairsConfig


class StageConfig(Record):
    """How long, how fast, and from whom."""

    num_pairs: int = Field(ge=1)
    """Length in rows of batches: pairs of frames, or windows."""
    learning_rate: float = Field(gt=0)
    """Of every optimiser, until it drops."""
    domains: tuple[str, ...] = ()
    """Domains that are drawn from, all where empty; how they are mixed, data.alpha and data.weights say."""


@dataclass(frozen=True, slots=True)
class Stage:
    """How a stage begins.

    Attributes:
        after: the stage whose checkpoint it needs; None: it may begin from random weights.
        inherits: it trains the networks of that checkpoint on; otherwise it has networks of its own, and the
            checkpoint is what they build on (``DataFacts.checkpoint``).
    """

    after: str | None = None
    inherits: bool = True


class TrainConfig(Record):
    """What the settings of all recipes share.

    A recipe's own class adds its networks, losses and limits, and by the name of every stage a :class:`StageConfig`.
    Lengths are counted in pairs of frames, not epochs: face-vid2vid's code calls 75 draws per identity an epoch, so 200
    of them for about 1200 identities are 18 million pairs.
    """

    STAGES: ClassVar[Mapping[str, Stage]] = {}

    data: PairsConfig = PairsConfig()
    augment: AugmentConfig = AugmentConfig()
    stage: str = ""
    betas: tuple[float, float] = (0.5, 0.999)
    """Adam's; the reference code's."""
    drop_at: float = Field(default=0.9, gt=0, le=1)
    """Share of a stage after which the learning rate drops; the reference code's."""
    drop: float = Field(default=0.1, gt=0, le=1)
    """The learning rate after that, as a share of the one before."""
    average: float = Field(default=0.999, ge=0, lt=1)
    """Decay per step of the slow copy of the weights, which is what is evaluated."""
    clip: float = Field(default=10.0, gt=0)
    """Norm to which an update's gradient is cut."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of layers; coordinates are fp32 in both."""
    channels_last: bool = False
    """Store 2D weights channels last, which may be faster."""
    compile: bool = False
    """Compile the networks, which takes minutes at first."""
    seed: int = Field(default=0, ge=0)
    """Of weights and of what steps draw; data.seed is that of the batches."""
    num_validation_pairs: int = Field(default=64, ge=0)
    """Held out rows that are looked at, always the same; 0: none."""
    log_every: int = Field(default=50, ge=1)
    """Steps between lines of the log."""
    images_every: int = Field(default=1000, ge=1)
    """Steps between pictures of a step."""
    validate_every: int = Field(default=1000, ge=1)
    """Steps between looks at the held out rows."""
    save_every: int = Field(default=2000, ge=1)
    """Steps between checkpoints."""
    keep_last: int = Field(default=3, ge=1)
    """Newest checkpoints that are kept, beside the best."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.stage not in self.STAGES:
            raise ValueError(f"there is no stage {self.stage!r}: choose from {', '.join(self.STAGES)}")
        if self.image_px is not None and self.data.size_px not in (None, self.image_px):
            raise ValueError(f"data.size_px {self.data.size_px} is not the model's {self.image_px}: leave it out")
        if self.data.split != "train":
            raise ValueError(f"data.split {self.data.split} is held out: leave it out")
        return self

    @property
    def networks(self) -> Record:
        """What this stage's modules are built from; kept in every checkpoint, which is refused where it differs."""
        raise NotImplementedError

    @property
    def image_px(self) -> int | None:
        """Side of the pictures of this stage's batches; None: its batches have none."""
        raise NotImplementedError

    @property
    def length(self) -> StageConfig:
        """The settings of this run's stage."""
        return getattr(self, self.stage)

    @property
    def stage_plan(self) -> Stage:
        """How this run's stage begins."""
        return self.STAGES[self.stage]

    def rate(self, num_pairs: int) -> float:
        """Learning rate after so many pairs."""
        early = num_pairs < self.drop_at * self.length.num_pairs
        return self.length.learning_rate * (1.0 if early else self.drop)

    @property
    def loading(self) -> PairsConfig:
        """Which rows this run's stage draws: scaled to the model, of ``data.domains`` or else of the stage's."""
        changes = {"size_px": self.image_px, "domains": self.data.domains or self.length.domains}
        return self.data.model_copy(update=changes)
