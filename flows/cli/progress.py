"""How far something is, on the terminal; a build says it in plain lines where there is none."""

import sys
import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn, TimeElapsedColumn

from flows.cli.interrupts import raise_interrupt
from schemas.source import Source

_LABELS = {
    "acquire": "fetching",
    "analyse": "looking at",
    "clip": "cutting",
    "identities": "telling people apart",
    "duplicates": "comparing clips",
    "sync": "fitting sync",
}
_SOURCES = "sources"


def _columns() -> tuple[ProgressColumn, ...]:
    return (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )


class Bars:
    """A bar for each stage that is under way, on a terminal; nothing elsewhere. May be used from several threads.

    Args:
        columns: of every bar; its name, the bar, per cent and time by default.
    """

    def __init__(self, columns: Iterable[ProgressColumn] | None = None) -> None:
        console = Console(stderr=True)
        self.is_shown = console.is_terminal
        self._progress = Progress(*(columns or _columns()), console=console, transient=True, disable=not self.is_shown)
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def report(self, stage: str, done: float | None, total: float | None) -> None:
        """How far a stage is, in its own unit; its bar goes away when all of it is done."""
        with self._lock:
            if stage not in self._tasks:
                self._tasks[stage] = self._progress.add_task(escape(stage), total=None)
            self._progress.update(self._tasks[stage], completed=done, total=total)
            if total is not None and done is not None and done >= total:
                self._progress.remove_task(self._tasks.pop(stage))

    def remove(self, stages: Iterable[str]) -> None:
        """Take the bars of stages away, however far they are."""
        with self._lock:
            for stage in stages:
                if stage in self._tasks:
                    self._progress.remove_task(self._tasks.pop(stage))


class BuildDisplay:
    """A build's progress: a bar for all sources and one for each job that takes long; a line per source elsewhere."""

    def __init__(self) -> None:
        self._bars = Bars()
        self._labels: dict[str, set[str]] = {}  # of the bars of each source
        self._lock = threading.Lock()
        self._num_sources, self._num_ended = 0, 0
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        self._bars.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.__exit__(kind, error, trace)

    def source(self, source: Source, number: int, total: int) -> None:
        """A source begins."""
        raise_interrupt()
        self._num_sources = total
        if self._bars.is_shown:
            self._bars.report(_SOURCES, self._num_ended, total)
        else:
            sys.stderr.write(f"[{time.monotonic() - self._began:7.1f} s] source {number} of {total}: {source.id}\n")

    def stage(self, item: str, stage: str, done: float | None, total: float | None) -> None:
        """How far a stage of an item is."""
        raise_interrupt()
        label = f"{_LABELS.get(stage, stage)} {item}"
        with self._lock:
            self._labels.setdefault(item.split("/", maxsplit=1)[0], set()).add(label)
        self._bars.report(label, done, total)

    def ended(self, source: Source) -> None:
        """A source has gone as far as it goes."""
        raise_interrupt()
        with self._lock:
            labels = self._labels.pop(source.id, ())
        self._bars.remove(labels)
        self._num_ended += 1
        self._bars.report(_SOURCES, self._num_ended, self._num_sources)
