"""One training run from its settings to its end; what can be known to be wrong is said before the first step.

The folder of a run holds its settings beside its checkpoints, so that going on with others is noticed: a run that was
ended and goes on is to be the run that was never ended.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from pydantic import ValidationError

from schemas.base import Record
from schemas.errors import CheckpointError, UsageError
from schemas.expression import ExpressionInput
from schemas.uri import redact
from training.data import PairLoader, pairs
from training.engine.checkpoint import Store, check_config
from training.engine.config import TrainConfig
from training.engine.feed import Feed, held_out, held_out_domains
from training.engine.launch import start
from training.engine.loop import Outcome, Trainer, held_out_line
from training.losses.config import ExpressionLossConfig
from training.recipes.anytalk.recipe import AnyTalkRecipe

RUN_FILE = "run.json"

# Settings that may change when a run goes on: they decide what is told and kept, not what is learned.
_TOLD = {"alarms", "num_validation_pairs", "log_every", "images_every", "validate_every", "save_every", "keep_last"}


class RunRecord(Record):
    """What a run was started with; ``run.json`` in its folder."""

    config: TrainConfig
    shards: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What to train, on what, and where it goes.

    Attributes:
        shards: the folder or URI of one release, or shards by path or URL.
        output: folder of the run.
        init: a checkpoint, or a run's folder, whose weights a new run begins with.
        resume: go on from the newest checkpoint in ``output``.
        accelerator: ``cpu``, ``cuda`` or ``auto``.
    """

    shards: Sequence[str]
    output: Path
    config: TrainConfig
    init: Path | None = None
    resume: bool = False
    accelerator: str = "auto"


def train(request: RunRequest, tell: Callable[[str], None]) -> tuple[Outcome, str]:
    """Train until the stage is over or the process is asked to end.

    Args:
        request: what, on what, and where.
        tell: given a few lines about the run before its first step, in the first process only.

    Returns:
        How it ended, and a sentence about it.

    Raises:
        UsageError: for what the user gave wrong, before the first step.
        DataError, CheckpointError: when shards or a checkpoint cannot be read.
    """
    config, where = request.config, request.shards[0] if len(request.shards) == 1 else request.shards
    checkpoint, weights = _beginning(request)
    fabric = start(config, request.accelerator)
    loader = pairs(where, config.loading, pin_memory=fabric.device.type == "cuda")
    _check_expression(config.losses.expression, loader.expressions)
    feed = Feed(loader, config.augment, fabric.device)
    recipe = AnyTalkRecipe(config)
    looked_at = held_out_domains(where, config)
    validation = held_out(where, config, *looked_at) if looked_at else []
    _make_folder(request.output)
    trainer = Trainer(fabric, recipe, config, request.output, validation)
    if checkpoint is not None:
        trainer.resume(checkpoint, feed)
    elif weights is not None:
        trainer.begin_from(weights)
    if fabric.is_global_zero:
        _write_record(request)
        for line in _summary(request, trainer, loader, looked_at):
            tell(line)
        tell(f"begins {_told_beginning(checkpoint, weights)}, goes to {request.output}")
    outcome = trainer.run(feed)
    told = f"; {held_out_line(trainer.validated)}" if trainer.validated else ""
    skipped = f"; unusable samples skipped: {dict(loader.skipped)}" if loader.skipped else ""
    return outcome, f"{outcome} after step {trainer.progress.step}{told}{skipped}"


def _check_expression(config: ExpressionLossConfig, made: Mapping[str, ExpressionInput | None]) -> None:
    """Refuse targets from shards that have none, or whose network saw faces otherwise."""
    if not config.weight or config.target != "shards":
        return
    for domain, given in made.items():
        if given is None:
            raise UsageError(
                f"losses.expression.target is 'shards' and the domain {domain!r} has no emotion logits: build it with "
                "an expression model, or set the target to 'network'"
            )
        if given != config.input:
            raise UsageError(
                f"the emotion logits of the domain {domain!r} were made with {given.model_dump_json()}: set "
                "losses.expression.input to it, or the target to 'network'"
            )


# ---- where it begins -----------------------------------------------------------------------------------------------


def _beginning(request: RunRequest) -> tuple[Path | None, Path | None]:
    """The checkpoint to go on from, or else the weights to begin with; neither for a run from nothing."""
    output, stage = request.output, request.config.stage
    record = _read_record(output)
    if record is None and request.resume:
        raise UsageError(f"there is no run in {output} to resume: leave --resume out to begin one")
    if record is not None:
        if not request.resume:
            raise UsageError(f"{output} holds a run already: go on with it by --resume, or name another folder")
        _check_same(record.config, request.config, output)
        checkpoint = Store(output / "checkpoints").latest()
        if checkpoint is not None:
            return checkpoint, None
    if request.init is not None:
        return None, _weights(request.init, request.config)
    if stage == "finetune":
        raise UsageError("the stage finetune begins with the first stage's weights: name a checkpoint by --init")
    return None, None


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--output: the folder {output} cannot be made: {error.strerror}") from error


