"""``anitalk release``: finished clips, packed into an immutable release."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import ConfigOption, SetOption, WorkspaceOption

if TYPE_CHECKING:
    from pipeline.curate.choice import ReleaseOptions


def release(
    name: Annotated[str, typer.Argument(help="Name of the release.")],
    workspace: WorkspaceOption,
    config: ConfigOption = None,
    set_: SetOption = None,
    to: Annotated[str | None, typer.Option(help="Folder or URI for releases; the workspace's own by default.")] = None,
    allow_license: Annotated[list[str] | None, typer.Option(help="Only sources of this licence; repeatable.")] = None,
    commercial_only: Annotated[bool, typer.Option("--commercial-only", help="Only commercial use allowed.")] = False,
    with_identity: Annotated[bool, typer.Option("--with-identity", help="Include face embeddings.")] = False,
) -> None:
    """Compare, select, split and pack all finished clips into an immutable release."""
    from pipeline.curate.choice import ReleaseOptions

    options = ReleaseOptions(tuple(allow_license or ()), commercial_only, with_identity)
    print_release(name, workspace, config=config, settings=set_ or (), options=options, to=to)


def print_release(
    name: str,
    workspace: str,
    *,
    config: Path | None = None,
    settings: Sequence[str] = (),
    options: "ReleaseOptions | None" = None,
    to: str | None = None,
) -> None:
    """Release a workspace's clips with a display of how far that is, and print what was made.

    Arguments and errors as :func:`flows.release.release_workspace` has them.
    """
    from flows.cli.progress import BuildDisplay
    from flows.release import release_workspace

    with BuildDisplay() as display:
        finished = release_workspace(
            name, workspace, config=config, settings=settings, options=options, to=to, progress=display
        )
    for line in finished.lines():
        print(line)  # noqa: T201
