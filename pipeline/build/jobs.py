"""One stage of one item as a value that can travel to the process that does it.

A job holds records and keys, never pixels or models: whoever performs it opens the media, writes the
result into the workspace and hands back the record alone. So the same jobs run one after the other in
one process, or side by side on a cluster, and end in the same bytes.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from pipeline.analyse.listed import plan_listed
from pipeline.analyse.plan import plan_clips
from pipeline.analyse.runs import analyse_run, join_runs
from pipeline.analyse.windows import Window, extent_s, on_files_clock
from pipeline.clip.make import make_clip
from pipeline.fetch.acquire import fetch
from pipeline.fetch.politeness import HostTurns
from pipeline.fetch.probe import probe
from pipeline.media.arrays import npy, read_npy
from pipeline.models.registry import ModelSet
from pipeline.store.tombstones import refuse_forgotten
from pipeline.store.workspace import Workspace
from schemas.analysis import AnalysisRun, PlannedClip, SourcePlan
from schemas.base import Record
from schemas.clip import Clip
from schemas.cliplist import ListedClip
from schemas.config import BuildConfig
from schemas.errors import TransientError, WorkspaceError
from schemas.media import Video
from schemas.progress import Report
from schemas.source import Fetched, Source
from schemas.uri import uri_scheme

log = logging.getLogger(__name__)

Stage = Literal["acquire", "probe", "analyse", "plan", "clip"]
Result = tuple[Record, Mapping[str, bytes]]  # the record, and the files beside it by name


@dataclass(frozen=True, slots=True)
class Needs:
    """What a job asks of whoever performs it.

    Attributes:
        cpus: cores, in shares of what the engine gives a job; 0 for one that waits for a network.
        gpu: whether it may use one: networks look at pictures or listen to sound.
        fetches: whether it waits for a host, so that there is a number of such jobs at once and a time of their own.
        media_s: seconds of media that are read; what a fair time for the job follows from.
    """

    cpus: float = 1.0
    gpu: bool = False
    fetches: bool = False
    media_s: float = 0.0


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
    def needs(self) -> Needs:
        """What it asks of whoever performs it."""
        return Needs()

    @abstractmethod
    def compute(self, context: JobContext, report: Report) -> Result:
        """The result. May raise anything; see :func:`perform`."""


@dataclass(frozen=True, kw_only=True)
class AcquireJob(Job):
    """Bring a source's file to this machine."""

    stage = "acquire"
    kind = Fetched
    again = True

    @property
    def needs(self) -> Needs:  # noqa: D102
        return Needs(cpus=0.0, fetches=True)

    def compute(self, context: JobContext, report: Report) -> Result:  # noqa: D102
        source, workspace = self.source, context.workspace
        with nullcontext() if uri_scheme(source.uri) == "file" else workspace.fetching(source.id):
            fetched = fetch(
                source,
                context.config.acquire,
                workspace.media_path(source.id),
                limiter=context.limiter,
                report=report,
            )
        refuse_forgotten(workspace, source, fetched)
        workspace.keep_media(source.id, fetched.path)
        return fetched, {}


@dataclass(frozen=True, kw_only=True)
class ProbeJob(Job):
    """Find out what a file is."""

    stage = "probe"
    kind = Video
    fetched: Fetched

    def compute(self, context: JobContext, report: Report) -> Result:  # noqa: D102
        del report
        path = context.media(self.source, self.fetched)
        video = probe(path, self.source.id, self.fetched.sha256, context.config.probe)
        if sentence := video.missing_language(self.source.language):
            log.warning("%s: %s", self.source.id, sentence)
        return video, {}


@dataclass(frozen=True, kw_only=True)
class LookingJob(Job):
    """A job in which networks look at a part of a video."""

    fetched: Fetched
    video: Video

    @property
    def needs(self) -> Needs:  # noqa: D102
        start_s, stop_s = self.extent_s
        return Needs(gpu=True, media_s=stop_s - start_s)

    @property
    @abstractmethod
    def extent_s(self) -> tuple[float, float]:
        """The first second that is looked at, and the one after the last."""


