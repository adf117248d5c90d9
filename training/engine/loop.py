"""The training loop: steps, averages, guards, looks, checkpoints. It owns every optimisation step.

Adversarial training does not fit trainers that own the step, so Fabric only launches, casts and wraps. All that a
step draws depends on (seed, step), so a run that goes on is the run that was never ended.
"""

import logging
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal, Protocol, runtime_checkable

from lightning_fabric import Fabric
from torch import Tensor

from schemas.errors import CheckpointError, DataError
from training.engine.alarms import Alarms
from training.engine.board import Board
from training.engine.checkpoint import AVERAGE, Origin, Parts, Store, Team, check_config, fill, read_state, restore
from training.engine.events import AlarmEvent, EventLog, SavedEvent, StepEvent, ValidatedEvent, numbers
from training.engine.optimising import REST_PART, Clock, NoClock, Optimising
from training.recipes.base import Batch, Learner, Moment, Step, TrainConfig

log = logging.getLogger(__name__)

Outcome = Literal["finished", "stopped"]


@runtime_checkable
class Resumable(Protocol):
    """Batches that know their position and can go on from it; the position is fit for JSON."""

    def state_dict(self) -> dict[str, Any]:
        """The position after the last batch handed out."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a position."""
        ...


@dataclass(slots=True)
class RunState:
    """How far a run is; kept in its checkpoints as ``progress``."""

    stage: str
    step: int = 0
    pairs: int = 0
    skipped: int = 0  # steps with an update left out, for a gradient that was no number
    past_since: dict[str, int] = field(default_factory=dict[str, int])  # of the alarms
    score: float | None = None

    @classmethod
    def read(cls, progress: Mapping[str, Any]) -> "RunState":
        """As a checkpoint has it; older ones knew one alarm that lasts."""
        values = dict(progress)
        accurate_since = values.pop("accurate_since", None)
        if accurate_since is not None:
            values["past_since"] = {"accuracy": accurate_since}
        return cls(**values)


@dataclass(slots=True)
class Pace:
    """Steps since the last line about them: pairs in all processes, time, and the part of it until data was ready."""

    num_steps: int = 0
    num_pairs: int = 0
    took_s: float = 0.0
    waited_s: float = 0.0


