"""Sources to clips: the one place that composes the stages, whoever performs them.

Every stage result is stored under a key computed from all that it depends on: input content, the
stage's own settings, the model files, and the stage's version. Running again therefore computes
exactly what is missing, wherever the last run ended, and a failure costs one item.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar, cast

from pipeline.build.jobs import (
    AcquireJob,
    AnalyseJob,
    ClipJob,
    Job,
    JobContext,
    ListedPlanJob,
    ProbeJob,
    RunsPlanJob,
)
from pipeline.build.perform import ledger_row, log_failure, perform
from pipeline.build.results import BuildRecord, Results, tool_version
from pipeline.models.files.model_files import ModelFiles
from pipeline.store.ledger import STRIKES, given_up, standing, strikes
from pipeline.store.tombstones import read_tombstones
from pipeline.store.workspace import Workspace
from schemas.analysis import AnalysisRun, SourcePlan
from schemas.base import Record, canonical_json
from schemas.cliplist import ListedClip
from schemas.config import BuildConfig, WeightsConfig
from schemas.errors import AnitalkError
from schemas.files import sha256_of_file
from schemas.ledger import LedgerRow
from schemas.media import Video
from schemas.source import Fetched, Source
from schemas.tombstone import covering

log = logging.getLogger(__name__)

R = TypeVar("R")


class Progress(Protocol):
    """Shown what is going on; the command line draws it."""

    def source(self, source: Source, number: int, total: int) -> None:
        """A source begins."""
        ...

    def stage(self, item: str, stage: str, done: float | None, total: float | None) -> None:
        """How far a stage of an item is, in its own unit."""
        ...

    def ended(self, source: Source) -> None:
        """A source has gone as far as it goes."""
        ...


class Silent(Progress):
    """Progress that nobody watches."""

    def source(self, source: Source, number: int, total: int) -> None:
        """Say nothing."""

    def stage(self, item: str, stage: str, done: float | None, total: float | None) -> None:
        """Say nothing."""

    def ended(self, source: Source) -> None:
        """Say nothing."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A job whose process ended before it could say how it went, and what is known of that."""

    reason_class: str  # "crash" or "timeout"
    reason: str
    message: str


class Engine(Protocol):
    """Whoever performs jobs."""

    @property
    def num_sources(self) -> int:
        """How many sources may be under way at once."""
        ...

    async def perform(self, job: Job, progress: Progress) -> Record | Lost | None:
        """Do a job: its record; None where it failed and the ledger says how; Lost where nobody could say."""
        ...


class InlineEngine:
    """One job after the other in this process: no isolation, so a decoder that aborts takes the build with it."""

    num_sources = 1

    def __init__(self, context: JobContext) -> None:
        self.context = context
        self._one_at_a_time = threading.Lock()  # builds in several threads share models, which are not made for that

    async def perform(self, job: Job, progress: Progress) -> Record | None:
        """Do the job now."""
        with self._one_at_a_time:
            return perform(job, self.context, partial(progress.stage, job.item))


