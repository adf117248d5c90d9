"""Progress of a build on the terminal; plain lines where there is none."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from schemas.source import Source

_LABELS = {"fetch": "fetching", "analyse": "looking", "clips": "cutting clips"}


class ConsoleProgress:
    """Two bars on a terminal, sources and the stage at work; a line per source elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars: Progress | None = None
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
            self._bars = Progress(*columns, TimeElapsedColumn(), console=self._console, transient=True)
            self._bars.start()
            self._sources = self._bars.add_task("sources", total=None)
            self._stage = self._bars.add_task("", total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def source(self, source: Source, number: int, total: int) -> None:
        """A source begins."""
        if self._bars is None:
            sys.stderr.write(f"[{time.monotonic() - self._began:7.1f} s] source {number} of {total}: {source.id}\n")
            return
        self._bars.update(self._sources, completed=number - 1, total=total, description=escape(source.id))
        self._bars.reset(self._stage, description="")

    def stage(self, stage: str, done: float | None, total: float | None) -> None:
        """How far a stage of the current source is."""
        if self._bars is not None:
            self._bars.update(self._stage, completed=done, total=total, description=_LABELS.get(stage, stage))
