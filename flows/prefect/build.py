"""The flow ``build-anitalk``: a build as a Prefect deployment, with retries, progress, cancellation and screening.

Prefect sees batches of sources and never clips: it slows down and locks its database at some thousand task runs,
while a build of a thousand films has a hundred thousand items. Those belong to the engine below.
"""

import math
import threading
from asyncio import CancelledError
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext
from prefect.flow_runs import suspend_flow_run
from prefect.futures import as_completed
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import Task
from prefect.utilities.annotations import opaque
from pydantic import Field

from flows.build import BuildRequest, OpenBuild, opened_build
from flows.prefect.artifacts import SourceProgress, show_funnel, show_release, show_screening
from flows.prefect.endings import REFUSED, full_path, retry_no_more
from flows.release import FinishedRelease, release_workspace
from pipeline.release.verify import verify_release
from schemas.errors import AnitalkError, UsageError
from schemas.source import Source

T = TypeVar("T")

MAX_BATCHES = 100  # task runs of a build, however many sources it has
_BATCHES_AT_ONCE = 16  # so that the engine has work while the last source of a batch ends
_STOPPED = "Stopped"  # name of a failed state after which trying again is no use, as after REFUSED
_SCREENING = "screening"
_MAX_FAULTS = 5  # named in a message; 'anitalk verify' names all


def _may_pass(_task: Task[..., Any], _run: TaskRun, state: State) -> bool:
    """Whether trying again can help; a user's mistake stays one."""
    return state.name not in {REFUSED, _STOPPED}


# Results stay in this process: the workspace already keeps everything that was computed.
_LOCAL: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}
# An object store that is away comes back within seconds or minutes.
_RETRIED: dict[str, Any] = {"retries": 3, "retry_delay_seconds": [10, 60, 300], "retry_condition_fn": _may_pass}
_RUNNER: Any = ThreadPoolTaskRunner(max_workers=_BATCHES_AT_ONCE)


# ---- the flow ------------------------------------------------------------------------------------------------------


@flow(
    name="build-anitalk",
    retries=2,
    retry_delay_seconds=60,
    task_runner=_RUNNER,
    persist_result=False,
)
def build_anitalk(
    manifest: str,
    workspace: str,
    release: str = "",
    config: str = "",
    settings: tuple[str, ...] = (),
    profile: str = "embedded",
    limit: Annotated[int, Field(ge=0)] = 0,
    media: str = "",
    screen: bool = False,
    screening_days: Annotated[float, Field(gt=0)] = 7.0,
    ray: str = "",
    inline: bool = False,
) -> State:
    """Build talking-head clips from a list of sources, and release them; run again to go on where it stopped.

    Args:
        manifest: List of sources (YAML, CSV or JSONL) or a clip list: full path on the worker's machine.
        workspace: Where results, ledger and releases live: full path or URI (s3://bucket/work).
        release: Make and verify a release of this name at the end; empty to stop after the clips.
        config: YAML file with settings that differ from the defaults: full path on the worker's machine.
        settings: Single settings, applied last, such as "domains.real.limits.min_speech_ratio=0.4".
        profile: Whose models and defaults to use.
        limit: Only the first so many sources; 0 for all of them.
        media: Folder of the local files that a clip list names: full path on the worker's machine.
        screen: Suspend after the clips until a person resumes the run, then release what was kept.
        screening_days: After so many days a suspended run fails; another run finds everything done.
        ray: Address of a Ray cluster; empty to start Ray on the worker's machine for this run.
        inline: Everything in the run's own process, without Ray: slow, for looking for faults.
    """
    try:
        request = BuildRequest(
            manifest=full_path("manifest", manifest),
            workspace=full_path("workspace", workspace),
            config=Path(full_path("config", config)) if config else None,
            media=Path(full_path("media", media)) if media else None,
            settings=settings,
            profile=profile,
            limit=limit or None,
            ray_address=ray or None,
            inline=inline,
        )
        if not _was_screened():  # clips that nobody has seen must not slip in after the screening
            _build(request)
            if screen:
                _suspend(workspace, release, timedelta(days=screening_days))
        return _release(workspace, release) if release else Completed(message=f"clips are in {workspace}")
    except AnitalkError as error:
        return _ended(_refused(error))
    except _EndedError as ended:
        return _ended(ended.state)