class Trainer:
    """One run of one stage.

    Args:
        fabric: launched.
        learner: networks and losses.
        config: of the run.
        folder: of the run; checkpoints, TensorBoard's files and pictures go there.
        validation: fixed batches, held out; the best checkpoint is chosen by them.
        origin: what checkpoints say of where they come from.
        events: where events go.
        clock: told of the parts of a step.
    """

    def __init__(
        self,
        fabric: Fabric,
        learner: Learner,
        config: TrainConfig,
        folder: Path,
        validation: Sequence[Batch] = (),
        *,
        origin: Origin | None = None,
        events: EventLog | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.fabric, self.learner, self.config = fabric, learner, config
        self.clock = clock or NoClock()
        team = Team(fabric.global_rank, fabric.world_size, fabric.barrier)
        self.store = Store(folder / "checkpoints", config.keep_last, team, origin or Origin(score=learner.score))
        self.board = Board(folder / "board", folder / "pictures") if fabric.is_global_zero else None
        self.events = events if events is not None and fabric.is_global_zero else EventLog(None)
        self.state = RunState(config.stage)
        self.alarms = Alarms(learner.limits())
        self.validated: dict[str, float] = {}  # the average's figures on the validation, once it was looked at
        self._pace, self._rate = Pace(), config.length.learning_rate
        self._stop = False
        for network in learner.frozen():
            network.to(fabric.device)
        self.validation = [learner.prepare(batch, fabric.device) for batch in validation]
        self.optimising = Optimising(fabric, learner, config)
        self.average = self.optimising.average

    # ---- where a run begins ----------------------------------------------------------------------------------------

    def resume(self, path: Path, batches: object = None) -> None:
        """Go on from a checkpoint of this very run, with ``batches`` at their position.

        Raises:
            CheckpointError: when it is damaged, or of another stage, configuration or number of processes.
        """
        stage = read_state(path)["progress"].get("stage")
        if stage != self.config.stage:
            raise CheckpointError(
                f"{path} is of stage {stage} and this run of {self.config.stage}: begin from its weights instead"
            )
        progress, position = restore(path, self._parts(), self.config.networks, self.store.team)
        self.state = RunState.read(progress)
        self.alarms.past_since = dict(self.state.past_since)
        if position is not None and isinstance(batches, Resumable):
            batches.load_state_dict(position)

    def begin_from(self, path: Path) -> None:
        """Take the weights of another run, such as the first stage's, and nothing else of it.

        Raises:
            CheckpointError: when it is damaged or of other networks.
        """
        check_config(path, self.config.networks)
        for name, module in self._parts().modules.items():
            fill(module, path, name)

    def _parts(self) -> Parts:
        modules = {**self.learner.modules(), AVERAGE: self.average.module}
        return Parts(modules, {f"{name}_adam": adam for name, adam in self.optimising.adams.items()})

    # ---- running ---------------------------------------------------------------------------------------------------

    def run(self, batches: Iterable[Batch]) -> Outcome:
        """Train until the stage is over or the process is asked to end (SIGTERM), and save either way.

        Raises:
            DataError: when batches are not as the recipe needs them, or end.
        """
        before = signal.signal(signal.SIGTERM, self._asked_to_stop)
        try:
            stream = _endless(batches)
            while self.state.pairs < self.config.length.num_pairs:
                self._take(stream)
                if self._everyone_stops():
                    self._save(batches)
                    return "stopped"
                if self.state.step % self.config.save_every == 0:
                    self._save(batches)
            if self.state.step % self.config.validate_every:
                self._validate()
            if self.state.step % self.config.save_every:
                self._save(batches)
            return "finished"
        finally:
            signal.signal(signal.SIGTERM, before)
            if self.board is not None:
                self.board.flush()

    def _take(self, stream: Iterator[Batch]) -> None:
        """One step, and what is due after it."""
        began = time.monotonic()
        batch = self.learner.prepare(next(stream), self.fabric.device)
        waited_s = time.monotonic() - began
        step, figures = self.step(batch)
        self._pace.num_steps += 1
        self._pace.num_pairs += self._count(batch)
        self._pace.took_s += time.monotonic() - began
        self._pace.waited_s += waited_s
        number, config = self.state.step, self.config
        if number % config.log_every == 0:
            self._log(step, figures)
        if number % config.images_every == 0 and self.board is not None:
            self.board.picture("step", self.learner.sheet(step), number)
        if number % config.validate_every == 0:
            self._validate()

    def step(self, batch: Batch) -> tuple[Step, dict[str, Tensor]]:
        """Take every update of the learner once, until one goes wrong, and move the average.

        Args:
            batch: prepared, on this process's device.

        Returns:
            The step with its results; unweighted terms, gradient norms and what else updates tell.
        """
        state, fabric = self.state, self.fabric
        moment = Moment(self.config.seed, state.step, fabric.global_rank, fabric.world_size)
        step = Step(batch, moment, self.learner.modules())
        with self.clock.part(REST_PART):
            self._rate = self.config.rate(state.pairs)
            figures, sound = self.optimising.take(step, self._rate, self.clock)
        state.step += 1
        state.pairs += self._count(batch)
        state.skipped += not sound
        return step, figures

    def _count(self, batch: Batch) -> int:
        return len(batch["domain"]) * self.fabric.world_size

    # ---- looking ---------------------------------------------------------------------------------------------------

    def _log(self, step: Step, tensors: Mapping[str, Tensor]) -> None:
        state, pace = self.state, self._pace
        self._pace = Pace()
        figures = {name: value.item() for name, value in {**self.learner.figures(step), **tensors}.items()}
        alarms = self.alarms.look(state.step, figures)
        for name, sentence in alarms.items():
            log.warning("step %d: %s", state.step, sentence)
            self.events.write(AlarmEvent(step=state.step, figure=name, sentence=sentence))
        figures |= dict.fromkeys((f"alarm_{name}" for name in alarms), 1.0)
        state.past_since = dict(self.alarms.past_since)
        pairs_s, wait = pace.num_pairs / pace.took_s, pace.waited_s / pace.took_s
        extra = {
            "rate": self._rate,
            "skipped": state.skipped,
            "data/wait_ms": 1000 * pace.waited_s / pace.num_steps,
            "data/wait_share": wait,
            "data/pairs_s": pairs_s,
        }
        if self.board is not None:
            self.board.scalars({**figures, **extra}, state.step)
            terms = " ".join(f"{name}={value:.4g}" for name, value in figures.items())
            reached = f"step {state.step}: {state.pairs} of {self.config.length.num_pairs} pairs"
            log.info("%s, %.3g pairs/s, %.0f%% of the time waiting for data; %s", reached, pairs_s, 100 * wait, terms)
        self.events.write(
            StepEvent(
                step=state.step,
                samples=state.pairs,
                total_samples=self.config.length.num_pairs,
                samples_s=pairs_s,
                wait_share=wait,
                figures=numbers(figures),
            )
        )

    def _validate(self) -> None:
        """Look at the held out rows; only the first process does, and the others wait for it."""
        if not self.validation:
            return
        if self.board is not None:
            number, learner = self.state.step, self.learner
            for name, module in (("model", learner.modules()[learner.averaged()]), ("average", self.average.module)):
                self.validated = self._mean_figures([learner.validate(module, batch) for batch in self.validation])
                self.board.scalars({f"validation/{name}/{key}": value for key, value in self.validated.items()}, number)
            self.state.score = self.validated[learner.score.name]  # the average's, which comes last
            log.info("step %d: %s", number, learner.validation_line(self.validated))
            sheet = learner.validation_sheet(self.average.module, self.validation[0])
            self.board.picture("held-out", sheet, number)
            self.events.write(
                ValidatedEvent(step=number, figures=numbers(self.validated), score=numbers({"": self.state.score})[""])
            )
        self.fabric.barrier()

    def _mean_figures(self, figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
        sizes = [len(batch["domain"]) for batch in self.validation]
        return {
            key: sum(row[key] * size for row, size in zip(figures, sizes, strict=True)) / sum(sizes)
            for key in figures[0]
        }

    # ---- ending ----------------------------------------------------------------------------------------------------

    def _save(self, batches: object) -> None:
        position = batches.state_dict() if isinstance(batches, Resumable) else None
        progress = asdict(self.state)
        path = self.store.save(progress.pop("step"), self._parts(), self.config.networks, progress, position)
        self.events.write(SavedEvent(step=self.state.step, checkpoint=str(path)))

    def _asked_to_stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._stop = True

    def _everyone_stops(self) -> bool:
        """Whether any process was asked to end; all of them have to do it after the same step."""
        if self.fabric.world_size == 1:
            return self._stop
        return self.fabric.strategy.reduce_boolean_decision(self._stop, all=False)


def _endless(batches: Iterable[Batch]) -> Iterator[Batch]:
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise DataError("there are no batches: the shards hold no usable sample, or an iterator was used up")
