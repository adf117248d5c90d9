"""``anitalk train`` and ``anitalk evaluate``, which also are ``python -m training.cli …``: what torchrun starts.

Needs the ``train`` extra alone. Whatever is heavy is imported by the command, so that ``--help`` answers at once.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from schemas.errors import EXIT_INTERRUPTED, EXIT_STOPPED, EXIT_USAGE, AnitalkError

app = typer.Typer(
    help="Train on releases, and measure what was learned.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
train_app = typer.Typer(help="Train a system on the shards of a release.", no_args_is_help=True)
app.add_typer(train_app, name="train")
evaluate_app = typer.Typer(help="Measure what a system has learned.", no_args_is_help=True)
app.add_typer(evaluate_app, name="evaluate")


@train_app.command()
def anytalk(
    shards: Annotated[
        list[str], typer.Option("--shards", help="Folder or URI of a release; or shards by path or URL, repeatable.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")],
    stage: Annotated[
        Literal["pretrain", "finetune"] | None, typer.Option(help="The config's by default, pretrain by its own.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML file with settings that differ.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="One setting, such as model.preset=tiny64; repeatable.")
    ] = None,
    init: Annotated[
        Path | None, typer.Option(help="Checkpoint, or folder of a run, whose weights a new run begins with.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in the output.")] = False,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="What to train on.")] = "auto",
) -> int:
    """Train AnyTalk: make one frame of a clip from another. SIGTERM saves and ends with exit code 143."""
    from training.engine.run import RunRequest, train
    from training.engine.settings import read_settings

    _tell_progress()
    request = RunRequest(
        shards=tuple(shards),
        output=output,
        config=read_settings(config, set_ or (), stage),
        init=init,
        resume=resume,
        accelerator=device,
    )
    outcome, sentence = train(request, _say)
    if _is_first():
        _say(sentence if outcome == "finished" else f"{sentence}: the same command with --resume goes on")
    return 0 if outcome == "finished" else EXIT_STOPPED


@evaluate_app.command("anytalk")
def evaluate_anytalk(
    checkpoint: Annotated[Path, typer.Option(help="A checkpoint, or the folder of a run, whose best one is taken.")],
    release: Annotated[str, typer.Option(help="Folder or URI of a release.")],
    protocol: Annotated[
        Literal["same-identity", "cross-identity", "cross-domain"], typer.Option(help="Who drives whom.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of table, record, pairs and pictures.")],
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Whose clips are used.")] = "test",
    metrics: Annotated[
        str | None,
        typer.Option(help="Names with commas between; by default all of the protocol, and what one lacks ends it."),
    ] = None,
    pairs: Annotated[Path | None, typer.Option(help="The pairs.jsonl of another evaluation, to use its pairs.")] = None,
    driving_domain: Annotated[list[str] | None, typer.Option(help="Only this domain drives; repeatable.")] = None,
    source_domain: Annotated[list[str] | None, typer.Option(help="Only this domain is driven; repeatable.")] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML file with settings that differ.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="One setting, such as metrics.fid.path=FILE; repeatable.")
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where networks run.")] = "auto",
) -> int:
    """Measure AnyTalk on held-out pairs, beside real frames, the source itself and the published figures."""
    from training.engine.launch import one_device
    from training.evaluation.run import TABLE_FILE, EvaluationRequest, evaluate
    from training.evaluation.settings import read_evaluation

    request = EvaluationRequest(
        checkpoint=checkpoint,
        release=release,
        protocol=protocol,
        output=output,
        config=read_evaluation(config, set_ or ()),
        split=split,
        metrics=tuple(name.strip() for name in metrics.split(",")) if metrics else (),
        pairs=pairs,
        driving_domains=tuple(driving_domain or ()),
        source_domains=tuple(source_domain or ()),
    )
    with _bar("pairs") as tell:
        evaluate(request, one_device(device), tell)
    typer.echo((output / TABLE_FILE).read_text(encoding="utf-8"))
    return 0


@contextlib.contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for whoever looks on; nothing where the output goes elsewhere."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _tell_progress() -> None:
    """Progress is what a person at a terminal waits for, whatever else is logged."""
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    logging.getLogger("training").setLevel(logging.INFO if _is_first() else logging.WARNING)
    logging.getLogger("training.data").setLevel(logging.WARNING)


def main() -> NoReturn:
    """Run the command line; every mistake of a user's ends in one sentence and an exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code: 0, 1 faults, 2 user's mistake, 130 interrupted, 143 told to end."""
    try:
        result = app(arguments, standalone_mode=False)
    except KeyboardInterrupt:
        again = "" if arguments[:1] == ["evaluate"] else ": the same command with --resume goes on"
        return _fail(f"interrupted{again}", EXIT_INTERRUPTED)
    except AnitalkError as error:
        return _fail(str(error), error.exit_code)
    except ModuleNotFoundError as error:
        return _fail(f"{error}: pip install 'anitalk[train]', and run it from another folder", EXIT_USAGE)
    except Exception as error:  # what is no mistake of the user is raised again
        # Typer carries its own copy of click; its errors know how to show themselves.
        show, code = getattr(error, "show", None), getattr(error, "exit_code", None)
        if callable(show) and isinstance(code, int):
            show()
            return code
        raise
    return result if isinstance(result, int) else 0


def _fail(message: str, code: int) -> int:
    """Every process of a run finds the same mistake; the first one says it."""
    if _is_first():
        with contextlib.suppress(BrokenPipeError):
            sys.stderr.write(f"anitalk: {message}\n")
    return code


if __name__ == "__main__":
    main()
