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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from pipeline.acquire import HostLimiter, fetch
from pipeline.analyse import analyse_run
from pipeline.clips import make_clip, npy
from pipeline.crop import plan_clips
from pipeline.errors import AnitalkError, UsageError, WorkspaceError
from pipeline.probe import probe
from pipeline.results import BuildRecord, Results, joined, tool_version, track_of, until_s
from pipeline.workspace import Workspace
from schemas.analysis import AnalysisRun, SourcePlan
from schemas.base import Record, canonical_json
from schemas.clip import Clip, ClipPlan
from schemas.config import BuildConfig
from schemas.face import FaceTrack
from schemas.ledger import LedgerRow
from schemas.media import Video
from schemas.source import Fetched, Source

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Record)

# Raised when a stage's code changes what it computes; part of every key of that stage.
_CRASHES_UNTIL_QUARANTINE = 3


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
                    until_s=until_s(source),
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
