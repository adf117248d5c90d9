"""One stage of one item as a value that can travel to the process that does it.

A job holds records and keys, never pixels or models: whoever performs it opens the media, writes the
result into the workspace and hands back the record alone. So the same jobs run one after the other in
one process, or side by side on a cluster, and end in the same bytes.
"""

import io
import logging
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from pipeline.analyse.listed import plan_listed
from pipeline.analyse.plan import plan_clips
from pipeline.analyse.runs import analyse_run, join_runs
from pipeline.analyse.windows import Window, extent_s
from pipeline.clip.make import make_clip, npy
from pipeline.fetch.acquire import fetch
from pipeline.fetch.politeness import HostTurns
from pipeline.fetch.probe import probe
from pipeline.models.registry import ModelSet
from pipeline.store.tombstones import refuse_forgotten
from pipeline.store.workspace import Workspace
from schemas.analysis import AnalysisRun, PlannedClip, SourcePlan
from schemas.base import Record
from schemas.clip import Clip
from schemas.cliplist import ListedClip
from schemas.config import BuildConfig
from schemas.errors import AnitalkError, TransientError, UsageError, WorkspaceError
from schemas.files import sha256_of_file
from schemas.ledger import LedgerRow
from schemas.media import Video
from schemas.source import Fetched, Source
from schemas.uri import uri_scheme

_PACKAGE = Path(__file__).parents[1]  # ``pipeline``: lines of ours in a traceback
log = logging.getLogger(__name__)

Stage = Literal["acquire", "probe", "analyse", "plan", "clip"]
Made = tuple[Record, Mapping[str, bytes]]
# Told how far a job is: what was done, and how much there is in all, in the job's own unit.
Told = Callable[[float, float | None], None]


def untold(done: float, total: float | None) -> None:
    """Progress that nobody watches."""
    del done, total


@dataclass
class JobContext:
    """What all jobs of a build share inside one process: models are loaded once, and stay.

    Attributes:
        workspace: where results go.
        models: of this build.
        tool_version: recorded in the results.
        limiter: hands out turns at hosts, to all processes of the build together.
    """

    workspace: Workspace
    models: ModelSet
    tool_version: str
    limiter: HostTurns

    @property
    def config(self) -> BuildConfig:
        """All settings."""
        return self.models.config

    def media(self, source: Source, fetched: Fetched) -> Path:
        """The source's file on this machine; brought here where another machine fetched it.

        Raises:
            AnitalkError: when it cannot be had.
        """
        folder = self.workspace.media_path(source.id)
        path = fetched.locate(folder)
        if path.exists():
            return path
        with self.workspace.fetching(source.id):
            if not path.exists() and not self.workspace.recall_media(source.id, fetched.path):
                again = fetch(source, self.config.acquire, folder, limiter=self.limiter)
                if again.sha256 != fetched.sha256:  # what was planned belongs to the other bytes
                    raise TransientError(
                        f"{source.id} was fetched again and has other content now: run the build again"
                    )
        return path


@dataclass(frozen=True, kw_only=True)
class Job(ABC):
    """One stage of one item: ``key`` names its result, ``item`` its rows in the ledger."""

    stage: ClassVar[Stage]
    kind: ClassVar[type[Record]]
    again: ClassVar[bool] = False  # tried at every build: the world outside changes without the key noticing
    source: Source
    key: str

    @property
    def item(self) -> str:
        """Source id, or SOURCE/… below it."""
        return self.source.id

    @property
    def media_s(self) -> float:
        """Seconds of media that are read; what a fair time for the job follows from."""
        return 0.0

    @abstractmethod
    def compute(self, context: JobContext, told: Told) -> Made:
        """The result's record and files. May raise anything; see :func:`perform`."""


@dataclass(frozen=True, kw_only=True)
class AcquireJob(Job):
    """Bring a source's file to this machine."""

    stage = "acquire"
    kind = Fetched
    again = True

    def compute(self, context: JobContext, told: Told) -> Made:  # noqa: D102
        into = context.workspace.media_path(self.source.id)
        with nullcontext() if uri_scheme(self.source.uri) == "file" else context.workspace.fetching(self.source.id):
            fetched = fetch(
                self.source,
                context.config.acquire,
                into,
                limiter=context.limiter,
                report=lambda _, done, total: told(done or 0.0, total),
            )
        refuse_forgotten(context.workspace, self.source, fetched)
        context.workspace.keep_media(self.source.id, fetched.path)
        return fetched, {}


@dataclass(frozen=True, kw_only=True)
class ProbeJob(Job):
    """Find out what a file is."""

    stage = "probe"
    kind = Video
    fetched: Fetched

    def compute(self, context: JobContext, told: Told) -> Made:  # noqa: D102
        del told
        path = context.media(self.source, self.fetched)
        return probe(path, self.source.id, self.fetched.sha256, context.config.probe), {}


@dataclass(frozen=True, kw_only=True)
class AnalyseJob(Job):
    """Find shots and faces in one window of a video."""

    stage = "analyse"
    kind = AnalysisRun
    fetched: Fetched
    video: Video
    window: Window
    number: int

    @property
    def item(self) -> str:  # noqa: D102
        return f"{self.source.id}/run{self.number:04d}"

    @property
    def media_s(self) -> float:  # noqa: D102
        start_s, stop_s = extent_s(self.video, self.window)
        return stop_s - start_s

    def compute(self, context: JobContext, told: Told) -> Made:  # noqa: D102
        models, domain = context.models, self.source.domain
        run, times, detections = analyse_run(
            context.media(self.source, self.fetched),
            self.video,
            context.config.domains[domain],
            models.detectors(domain),
            models.presence(domain),
            self.window,
            report=lambda _, done, total: told(done or 0.0, total),
        )
        return run, {"times.npy": npy(times), "detections.npy": npy(detections)}


