"""Where every stage result of a build is found: keys computed along the chain, and looked up.

A result lies under the hash of all that it depends on: input content, the stage's own settings, the
model files and the stage's version. So nothing has to be tracked, and nothing can disagree with the
results; whoever knows the sources and the configuration can say what is done.
"""

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from pydantic import ValidationError

from pipeline.analyse import VERSIONS as ANALYSE_VERSIONS
from pipeline.analyse.windows import Window, on_files_clock, windows_of
from pipeline.clip import VERSIONS as CLIP_VERSIONS
from pipeline.clip.meters import keys_of, model_files
from pipeline.fetch import VERSIONS as FETCH_VERSIONS
from pipeline.models.files.model_files import ModelFiles
from pipeline.models.files.weights import WeightsStore
from pipeline.store.workspace import Workspace
from schemas.analysis import PlannedClip, SourcePlan
from schemas.base import FrameSpan, Record, content_hash
from schemas.clip import Clip
from schemas.cliplist import ListedClip, by_source
from schemas.config import BuildConfig, WeightsConfig
from schemas.errors import UsageError
from schemas.landmarkers import UserLandmarker
from schemas.media import Video
from schemas.source import Fetched, Source

# Of the stages whose results lie here; each folder says its own. Part of every key of that stage.
STAGE_VERSIONS: dict[str, int] = {**FETCH_VERSIONS, **ANALYSE_VERSIONS, **CLIP_VERSIONS}


def tool_version() -> str:
    """The installed version of this package."""
    return version("anitalk")


class BuildRecord(Record):
    """The latest build of a workspace (``build.json``): what was asked for, so that later commands can look it up."""

    tool_version: str
    sources: tuple[Source, ...]
    config: BuildConfig
    listed: tuple[ListedClip, ...] = ()  # where a clip list was rebuilt: its clips take the place of detection
    weights: WeightsConfig = WeightsConfig()  # so that later commands find the files; no key depends on it

    @property
    def listed_clips(self) -> dict[str, ListedClip]:
        """The listed clips that have an id, by it."""
        return {clip.clip_id: clip for clip in self.listed if clip.clip_id is not None}


