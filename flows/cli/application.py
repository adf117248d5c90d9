"""The application: every command by its name, and what each error ends in.

A command's module imports what it works with inside its functions, so that ``--help`` and the small commands answer at
once and an installation with fewer extras still has the commands that work there.
"""

import contextlib
import logging
import os
import sys
from typing import Annotated, NoReturn

import typer

from anitalk import PACKAGES
from flows.cli.animate import animate
from flows.cli.bench import bench_app
from flows.cli.build import build
from flows.cli.calibrate import calibrate
from flows.cli.demo import demo
from flows.cli.diff import diff
from flows.cli.doctor import doctor
from flows.cli.encode import encode
from flows.cli.evaluate import evaluate
from flows.cli.forget import forget
from flows.cli.gc import gc
from flows.cli.listings import clips, decisions, shots, sources, tracks
from flows.cli.release import release
from flows.cli.retry import retry
from flows.cli.review import review_app
from flows.cli.schema import schema
from flows.cli.show import show
from flows.cli.status import status
from flows.cli.train import train
from flows.cli.verify import verify
from flows.cli.weights import weights_app
from schemas.errors import EXIT_INTERRUPTED, EXIT_USAGE, AnitalkError
from schemas.extras import missing_package

_GROUPS = {"review": review_app, "weights": weights_app, "bench": bench_app}
_COMMANDS = (
    build, retry, release, verify, forget, diff, status, sources, shots, tracks, clips, decisions, show, calibrate, gc,
    doctor, schema, demo, train, encode, evaluate, animate,
)  # fmt: skip
_AGAIN = ": run the same command again to go on"
# How to go on with what was interrupted; other commands begin anew.
_RESUMED = dict.fromkeys(("build", "retry", "release", "demo"), _AGAIN) | {
    "train": ": the same command with --resume goes on"
}

app = typer.Typer(
    name="anitalk",
    help="Build cross-domain talking-head video datasets: from a list of sources to verified WebDataset shards.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in _COMMANDS:
    app.command()(_command)
for _name, _group in _GROUPS.items():
    app.add_typer(_group, name=_name)


@app.callback()
def _options(verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log each finished step.")] = False) -> None:
    level = logging.INFO if verbose else logging.ERROR
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    # FFmpeg's own log is noise about damage that the ledger reports in sentences.
    logging.getLogger("libav").setLevel(logging.CRITICAL)


def main() -> NoReturn:
    """Run the command line; every mistake of a user's ends in one sentence and an exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code.

    Returns:
        0; 1 for faults; 2 for a user's mistake; 3 when clips wait for screening; 130 when interrupted; 143 when a
        training was asked to end.
    """
    try:
        result = app(arguments, prog_name="anitalk", standalone_mode=False)
        sys.stdout.flush()
    except KeyboardInterrupt:
        result = EXIT_INTERRUPTED
    except SystemExit as stop:
        # Typer ends the program itself when the reader of a pipe has left, as `| head` does.
        if not isinstance(stop.__context__, BrokenPipeError):
            raise
        return 0
    except Exception as error:  # noqa: BLE001 - what is no mistake of the user is raised again
        return _failure(error)
    if result == EXIT_INTERRUPTED:
        name = next((argument for argument in arguments if not argument.startswith("-")), "")
        return _fail(f"interrupted{_RESUMED.get(name, '')}", EXIT_INTERRUPTED)
    return result if isinstance(result, int) else 0


def _failure(error: Exception) -> int:
    """The exit code of an error, after its sentence; this is the one place that maps errors to exit codes.

    Raises:
        Exception: the same one, where it is no mistake of the user's but a bug.
    """
    # Typer carries its own copy of click; its errors know how to show themselves.
    show, code = getattr(error, "show", None), getattr(error, "exit_code", None)
    if callable(show) and isinstance(code, int):
        show()
        return code
    if isinstance(error, AnitalkError):
        return _fail(str(error), error.exit_code)
    if isinstance(error, ModuleNotFoundError):
        return _fail(_missing(error), EXIT_USAGE)
    if isinstance(error, BrokenPipeError):
        # The reader left before the last lines were sent; the flush at exit must not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    raise error


def _missing(error: ModuleNotFoundError) -> str:
    name = (error.name or "").split(".")[0]
    if name in PACKAGES:
        return f"{error}: this installation is incomplete: install anitalk again"
    return missing_package(name)


def _fail(message: str, code: int) -> int:
    """Every process that torchrun started finds the same mistake; the first one says it."""
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    if os.environ.get("RANK", "0") == "0":
        with contextlib.suppress(BrokenPipeError):
            sys.stderr.write(f"anitalk: {message}\n")
    return code
