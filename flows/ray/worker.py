"""What runs inside Ray's worker processes: jobs, the watch over their memory, and the coordinator they share.

Everything here must be importable on any node. A worker keeps its models between jobs; the watch ends
the whole process when it outgrows its cap, because memory that native code has taken comes back no other way.
"""

import os
import threading
import time
from dataclasses import dataclass
from typing import Any

import psutil
import ray

from pipeline.build.jobs import Job, JobContext
from pipeline.build.perform import perform
from pipeline.clip.meters import model_files
from pipeline.fetch.acquire import HostLimiter
from pipeline.fetch.politeness import Kind
from pipeline.models.files.weights import WeightsStore
from pipeline.models.registry import ModelSet
from pipeline.store.workspace import Workspace
from schemas.base import Record
from schemas.config import BuildConfig, WeightsConfig
from schemas.errors import AnitalkError, ThrottledError, UsageError, WorkspaceError

_WATCH_S = 0.2
_REPORT_EVERY_S = 0.5  # between two notes of progress
_REPORT_TIMEOUT_S = 15.0  # for them to be heard, on a busy machine too
_TOO_LARGE = 78  # exit code of a worker that ended itself


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker needs to know of the build it works for."""

    uri: str
    config: BuildConfig
    tool_version: str
    memory_cap_bytes: int
    token: str  # tells builds apart in a worker that outlives one
    weights: WeightsConfig
    coordinator: Any = None


@dataclass(frozen=True, slots=True)
class Note:
    """What a worker says of a job under way; only what is new is filled in."""

    token: str
    node: str = ""
    done: float | None = None
    total: float | None = None
    cause_of_end: str = ""


@dataclass(frozen=True, slots=True)
class Fatal:
    """An error that must end the build, in a form that travels."""

    kind: str
    message: str

    def error(self) -> AnitalkError:
        """The error itself."""
        kinds = {kind.__name__: kind for kind in (UsageError, WorkspaceError)}
        return kinds.get(self.kind, AnitalkError)(self.message)


class Coordinator:
    """An actor beside the driver: turns at hosts for all workers, and a box for their notes."""

    def __init__(self, setup: Setup) -> None:
        # In a folder, so that a host's wish to be left alone outlives a killed build.
        workspace = Workspace(setup.uri, create=True)
        self._limiter = HostLimiter(setup.config.acquire, workspace.state_folder / "hosts")
        self._notes: list[Note] = []
        self._lock = threading.Lock()

    def reserve(self, host: str, kind: Kind) -> float:
        """Take a host's next turn; seconds until it comes."""
        return self._limiter.reserve(host, kind)

    def refusal(self, host: str) -> str:
        """Why a host may not be asked now; empty when it may."""
        try:
            self._limiter.check(host)
        except ThrottledError as error:
            return str(error)
        return ""

    def throttled(self, host: str, retry_after_s: float | None) -> None:
        """A host asked to be left alone."""
        self._limiter.throttled(host, retry_after_s)

    def report(self, note: Note) -> None:
        """Put a note into the box."""
        with self._lock:
            self._notes.append(note)

    def collect(self) -> list[Note]:
        """Take all notes out of the box."""
        with self._lock:
            notes, self._notes = self._notes, []
        return notes


def _answer(reference: Any) -> Any:
    return ray.get(reference)


class SharedTurns:
    """Turns at hosts as :class:`HostLimiter` gives them, but counted by the coordinator for all workers together."""

    def __init__(self, coordinator: Any) -> None:
        self._coordinator = coordinator

    def wait(self, host: str, kind: Kind) -> None:
        """Wait for this host's next turn.

        Raises:
            ThrottledError: at once, while the host is left alone; also when that begins during the wait.
        """
        self.check(host)
        wait_s: float = _answer(self._coordinator.reserve.remote(host, kind))
        if wait_s > 0:
            time.sleep(wait_s)
            self.check(host)

    def check(self, host: str) -> None:
        """Pass if the host may be asked now.

        Raises:
            ThrottledError: while its cool-down lasts.
        """
        refusal: str = _answer(self._coordinator.refusal.remote(host))
        if refusal:
            raise ThrottledError(refusal)

    def throttled(self, host: str, retry_after_s: float | None = None) -> None:
        """Leave the host alone for the cool-down, or longer if it said so."""
        _answer(self._coordinator.throttled.remote(host, retry_after_s))


class _MemoryWatch(threading.Thread):
    """Ends this process when it needs more memory than it may have, after saying so to the coordinator.

    One for the process's life: the build that it works for at present sets coordinator, cap and token.
    """

    def __init__(self) -> None:
        super().__init__(name="memory-watch", daemon=True)
        self.token, self.cap_bytes = "", 0
        self.coordinator: Any = None

    def run(self) -> None:
        own = psutil.Process()
        while True:
            time.sleep(_WATCH_S)
            used = own.memory_info().rss
            if used > self.cap_bytes:
                words = (
                    f"its worker used {used / 1024**3:.2f} GiB, {self.cap_bytes / 1024**3:.2f} GiB are allowed "
                    "(engine.memory_cap_bytes); it was ended"
                )
                try:
                    ray.get(
                        self.coordinator.report.remote(Note(self.token, cause_of_end=words)), timeout=_REPORT_TIMEOUT_S
                    )
                finally:
                    os._exit(_TOO_LARGE)


@dataclass(slots=True)
class _Worker:
    """What one worker process keeps between jobs."""

    token: str
    context: JobContext
    watch: _MemoryWatch


_worker: _Worker | None = None


def do_job(setup: Setup, job: Job, token: str) -> Record | Fatal | None:
    """Perform one job; runs inside a worker."""
    try:
        worker = _worker_for(setup)
        worker.watch.token = token
        node = ray.get_runtime_context().get_node_id()
        setup.coordinator.report.remote(Note(token, node=node))
        return perform(job, worker.context, _ProgressReport(setup.coordinator, token))
    except AnitalkError as error:
        return Fatal(type(error).__name__, str(error))


def _worker_for(setup: Setup) -> _Worker:
    global _worker  # noqa: PLW0603 - models stay in memory for the process's life
    if _worker is None or _worker.token != setup.token:
        workspace = Workspace(setup.uri)
        models = ModelSet(model_files(setup.config, WeightsStore(setup.weights)))
        context = JobContext(workspace, models, setup.tool_version, SharedTurns(setup.coordinator))
        watch = _worker.watch if _worker else _MemoryWatch()
        watch.coordinator, watch.cap_bytes = setup.coordinator, setup.memory_cap_bytes
        if not watch.is_alive():
            watch.start()
        _worker = _Worker(setup.token, context, watch)
    return _worker


class _ProgressReport:
    """Passes progress on to the coordinator, not more often than anybody could see."""

    def __init__(self, coordinator: Any, token: str) -> None:
        self._coordinator, self._token, self._sent_at = coordinator, token, 0.0

    def __call__(self, stage: str, done: float | None, total: float | None) -> None:
        del stage  # the job's own
        now = time.monotonic()
        if now - self._sent_at >= _REPORT_EVERY_S:
            self._sent_at = now
            self._coordinator.report.remote(Note(self._token, done=done, total=total))
