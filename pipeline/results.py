"""Where every stage result of a build is found: keys computed along the chain, and looked up.

A result lies under the hash of all that it depends on: input content, the stage's own settings, the
model files and the stage's version. So nothing has to be tracked, and nothing can disagree with the
results; whoever knows the sources and the configuration can say what is done.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from pydantic import ValidationError

from pipeline.errors import UsageError
from pipeline.models.registry import ModelSet
from pipeline.workspace import Workspace
from schemas.analysis import AnalysisRun, SourcePlan
from schemas.base import Record, content_hash
from schemas.clip import Clip, ClipPlan
from schemas.config import BuildConfig
from schemas.face import FaceTrack
from schemas.media import Shot, Video
from schemas.source import Fetched, Source

# Raised when a stage's code changes what it computes; part of every key of that stage.
STAGE_VERSIONS = {"acquire": 1, "probe": 1, "analyse": 1, "plan": 1, "clip": 1}


def tool_version() -> str:
    """The installed version of this package."""
    return version("anitalk")


class BuildRecord(Record):
    """The latest build of a workspace (``build.json``): what was asked for, so that later commands can look it up."""

    tool_version: str
    sources: tuple[Source, ...]
    config: BuildConfig


@dataclass(frozen=True, slots=True)
class Planned:
    """A video with its face tracks, numbered through all its runs, and the plan made from them."""

    video: Video
    tracks: list[FaceTrack]
    plan: SourcePlan


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
        quality = [config.max_height_px, config.web_format, list(config.web_extractors)]
        return _key("acquire", [source.id, source.uri, source.sha256, *quality])

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
                self.models.detection_files(source.domain),
                start_frame,
                start_s,
                until_s(source),
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

    def planned(self, source: Source, video: Video) -> Planned | None:
        """The complete analysis of a video and the clips planned from it; None while any part of it is missing."""
        found = list(self.runs(source, video))
        if not found or found[-1][1].next_start_s is not None:
            return None
        plan = self.workspace.result("plan", self.plan_key(source, [key for key, _ in found]), SourcePlan)
        return plan and Planned(video, joined([run for _, run in found])[1], plan)

    def clips(self, source: Source, planned: Planned) -> Iterator[tuple[str, Clip]]:
        """The finished clips of a source, with their keys, in order of time."""
        for clip_plan in planned.plan.clips:
            key = self.clip_key(source, planned.video, clip_plan, track_of(clip_plan, planned.tracks))
            clip = self.workspace.result("clip", key, Clip)
            if clip is not None:
                yield key, clip

    def complete(self, source: Source) -> bool:
        """Whether every planned clip of a source is there, so that its media are no longer needed."""
        video = self.video(source)
        planned = video and self.planned(source, video)
        return bool(planned) and len(planned.plan.clips) == sum(1 for _ in self.clips(source, planned))

    def media(self, fetched: Fetched, source: Source) -> Path:
        """Where a source's file lies on this machine."""
        return fetched.locate(self.workspace.media_path(source.id))


def until_s(source: Source) -> float | None:
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
