"""Where a run begins: from nothing, from its own checkpoint, or from another run's; and what is refused.

The folder of a run holds its settings beside its checkpoints, so that going on with others is noticed: a run that was
ended and goes on is to be the run that was never ended.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from schemas.base import Record
from schemas.errors import CheckpointError, UsageError
from schemas.files import write_atomically
from schemas.uri import redact
from training.engine.checkpoint import Store, check_config
from training.engine.settings import with_present_names
from training.engine.trained import SavedCheckpoint, find_checkpoint
from training.recipes.base import TrainConfig
from training.recipes.registry import DEFAULT_RECIPE, find_recipe

if TYPE_CHECKING:
    from training.engine.loop import Trainer

RUN_FILE = "run.json"

# Settings that may change when a run goes on: they decide what is reported and kept, not what is learned.
_REPORTED = {"alarms", "num_validation_pairs", "log_every", "images_every", "validate_every", "save_every", "keep_last"}
_PATH = "file.path"  # where a file lies decides nothing, only what is in it


class RunRecord(Record):
    """What a run was started with; ``run.json`` in its folder."""

    recipe: str = DEFAULT_RECIPE
    config: dict[str, Any]
    shards: tuple[str, ...]
    init: str | None = None  # the checkpoint that it began from or builds on
    made_from: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where a run begins.

    Attributes:
        checkpoint: its own, to go on from.
        builds_on: another run's, whose weights it begins with, or whose networks it needs.
        inherits: whether it begins with that one's weights.
    """

    checkpoint: SavedCheckpoint | None = None
    builds_on: SavedCheckpoint | None = None
    inherits: bool = True

    def prepare(self, trainer: "Trainer", batches: object) -> None:
        """Put weights, optimisers and ``batches`` where the run begins."""
        if self.checkpoint is not None:
            trainer.resume(self.checkpoint.path, batches)
        elif self.builds_on is not None and self.inherits:
            trainer.begin_from(self.builds_on.path)

    def made_from(self) -> dict[str, str]:
        """SHA-256 of the checkpoint that the run depends on, by what it is."""
        if self.builds_on is not None:
            return {"checkpoint": self.builds_on.sha256}
        return {} if self.checkpoint is None else self.checkpoint.made_from

    def described(self) -> str:
        """In words."""
        if self.checkpoint is not None:
            return f"where {self.checkpoint.path.name} ended"
        if self.builds_on is None:
            return "from random weights"
        return f"{'with the weights of' if self.inherits else 'from random weights, on'} {self.builds_on.path}"


def find_beginning(recipe: str, config: TrainConfig, output: Path, init: Path | None, *, resume: bool) -> Beginning:
    """Where a run of these settings begins.

    Raises:
        UsageError: when the output holds another run, or the stage needs a checkpoint and none was named.
        CheckpointError: when one cannot be read.
    """
    record = read_record(output)
    if record is None and resume:
        raise UsageError(f"there is no run in {output} to resume: leave --resume out to begin one")
    if record is not None:
        if not resume:
            raise UsageError(f"{output} holds a run already: go on with it by --resume, or name another folder")
        _check_same(record, recipe, config, output)
    inherits = config.stage_plan.inherits
    named = init or (Path(record.init) if record is not None and record.init is not None else None)
    newest = Store(output / "checkpoints").latest() if record is not None else None
    builds_on = None
    if named is not None and (newest is None or not inherits):
        builds_on = _builds_on(named, recipe, config)
        if record is not None and record.made_from.get("checkpoint", builds_on.sha256) != builds_on.sha256:
            raise UsageError(f"--init: {named} is not the checkpoint that the run in {output} was begun with")
    if newest is not None:
        return Beginning(SavedCheckpoint(newest), builds_on, inherits)
    after = config.stage_plan.after
    if builds_on is None and after is not None:
        needs = "begins with the weights of" if inherits else "builds on"
        raise UsageError(f"the stage {config.stage} {needs} the stage {after}: name a checkpoint of it by --init")
    return Beginning(None, builds_on, inherits)


def _builds_on(path: Path, recipe: str, config: TrainConfig) -> SavedCheckpoint:
    """The checkpoint that ``--init`` names, of this recipe and of networks that fit."""
    inside = (path / "checkpoints").is_dir()
    try:
        checkpoint = find_checkpoint(path, newest=True) if inside else SavedCheckpoint(path)
        recipe_there, stage_there = checkpoint.recipe, checkpoint.stage
        if recipe_there == recipe and config.stage_plan.inherits:
            check_config(checkpoint.path, config.networks)
    except (CheckpointError, UsageError) as error:
        raise UsageError(f"--init: {error}") from error
    if recipe_there != recipe:
        raise UsageError(f"--init: {path} is of the recipe {recipe_there}, and this run is of {recipe}: name another")
    if not config.stage_plan.inherits and stage_there != config.stage_plan.after:
        raise UsageError(
            f"--init: {path} is of the stage {stage_there}, and {config.stage} builds on {config.stage_plan.after}: "
            "name another"
        )
    return checkpoint


# ---- the folder of a run ---------------------------------------------------------------------------------------------


def make_folder(output: Path) -> None:
    """The folder of a run.

    Raises:
        UsageError: when it cannot be made.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--output: the folder {output} cannot be made: {error.strerror}") from error


def read_record(output: Path) -> RunRecord | None:
    """What the run in a folder was started with; None where there is none.

    Raises:
        UsageError: when it cannot be read.
    """
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
        raise UsageError(_damaged(path)) from error


def write_record(
    output: Path,
    recipe: str,
    config: TrainConfig,
    shards: Sequence[str],
    beginning: Beginning,
    made_from: Mapping[str, str],
) -> None:
    """Write ``run.json``, or leave what a run that goes on was started with in it."""
    before = read_record(output)
    init = before.init if before is not None else None
    record = RunRecord(
        recipe=recipe,
        config=config.model_dump(mode="json"),
        shards=tuple(redact(shard) for shard in shards),
        init=str(beginning.builds_on.path.resolve()) if beginning.builds_on is not None else init,
        made_from=dict(made_from),
    )
    text = json.dumps(record.model_dump(mode="json"), indent=1) + "\n"
    write_atomically(output / RUN_FILE, text.encode())


def _damaged(path: Path) -> str:
    return f"{path} is damaged or of another version: name another folder, or use the version that wrote it"


def _check_same(record: RunRecord, recipe: str, config: TrainConfig, output: Path) -> None:
    """Refuse to go on with settings under which another run would come out."""
    if record.recipe != recipe:
        raise UsageError(f"{output} holds a run of the recipe {record.recipe}, and this one is of {recipe}")
    of = find_recipe(recipe)
    try:
        there = of.Config.model_validate(with_present_names(of, record.config))
    except ValidationError as error:
        raise UsageError(_damaged(output / RUN_FILE)) from error
    if there.stage != config.stage:
        raise UsageError(
            f"{output} holds a run of the stage {there.stage}, and this one is {config.stage}: name another folder, "
            f"and begin with its weights by --init {output}"
        )
    before, now = _decisive(there), _decisive(config)
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise UsageError(
                f"the run in {output} was begun with {name} = {before.get(name)}, and this one has {now.get(name)}: "
                "go on with the same, or begin a new run"
            )


def _decisive(config: TrainConfig) -> dict[str, Any]:
    """The settings that decide what is learned, by their dotted names."""
    values: dict[str, Any] = config.model_dump(mode="json", exclude=_REPORTED)
    values["data"] = config.data.order()
    return {name: value for name, value in _leaves(values) if not name.endswith(f".{_PATH}")}


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
