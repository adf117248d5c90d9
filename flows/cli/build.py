"""``anitalk build``: a list of sources, taken as far as it goes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import (
    ConfigOption,
    InlineOption,
    ProfileOption,
    RayOption,
    SetOption,
    WorkspaceOption,
    is_verbose,
)
from schemas.errors import EXIT_SCREENING

if TYPE_CHECKING:
    from flows.build import BuildRequest
    from pipeline.store.workspace import Workspace

ScreenOption = Annotated[bool, typer.Option("--screen", help="Stop after the clips, so that they can be screened.")]


def build(
    manifest: Annotated[Path, typer.Argument(help="List of sources (YAML, CSV, JSONL), or a clip list.")],
    workspace: WorkspaceOption,
    config: ConfigOption = None,
    set_: SetOption = None,
    profile: ProfileOption = "embedded",
    release_name: Annotated[str | None, typer.Option("--release", help="Make this release at the end.")] = None,
    screen: ScreenOption = False,
    inline: InlineOption = False,
    ray: RayOption = None,
    media: Annotated[Path | None, typer.Option(help="Folder of the local files that a clip list names.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N sources.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, say what would be done, stop.")] = False,
) -> int:
    """Take every source as far as it goes; run again to go on where it stopped."""
    from flows.build import BuildRequest
    from flows.cli.release import print_release
    from flows.cli.status import print_status

    _check_name(release_name)
    request = BuildRequest(
        manifest=str(manifest),
        workspace=workspace,
        config=config,
        media=media,
        settings=tuple(set_ or ()),
        profile=profile,
        limit=limit,
        ray_address=ray,
        inline=inline,
        verbose=is_verbose(),
    )
    if dry_run:
        _print_plan(request)
        return 0
    print_status(build_to_clips(request))
    if screen:
        return _wait_for_screening(workspace, release_name)
    if release_name is not None:
        print_release(release_name, workspace)
    return 0


def build_to_clips(request: "BuildRequest") -> "Workspace":
    """Take every source as far as it goes, with a display of how far that is; returns the workspace.

    Raises:
        UsageError: for a mistake in the request, or a workspace that is in use.
        WorkspaceError: when the workspace cannot be written.
    """
    from flows.build import opened_build
    from flows.cli.interrupts import kept_interrupts
    from flows.cli.progress import BuildDisplay

    with kept_interrupts(), BuildDisplay() as display, opened_build(request, display) as opened:
        opened.run(opened.sources)
        return opened.workspace


def _check_name(release_name: str | None) -> None:
    """A build may take days; a release's name that cannot be is told before it."""
    from pipeline.release.make import check_release_name

    if release_name is not None:
        check_release_name(release_name)


def _wait_for_screening(workspace: str, release_name: str | None) -> int:
    from flows.screening import screening_lines

    print("\nthe clips wait for screening")  # noqa: T201
    for line in screening_lines(workspace, release_name or ""):
        print(line)  # noqa: T201
    return EXIT_SCREENING


def _print_plan(request: "BuildRequest") -> None:
    """What would be built, with which models, and from which sources; nothing is written."""
    from flows.build import read_request
    from flows.cli.rows import Format, write_rows

    checked = read_request(request)
    domains = sorted({source.domain for source in checked.sources})
    names = sorted({card.name for card in checked.models.files.cards(domains)})
    print(  # noqa: T201
        f"{len(checked.sources)} sources in {', '.join(domains)} would be built in {request.workspace}, "
        f"with {', '.join(names)}."
    )
    columns = ("id", "domain", "license", "uri")
    write_rows([source.model_dump(mode="json") for source in checked.sources], columns, Format.TABLE, None)
