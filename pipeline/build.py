"""Sources to clips: the one place that composes the stages, in one process.

Every stage result is stored under a key computed from all that it depends on: input content, the
stage's own settings, the model files, and the stage's version. Running again therefore computes
exactly what is missing, wherever the last run ended, and a failure costs one item.
"""

import hashlib
import io
import logging
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from pydantic import ValidationError

from pipeline.acquire import HostLimiter, fetch
from pipeline.analyse import analyse_run
from pipeline.clips import make_clip, npy
from pipeline.crop import plan_clips
from pipeline.errors import AnitalkError, UsageError, WorkspaceError
from pipeline.models.registry import ModelSet
from pipeline.probe import probe
from pipeline.workspace import Workspace
from schemas.analysis import AnalysisRun, SourcePlan
from schemas.base import Record, canonical_json, content_hash
from schemas.clip import Clip, ClipPlan
from schemas.config import BuildConfig
from schemas.face import FaceTrack
from schemas.ledger import LedgerRow
from schemas.media import Shot, Video
from schemas.source import Fetched, Source

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Record)

# Raised when a stage's code changes what it computes; part of every key of that stage.
STAGE_VERSIONS = {"acquire": 1, "probe": 1, "analyse": 1, "plan": 1, "clip": 1}
_CRASHES_UNTIL_QUARANTINE = 3


def tool_version() -> str:
    """The installed version of this package."""
    return version("anitalk")


class BuildRecord(Record):
    """The latest build of a workspace (``build.json``): what was asked for, so that later commands can look it up."""

    tool_version: str
    sources: tuple[Source, ...]
    config: BuildConfig


class Progress(Protocol):
    """Told what is going on; the command line draws it."""

    def source(self, source: Source, number: int, total: int) -> None:
        """A source begins."""
        ...

    def stage(self, stage: str, done: float | None, total: float | None) -> None:
        """How far a stage of the current source is, in its own unit."""
        ...


class Silent:
    """Progress that nobody watches."""

    def source(self, *_: object) -> None:
        """Say nothing."""

    def stage(self, *_: object) -> None:
        """Say nothing."""


