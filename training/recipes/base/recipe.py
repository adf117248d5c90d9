"""What a recipe declares of itself."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import device

from training.data.draws import Draw
from training.recipes.base.driving import Driver, Encoder
from training.recipes.base.learning import Batch, Checkpoint, DataFacts, Learner
from training.recipes.base.settings import TrainConfig

Published = Mapping[tuple[str, str, str], Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True, slots=True)
class Literature:
    """What papers' tables say: figures by (protocol, driving domain, source domain), then system, then metric.

    ``notes`` are lines under a table that shows some of them.
    """

    figures: Published = field(default_factory=dict[tuple[str, str, str], "Mapping[str, Mapping[str, float]]"])
    notes: tuple[str, ...] = ()


class RecipeBench(Protocol):
    """True sizes with random weights and random batches, on which speed does not depend."""

    presets: tuple[str, ...]
    cpu_preset: str
    gpu_preset: str

    def config(self, preset: str, batch_size: int) -> AbstractContextManager[tuple[TrainConfig, str]]:
        """Settings whose frozen networks have random weights in files of their own, and a line about these."""
        ...

    def batch(self, count: int, config: TrainConfig) -> Batch:
        """Noise whose labels are believed, on the host."""
        ...

    def driver(self, preset: str, on: device) -> Driver:
        """Random networks that move pictures."""
        ...


class Recipe(Protocol):
    """What the object ``RECIPE`` of a recipe's folder is.

    Attributes:
        name: in commands, ``run.json`` and ``state.json``.
        title: for people.
        Config: the class of its settings.
        renamed: old names of settings and their present ones, ``group.name``.
        literature: what a table of an evaluation is read beside.
        bench: what its speed is measured with; None: nothing yet.
    """

    name: str
    title: str
    Config: type[TrainConfig]
    renamed: Mapping[str, str]
    literature: Literature
    bench: RecipeBench | None

    def settings(self, given: dict[str, Any], where: str) -> dict[str, Any]:
        """Settings as the user gave them over the defaults, with presets resolved.

        Raises:
            UsageError: for a preset that there is none of, naming ``where``.
        """
        ...

    def draw(self, config: TrainConfig, checkpoint: Checkpoint | None) -> Draw:
        """What a batch of this stage is.

        Args:
            config: of the run.
            checkpoint: what the stage builds on (see ``Stage``); what it encoded says by which checkpoint.
        """
        ...

    def learner(self, config: TrainConfig, facts: DataFacts) -> Learner:
        """Networks and losses of this stage.

        Raises:
            UsageError: when a frozen network cannot be loaded, or the data lack what the losses need.
        """
        ...

    def driver(self, checkpoint: Checkpoint, on: device) -> Driver:
        """What a checkpoint has learned, ready to move pictures.

        Raises:
            UsageError: when it is of a stage that moves none.
            CheckpointError: when it is damaged.
        """
        ...

    def encoder(self, checkpoint: Checkpoint, on: device) -> Encoder:
        """What a later stage learns from.

        Raises:
            UsageError: when nothing does.
            CheckpointError: when it is damaged.
        """
        ...
