"""The flow ``train-anytalk``: a training as a Prefect deployment, with its lines, its progress and its last pictures.

It starts the command that anyone would type, under torchrun where there are several processes: there is one way to
train, and a run that was begun here goes on there. Ray has nothing to add, since its items come and go one by one,
and the processes of a training begin and end together.
"""

import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.states import Cancelled, Completed, Failed
from pydantic import Field

from flows.prefect.artifacts import PairProgress, show_training
from flows.prefect.endings import REFUSED, full_path, retry_no_more
from schemas.errors import UsageError

_USAGE, _STOPPED = 2, 143  # exit codes of the command
_SAYS = "anitalk: "  # begins the sentence in which it says what is wrong
_OF_A_PROCESS = re.compile(r"exitcode\s*:\s*(\d+)")  # torchrun's own is 1 whatever its processes' are
_PAIRS = re.compile(r" step \d+: (\d+) of (\d+) pairs")


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
        flags = _places((shards,) if isinstance(shards, str) else shards, output, config, init)
    except UsageError as error:
        get_run_logger().error(str(error))
        return _ended(Failed(name=REFUSED, message=str(error)), output)
    flags += [part for one in settings for part in ("--set", one)]
    flags += ["--stage", stage] if stage else []
    flags += ["--resume"] if resume or _has_begun(output) else []
    told = follow(command([*flags, "--device", device], num_processes))
    return _ended(told.state(), output)


def _places(shards: Sequence[str], output: str, config: str, init: str) -> list[str]:
    if "://" in output:
        raise UsageError(f"output {output!r} is a URI: name a folder of the worker's machine")
    named = [("shards", one) for one in shards]
    named += [(name, place) for name, place in (("output", output), ("config", config), ("init", init)) if place]
    return [part for name, place in named for part in (f"--{name}", full_path(name, place))]


def command(flags: Sequence[str], num_processes: int) -> list[str]:
    """The command line of a training on this machine."""
    launch = ["torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}", "-m"]
    module = [*(launch if num_processes > 1 else ()), "anitalk"]
    return [sys.executable, "-m", "flows.prefect.bound", sys.executable, "-m", *module, "train", "anytalk", *flags]


@dataclass
class Told:
    """What a training said, and how it ended."""

    lines: deque[str] = field(default_factory=lambda: deque(maxlen=200))
    code: int = 0

    def state(self) -> State:
        """The flow's last state, with the sentence that the training ended in."""
        codes = [int(found[1]) for line in self.lines if (found := _OF_A_PROCESS.search(line))]
        code = codes[-1] if self.code and codes else self.code
        said = [line.removeprefix(_SAYS) for line in self.lines if line.startswith(_SAYS)]
        if code == 0:
            return Completed(message=self._last("finished after"))
        if code == _STOPPED:
            return Cancelled(message=self._last("stopped after"))
        sentence = said[-1] if said else f"the training ended with exit code {code}: see the run's log"
        return Failed(name=REFUSED if code == _USAGE else "Failed", message=sentence)

    def _last(self, beginning: str) -> str:
        return next((line for line in reversed(self.lines) if line.startswith(beginning)), "")


def follow(line: Sequence[str]) -> Told:
    """Run a training and pass on what it says; whatever ends this process asks the training to save and end."""
    logger, told, progress = get_run_logger(), Told(), PairProgress()
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
    ) as child:
        assert child.stdout is not None  # noqa: S101 - asked for above
        try:
            log = logger.info
            for text in child.stdout:
                told.lines.append(text.rstrip())
                log(told.lines[-1])
                if text.startswith(_SAYS):  # all that was to say: what follows is torchrun's traceback about it
                    log = logger.debug
                if found := _PAIRS.search(text):
                    progress.reach(int(found[1]), int(found[2]))
        except BaseException:  # a cancelled run is told so by an exception, and has half a minute
            child.terminate()
            for text in child.stdout:
                logger.info(text.rstrip())
            raise
    told.code = child.returncode
    return told


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