def _build(request: BuildRequest) -> None:
    """Sources to clips, batch by batch; failures of sources end in the ledger and stop nothing."""
    with ExitStack() as stack:
        opened: OpenBuild = _value(open_build(_whole(stack), request, return_state=True))
        stopped = threading.Event()
        stack.callback(stopped.set)
        progress = SourceProgress(len(opened.sources))
        futures = {}
        for batch in batches(opened.sources):
            named = run_batch.with_options(task_run_name=_batch_name(batch))
            futures[named.submit(_whole(opened), _whole(batch), _whole(stopped))] = batch
        states = []
        for future in as_completed(list(futures)):
            future.wait()
            states.append(future.state)
            progress.add(len(futures[future]))
    show_funnel(request.workspace)
    for state in states:
        _value(state)


def _release(workspace: str, name: str) -> State:
    finished: FinishedRelease = _value(make_release(name, workspace, return_state=True))
    show_release(finished)
    _value(verify(finished.location, return_state=True))
    return Completed(message=f"{finished.record.num_clips} clips released and verified: {finished.location}")


def _suspend(workspace: str, release: str, how_long: timedelta) -> None:
    """Leave the worker free until a person resumes the run, which then starts again from its beginning."""
    show_screening(workspace, release)
    suspend_flow_run(timeout=round(how_long.total_seconds()), key=_SCREENING)


def _was_screened() -> bool:
    """Whether this run was suspended before, so that it goes on because a person resumed it."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    return bool(run and run.empirical_policy and _SCREENING in (run.empirical_policy.pause_keys or ()))


# ---- its tasks -----------------------------------------------------------------------------------------------------


@task(name="open", task_run_name="open", **_LOCAL, **_RETRIED)
def open_build(stack: ExitStack, request: BuildRequest) -> OpenBuild | State:
    """Open the build on ``stack``; a wrong manifest or setting, or a workspace in use, ends the run here."""
    try:
        return stack.enter_context(opened_build(request))
    except AnitalkError as error:
        return _refused(error)


@task(name="sources to clips", **_LOCAL, **_RETRIED)
def run_batch(opened: OpenBuild, sources: Sequence[Source], stopped: threading.Event) -> State:
    """Take a batch of sources as far as they go."""
    end = Failed(name=_STOPPED, message="the run was stopped; another one goes on from here")
    if stopped.is_set():
        return end
    try:
        opened.run(sources)
    except AnitalkError as error:
        return end if stopped.is_set() else _refused(error)
    except (Exception, CancelledError):
        if not stopped.is_set():
            raise
    if stopped.is_set():
        return end
    return Completed(message=f"{len(sources)} source{'s' if len(sources) > 1 else ''}")


@task(name="release", task_run_name="release {name}", **_LOCAL, **_RETRIED)
def make_release(name: str, workspace: str) -> FinishedRelease | State:
    """Select, split and pack all finished clips."""
    try:
        return release_workspace(name, workspace)
    except AnitalkError as error:
        return _refused(error)


@task(name="verify", task_run_name="verify", **_LOCAL, **_RETRIED)
def verify(location: str) -> State:
    """Check every byte, sample and table of the release; faults fail the run."""
    try:
        faults = verify_release(location)
    except AnitalkError as error:
        return _refused(error)
    if not faults:
        return Completed(message="verified, no faults")
    named = "; ".join(f"{fault.path}: {fault.problem}" for fault in faults[:_MAX_FAULTS])
    return Failed(name=REFUSED, message=f"{len(faults)} faults in {location}: {named}")


# ---- what it needs -------------------------------------------------------------------------------------------------


def batches(sources: Sequence[Source], most: int = MAX_BATCHES) -> list[Sequence[Source]]:
    """The sources in their order, cut into at most ``most`` runs of equal length (the last may be shorter)."""
    size = max(1, math.ceil(len(sources) / most))
    return [sources[start : start + size] for start in range(0, len(sources), size)]


def _batch_name(batch: Sequence[Source]) -> str:
    more = f" and {len(batch) - 1} more" if len(batch) > 1 else ""
    return f"{batch[0].id}{more}"


def _whole(value: T) -> T:
    """The value as a task's argument; Prefect would otherwise walk through all its parts in search of futures."""
    return cast("T", opaque(value))


class _EndedError(Exception):
    """A task has failed for good; its state says why."""

    def __init__(self, state: State) -> None:
        super().__init__(state.message)
        self.state = state


def _value(state: State) -> Any:
    """What a task returned.

    Raises:
        _EndedError: when it failed for good.
    """
    if not state.is_completed():
        raise _EndedError(state)
    return state.result()


def _refused(error: AnitalkError) -> State:
    """A failed state with the error's own sentence; no traceback in the log, since it is no bug."""
    get_run_logger().error(str(error))
    return Failed(name=REFUSED if isinstance(error, UsageError) else "Failed", message=str(error))


def _ended(state: State) -> State:
    """The flow's own last state, with the sentence of the task that failed."""
    if state.name == REFUSED:
        retry_no_more()
    return Failed(name=state.name, message=state.message)
