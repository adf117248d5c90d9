"""One training run from its settings to its end; what can be known to be wrong is said before the first step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lightning_fabric import Fabric

from schemas.uri import redact
from training.engine.beginning import Beginning, find_beginning, make_folder, write_record
from training.engine.checkpoint import Origin
from training.engine.events import EventLog, FinishedEvent, StartedEvent, StoppedEvent
from training.engine.feed import Feed, held_out, held_out_domains, open_feed
from training.engine.launch import start
from training.engine.loop import Outcome, Trainer
from training.recipes.base import TrainConfig
from training.recipes.registry import DEFAULT_RECIPE, find_recipe


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What to train, on what, and where it goes.

    Attributes:
        shards: the folder or URI of one release, or shards by path or URL.
        output: folder of the run.
        config: of the recipe's own class.
        init: a checkpoint, or a run's folder, whose weights a new run begins with or builds on.
        resume: go on from the newest checkpoint in ``output``.
        accelerator: ``cpu``, ``cuda`` or ``auto``.
        recipe: its name.
        events: file that ``training.engine.events`` are appended to; None: nowhere.
    """

    shards: Sequence[str]
    output: Path
    config: TrainConfig
    init: Path | None = None
    resume: bool = False
    accelerator: str = "auto"
    recipe: str = DEFAULT_RECIPE
    events: Path | None = None


def train(request: RunRequest, report_line: Callable[[str], None]) -> tuple[Outcome, str]:
    """Train until the stage is over or the process is asked to end.

    Args:
        request: what, on what, and where.
        report_line: given a few lines about the run before its first step, in the first process only.

    Returns:
        How it ended, and a sentence about it.

    Raises:
        UsageError: for what the user gave wrong, before the first step.
        DataError, CheckpointError: when shards or a checkpoint cannot be read.
    """
    config, recipe = request.config, find_recipe(request.recipe)
    where = request.shards[0] if len(request.shards) == 1 else request.shards
    beginning = find_beginning(request.recipe, config, request.output, request.init, resume=request.resume)
    fabric = start(config, request.accelerator)
    builds_on = None if config.stage_plan.inherits else beginning.builds_on
    draw, made_from = recipe.draw(config, builds_on), beginning.made_from()
    feed = open_feed(where, draw, config, fabric.device)
    learner = recipe.learner(config, replace(feed.facts(), checkpoint=builds_on))
    looked_at = held_out_domains(where, config)
    validation = held_out(where, draw, config, *looked_at) if looked_at else []
    make_folder(request.output)
    events = EventLog(request.events if fabric.is_global_zero else None)
    origin = Origin(request.recipe, learner.score, made_from)
    trainer = Trainer(fabric, learner, config, request.output, validation, origin=origin, events=events)
    beginning.prepare(trainer, feed)
    if fabric.is_global_zero:
        write_record(request.output, request.recipe, config, request.shards, beginning, made_from)
        lines = _summary(request, trainer, feed, looked_at, beginning)
        for line in lines:
            report_line(line)
        _write_started(request, trainer, lines, events)
    outcome = trainer.run(feed)
    return outcome, _ended(outcome, trainer, feed, events)


# ---- what is reported ------------------------------------------------------------------------------------------------


def _summary(
    request: RunRequest,
    trainer: Trainer,
    feed: Feed,
    looked_at: tuple[str, tuple[str, ...]] | None,
    beginning: Beginning,
) -> list[str]:
    config, fabric, loader = request.config, trainer.fabric, feed.loader
    global_batch = config.data.batch_size * fabric.world_size
    steps = -(-config.length.num_pairs // global_batch)
    drawn = ", ".join(f"{loader.clips[name]} {name} ({share:.0%})" for name, share in loader.shares.items())
    seeds = f"seeds {config.seed} and {config.data.seed}"
    length = f"{config.length.num_pairs} pairs, {steps} steps of {global_batch}, rate {config.length.learning_rate:g}"
    held_out_line = "held out: none, so no checkpoint is best"
    if looked_at is not None:
        count = sum(len(batch["domain"]) for batch in trainer.validation)
        held_out_line = f"held out: {count} pairs of {looked_at[0]} ({', '.join(looked_at[1])})"
    networks, *losses = trainer.learner.summary()
    return [
        f"{find_recipe(request.recipe).title}, {config.stage}: {networks}, {_machine(fabric, config)}",
        f"clips: {drawn}, from {', '.join(redact(shard) for shard in request.shards)}",
        f"length: {length}; {seeds}; {config.data.num_workers} workers",
        *losses,
        held_out_line,
        f"begins {beginning.described()}, goes to {request.output}",
    ]


def _write_started(request: RunRequest, trainer: Trainer, lines: Sequence[str], events: EventLog) -> None:
    events.write(
        StartedEvent(
            recipe=request.recipe,
            stage=request.config.stage,
            step=trainer.state.step,
            samples=trainer.state.pairs,
            total_samples=request.config.length.num_pairs,
            summary=tuple(lines),
        )
    )


def _machine(fabric: Fabric, config: TrainConfig) -> str:
    number = fabric.world_size
    return f"{config.precision} on {number} {fabric.device.type}{'' if number == 1 else ' processes'}"


def _ended(outcome: Outcome, trainer: Trainer, feed: Feed, events: EventLog) -> str:
    """Say how a run ended, to programs and in a sentence."""
    figures = f"; {trainer.learner.validation_line(trainer.validated)}" if trainer.validated else ""
    skipped = f"; unusable samples skipped: {dict(feed.loader.skipped)}" if feed.loader.skipped else ""
    sentence = f"{outcome} after step {trainer.state.step}{figures}{skipped}"
    event = FinishedEvent if outcome == "finished" else StoppedEvent
    events.write(event(step=trainer.state.step, sentence=sentence))
    events.close()
    return sentence