@dataclass(frozen=True, kw_only=True)
class PlanJob(Job):
    """Join a video's runs, follow its faces, and decide where clips are cut."""

    stage = "plan"
    kind = SourcePlan
    video: Video
    run_keys: tuple[str, ...]

    def compute(self, context: JobContext, told: Told) -> Made:  # noqa: D102
        del told
        place, config = context.workspace, context.config
        runs = [self._run(place, key) for key in self.run_keys]
        times = np.concatenate([self._array(place, key, "times.npy") for key in self.run_keys])
        rows = [self._array(place, key, "detections.npy") for key in self.run_keys]
        faces = config.domains[self.source.domain].faces
        shots, tracks = join_runs(runs, times, rows, faces)
        clips, refusals = plan_clips(
            self.video, shots, tracks, times, config.crop, stride=faces.stride, wanted=self.source.spans
        )
        made = SourcePlan(
            source_id=self.source.id,
            shots=tuple(shots),
            tracks=tuple(tracks),
            clips=tuple(clips),
            refusals=tuple(refusals),
        )
        return made, {}

    def _run(self, place: Workspace, key: str) -> AnalysisRun:
        run = place.result("analyse", key, AnalysisRun)
        if run is None:
            raise WorkspaceError(
                f"an analysed run of {self.source.id} has gone from the workspace: run the build again"
            )
        return run

    def _array(self, place: Workspace, key: str, name: str) -> np.ndarray:
        return np.load(io.BytesIO(place.result_file("analyse", key, name)), allow_pickle=False)


@dataclass(frozen=True, kw_only=True)
class ListedPlanJob(Job):
    """Take a video's clips from a published list instead of looking for them."""

    stage = "plan"
    kind = SourcePlan
    video: Video
    listed: tuple[ListedClip, ...]

    def compute(self, context: JobContext, told: Told) -> Made:  # noqa: D102
        del told
        clips, refusals = plan_listed(self.video, self.listed, context.config.crop)
        made = SourcePlan(source_id=self.source.id, shots=(), tracks=(), clips=tuple(clips), refusals=tuple(refusals))
        return made, {}


@dataclass(frozen=True, kw_only=True)
class ClipJob(Job):
    """Cut, crop, encode and annotate one clip."""

    stage = "clip"
    kind = Clip
    fetched: Fetched
    video: Video
    planned: PlannedClip

    @property
    def item(self) -> str:  # noqa: D102
        plan = self.planned.plan
        return f"{self.source.id}/shot{plan.shot_index:05d}/track{plan.track_index:03d}/{plan.clip_id}"

    @property
    def media_s(self) -> float:  # noqa: D102
        return self.planned.plan.span.duration_s

    def compute(self, context: JobContext, told: Told) -> Made:  # noqa: D102
        del told
        path = context.media(self.source, self.fetched)
        plan, face = self.planned.plan, self.planned.face
        return make_clip(path, self.video, plan, face, self.source.domain, context.models, context.tool_version)


def perform(job: Job, context: JobContext, told: Told = untold) -> Record | None:
    """Do a job and publish its result with a row in the ledger; None when it failed, which is a row as well.

    Raises:
        WorkspaceError: when the workspace cannot be written; no item is at fault, and the build must end.
        UsageError: a model that is missing ends the build too; a login that one source lacks costs that source.
    """
    row = ledger_row(job, context.tool_version)
    began = time.monotonic()
    try:
        record, files = job.compute(context, told)
        context.workspace.publish(job.stage, job.key, record, files)
    except WorkspaceError:
        raise
    except AnitalkError as error:
        if isinstance(error, UsageError) and job.stage != "acquire":
            raise
        log_failure(context.workspace, row, error.reason, type(error).__name__, str(error))
        return None
    except Exception as error:
        # The item's boundary: a bug or a decoder's surprise costs this item and is kept for repair.
        log.info("%s of %s crashed", job.stage, job.item, exc_info=True)
        message = f"{type(error).__name__}: {error} (in {_place_of(error)}; 'anitalk --verbose build' shows more)"
        log_failure(context.workspace, row, "crash", type(error).__name__, message)
        return None
    took_s = time.monotonic() - began
    context.workspace.log(row.model_copy(update={"took_s": round(took_s, 3)}))
    log.info("%s %s done in %.2f s", job.stage, job.item, took_s)
    return record


def ledger_row(job: Job, tool_version: str) -> LedgerRow:
    """The row of one attempt at a job, as if it had gone well."""
    return LedgerRow(
        stage=job.stage,
        source_id=job.source.id,
        item=job.item,
        attempt=1,
        outcome="done",
        key=job.key,
        tool_version=tool_version,
    )


def log_failure(place: Workspace, row: LedgerRow, reason_class: str, reason: str, message: str) -> None:
    """Enter a failed attempt."""
    log.warning("%s of %s failed: %s", row.stage, row.item, message)
    failure = {"outcome": "failed", "reason_class": reason_class, "reason": reason, "message": message}
    place.log(row.model_copy(update=failure))


def _place_of(error: BaseException) -> str:
    """The innermost line of ours, or of anyone's, that an error passed through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(_PACKAGE)]
    last = (ours or frames)[-1]
    return f"{Path(last.filename).name}:{last.lineno}"


def is_unchanged(path: Path, fetched: Fetched) -> bool:
    """Whether the file is still the one that was hashed; content decides, so a copied or touched file is fine."""
    if not path.is_file() or path.stat().st_size != fetched.num_bytes:
        return False
    return sha256_of_file(path) == fetched.sha256
