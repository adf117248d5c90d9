"""What a training says to programs: a line of JSON per event, beside the lines of its log that are for people.

Needs no torch, so that whoever follows a run (a Prefect flow, a page) may import it anywhere. The file is appended to:
a run that goes on adds to what its beginning said.
"""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, TypeAdapter, ValidationError

from schemas.base import Record
from schemas.errors import EXIT_FAULTS, EXIT_INTERRUPTED, AnitalkError, UsageError

log = logging.getLogger(__name__)

Figures = dict[str, float | None]  # None: no number, or an infinite one


class StartedEvent(Record):
    """The first step is about to be taken; ``step`` and ``samples`` are where a run that goes on was."""

    kind: Literal["started"] = "started"
    recipe: str
    stage: str
    step: NonNegativeInt
    samples: NonNegativeInt
    total_samples: NonNegativeInt
    summary: tuple[str, ...] = ()  # the lines that people read


class StepEvent(Record):
    """A step that was logged; ``samples`` are rows of batches (pairs of frames, or windows) since the beginning."""

    kind: Literal["step"] = "step"
    step: NonNegativeInt
    samples: NonNegativeInt
    total_samples: NonNegativeInt
    samples_s: float  # per second, since the last such event
    wait_share: float  # of that time, until data was ready
    figures: Figures = {}  # losses, gradient norms and what alarms look at


class ValidatedEvent(Record):
    """The held out batches were looked at; ``figures`` and ``score`` are the averaged weights'."""

    kind: Literal["validated"] = "validated"
    step: NonNegativeInt
    figures: Figures
    score: float | None


class SavedEvent(Record):
    """A checkpoint is on the disk."""

    kind: Literal["saved"] = "saved"
    step: NonNegativeInt
    checkpoint: str  # its folder


class AlarmEvent(Record):
    """A figure is past its limit; the run goes on."""

    kind: Literal["alarm"] = "alarm"
    step: NonNegativeInt
    figure: str
    sentence: str


class FinishedEvent(Record):
    """The stage is over."""

    kind: Literal["finished"] = "finished"
    step: NonNegativeInt
    sentence: str


class StoppedEvent(Record):
    """The run was asked to end and has saved; the same command with ``--resume`` goes on."""

    kind: Literal["stopped"] = "stopped"
    step: NonNegativeInt
    sentence: str


class FailedEvent(Record):
    """The run ended in an error, with what the command says and its exit code."""

    kind: Literal["failed"] = "failed"
    sentence: str
    exit_code: int


Event = StartedEvent | StepEvent | ValidatedEvent | SavedEvent | AlarmEvent | FinishedEvent | StoppedEvent | FailedEvent
_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])


class EventLog:
    """Appends events to a file; lines of several processes do not mix.

    A training is worth more than what is told of it: when the file can no longer be written, that is said once in the
    log and the training goes on.

    Args:
        path: of the file; None: events go nowhere.

    Raises:
        UsageError: when it cannot be written, or is no plain file: a pipe would hold up the training, or end it.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._descriptor: int | None = None
        if path is None:
            return
        if path.exists() and not path.is_file():
            raise UsageError(f"--events: {path} is no plain file: name a file, which a program may follow as it grows")
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise UsageError(f"--events: {path} cannot be written: {error.strerror}") from error
        self._end_torn_line()

    def write(self, event: Event) -> None:
        """Append one event, at once."""
        self._append(f"{event.model_dump_json()}\n".encode())

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _append(self, data: bytes) -> None:
        if self._descriptor is None:
            return
        try:
            os.write(self._descriptor, data)
        except OSError as error:
            log.warning("%s can no longer be written (%s): no more events are told", self._path, error.strerror)
            self.close()

    def _end_torn_line(self) -> None:
        """A process that was killed may have left half a line, which must not swallow the next event."""
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):  # of files that cannot be read back there is nothing to end
            size = os.fstat(self._descriptor).st_size
            if size and os.pread(self._descriptor, 1, size - 1) != b"\n":
                self._append(b"\n")


def numbers(figures: Mapping[str, float]) -> Figures:
    """Figures as JSON can carry them."""
    return {name: value if abs(value) < float("inf") else None for name, value in figures.items()}


@contextmanager
def failures_told(path: Path | None) -> Iterator[None]:
    """Append a ``failed`` event for every error and Ctrl-C that leaves the block, and let it go on.

    Meant for a command, around everything from reading its settings on. In a run of several processes each tells of
    its own failure; they usually are one and the same.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        with contextlib.suppress(UsageError):  # events that cannot be written hide no error
            events = EventLog(path)
            events.write(_failure(error))
            events.close()
        raise


def _failure(error: BaseException) -> FailedEvent:
    if isinstance(error, AnitalkError):
        return FailedEvent(sentence=str(error), exit_code=error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        return FailedEvent(sentence="interrupted", exit_code=EXIT_INTERRUPTED)
    return FailedEvent(sentence=f"{type(error).__name__}: {error}", exit_code=EXIT_FAULTS)


def read_events(path: Path, offset: int = 0) -> tuple[list[Event], int]:
    """The events that were appended since the last look.

    Args:
        path: of the file; one that is not there yet holds none.
        offset: in bytes, as the last call gave it; 0 for all.

    Returns:
        The events, and the offset for the next call. A line that is not complete yet waits for it; one that is no
        event (of another version, or another program's) is passed over.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return [], offset
    whole = data[: data.rfind(b"\n") + 1]
    events: list[Event] = []
    for line in whole.splitlines():
        try:
            events.append(_EVENT.validate_json(line))
        except ValidationError:
            continue
    return events, offset + len(whole)
