"""How a recipe learns: the updates of a step, what tells a collapse, and by what a checkpoint is best."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from jaxtyping import Float, UInt8
from torch import Tensor, device, nn

from schemas.base import Record
from schemas.expression import ExpressionInput

Batch = Mapping[str, Tensor]  # by field; ``domain`` [B] i64 is in every one
Scalars = dict[str, Tensor]
Sheet = UInt8[Tensor, "3 H W"]  # pictures laid out, to look at

_R = TypeVar("_R", bound=Record)


@dataclass(frozen=True, slots=True)
class Moment:
    """Where in a run a step is: all that its random numbers depend on.

    ``rank`` of ``size`` processes draws its part of what one process would draw for the whole batch.
    """

    seed: int
    step: int
    rank: int = 0
    size: int = 1


@dataclass(frozen=True, slots=True)
class Step:
    """What the updates of one training step share.

    Attributes:
        batch: as :meth:`Learner.prepare` left it.
        moment: of the step.
        networks: the trained modules by name; those that the present update changes are wrapped for this process,
            all others get no gradient.
        results: what an update leaves for later ones, for figures and for pictures.
    """

    batch: Batch
    moment: Moment
    networks: Mapping[str, nn.Module]
    results: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Loss:
    """What an update minimises.

    Attributes:
        total: with its graph.
        figures: unweighted terms and whatever else is worth a curve, detached.
    """

    total: Float[Tensor, ""]
    figures: Scalars


def _always(_step: int) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Update:
    """One optimiser step of a training step; a step takes all of a learner's in order, until one goes wrong.

    Attributes:
        name: its Adam is ``NAME_adam`` in checkpoints, its gradient norm ``NAME_gradient`` among the figures.
        modules: names of the trained modules that it changes.
        loss: what is minimised; called once.
        when: of a step's number, whether this update is taken in it.
        rate: its learning rate as a share of the stage's.
    """

    name: str
    modules: tuple[str, ...]
    loss: Callable[[Step], Loss]
    when: Callable[[int], bool] = _always
    rate: float = 1.0


@dataclass(frozen=True, slots=True)
class Score:
    """The figure of the validation by which a checkpoint is best."""

    name: str
    higher_is_better: bool = True


@dataclass(frozen=True, slots=True)
class Limit:
    """What a figure may not pass; a run that does goes on, and it is said.

    Attributes:
        figure: its name.
        meaning: what it means, the beginning of a sentence.
        below: the least that is fine.
        above: the most that is fine.
        steps: it has to be past the limit for so many.
    """

    figure: str
    meaning: str
    below: float | None = None
    above: float | None = None
    steps: int = 0


class Checkpoint(Protocol):
    """One checkpoint on the disk, read only."""

    @property
    def path(self) -> Path:
        """Its folder."""
        ...

    @property
    def stage(self) -> str:
        """Which it is of."""
        ...

    @property
    def sha256(self) -> str:
        """Of its averaged weights, by which it is known."""
        ...

    def networks(self, kind: type[_R]) -> _R:
        """What its modules were built from.

        Raises:
            CheckpointError: when it was built from something else.
        """
        ...

    def fill(self, module: nn.Module, name: str) -> None:
        """Put the tensors of its module ``name`` (``average`` for the averaged one) into a module of the same shapes.

        Raises:
            CheckpointError: naming the first tensor that differs.
        """
        ...


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What is known once shards were found and before the first step.

    Attributes:
        domains: by the numbers of a batch's ``domain``.
        groups: by the numbers of ``group``, where the draw has quotas.
        expressions: by domain, how its emotion logits were made; None where it has none.
        landmark_schemes: by the numbers of ``scheme``, of windows.
        checkpoint: what this stage builds on (see :class:`Stage`); None for others.
    """

    domains: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    expressions: Mapping[str, ExpressionInput | None] = field(default_factory=dict[str, "ExpressionInput | None"])
    landmark_schemes: tuple[str, ...] = ()
    checkpoint: Checkpoint | None = None


class Learner(Protocol):
    """The networks of one stage and how they learn."""

    score: Score

    def modules(self) -> Mapping[str, nn.Module]:
        """Everything that a checkpoint keeps, by its name there; what no update names is kept as it is."""
        ...

    def frozen(self) -> Sequence[nn.Module]:
        """Networks that judge and are neither trained nor kept."""
        ...

    def averaged(self) -> str:
        """The module whose slow copy is kept as ``average``, evaluated, and used."""
        ...

    def updates(self) -> Sequence[Update]:
        """The updates of a step, in order; asked for once."""
        ...

    def prepare(self, batch: Batch, on: device) -> Batch:
        """A batch as the feed gives it, checked, on the device, as the losses want it.

        Raises:
            DataError: for what cannot be trained on.
        """
        ...

    def figures(self, step: Step) -> Scalars:
        """What tells a collapse, of a step whose first update was taken."""
        ...

    def limits(self) -> Sequence[Limit]:
        """Of figures, including an update's."""
        ...

    def sheet(self, step: Step) -> Sheet | None:
        """A picture of a step; None: there is nothing to see."""
        ...

    def validate(self, module: nn.Module, batch: Batch) -> dict[str, float]:
        """Figures of a held out batch, the score's among them.

        Args:
            module: the averaged module, or the trained one.
            batch: prepared.
        """
        ...

    def validation_sheet(self, module: nn.Module, batch: Batch) -> Sheet | None:
        """A picture of a held out batch; None: there is nothing to see."""
        ...

    def validation_line(self, figures: Mapping[str, float]) -> str:
        """What the validation found, in a sentence."""
        ...

    def summary(self) -> list[str]:
        """What is trained, for people: a line about the networks, a line about the losses."""
        ...
