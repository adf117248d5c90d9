"""``anitalk weights``: list, fetch and verify the weights files that come in no package."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import ConfigOption, FormatOption, OutputOption
from flows.cli.rows import Format, Row, write_rows
from schemas.errors import EXIT_FAULTS, UsageError

if TYPE_CHECKING:
    from flows.settings import Settings
    from pipeline.models.files.fetching import Arrival, Watcher
    from pipeline.models.files.weights import EntryState, WeightsStore
    from schemas.weights import Weights, WeightsFile

_COLUMNS = ("name", "state", "verified", "size_mb", "commercial_use", "licence", "domains", "path", "origin", "at_hand")
_USE = {True: "yes", False: "no", None: "unknown"}

weights_app = typer.Typer(
    help="List, fetch and verify weights files; no file is ever fetched unless you ask for it here.",
    no_args_is_help=True,
)

NamesArgument = Annotated[list[str] | None, typer.Argument(metavar="NAME…", help="As 'anitalk weights list' has them.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="One setting, such as weights.dir=/data/weights.")]


@weights_app.command(name="list")
def list_weights(
    config: ConfigOption = None,
    set_: SetOption = None,
    form: FormatOption = Format.TABLE,
    output: OutputOption = None,
) -> None:
    """Show all weights: what is there, its size, its terms, and which domains it is meant for."""
    _, store = _opened(config, set_)
    rows = [_row(store.state(name), store) for name in sorted(store.registry)]
    write_rows(rows, _COLUMNS, form, output)


@weights_app.command()
def fetch(
    names: NamesArgument = None,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="DIR_OR_URI", help="A mirror: a folder, or a prefix on http or s3.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    accept: Annotated[
        bool, typer.Option("--accept-license", help="You have read and accept terms that limit or do not state use.")
    ] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Fetch weights into the weights folder, each verified; a broken transfer goes on where it stopped."""
    from flows.settings import absolute_location
    from pipeline.fetch.politeness import HostLimiter
    from pipeline.models.files.fetching import fetch_weights

    settings, store = _opened(config, set_)
    wanted = _wanted(store, names or [], every=every)
    _agree(wanted, accepted=accept)
    if not wanted:
        print(f"nothing to fetch: all of it is in {store.folder}")  # noqa: T201
        return
    mirror = absolute_location(from_) if from_ else settings.weights.mirror
    limiter = HostLimiter(settings.build.acquire)
    with _watching() as watch:
        acquire = settings.build.acquire
        for arrival in fetch_weights(wanted, store, acquire, limiter=limiter, watch=watch, mirror=mirror):
            print(_arrival_line(arrival))  # noqa: T201


@weights_app.command()
def verify(names: NamesArgument = None, config: ConfigOption = None, set_: SetOption = None) -> int:
    """Compare the files with their checksums. Exit code 1 when one is damaged, or one that you name is missing."""
    _, store = _opened(config, set_)
    entries = [store.state(name) for name in sorted(set(names or store.registry))]
    faults = [fault for entry in entries for fault in entry.faults()]
    if names:
        missing = [entry.weights.name for entry in entries if entry.state == "missing"]
        faults += store.problems(missing)
    for fault in faults:
        print(fault)  # noqa: T201
    present = [entry for entry in entries if entry.state == "present"]
    unknown = [entry.weights.name for entry in present if not entry.verified]
    unverified = f", of which the registry knows no checksum for {', '.join(unknown)}" if unknown else ""
    print(f"{store.folder}: {len(present)} of {len(entries)} are there and sound{unverified}")  # noqa: T201
    return EXIT_FAULTS if faults else 0


def _opened(config: Path | None, set_: Sequence[str] | None) -> tuple["Settings", "WeightsStore"]:
    from flows.settings import read_settings
    from pipeline.models.files.weights import WeightsStore

    settings = read_settings(config, set_ or ())
    return settings, WeightsStore(settings.weights)


def _row(entry: "EntryState", store: "WeightsStore") -> Row:
    weights = entry.weights
    return {
        "name": weights.name,
        "state": entry.state,
        "verified": entry.verified,
        "size_mb": None if weights.num_bytes is None else round(weights.num_bytes / 1e6, 1),
        "commercial_use": _USE[weights.commercial_use],
        "licence": weights.licence,
        "domains": ", ".join(weights.domains),
        "path": str(store.folder / weights.path),
        "origin": weights.origin,
        "at_hand": weights.at_hand,
    }


def _wanted(store: "WeightsStore", names: Sequence[str], *, every: bool) -> list["Weights"]:
    """The entries that were asked for and are not there yet."""
    if bool(names) == every:
        raise UsageError("name the weights to fetch, or give --all: 'anitalk weights list' shows them")
    entries = [store.entry(name) for name in sorted(store.registry if every else set(names))]
    return [weights for weights in entries if store.state(weights.name).state != "present"]


def _agree(wanted: Sequence["Weights"], *, accepted: bool) -> None:
    """Show the terms of what will be fetched, and have those agreed to that ask for it.

    Raises:
        UsageError: where nobody agreed.
    """
    for weights in wanted:
        print(f"{weights.name}: {weights.licence}; commercial use: {_USE[weights.commercial_use]} ({weights.origin})")  # noqa: T201
    asking = [weights.name for weights in wanted if weights.asks_consent]
    if not asking or accepted:
        return
    question = f"The terms of {', '.join(asking)} forbid commercial use or do not say: do you accept them?"
    if sys.stdin.isatty() and sys.stdout.isatty() and typer.confirm(question):
        return
    raise UsageError(
        f"the terms of {', '.join(asking)} forbid commercial use or do not say: read them, and give --accept-license "
        "if you accept them"
    )


def _arrival_line(arrival: "Arrival") -> str:
    if arrival.verified:
        return f"{arrival.path}: verified"
    return (
        f"{arrival.path}: could not be verified, since no checksum is known; what came is recorded "
        f"(SHA-256 {arrival.sha256})"
    )


@contextmanager
def _watching() -> Iterator["Watcher"]:
    """A bar per file on a terminal; elsewhere a line when a file begins."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn

    from flows.cli.progress import Bars

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    begun: set[str] = set()
    with Bars(columns) as bars:

        def watch(file: "WeightsFile", done: int, total: int | None) -> None:
            if file.path not in begun and not bars.is_shown:
                size = f" ({total / 1e6:.1f} MB)" if total else ""
                sys.stderr.write(f"fetching {file.path}{size}\n")
            begun.add(file.path)
            bars.report(file.path, done, total)

        yield watch
