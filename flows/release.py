"""Make a release of a workspace: the one way to it for the command line and for deployments."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.settings import overlaid
from pipeline.build.compose import Progress, Silent
from pipeline.build.results import load_build
from pipeline.curate.choice import Choice, ReleaseOptions
from pipeline.models.files.weights import WeightsStore
from pipeline.release.make import make_release
from pipeline.store.workspace import Workspace
from schemas.release import Release


@dataclass(frozen=True, slots=True)
class FinishedRelease:
    """A finished release: its record, the choice behind it, and its folder or URI."""

    record: Release
    choice: Choice
    location: str

    def lines(self) -> list[str]:
        """What to tell the person who asked for it: shortfalls first, then what was made and where it lies."""
        record = self.record
        return [
            *(
                f"short of clips: {short.domain} {short.split} has {short.got} of {short.requested}"
                for short in self.choice.split.shortfalls
            ),
            f"{record.num_clips} clips, {record.duration_s / 60:.1f} min, in {len(record.shards)} shards",
            f"release  {self.location}",
            f"card     {self.location}/card.html",
        ]


def release_workspace(
    name: str,
    workspace: str,
    *,
    config: Path | None = None,
    settings: Sequence[str] = (),
    options: ReleaseOptions | None = None,
    to: str | None = None,
    progress: Progress | None = None,
) -> FinishedRelease:
    """Release all finished clips of a workspace's latest build.

    Args:
        name: the release's name.
        workspace: folder or URI; it is locked meanwhile.
        config: YAML file with settings that differ from the build's.
        settings: single ``key=value`` settings, applied last.
        options: licences and identity; no limits by default.
        to: folder or URI for releases; the workspace's own by default.
        progress: told what is going on.

    Raises:
        UsageError: when the workspace is in use, nothing was built there, or no clip is left to release.
    """
    opened = Workspace(workspace)
    with opened.lock():
        build = load_build(opened)
        changed = overlaid(build.config, build.weights, config, settings)
        display: Progress = progress or Silent()
        record, choice, location = make_release(
            opened,
            build,
            changed.build,
            name,
            options or ReleaseOptions(),
            store=WeightsStore(changed.weights),
            to=to,
            report=lambda stage, done, total: display.stage(name, stage, done, total),
        )
    return FinishedRelease(record, choice, location)