@dataclass(frozen=True, kw_only=True)
class AnalyseJob(LookingJob):
    """Find shots and faces in one window of a video."""

    stage = "analyse"
    kind = AnalysisRun
    window: Window
    number: int

    @property
    def item(self) -> str:  # noqa: D102
        return f"{self.source.id}/run{self.number:04d}"

    @property
    def extent_s(self) -> tuple[float, float]:
        """Where the run begins and ends, in seconds on the file's clock."""
        return extent_s(self.video, self.window)

    def compute(self, context: JobContext, report: Report) -> Result:  # noqa: D102
        models, domain = context.models, self.source.domain
        run, times, detections = analyse_run(
            context.media(self.source, self.fetched),
            self.video,
            context.config.domains[domain],
            models.detectors(domain),
            models.presence(domain),
            self.window,
            report=report,
        )
        return run, {"times.npy": npy(times), "detections.npy": npy(detections)}


@dataclass(frozen=True, kw_only=True)
class PlanJob(Job):
    """Decide where a video's clips are cut."""

    stage = "plan"
    kind = SourcePlan
    video: Video

    def compute(self, context: JobContext, report: Report) -> Result:  # noqa: D102
        del report
        return self.plan(context), {}

    @abstractmethod
    def plan(self, context: JobContext) -> SourcePlan:
        """Shots, tracks, clips, and what was refused."""


@dataclass(frozen=True, kw_only=True)
class RunsPlanJob(PlanJob):
    """Join a video's runs and follow its faces."""

    run_keys: tuple[str, ...]

    def plan(self, context: JobContext) -> SourcePlan:  # noqa: D102
        workspace, config = context.workspace, context.config
        runs = [self._run(workspace, key) for key in self.run_keys]
        times = np.concatenate([_array(workspace, key, "times.npy") for key in self.run_keys])
        rows = [_array(workspace, key, "detections.npy") for key in self.run_keys]
        faces = config.domains[self.source.domain].faces
        shots, tracks = join_runs(runs, times, rows, faces)
        wanted = on_files_clock(self.source.spans, self.video)
        clips, refusals = plan_clips(self.video, shots, tracks, times, config.crop, stride=faces.stride, wanted=wanted)
        return SourcePlan(
            source_id=self.source.id,
            shots=tuple(shots),
            tracks=tuple(tracks),
            clips=tuple(clips),
            refusals=tuple(refusals),
        )

    def _run(self, workspace: Workspace, key: str) -> AnalysisRun:
        run = workspace.result("analyse", key, AnalysisRun)
        if run is None:
            raise WorkspaceError(
                f"an analysed run of {self.source.id} has gone from the workspace: run the build again"
            )
        return run


def _array(workspace: Workspace, key: str, name: str) -> np.ndarray:
    return read_npy(workspace.result_file("analyse", key, name))


@dataclass(frozen=True, kw_only=True)
class ListedPlanJob(PlanJob):
    """Take a video's clips from a published list instead of looking for them."""

    listed: tuple[ListedClip, ...]

    def plan(self, context: JobContext) -> SourcePlan:  # noqa: D102
        clips, refusals = plan_listed(self.video, self.listed, context.config.crop)
        return SourcePlan(source_id=self.source.id, shots=(), tracks=(), clips=tuple(clips), refusals=tuple(refusals))


@dataclass(frozen=True, kw_only=True)
class ClipJob(LookingJob):
    """Cut, crop, encode and annotate one clip."""

    stage = "clip"
    kind = Clip
    planned: PlannedClip

    @property
    def item(self) -> str:  # noqa: D102
        plan = self.planned.plan
        return f"{self.source.id}/shot{plan.shot_index:05d}/track{plan.track_index:03d}/{plan.clip_id}"

    @property
    def extent_s(self) -> tuple[float, float]:  # noqa: D102
        span = self.planned.plan.span
        return span.start_s, span.stop_s

    def compute(self, context: JobContext, report: Report) -> Result:  # noqa: D102
        del report
        path = context.media(self.source, self.fetched)
        plan, face = self.planned.plan, self.planned.face
        return make_clip(path, self.video, plan, face, self.source.domain, context.models, context.tool_version)
