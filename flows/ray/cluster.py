"""Perform jobs on a Ray cluster: side by side, each in a worker process that may die without harm.

Jobs are Ray tasks, since a task can be cancelled by force and an actor's call cannot; one small actor, the
coordinator, is what workers share: turns at hosts, progress, and why a worker is about to end itself. The engine lives
on an event loop of its own, so that builds in several threads can share one cluster.
"""

import asyncio
import contextlib
import dataclasses
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from flows.ray.connection import connect
from flows.ray.slots import Slots
from flows.ray.worker import Coordinator, Fatal, Note, Setup, do_job
from pipeline.build.compose import Lost, Progress
from pipeline.build.jobs import Job
from schemas.base import Record
from schemas.config import BuildConfig, EngineConfig, WeightsConfig
from schemas.errors import AnitalkError, UsageError

log = logging.getLogger(__name__)

_POLL_S = 0.5  # between two looks at the coordinator's notes
_NODE_LOSSES = 20  # of one job; a cluster that loses more is not one to wait for
_QUEUED_PER_SLOT = 2  # so that a worker finds its next job waiting


@dataclass(slots=True)
class _Running:
    """A job that was handed to Ray. ``node`` and ``since`` are known once it has begun."""

    job: Job
    ref: "ray.ObjectRef[Any]"
    progress: Progress
    node: str = ""
    since: float | None = None
    timed_out: bool = False
    cause_of_end: str = ""


class RayEngine:
    """Perform jobs as Ray tasks. Starts or joins a cluster at the first job, and ends only what it started.

    Args:
        uri: the workspace; every node must reach it.
        config: all settings of the build.
        settings: workers, limits and time-outs.
        tool_version: recorded in the results.
        weights: where every node finds its weights files; the default folder where it is left out.
        address: of a running cluster (``auto``, ``HOST:PORT``, ``ray://…``); None starts a local one.
        verbose: show what workers print.
    """

    def __init__(
        self,
        uri: str,
        config: BuildConfig,
        settings: EngineConfig,
        tool_version: str,
        *,
        weights: WeightsConfig | None = None,
        address: str | None = None,
        verbose: bool = False,
    ) -> None:
        where = weights or WeightsConfig()
        self._setup = Setup(uri, config, tool_version, settings.memory_cap_bytes, uuid.uuid4().hex, where)
        self._settings, self._address, self._verbose = settings, address, verbose
        self._started = threading.Lock()
        self._closed = False
        self._cluster: _Cluster | None = None

    @property
    def num_sources(self) -> int:
        """Enough sources under way that fetching, looking and cutting overlap."""
        num_workers = self._settings.workers or os.cpu_count() or 1
        return max(4, 2 * (self._cluster.slots.size if self._cluster else num_workers))

    async def perform(self, job: Job, progress: Progress) -> Record | Lost | None:
        """Do a job on some worker.

        Raises:
            AnitalkError: when the workspace cannot be written, a model is missing, or the cluster cannot be used.
        """
        with self._started:
            if self._closed:  # a thread that was under way when the build ended must not start another cluster
                raise asyncio.CancelledError
            if self._cluster is None:
                self._cluster = _Cluster(self._setup, self._settings, self._address, verbose=self._verbose)
        return await asyncio.wrap_future(self._cluster.submit(job, progress))

    def close(self) -> None:
        """Stop all work, and the cluster if it was started here."""
        with self._started:
            self._closed = True
            if self._cluster is not None:
                self._cluster.close()
                self._cluster = None


@contextlib.contextmanager
def ray_engine(*args: Any, **kwargs: Any) -> Iterator[RayEngine]:
    """A :class:`RayEngine` for the length of a block."""
    engine = RayEngine(*args, **kwargs)
    try:
        yield engine
    finally:
        engine.close()


