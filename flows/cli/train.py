"""``anitalk train``: a recipe, trained on the shards of a release.

Needs the ``train`` extra alone. Under torchrun it is one of several processes: ``torchrun … -m anitalk train …``.
"""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import ConfigOption, DeviceOption, RecipeArgument
from schemas.errors import EXIT_STOPPED

ShardsOption = Annotated[
    list[str], typer.Option("--shards", help="Folder or URI of a release; or shards by path or URL, repeatable.")
]
SettingsOption = Annotated[
    list[str] | None, typer.Option("--set", help="One setting, such as model.preset=tiny64; repeatable.")
]


def train(
    recipe: RecipeArgument,
    shards: ShardsOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")],
    stage: Annotated[
        str | None, typer.Option(help="One of the recipe's; the config's by default, the first by its own.")
    ] = None,
    config: ConfigOption = None,
    set_: SettingsOption = None,
    init: Annotated[
        Path | None, typer.Option(help="Checkpoint, or folder of a run, whose weights a new run begins with.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in the output.")] = False,
    device: DeviceOption = "auto",
    events: Annotated[
        Path | None, typer.Option(help="File that a line of JSON per event is appended to, for programs that watch.")
    ] = None,
) -> int:
    """Train a recipe's networks on a release. SIGTERM saves and ends with exit code 143."""
    from training.engine.events import failures_told

    _log_progress()
    with failures_told(events):
        from training.engine import run
        from training.engine.settings import read_settings

        request = run.RunRequest(
            shards=tuple(shards),
            output=output,
            config=read_settings(config, set_ or (), stage, recipe),
            init=init,
            resume=resume,
            accelerator=device,
            recipe=recipe,
            events=events,
        )
        outcome, sentence = run.train(request, _write_line)
    if _is_first():
        _write_line(sentence if outcome == "finished" else f"{sentence}: the same command with --resume goes on")
    return 0 if outcome == "finished" else EXIT_STOPPED


def _write_line(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _is_first() -> bool:
    """Whether this is the process of a run that speaks for all of them."""
    return os.environ.get("RANK", "0") == "0"


def _log_progress() -> None:
    """A training's steps are what a person at a terminal waits for, whatever else is logged."""
    logging.getLogger("training").setLevel(logging.INFO if _is_first() else logging.WARNING)
    logging.getLogger("training.data").setLevel(logging.WARNING)