class Builder:
    """Bring a workspace up to date with a list of sources and a configuration.

    Args:
        workspace: open for writing; the caller holds its lock.
        config: all settings.
        engine: performs the jobs.
        progress: is shown what is going on.
        clip_list: clips of a published list, which take the place of detection.
        files: the model files of ``config``; in the default weights folder where they are left out.
    """

    def __init__(
        self,
        workspace: Workspace,
        config: BuildConfig,
        engine: Engine,
        progress: Progress | None = None,
        clip_list: Sequence[ListedClip] = (),
        files: ModelFiles | None = None,
    ) -> None:
        self.workspace, self.config, self.engine = workspace, config, engine
        self.results = Results(workspace, config, clip_list, files)
        self.progress: Progress = progress or Silent()

    def run(self, sources: Sequence[Source]) -> None:
        """Take every source as far as it goes; their failures end in the ledger.

        Raises:
            UsageError: when a model cannot be loaded.
            WorkspaceError: when the workspace can no longer be written.
        """
        _run_to_end(lambda: self._all(sources))

    async def _all(self, sources: Sequence[Source]) -> None:
        stones = read_tombstones(self.workspace)
        sources = [source for source in sources if not covering(stones, source)]
        room = asyncio.Semaphore(self.engine.num_sources)
        ended = 0

        async def build(source: Source) -> None:
            nonlocal ended
            await self.build_source(source)
            ended += 1
            self.progress.ended(source)

        try:
            async with asyncio.TaskGroup() as group:
                for number, source in enumerate(sources, start=1):
                    await room.acquire()
                    self.progress.source(source, number, len(sources))
                    group.create_task(build(source)).add_done_callback(lambda _: room.release())
                    await asyncio.sleep(0)  # a source that does not wait for anybody is done before the next begins
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        if ended < len(sources):  # a group of tasks says nothing when an engine that is closed cancels its jobs
            raise AnitalkError("the build was stopped before its end: run it again to go on")

    async def build_source(self, source: Source) -> None:
        """Take one source as far as it goes; its failures end in the ledger."""
        tries = _Tries(self.workspace, source)
        fetched = await self._acquire(source, tries)
        if fetched is None:
            return
        probe_key = self.results.probe_key(source, fetched)
        probed = cast("Video | None", await self._step(ProbeJob(source=source, key=probe_key, fetched=fetched), tries))
        if probed is None:
            return
        video = probed.in_language(source.language)
        plan = await self._plan(source, fetched, video, tries)
        if plan is None:
            return
        clips = [
            ClipJob(
                source=source,
                key=self.results.clip_key(source, video, planned),
                fetched=fetched,
                video=video,
                planned=planned,
            )
            for planned in plan.clips
        ]
        await self._together([self._step(job, tries) for job in clips])

    # ---- stages --------------------------------------------------------------------------------

    async def _acquire(self, source: Source, tries: "_Tries") -> Fetched | None:
        key = self.results.acquire_key(source)
        known = self.workspace.result("acquire", key, Fetched)
        if known is not None:
            path = self.results.media(known, source)
            # Media that were cleared away after their clips were made are not fetched again.
            if _is_unchanged(path, known) or (not path.exists() and self._is_not_needed(source, known)):
                return known
        return cast("Fetched | None", await self._step(AcquireJob(source=source, key=key), tries))

    def _is_not_needed(self, source: Source, known: Fetched) -> bool:
        return self.workspace.has_media(source.id, known.path) or self.results.complete(source)

    async def _plan(self, source: Source, fetched: Fetched, video: Video, tries: "_Tries") -> SourcePlan | None:
        key = self.results.plan_key(source, video)
        known = self.workspace.result("plan", key, SourcePlan)
        if known is not None:
            return known
        if source.id in self.results.listed:
            listed = self.results.listed[source.id]
            job = ListedPlanJob(source=source, key=key, video=video, listed=listed)
            return cast("SourcePlan | None", await self._step(job, tries))
        runs = [
            AnalyseJob(
                source=source,
                key=self.results.analyse_key(source, video, window),
                fetched=fetched,
                video=video,
                window=window,
                number=number,
            )
            for number, window in enumerate(self.results.windows(source, video))
        ]
        analysed = await self._together([self._step(job, tries) for job in runs])
        if not all(isinstance(run, AnalysisRun) for run in analysed):
            return None
        job = RunsPlanJob(source=source, key=key, video=video, run_keys=tuple(job.key for job in runs))
        return cast("SourcePlan | None", await self._step(job, tries))

    async def _together(self, steps: Sequence[Awaitable[R]]) -> list[R]:
        """All of them, side by side where the engine can."""
        return list(await asyncio.gather(*steps))

    # ---- one step of one item --------------------------------------------------------------------

    async def _step(self, job: Job, tries: "_Tries") -> Record | None:
        """The stored result, or have it computed; None when the item failed, now or for good before."""
        if not job.again:
            done = self.workspace.result(job.stage, job.key, job.kind)
            if done is not None:
                return done
            if given_up(tries.rows, job.key):
                return None
        lost = strikes(tries.rows, job.key)
        while True:
            end = await self.engine.perform(job, self.progress)
            if not isinstance(end, Lost):
                return end
            log_failure(self.workspace, ledger_row(job, tool_version()), end.reason_class, end.reason, end.message)
            lost += 1
            if lost >= STRIKES:
                log.warning("%s of %s is left alone after %d tries", job.stage, job.item, lost)
                return None


def _is_unchanged(path: Path, fetched: Fetched) -> bool:
    """Whether the file is still the one that was hashed; content decides, so a copied or touched file is fine."""
    if not path.is_file() or path.stat().st_size != fetched.num_bytes:
        return False
    return sha256_of_file(path) == fetched.sha256


class _Tries:
    """The ledger's standing rows of one source, read when first asked for: most sources have nothing to look up."""

    def __init__(self, workspace: Workspace, source: Source) -> None:
        self._workspace, self._source = workspace, source
        self._rows: list[LedgerRow] | None = None

    @property
    def rows(self) -> list[LedgerRow]:
        if self._rows is None:
            self._rows = standing(self._workspace.ledger(self._source.id))
        return self._rows


def record_build(
    workspace: Workspace,
    sources: Sequence[Source],
    config: BuildConfig,
    clip_list: Sequence[ListedClip] = (),
    weights: WeightsConfig | None = None,
) -> BuildRecord:
    """Note what is being built, so that later commands can look it up."""
    record = BuildRecord(
        tool_version=tool_version(),
        sources=tuple(sources),
        config=config,
        listed=tuple(clip_list),
        weights=weights or WeightsConfig(),
    )
    workspace.storage.write("build.json", canonical_json(record))
    return record


def _run_to_end(work: Callable[[], Awaitable[None]]) -> None:
    """Run a coroutine from plain code, also where a loop is running already, as in a notebook.

    Not ``asyncio.run``: that delays Ctrl-C until the next wait, which is minutes away in one process.
    """
    failures: list[BaseException] = []

    def drive() -> None:
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(work())
        finally:
            # What ended the work was raised above; that its tasks end with it is no news.
            loop.set_exception_handler(lambda *_: None)
            while left := asyncio.all_tasks(loop):
                for task in left:
                    task.cancel()
                with contextlib.suppress(KeyboardInterrupt, SystemExit):  # the same one again, from the group of tasks
                    loop.run_until_complete(asyncio.wait(left))
            loop.close()

    def drive_aside() -> None:
        try:
            drive()
        except BaseException as error:  # noqa: BLE001 - raised again where the caller waits
            failures.append(error)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        drive()
        return
    aside = threading.Thread(target=drive_aside)
    aside.start()
    aside.join()
    if failures:
        raise failures[0]