def _weights(path: Path, config: TrainConfig) -> Path:
    """The checkpoint that ``--init`` names, of this model."""
    inside = path / "checkpoints"
    found = Store(inside).latest() if inside.is_dir() else path
    if found is None:
        raise UsageError(f"--init: the run in {path} has no checkpoint yet")
    try:
        check_config(found, config.model)
    except CheckpointError as error:
        raise UsageError(f"--init: {error}") from error
    return found


def _told_beginning(checkpoint: Path | None, weights: Path | None) -> str:
    if checkpoint is not None:
        return f"where {checkpoint.name} ended"
    return f"with the weights of {weights}" if weights else "from random weights"


def _read_record(output: Path) -> RunRecord | None:
    path = output / RUN_FILE
    try:
        return RunRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise UsageError(f"--output: {output} is no folder") from error
    except OSError as error:
        raise UsageError(f"--output: {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise UsageError(
            f"{path} is damaged or of another version: name another folder, or use the version that wrote it"
        ) from error


def _write_record(request: RunRequest) -> None:
    record = RunRecord(config=request.config, shards=tuple(redact(one) for one in request.shards))
    path = request.output / RUN_FILE
    aside = path.with_name(f".{path.name}.partial")
    aside.write_text(json.dumps(record.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")
    os.replace(aside, path)  # noqa: PTH105 - the one call that says it replaces


def _check_same(there: TrainConfig, here: TrainConfig, output: Path) -> None:
    """Refuse to go on with settings under which another run would come out."""
    if there.stage != here.stage:
        raise UsageError(
            f"{output} holds a run of the stage {there.stage}, and this one is {here.stage}: name another folder, and "
            f"begin with its weights by --init {output}"
        )
    before, now = dict(_leaves(_decisive(there))), dict(_leaves(_decisive(here)))
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise UsageError(
                f"the run in {output} was begun with {name} = {before.get(name)}, and this one has {now.get(name)}: "
                "go on with the same, or begin a new run"
            )


def _decisive(config: TrainConfig) -> dict[str, Any]:
    """The settings that decide what is learned; where files lie is no part of them."""
    values: dict[str, Any] = config.model_dump(mode="json", exclude=_TOLD)
    values["data"] = config.data.order()
    for loss in ("perceptual", "expression"):
        del values["losses"][loss]["file"]["path"]
    return values


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


# ---- what is told --------------------------------------------------------------------------------------------------


def _summary(
    request: RunRequest, trainer: Trainer, loader: PairLoader, looked_at: tuple[str, tuple[str, ...]] | None
) -> list[str]:
    config, recipe, fabric = request.config, trainer.recipe, trainer.fabric
    learned = [sum(one.numel() for one in part.parameters()) / 1e6 for part in (recipe.model, recipe.discriminator)]
    global_batch = config.data.batch_size * fabric.world_size
    steps = -(-config.length.num_pairs // global_batch)
    drawn = ", ".join(f"{loader.clips[name]} {name} ({share:.0%})" for name, share in loader.shares.items())
    losses = ", ".join(f"{name} {weight:g}" for name, weight in recipe.weights().items() if weight)
    size, seeds = config.model.image_px, f"seeds {config.seed} and {config.data.seed}"
    models = f"{learned[0]:.2f} M parameters, its discriminator {learned[1]:.2f} M"
    length = f"{config.length.num_pairs} pairs, {steps} steps of {global_batch}, rate {config.length.learning_rate:g}"
    seen = "held out: none, so no checkpoint is best"
    if looked_at is not None:
        count = sum(len(one["source"]) for one in trainer.validation)
        seen = f"held out: {count} pairs of {looked_at[0]} ({', '.join(looked_at[1])})"
    return [
        f"AnyTalk, {config.stage}: {models}, {size} px, {_machine(fabric, config)}",
        f"clips: {drawn}, from {', '.join(redact(one) for one in request.shards)}",
        f"length: {length}; {seeds}; {config.data.num_workers} workers",
        f"losses: {losses}",
        seen,
    ]


def _machine(fabric: Fabric, config: TrainConfig) -> str:
    number = fabric.world_size
    return f"{config.precision} on {number} {fabric.device.type}{'' if number == 1 else ' processes'}"
