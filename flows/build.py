"""One build from a manifest to clips, as the command line and the Prefect flow both run it."""

import contextlib
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.settings import overlaid, read_settings
from pipeline.build.compose import Builder, Engine, InlineEngine, Progress, Silent, record_build
from pipeline.build.jobs import JobContext
from pipeline.build.results import load_build, tool_version
from pipeline.clip.meters import model_files
from pipeline.fetch.acquire import HostLimiter
from pipeline.models.files.model_files import ModelFiles
from pipeline.models.files.weights import WeightsStore
from pipeline.models.registry import ModelSet
from pipeline.store.ledger import forgive
from pipeline.store.workspace import Workspace
from schemas.cliplist import ClipList, ListedClip, is_clip_list, read_clip_list
from schemas.config import BuildConfig, EngineConfig, WeightsConfig
from schemas.errors import UsageError
from schemas.source import ManifestError, Source, read_manifest


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What to build, where, and who does the work.

    ``settings`` are ``key.inside=value`` overrides. ``ray_address`` None means a local cluster, ``inline`` this
    very process.
    """

    manifest: str  # of sources, or a clip list
    workspace: str
    config: Path | None = None
    media: Path | None = None  # where the local files of a clip list lie; beside it by default
    settings: tuple[str, ...] = ()
    profile: str = "embedded"
    limit: int | None = None
    ray_address: str | None = None
    inline: bool = False
    verbose: bool = False


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """A request that was read and checked: nothing has been written yet.

    ``models`` are those that checking has loaded, where this process will do the work, and else none.
    """

    sources: tuple[Source, ...]
    config: BuildConfig
    engine: EngineConfig
    weights: WeightsConfig
    models: ModelSet
    clip_list: tuple[ListedClip, ...] = ()


def read_request(request: BuildRequest) -> CheckedRequest:
    """Read a request's manifest and settings, and look for every model file.

    Raises:
        UsageError: with everything that is wrong.
    """
    settings = read_settings(request.config, request.settings, request.profile)
    config, path = settings.build, Path(request.manifest)
    if is_clip_list(path):
        listed = _read_clip_list(path, config, request.media)
        sources = listed.sources[: request.limit]
        wanted = {source.id for source in sources}
        clips = tuple(clip for clip in listed.clips if clip.source_id in wanted)
    else:
        sources, clips = read_sources(path, config)[: request.limit], ()
    models = _checked_models(request, config, settings.weights)
    return CheckedRequest(sources, config, settings.engine, settings.weights, models, clips)


def _checked_models(request: BuildRequest, config: BuildConfig, weights: WeightsConfig) -> ModelSet:
    """The models of a build whose files are all there; workers elsewhere load their own, and these need not stay."""
    models = ModelSet(model_files(config, WeightsStore(weights)))
    models.check()
    return models if request.inline else ModelSet(models.files)


def _read_clip_list(path: Path, config: BuildConfig, media: Path | None) -> ClipList:
    try:
        return read_clip_list(path, config.domains, config.acquire.schemes, media)
    except ManifestError as error:
        raise UsageError(str(error)) from error


def read_sources(manifest: Path, config: BuildConfig) -> tuple[Source, ...]:
    """The sources of a manifest; warnings go to standard error.

    Raises:
        UsageError: with every problem of the manifest.
    """
    try:
        read = read_manifest(manifest, config.domains, config.acquire.schemes)
    except ManifestError as error:
        raise UsageError(str(error)) from error
    for warning in read.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    return read.sources


@dataclass(frozen=True, slots=True)
class OpenBuild:
    """A build that holds its workspace. ``run`` may be called from several threads."""

    sources: tuple[Source, ...]
    workspace: Workspace
    config: BuildConfig
    engine: Engine
    progress: Progress
    model_files: ModelFiles
    clip_list: tuple[ListedClip, ...] = ()

    def run(self, sources: Sequence[Source]) -> None:
        """Take these sources as far as they go; their failures are rows of the ledger.

        Raises:
            WorkspaceError: when the workspace can no longer be written.
            UsageError: when the cluster cannot be used.
        """
        builder = Builder(self.workspace, self.config, self.engine, self.progress, self.clip_list, self.model_files)
        builder.run(sources)


@contextlib.contextmanager
def opened_build(request: BuildRequest, progress: Progress | None = None) -> Iterator[OpenBuild]:
    """Check a request, hold its workspace, and let go of everything that was started at the end.

    Raises:
        UsageError: for a mistake in the request, or a workspace that is in use.
        WorkspaceError: when the workspace cannot be written.
    """
    checked = read_request(request)
    workspace = Workspace(request.workspace, create=True)
    with workspace.lock(), engine_of(request, checked, workspace) as engine:
        record_build(workspace, checked.sources, checked.config, checked.clip_list, checked.weights)
        yield _opened(checked, workspace, engine, progress)


@contextlib.contextmanager
def reopened_build(request: BuildRequest, progress: Progress | None = None) -> Iterator[OpenBuild]:
    """The latest build of a workspace again, with its sources and settings; of the request, only who works counts.

    Raises:
        UsageError: when nothing has been built there, or it is in use.
    """
    workspace = Workspace(request.workspace)
    build = load_build(workspace)
    settings = overlaid(build.config, build.weights, None, request.settings)
    models = _checked_models(request, build.config, settings.weights)
    checked = CheckedRequest(build.sources, build.config, settings.engine, settings.weights, models, build.listed)
    with workspace.lock(), engine_of(request, checked, workspace) as engine:
        yield _opened(checked, workspace, engine, progress)


def _opened(checked: CheckedRequest, workspace: Workspace, engine: Engine, progress: Progress | None) -> OpenBuild:
    return OpenBuild(
        checked.sources,
        workspace,
        checked.config,
        engine,
        progress or Silent(),
        checked.models.files,
        checked.clip_list,
    )


def retry_failures(
    request: BuildRequest, classes: Collection[str], source_ids: Collection[str], progress: Progress | None = None
) -> tuple[int, int]:
    """Forgive what failed, and build its sources again.

    Args:
        request: the workspace, and who works.
        classes: reason classes as the ledger has them; empty means all.
        source_ids: only these sources; empty means all.
        progress: told what is going on.

    Returns:
        How many items were tried again, of how many sources.

    Raises:
        UsageError: for a source that the build does not have.
    """
    with reopened_build(request, progress) as opened:
        unknown = set(source_ids) - {source.id for source in opened.sources}
        if unknown:
            raise UsageError(f"the build has no source {', '.join(sorted(unknown))}: 'anitalk sources' lists them")
        wanted = [source for source in opened.sources if not source_ids or source.id in source_ids]
        forgiven = {source.id: forgive(opened.workspace, source.id, classes) for source in wanted}
        again = [source for source in wanted if forgiven[source.id]]
        opened.run(again)
    return sum(forgiven.values()), len(again)


@contextlib.contextmanager
def engine_of(request: BuildRequest, checked: CheckedRequest, workspace: Workspace) -> Iterator[Engine]:
    """Whoever performs the request's jobs."""
    if request.inline:
        turns = HostLimiter(checked.config.acquire, workspace.state_folder / "hosts")
        yield InlineEngine(JobContext(workspace, checked.models, tool_version(), turns))
        return
    from flows.ray.cluster import ray_engine

    uri = str(Path(workspace.storage.root).resolve()) if workspace.storage.is_local else workspace.storage.uri
    with ray_engine(
        uri,
        checked.config,
        checked.engine,
        tool_version(),
        weights=checked.weights,
        address=request.ray_address,
        verbose=request.verbose,
    ) as engine:
        yield engine
