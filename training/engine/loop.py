"""The training loop: steps, averages, guards, looks, checkpoints. It owns every optimisation step.

Adversarial training does not fit trainers that own the step, so Fabric only launches, casts and wraps. All that a
step draws depends on (seed, step), so a run that goes on is the run that was never ended.
"""

import logging
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from schemas.errors import CheckpointError, DataError
from training.data.contract import check_labels, prepared
from training.engine.alarms import Alarms
from training.engine.board import Board
from training.engine.checkpoint import Parts, Store, Team, check_config, fill, read_state, restore
from training.engine.config import TrainConfig
from training.engine.ema import Average
from training.engine.syncnorm import synchronised
from training.recipes.anytalk.recipe import AnyTalkRecipe, Batch, Made, Moment

log = logging.getLogger(__name__)

Outcome = Literal["finished", "stopped"]


@runtime_checkable
class Resumable(Protocol):
    """Batches that know their place and can go on from it; the place is fit for JSON."""

    def state_dict(self) -> dict[str, Any]:
        """The place after the last batch handed out."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a place."""
        ...


@dataclass(slots=True)
class Progress:
    """How far a run is; kept in its checkpoints."""

    stage: str
    step: int = 0
    pairs: int = 0
    skipped: int = 0  # steps without an update, for a gradient that was no number
    accurate_since: int | None = None
    score: float | None = None


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
        recipe: networks and losses.
        config: of the run.
        folder: of the run; checkpoints, TensorBoard's files and pictures go there.
        validation: fixed batches, held out; the best checkpoint is chosen by them.
    """

    def __init__(
        self, fabric: Fabric, recipe: AnyTalkRecipe, config: TrainConfig, folder: Path, validation: Sequence[Batch] = ()
    ) -> None:
        self.fabric, self.recipe, self.config = fabric, recipe, config
        team = Team(fabric.global_rank, fabric.world_size, fabric.barrier)
        self.store = Store(folder / "checkpoints", config.keep_last, team)
        self.board = Board(folder / "board", folder / "pictures") if fabric.is_global_zero else None
        self.progress = Progress(config.stage)
        self.alarms = Alarms(config.alarms)
        self.validated: dict[str, float] = {}  # the average's figures on the validation, once it was looked at
        self._pace = Pace()
        self._stop = False
        recipe.to(fabric.device)
        self.validation = [self._ready(batch) for batch in validation]
        self._setup()

    def _setup(self) -> None:
        config, fabric, recipe = self.config, self.fabric, self.recipe
        synchronised(recipe.model, fabric.device)
        networks: tuple[nn.Module, ...] = (recipe.model, recipe.discriminator)
        rate = config.length.learning_rate
        self._adams = {
            name: Adam(network.parameters(), rate, betas=config.betas)
            for name, network in (("model", recipe.model), ("discriminator", recipe.discriminator))
        }
        if config.channels_last:
            flat = [layer for network in networks for layer in network.modules() if isinstance(layer, nn.Conv2d)]
            for layer in flat:
                layer.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        if config.compile:
            for network in networks:
                network.compile()
        self.model, self.model_steps = fabric.setup(recipe.model, self._adams["model"])
        self.judge, self.judge_steps = fabric.setup(recipe.discriminator, self._adams["discriminator"])
        self.average = Average(recipe.model, config.average)

    # ---- where a run begins ----------------------------------------------------------------------------------------

    def resume(self, path: Path, batches: object = None) -> None:
        """Go on from a checkpoint of this very run, with ``batches`` at their place.

        Raises:
            CheckpointError: when it is damaged, or of another stage, configuration or number of processes.
        """
        stage = read_state(path)["progress"].get("stage")
        if stage != self.config.stage:
            raise CheckpointError(
                f"{path} is of stage {stage} and this run of {self.config.stage}: begin from its weights instead"
            )
        progress, place = restore(path, self._parts(), self.config.model, self.store.team)
        self.progress = Progress(**progress)
        self.alarms.accurate_since = self.progress.accurate_since
        if place is not None and isinstance(batches, Resumable):
            batches.load_state_dict(place)

    def begin_from(self, path: Path) -> None:
        """Take the weights of another run, such as the first stage's, and nothing else of it.

        Raises:
            CheckpointError: when it is damaged or of other networks.
        """
        check_config(path, self.config.model)
        for name, module in self._parts().modules.items():
            fill(module, path, name)

    def _parts(self) -> Parts:
        recipe = self.recipe
        modules = {"model": recipe.model, "discriminator": recipe.discriminator, "average": self.average.module}
        return Parts(modules, {f"{name}_adam": adam for name, adam in self._adams.items()})

    # ---- running ---------------------------------------------------------------------------------------------------

    def run(self, batches: Iterable[Batch]) -> Outcome:
        """Train until the stage is over or the process is asked to end (SIGTERM), and save either way.

        Raises:
            DataError: when batches are not as ``training.data.contract`` says, or end.
        """
        before = signal.signal(signal.SIGTERM, self._asked_to_stop)
        try:
            stream = _endless(batches)
            while self.progress.pairs < self.config.length.num_pairs:
                self._one(stream)
                if self._everyone_stops():
                    self._save(batches)
                    return "stopped"
                if self.progress.step % self.config.save_every == 0:
                    self._save(batches)
            if self.progress.step % self.config.validate_every:
                self._validate()
            if self.progress.step % self.config.save_every:
                self._save(batches)
            return "finished"
        finally:
            signal.signal(signal.SIGTERM, before)
            if self.board is not None:
                self.board.flush()

    def _one(self, stream: Iterator[Batch]) -> None:
        began = time.monotonic()
        batch = self._ready(next(stream))
        waited_s = time.monotonic() - began
        made, scalars = self.step(batch)
        self._pace.num_steps += 1
        self._pace.num_pairs += len(batch["source"]) * self.fabric.world_size
        self._pace.took_s += time.monotonic() - began
        self._pace.waited_s += waited_s
        step, config = self.progress.step, self.config
        if step % config.log_every == 0:
            self._tell(made, scalars)
        if step % config.images_every == 0 and self.board is not None:
            self.board.picture("step", self.recipe.sheet(batch, made.rendered), step)
        if step % config.validate_every == 0:
            self._validate()

    def step(self, batch: Batch) -> tuple[Made, dict[str, Tensor]]:
        """Update the generator's side, its average and the discriminator once.

        Args:
            batch: prepared, on this process's device.

        Returns:
            What was made, and unweighted terms, gradient norms and ``accuracy``.
        """
        progress, recipe = self.progress, self.recipe
        self._set_rate()
        moment = Moment(self.config.seed, progress.step, self.fabric.global_rank, self.fabric.world_size)
        recipe.discriminator.requires_grad_(False)
        with self.fabric.autocast():
            made = recipe.generate(self.model, recipe.discriminator, batch, moment)
        recipe.discriminator.requires_grad_(True)
        scalars = dict(made.terms)
        scalars["gradient"] = self._update(self.model, self.model_steps, made.loss)
        sound = bool(scalars["gradient"].isfinite())
        if sound:
            self.average.update(recipe.model)
        else:
            self.average.restore_buffers(recipe.model)
        if sound and recipe.plays:
            with self.fabric.autocast():
                loss, terms = recipe.judge(self.judge, batch, made)
            norm = self._update(self.judge, self.judge_steps, loss)
            scalars |= terms | {"judge_gradient": norm}
            sound = bool(norm.isfinite())
        progress.step += 1
        progress.pairs += len(batch["source"]) * self.fabric.world_size
        progress.skipped += not sound
        return made, scalars

    def _update(self, network: nn.Module, optimiser: Optimizer, loss: Tensor) -> Tensor:
        """One optimiser step, unless the gradient is no number; every process sees the same gradient."""
        optimiser.zero_grad()
        self.fabric.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), self.config.clip)
        if norm.isfinite():
            optimiser.step()
        return norm.detach()

    def _set_rate(self) -> None:
        rate = self.config.rate(self.progress.pairs)
        for adam in self._adams.values():
            for group in adam.param_groups:
                group["lr"] = rate

    def _ready(self, batch: Batch) -> Batch:
        if not batch["driving_pose"].is_cuda:  # there, every look would stop the host
            check_labels(batch)
        there = {name: value.to(self.fabric.device, non_blocking=True) for name, value in batch.items()}
        return prepared(there, self.config.model.image_px)

    # ---- looking ---------------------------------------------------------------------------------------------------

    def _tell(self, made: Made, scalars: Mapping[str, Tensor]) -> None:
        progress, pace = self.progress, self._pace
        self._pace = Pace()
        figures = {name: value.item() for name, value in {**self.recipe.figures(made), **scalars}.items()}
        for name, sentence in self.alarms.look(progress.step, figures).items():
            log.warning("step %d: %s", progress.step, sentence)
            figures[f"alarm_{name}"] = 1.0
        progress.accurate_since = self.alarms.accurate_since
        pairs_s, wait = pace.num_pairs / pace.took_s, pace.waited_s / pace.took_s
        extra = {
            "rate": self._adams["model"].param_groups[0]["lr"],
            "skipped": progress.skipped,
            "data/wait_ms": 1000 * pace.waited_s / pace.num_steps,
            "data/wait_share": wait,
            "data/pairs_s": pairs_s,
        }
        if self.board is not None:
            self.board.scalars({**figures, **extra}, progress.step)
            terms = " ".join(f"{name}={value:.4g}" for name, value in figures.items())
            place = f"step {progress.step}: {progress.pairs} of {self.config.length.num_pairs} pairs"
            log.info("%s, %.3g pairs/s, %.0f%% of the time waiting for data; %s", place, pairs_s, 100 * wait, terms)

    def _validate(self) -> None:
        """Look at the held out pairs; only the first process does, and the others wait for it."""
        if not self.validation:
            return
        if self.board is not None:
            step, recipe = self.progress.step, self.recipe
            for name, model in (("model", recipe.model), ("average", self.average.module)):
                found = [recipe.validate(model, batch) for batch in self.validation]
                sizes = [len(batch["source"]) for batch in self.validation]
                self.validated = {
                    key: sum(one[key] * size for one, size in zip(found, sizes, strict=True)) / sum(sizes)
                    for key in found[0]
                }
                self.board.scalars({f"validation/{name}/{key}": value for key, value in self.validated.items()}, step)
            self.progress.score = self.validated["psnr_db"]  # the average's, which comes last
            log.info("step %d: %s", step, held_out_line(self.validated))
            first = self.validation[0]
            self.board.picture("held-out", recipe.sheet(first, recipe.render(self.average.module, first)), step)
        self.fabric.barrier()

    # ---- ending ----------------------------------------------------------------------------------------------------

    def _save(self, batches: object) -> None:
        place = batches.state_dict() if isinstance(batches, Resumable) else None
        progress = asdict(self.progress)
        self.store.save(progress.pop("step"), self._parts(), self.config.model, progress, place)

    def _asked_to_stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._stop = True

    def _everyone_stops(self) -> bool:
        """Whether any process was asked to end; all of them have to do it after the same step."""
        if self.fabric.world_size == 1:
            return self._stop
        return self.fabric.strategy.reduce_boolean_decision(self._stop, all=False)


def held_out_line(figures: Mapping[str, float]) -> str:
    """What validation found, in a sentence: made pictures and the sources themselves against the driving ones."""
    made, source = figures["psnr_db"], figures["psnr_source_db"]
    return f"held out: made {made:.2f} dB, the source itself {source:.2f} dB, gain {made - source:+.2f} dB"


def _endless(batches: Iterable[Batch]) -> Iterator[Batch]:
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise DataError("there are no batches: the shards hold no usable pair, or an iterator was used up")