@dataclass
class Results:
    """Look up what has been computed for a configuration. Nothing here computes or writes."""

    workspace: Workspace
    config: BuildConfig
    models: ModelSet = field(init=False)

    def __post_init__(self) -> None:
        self.models = ModelSet(self.config)

    # ---- keys ----------------------------------------------------------------------------------

    def acquire_key(self, source: Source) -> str:
        """Fetched media depend on where they come from and which quality was asked for."""
        config = self.config.acquire
        wanted = [source.id, source.uri, source.sha256, config.max_height_px, config.web_format]
        return _key("acquire", wanted)

    def probe_key(self, source: Source, fetched: Fetched) -> str:
        """Depends on the bytes alone, and on the limits."""
        return _key("probe", [source.id, fetched.sha256, self.config.probe])

    def analyse_key(self, source: Source, video: Video, start_frame: int, start_s: float | None) -> str:
        """One run of a video."""
        domain = self.config.domains[source.domain]
        return _key(
            "analyse",
            [
                video,
                [choice.model_dump(mode="json") for choice in domain.detectors],
                domain.presence_gate,
                domain.shots,
                domain.faces,
                self.models.detection_hash(source.domain),
                start_frame,
                start_s,
                _until_s(source),
            ],
        )

    def plan_key(self, source: Source, run_keys: Sequence[str]) -> str:
        """All runs of a video together."""
        return _key("plan", [run_keys, self.config.crop, list(source.spans)])

    def clip_key(self, source: Source, video: Video, plan: ClipPlan, track: FaceTrack) -> str:
        """One clip: its own plan and track, and every setting and model that touches its pixels or sound."""
        config = self.config
        return _key(
            "clip",
            [
                video,
                plan,
                track,
                source.domain,
                config.crop,
                config.landmarks,
                config.speech,
                config.sync,
                config.domains[source.domain].landmarker,
                config.domains[source.domain].faces.stride,
                self.models.files(source.domain),
            ],
        )

    # ---- results -------------------------------------------------------------------------------

    def fetched(self, source: Source) -> Fetched | None:
        """What acquiring a source gave."""
        return self.workspace.result("acquire", self.acquire_key(source), Fetched)

    def video(self, source: Source) -> Video | None:
        """What probing a source gave."""
        fetched = self.fetched(source)
        return fetched and self.workspace.result("probe", self.probe_key(source, fetched), Video)

    def runs(self, source: Source, video: Video) -> Iterator[tuple[str, AnalysisRun]]:
        """The finished runs of a video from its beginning, with their keys."""
        start_frame, start_s = 0, None
        while True:
            key = self.analyse_key(source, video, start_frame, start_s)
            run = self.workspace.result("analyse", key, AnalysisRun)
            if run is None:
                return
            yield key, run
            if run.next_start_s is None:
                return
            start_frame, start_s = run.stop_frame, run.next_start_s

    def analysis(self, source: Source) -> tuple[Video, list[str], list[AnalysisRun]] | None:
        """The complete analysis of a source; None while any part of it is missing."""
        video = self.video(source)
        if video is None:
            return None
        found = list(self.runs(source, video))
        if not found or found[-1][1].next_start_s is not None:
            return None
        return video, [key for key, _ in found], [run for _, run in found]

    def plan(self, source: Source) -> SourcePlan | None:
        """The clips planned for a source."""
        analysis = self.analysis(source)
        return analysis and self.workspace.result("plan", self.plan_key(source, analysis[1]), SourcePlan)

    def clips(self, source: Source) -> Iterator[tuple[str, Clip]]:
        """The finished clips of a source, with their keys, in order of time."""
        analysis, plan = self.analysis(source), self.plan(source)
        if analysis is None or plan is None:
            return
        video, _, runs = analysis
        _, tracks = joined(runs)
        for clip_plan in plan.clips:
            track = track_of(clip_plan, tracks)
            key = self.clip_key(source, video, clip_plan, track)
            clip = self.workspace.result("clip", key, Clip)
            if clip is not None:
                yield key, clip

    def complete(self, source: Source) -> bool:
        """Whether every planned clip of a source is there, so that its media are no longer needed."""
        plan = self.plan(source)
        return plan is not None and len(plan.clips) == sum(1 for _ in self.clips(source))

    def media(self, fetched: Fetched, source: Source) -> Path:
        """Where a source's file lies on this machine."""
        return fetched.locate(self.workspace.media_path(source.id))


def _until_s(source: Source) -> float | None:
    """Nothing at or after this time is wanted of a source; None for all of it."""
    return max((span.stop_s for span in source.spans), default=None)


def _key(stage: str, inputs: Sequence[object]) -> str:
    return content_hash([stage, STAGE_VERSIONS[stage], list(inputs)])


def joined(runs: Sequence[AnalysisRun]) -> tuple[list[Shot], list[FaceTrack]]:
    """Shots and tracks of all runs, numbered through the whole video."""
    shots: list[Shot] = []
    tracks: list[FaceTrack] = []
    for run in runs:
        shift = {"shot_index": len(shots), "track_index": len(tracks)}
        tracks += [
            track.model_copy(update={name: getattr(track, name) + by for name, by in shift.items()})
            for track in run.tracks
        ]
        shots += run.shots
    return shots, tracks


def track_of(plan: ClipPlan, tracks: Sequence[FaceTrack]) -> FaceTrack:
    """The track that a plan follows."""
    return next(track for track in tracks if track.track_index == plan.track_index)