class _Cluster:
    """A connection to Ray with everything that is under way on it; all of it lives on one event loop."""

    def __init__(self, setup: Setup, settings: EngineConfig, address: str | None, *, verbose: bool) -> None:
        self._settings = settings
        self._owns_connection = connect(settings, address, verbose=verbose)
        self._running: dict[str, _Running] = {}
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._coordinator = (
            _remote(Coordinator).options(num_cpus=0, max_concurrency=16, scheduling_strategy=here).remote(setup)
        )
        self._setup = ray.put(dataclasses.replace(setup, coordinator=self._coordinator))
        self._do = _remote(do_job, max_calls=settings.jobs_per_worker, max_retries=0)
        self.slots = Slots(self._num_slots())
        self._fetches = asyncio.Semaphore(settings.num_fetches)
        self._collecting = asyncio.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ray-engine", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._supervise(), self._loop)

    def submit(self, job: Job, progress: Progress) -> "Future[Record | Lost | None]":
        """Have a job done; the future may be cancelled."""
        return asyncio.run_coroutine_threadsafe(self._perform(job, progress), self._loop)

    def close(self) -> None:
        """Cancel what is under way by force and let go of the cluster."""
        for running in list(self._running.values()):
            with contextlib.suppress(Exception):  # it may end at this moment, or its cluster be gone
                ray.cancel(running.ref, force=True)
        asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        self._thread.join(timeout=5)
        with contextlib.suppress(Exception):
            ray.kill(self._coordinator)
        if self._owns_connection:
            ray.shutdown()

    async def _end(self) -> None:
        """Cancel everything on the loop, then stop it."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=2)
        self._loop.stop()

    # ---- one job ---------------------------------------------------------------------------------

    async def _perform(self, job: Job, progress: Progress) -> Record | Lost | None:
        if job.needs.fetches:
            async with self._fetches:
                return await self._with_nodes_lost(job, progress)
        async with self.slots:
            return await self._with_nodes_lost(job, progress)

    async def _with_nodes_lost(self, job: Job, progress: Progress) -> Record | Lost | None:
        """A node that goes away is nobody's fault but its own: the job begins again elsewhere."""
        for _ in range(_NODE_LOSSES):
            try:
                return await self._attempt(job, progress)
            except _NodeGoneError:
                log.warning("the node that did %s of %s is gone: it begins again elsewhere", job.stage, job.item)
        raise AnitalkError(f"the cluster lost {_NODE_LOSSES} nodes under {job.item}: mend it, then run again")

    async def _attempt(self, job: Job, progress: Progress) -> Record | Lost | None:
        token = uuid.uuid4().hex
        ref = self._do.options(**self._resources(job)).remote(self._setup, job, token)
        running = self._running[token] = _Running(job, ref, progress)
        try:
            answer = await asyncio.wrap_future(ref.future())
        except ray.exceptions.OutOfMemoryError:
            return Lost("crash", "memory", "its node ran out of memory and ended it; fewer workers leave each more")
        except ray.exceptions.RayError as error:
            return await self._why(running, error)
        except asyncio.CancelledError:
            ray.cancel(ref, force=True)
            raise
        finally:
            del self._running[token]
        if isinstance(answer, Fatal):
            raise answer.error()
        return answer

    async def _why(self, running: _Running, error: ray.exceptions.RayError) -> Lost:
        if isinstance(error, ray.exceptions.RayTaskError):
            raise error  # a bug of ours: jobs answer for their own errors
        if isinstance(error, ray.exceptions.RuntimeEnvSetupError):
            raise UsageError(f"a node cannot set up this build's code: {' '.join(str(error).split())[:300]}") from error
        if running.timed_out:
            limit_s = self._limit_s(running.job)
            return Lost("timeout", "timeout", f"not done after {limit_s:.0f} s (engine.timeout_s); it was ended")
        await self._collect()
        if running.cause_of_end:
            return Lost("crash", "memory", running.cause_of_end)
        if isinstance(error, ray.exceptions.WorkerCrashedError) and await self._node_is_alive(running.node):
            return Lost(
                "crash", "abort", "the worker process died (abort, segmentation fault or kill): a damaged file?"
            )
        raise _NodeGoneError from error

    async def _node_is_alive(self, node: str) -> bool:
        """Whether a node is there a little after something on it died: Ray needs a moment to notice."""
        if not node:
            return True
        for _ in range(4):
            await asyncio.sleep(_POLL_S)
            if not any(entry["NodeID"] == node and entry["Alive"] for entry in ray.nodes()):
                return False
        return True

    def _resources(self, job: Job) -> dict[str, Any]:
        settings, needs = self._settings, job.needs
        return {
            "num_cpus": needs.cpus * settings.cpus_per_job,
            "num_gpus": settings.gpus_per_job if needs.gpu else 0,
            "name": f"{job.stage} {job.item}",
        }

    def _limit_s(self, job: Job) -> float:
        settings, needs = self._settings, job.needs
        if needs.fetches:
            return settings.fetch_timeout_s
        return settings.timeout_s + settings.timeout_per_media_s * needs.media_s

    # ---- watching --------------------------------------------------------------------------------

    async def _supervise(self) -> None:
        """Pass on progress, end what takes too long, and follow a cluster that grows or shrinks."""
        num_polls = 0
        while True:
            await asyncio.sleep(_POLL_S)
            await self._collect()
            now = time.monotonic()
            for running in list(self._running.values()):
                if running.since is not None and now - running.since > self._limit_s(running.job):
                    running.timed_out = True
                    ray.cancel(running.ref, force=True)
            num_polls += 1
            if num_polls % 20 == 0:
                self.slots.resize(self._num_slots())

    async def _collect(self) -> None:
        async with self._collecting:  # whoever asks next must find what was taken out before
            try:
                notes = await asyncio.wrap_future(self._coordinator.collect.remote().future())
            except ray.exceptions.RayError as error:
                log.warning("the coordinator does not answer: %s", type(error).__name__)
                return
            self._read(notes)

    def _read(self, notes: list[Note]) -> None:
        for note in notes:
            running = self._running.get(note.token)
            if running is None:
                continue
            if note.node:
                running.node, running.since = note.node, time.monotonic()
            if note.cause_of_end:
                running.cause_of_end = note.cause_of_end
            if note.done is not None:
                running.progress.stage(running.job.item, running.job.stage, note.done, note.total)

    def _num_slots(self) -> int:
        num_cpus = ray.cluster_resources().get("CPU", 0.0)
        return max(1, int(num_cpus / self._settings.cpus_per_job)) * _QUEUED_PER_SLOT


class _NodeGoneError(Exception):
    """The node that did a job is gone."""


def _remote(what: Any, **options: Any) -> Any:
    return ray.remote(**options)(what) if options else ray.remote(what)
