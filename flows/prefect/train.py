"""The flow ``train-anytalk``: a training as a Prefect deployment, with its lines, its progress and its last pictures.

It starts the command that anyone would type, under torchrun where there are several processes: there is one way to
train, and a run that was begun here goes on there. Ray has nothing to add, since its items come and go one by one,
and the processes of a training begin and end together.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.states import Cancelled, Completed, Failed
from pydantic import Field

from flows.prefect.artifacts import PairProgress, show_training
from flows.prefect.endings import REFUSED, full_path, retry_no_more
from schemas.errors import EXIT_USAGE, UsageError
from training.engine.events import Event, FailedEvent, FinishedEvent, StartedEvent, StepEvent, StoppedEvent, read_events

_RECIPE = "anytalk"


@flow(name="train-anytalk", retries=2, retry_delay_seconds=60, persist_result=False)
def train_anytalk(
    shards: str | tuple[str, ...],
    output: str,
    stage: Literal["", "pretrain", "finetune"] = "",
    config: str = "",
    settings: tuple[str, ...] = (),
    init: str = "",
    resume: bool = False,
    num_processes: Annotated[int, Field(ge=1)] = 1,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> State:
    """Train AnyTalk on a release; cancelling saves, and a run with resume goes on.

    Args:
        shards: Folder or URI of a release, or a list of shards by path or URL.
        output: Folder of the training on the worker's machine: full path.
        stage: Which stage; the config's by default, pretrain by its own.
        config: YAML file with settings that differ from the defaults: full path on the worker's machine.
        settings: Single settings, applied last, such as "model.preset=tiny64".
        init: Checkpoint, or folder of a training, whose weights a new one begins with: full path.
        resume: Go on from the newest checkpoint in the output.
        num_processes: One per GPU of the worker's machine; more than one run under torchrun.
        device: What to train on.
    """
    try:
        flags = _path_flags((shards,) if isinstance(shards, str) else shards, output, config, init)
    except UsageError as error:
        get_run_logger().error(str(error))
        return _ended(Failed(name=REFUSED, message=str(error)), output)
    flags += [part for setting in settings for part in ("--set", setting)]
    flags += ["--stage", stage] if stage else []
    flags += ["--resume"] if resume or _has_begun(output) else []
    with tempfile.TemporaryDirectory() as folder:
        events = Path(folder) / "events.jsonl"
        line = command(_RECIPE, [*flags, "--device", device, "--events", str(events)], num_processes)
        state = follow(line, TrainingEvents(events))
    return _ended(state, output)


def _path_flags(shards: Sequence[str], output: str, config: str, init: str) -> list[str]:
    if "://" in output:
        raise UsageError(f"output {output!r} is a URI: name a folder of the worker's machine")
    named = [("shards", shard) for shard in shards]
    named += [(name, path) for name, path in (("output", output), ("config", config), ("init", init)) if path]
    return [part for name, path in named for part in (f"--{name}", full_path(name, path))]


def command(recipe: str, flags: Sequence[str], num_processes: int) -> list[str]:
    """The command line of a training on this machine."""
    launch = ["torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}", "-m"]
    module = [*(launch if num_processes > 1 else ()), "anitalk"]
    return [sys.executable, "-m", "flows.prefect.bound", sys.executable, "-m", *module, "train", recipe, *flags]


class TrainingEvents:
    """What a training tells of itself, read from its file of events as it goes on.

    Args:
        path: the file; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0
        self.ending: FinishedEvent | StoppedEvent | FailedEvent | None = None  # of several processes' the first failure

    def read(self) -> list[Event]:
        """What is new."""
        events, self._offset = read_events(self._path, self._offset)
        for event in events:
            if isinstance(event, FinishedEvent | StoppedEvent | FailedEvent) and not self.has_failed:
                self.ending = event
        return events

    @property
    def has_failed(self) -> bool:
        """Whether the training has ended in an error."""
        return isinstance(self.ending, FailedEvent)

    def state(self, exit_code: int) -> State:
        """The flow's last state, with the sentence that the training ended in.

        Args:
            exit_code: of the command; torchrun's is 1 whatever its processes' are.
        """
        ending = self.ending
        if isinstance(ending, FailedEvent):
            return Failed(name=REFUSED if ending.exit_code == EXIT_USAGE else "Failed", message=ending.sentence)
        if isinstance(ending, StoppedEvent):
            return Cancelled(message=ending.sentence)
        if isinstance(ending, FinishedEvent) and exit_code == 0:
            return Completed(message=ending.sentence)
        return Failed(message=f"the training ended with exit code {exit_code}: see the run's log")


def follow(line: Sequence[str], events: TrainingEvents) -> State:
    """Run a training, pass on its lines and how far it is; whatever ends this process asks it to save and end.

    Args:
        line: its command line.
        events: its file of events.

    Returns:
        The flow's last state.
    """
    logger, progress = get_run_logger(), PairProgress()
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
    ) as child:
        assert child.stdout is not None  # noqa: S101 - asked for above
        try:
            for text in child.stdout:
                _show(events, progress)
                # Once an event has said what is wrong, tracebacks about it are all that follows.
                (logger.debug if events.has_failed else logger.info)(text.rstrip())
        except BaseException:  # a cancelled run is told so by an exception, and has half a minute
            child.terminate()
            for text in child.stdout:
                logger.info(text.rstrip())
            raise
    _show(events, progress)
    return events.state(child.returncode)


def _show(events: TrainingEvents, progress: PairProgress) -> None:
    """Pass on what has happened since the last look."""
    had_failed = events.has_failed
    reached = [event for event in events.read() if isinstance(event, StartedEvent | StepEvent)]
    if reached:
        progress.reach(reached[-1].samples, reached[-1].total_samples)
    if isinstance(events.ending, FailedEvent) and not had_failed:
        get_run_logger().error(events.ending.sentence)


def _has_begun(output: str) -> bool:
    """Whether an earlier try of this very run has begun the training."""
    context = FlowRunContext.get()
    tried = bool(context and context.flow_run and context.flow_run.run_count > 1)
    return tried and (Path(output) / "run.json").exists()


def _ended(state: State, output: str) -> State:
    if state.name == REFUSED:
        retry_no_more()
    else:
        show_training(Path(output), state.message or "")
    return state