class Builder:
    """Bring a workspace up to date with a list of sources and a configuration.

    Args:
        workspace: open for writing; the caller holds its lock.
        sources: from the manifest.
        config: all settings.
        progress: told what is going on.
    """

    def __init__(
        self, workspace: Workspace, sources: Sequence[Source], config: BuildConfig, progress: Progress | None = None
    ) -> None:
        self.workspace, self.sources, self.config = workspace, tuple(sources), config
        self.results = Results(workspace, config)
        self.progress = progress or Silent()
        self.limiter = HostLimiter(config.acquire)
        self._known_rows: dict[str, list[LedgerRow]] = {}

    def run(self) -> None:
        """Build every source, one after the other.

        Raises:
            UsageError: before any work, when a model file is missing.
            WorkspaceError: when the workspace can no longer be written.
        """
        self.results.models.check()
        record = BuildRecord(tool_version=tool_version(), sources=self.sources, config=self.config)
        self.workspace.storage.write("build.json", canonical_json(record))
        for number, source in enumerate(self.sources, start=1):
            self.progress.source(source, number, len(self.sources))
            self.build_source(source)

    def build_source(self, source: Source) -> None:
        """Take one source as far as it goes; its failures end in the ledger."""
        fetched = self._acquire(source)
        if fetched is None:
            return
        path = self.results.media(fetched, source)
        probe_key = self.results.probe_key(source, fetched)
        video = self._step(
            "probe",
            source,
            source.id,
            probe_key,
            Video,
            lambda: (probe(path, source.id, fetched.sha256, self.config.probe), {}),
        )
        if video is None:
            return
        runs = self._analyse(source, path, video)
        if runs is not None:
            self._make_clips(source, path, video, runs)

    # ---- stages --------------------------------------------------------------------------------

    def _acquire(self, source: Source) -> Fetched | None:
        key = self.results.acquire_key(source)
        known = self.workspace.result("acquire", key, Fetched)
        if known is not None:
            path = self.results.media(known, source)
            # Media that were cleared away after their clips were made are not fetched again.
            if _unchanged(path, known) or (not path.exists() and self.results.complete(source)):
                return known
        into = self.workspace.media_path(source.id)

        def compute() -> tuple[Fetched, Mapping[str, bytes]]:
            fetched = fetch(
                source,
                self.config.acquire,
                into,
                limiter=self.limiter,
                progress=lambda done, total: self.progress.stage("fetch", done, total),
            )
            return fetched, {}

        # The world outside changes without the key noticing, so a failed fetch is always tried again.
        return self._step("acquire", source, source.id, key, Fetched, compute, again=True)

    def _analyse(self, source: Source, path: Path, video: Video) -> dict[str, AnalysisRun] | None:
        runs: dict[str, AnalysisRun] = {}
        last: AnalysisRun | None = None
        domain = self.config.domains[source.domain]
        while last is None or last.next_start_s is not None:
            start_frame, start_s = (0, None) if last is None else (last.stop_frame, last.next_start_s)
            began_with = None if last is None else last.ended_by
            key = self.results.analyse_key(source, video, start_frame, start_s)

            def compute(
                start_frame: int = start_frame, start_s: float | None = start_s, began_with: object = began_with
            ) -> tuple[AnalysisRun, Mapping[str, bytes]]:
                run, times = analyse_run(
                    path,
                    video,
                    domain,
                    self.results.models.detectors(source.domain),
                    self.results.models.presence(source.domain),
                    start_frame=start_frame,
                    start_s=start_s,
                    began_with=began_with,  # type: ignore[arg-type]
                    until_s=_until_s(source),
                    progress=lambda time_s: self.progress.stage("analyse", time_s - video.start_s, video.duration_s),
                )
                return run, {"times.npy": npy(times)}

            item = f"{source.id}/frame{start_frame:07d}"
            run = self._step("analyse", source, item, key, AnalysisRun, compute)
            if run is None:
                return None
            runs[key] = run
            last = run
        return runs

    def _make_clips(self, source: Source, path: Path, video: Video, runs: dict[str, AnalysisRun]) -> None:
        shots, tracks = joined(list(runs.values()))
        plan_key = self.results.plan_key(source, list(runs))

        def compute() -> tuple[SourcePlan, Mapping[str, bytes]]:
            times = np.concatenate([self._times(key) for key in runs])
            stride = self.config.domains[source.domain].faces.stride
            plans, refusals = plan_clips(
                video, shots, tracks, times, self.config.crop, stride=stride, wanted=source.spans
            )
            made = SourcePlan(
                source_id=source.id,
                num_shots=len(shots),
                num_tracks=len(tracks),
                clips=tuple(plans),
                refusals=tuple(refusals),
            )
            return made, {}

        plan = self._step("plan", source, source.id, plan_key, SourcePlan, compute)
        for number, clip_plan in enumerate(plan.clips if plan else ()):
            self.progress.stage("clips", number, len(plan.clips) if plan else None)
            self._make_clip(source, path, video, clip_plan, track_of(clip_plan, tracks))

    def _times(self, key: str) -> np.ndarray:
        return np.load(io.BytesIO(self.workspace.result_file("analyse", key, "times.npy")), allow_pickle=False)

    def _make_clip(self, source: Source, path: Path, video: Video, plan: ClipPlan, track: FaceTrack) -> None:
        key = self.results.clip_key(source, video, plan, track)
        models = self.results.models
        item = f"{source.id}/shot{plan.shot_index:05d}/track{plan.track_index:03d}/{plan.clip_id}"
        self._step(
            "clip",
            source,
            item,
            key,
            Clip,
            lambda: make_clip(path, video, plan, track, source.domain, models, tool_version()),
        )

    # ---- one step of one item --------------------------------------------------------------------

    def _step(
        self,
        stage: str,
        source: Source,
        item: str,
        key: str,
        kind: type[R],
        compute: Callable[[], tuple[R, Mapping[str, bytes]]],
        *,
        again: bool = False,
    ) -> R | None:
        """The stored result, or compute and publish it; None when the item failed, now or for good before."""
        if not again:
            done = self.workspace.result(stage, key, kind)
            if done is not None:
                return done
            if self._gave_up(source, key):
                return None
        row = LedgerRow(
            stage=stage,  # type: ignore[arg-type]
            source_id=source.id,
            item=item,
            attempt=1,
            outcome="done",
            key=key,
            tool_version=tool_version(),
        )
        began = time.monotonic()
        try:
            record, files = compute()
            self.workspace.publish(stage, key, record, files)
        except WorkspaceError:
            raise
        except AnitalkError as error:
            # A missing model ends the build; a login that is missing for one source costs that source.
            if isinstance(error, UsageError) and stage != "acquire":
                raise
            self._log_failure(row, error.reason, type(error).__name__, str(error))
            return None
        except Exception as error:
            # The item's boundary: a bug or a decoder's surprise costs this item and is kept for repair.
            log.info("%s of %s crashed", stage, item, exc_info=True)
            message = f"{type(error).__name__}: {error} (in {_place_of(error)}; 'anitalk --verbose build' shows more)"
            self._log_failure(row, "crash", type(error).__name__, message)
            return None
        self.workspace.log(row.model_copy(update={"took_s": round(time.monotonic() - began, 3)}))
        log.info("%s %s done in %.2f s", stage, item, time.monotonic() - began)
        return record

    def _gave_up(self, source: Source, key: str) -> bool:
        """Whether this very input failed before in a way that trying again cannot mend."""
        if source.id not in self._known_rows:
            self._known_rows[source.id] = self.workspace.ledger(source.id)
        failures = [row for row in self._known_rows[source.id] if row.key == key and row.outcome == "failed"]
        crashes = sum(row.reason_class in {"crash", "timeout"} for row in failures)
        lasting = any(row.reason_class in {"permanent", "decode"} for row in failures)
        return lasting or crashes >= _CRASHES_UNTIL_QUARANTINE

    def _log_failure(self, row: LedgerRow, reason_class: str, reason: str, message: str) -> None:
        log.warning("%s of %s failed: %s", row.stage, row.item, message)
        failure = {"outcome": "failed", "reason_class": reason_class, "reason": reason, "message": message}
        self.workspace.log(row.model_copy(update=failure))


def _place_of(error: BaseException) -> str:
    """The innermost line of ours, or of anyone's, that an error passed through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).parent.is_relative_to(Path(__file__).parent)]
    last = (ours or frames)[-1]
    return f"{Path(last.filename).name}:{last.lineno}"


def _unchanged(path: Path, fetched: Fetched) -> bool:
    """Whether the file is still the one that was hashed; content decides, so a copied or touched file is fine."""
    if not path.is_file() or path.stat().st_size != fetched.num_bytes:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == fetched.sha256


def load_build(workspace: Workspace) -> BuildRecord:
    """The latest build of a workspace.

    Raises:
        UsageError: when nothing has been built there.
    """
    data = workspace.storage.read_if_there("build.json")
    if data is None:
        raise UsageError(
            f"nothing has been built in {workspace.storage.uri}: 'anitalk build MANIFEST --workspace …' comes first"
        )
    try:
        return BuildRecord.model_validate_json(data)
    except ValidationError as error:
        raise UsageError(
            f"{workspace.storage.path('build.json')} is damaged, or another version of anitalk wrote it: "
            "run 'anitalk build' again, finished work is kept"
        ) from error
