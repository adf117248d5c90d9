"""Progress of a build on the terminal; plain lines where there is none."""

import sys
import threading
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

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


class ConsoleProgress:
    """On a terminal a bar for all sources and one for each job that takes long; a line per source elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars: Progress | None = None
        self._jobs: dict[tuple[str, str], TaskID] = {}
        self._lock = threading.Lock()
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
            self._bars = Progress(*columns, TimeElapsedColumn(), console=self._console, transient=True)
            self._bars.start()
            self._sources = self._bars.add_task("sources", total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def source(self, source: Source, number: int, total: int) -> None:
        """A source begins."""
        raise_interrupt()
        if self._bars is None:
            sys.stderr.write(f"[{time.monotonic() - self._began:7.1f} s] source {number} of {total}: {source.id}\n")
        else:
            self._bars.update(self._sources, total=total)

    def stage(self, item: str, stage: str, done: float | None, total: float | None) -> None:
        """How far a stage of an item is."""
        raise_interrupt()
        if self._bars is None:
            return
        with self._lock:
            if (item, stage) not in self._jobs:
                label = escape(f"{_LABELS.get(stage, stage)} {item}")
                self._jobs[item, stage] = self._bars.add_task(label, total=None)
            self._bars.update(self._jobs[item, stage], completed=done, total=total)
            if total is not None and done is not None and done >= total:
                self._bars.remove_task(self._jobs.pop((item, stage)))

    def ended(self, source: Source) -> None:
        """A source has gone as far as it goes."""
        raise_interrupt()
        if self._bars is None:
            return
        with self._lock:
            for item, stage in [key for key in self._jobs if key[0].split("/")[0] == source.id]:
                self._bars.remove_task(self._jobs.pop((item, stage)))
            self._bars.advance(self._sources)