class Results:
    """Look up what has been computed for a configuration. Nothing here computes, writes, or loads a network.

    Args:
        workspace: where results lie.
        config: all settings.
        clip_list: clips of a published list, which take the place of detection.
        files: the model files of ``config``; in the default weights folder where they are left out.
    """

    def __init__(
        self,
        workspace: Workspace,
        config: BuildConfig,
        clip_list: Sequence[ListedClip] = (),
        files: ModelFiles | None = None,
    ) -> None:
        self.workspace, self.config, self.clip_list = workspace, config, clip_list
        self.model_files = files or model_files(config)
        self.listed: dict[str, tuple[ListedClip, ...]] = by_source(clip_list)
        self.listed_clips = {clip.clip_id: clip for clip in clip_list if clip.clip_id is not None}

    # ---- keys ----------------------------------------------------------------------------------

    def acquire_key(self, source: Source) -> str:
        """Fetched media depend on where they come from and which quality was asked for."""
        config = self.config.acquire
        quality = [config.max_height_px, config.web_format, list(config.web_extractors)]
        return _key("acquire", [source.id, source.uri, source.sha256, *quality])

    def probe_key(self, source: Source, fetched: Fetched) -> str:
        """Depends on the bytes alone, and on the limits."""
        return _key("probe", [source.id, fetched.sha256, self.config.probe])

    def windows(self, source: Source, video: Video) -> list[Window]:
        """The runs into which the analysis of a video is divided; none where its clips are listed."""
        if source.id in self.listed:
            return []
        until_s = max((span.stop_s for span in on_files_clock(source.spans, video)), default=None)
        return windows_of(video, self.config.domains[source.domain].shots.run_s, until_s)

    def analyse_key(self, source: Source, video: Video, window: Window) -> str:
        """One run of a video."""
        domain = self.config.domains[source.domain]
        return _key(
            "analyse",
            [
                video,
                # A user's own file counts by its content (among the files below), wherever it lies.
                [choice.model_dump(mode="json", exclude={"onnx": {"path"}}) for choice in domain.detectors],
                domain.presence_gate,
                domain.shots,
                domain.faces,
                self.model_files.detection_digests(source.domain),
                window.start_s,
                window.stop_s,
                window.open_end,
            ],
        )

    def plan_key(self, source: Source, video: Video) -> str:
        """All runs of a video together, or the listed clips that stand for them."""
        if source.id in self.listed:
            return _key("plan", [video, self.listed[source.id], self.config.crop])
        runs = [self.analyse_key(source, video, window) for window in self.windows(source, video)]
        return _key("plan", [runs, self.config.crop, list(on_files_clock(source.spans, video))])

    def clip_key(self, source: Source, video: Video, planned: PlannedClip) -> str:
        """One clip: its own plan and face, and every setting and model that touches its pixels or sound."""
        config, landmarker = self.config, self.config.domains[source.domain].landmarker
        return _key(
            "clip",
            [
                video,
                planned,
                source.domain,
                config.crop,
                config.landmarks,
                config.speech,
                config.sync,
                # A user's own file counts by its content (among the files below), wherever it lies.
                landmarker.model_dump(exclude={"path"}) if isinstance(landmarker, UserLandmarker) else landmarker,
                config.domains[source.domain].faces.stride,
                self.model_files.digests(source.domain),
                *self._optional(source.domain),
            ],
        )

    def trim_key(self, clip_key: str, span: FrameSpan) -> str:
        """A part of a clip; every setting that it depends on is in the clip's own key."""
        return _key("trim", [clip_key, span])

    def _optional(self, domain: str) -> list[object]:
        """Settings of stages that are off by default; absent, they leave every key as it was."""
        pose = self.config.domains[domain].pose
        return [*([pose] if pose != "mesh" else []), *keys_of(self.config, domain)]

    # ---- results -------------------------------------------------------------------------------

    def fetched(self, source: Source) -> Fetched | None:
        """What acquiring a source gave."""
        return self.workspace.result("acquire", self.acquire_key(source), Fetched)

    def video(self, source: Source) -> Video | None:
        """What probing a source gave, with the sound of its language."""
        fetched = self.fetched(source)
        video = fetched and self.workspace.result("probe", self.probe_key(source, fetched), Video)
        return video and video.in_language(source.language)

    def plan(self, source: Source, video: Video) -> SourcePlan | None:
        """The shots, tracks and planned clips of a video; None while any part of its analysis is missing."""
        return self.workspace.result("plan", self.plan_key(source, video), SourcePlan)

    def clips(self, source: Source, video: Video, plan: SourcePlan) -> Iterator[tuple[str, Clip]]:
        """The finished clips of a source, with their keys, in order of time."""
        for planned in plan.clips:
            key = self.clip_key(source, video, planned)
            clip = self.workspace.result("clip", key, Clip)
            if clip is not None:
                yield key, clip

    def complete(self, source: Source) -> bool:
        """Whether every planned clip of a source is there, so that its media are no longer needed."""
        video = self.video(source)
        plan = self.plan(source, video) if video else None
        if video is None or plan is None:
            return False
        return len(plan.clips) == sum(1 for _ in self.clips(source, video, plan))

    def media(self, fetched: Fetched, source: Source) -> Path:
        """Where a source's file lies on this machine."""
        return fetched.locate(self.workspace.media_path(source.id))


def _key(stage: str, inputs: Sequence[object]) -> str:
    return content_hash([stage, STAGE_VERSIONS[stage], list(inputs)])


def results_of(
    workspace: Workspace,
    build: BuildRecord,
    config: BuildConfig | None = None,
    store: WeightsStore | None = None,
) -> Results:
    """The results of a build, or of the same sources under other settings; ``store`` is the build's by default."""
    config = config or build.config
    return Results(workspace, config, build.listed, model_files(config, store or WeightsStore(build.weights)))


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
