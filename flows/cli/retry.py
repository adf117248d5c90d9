"""``anitalk retry``: what failed is forgiven and built again."""

from enum import StrEnum
from typing import Annotated

import typer

from flows.cli.options import InlineOption, RayOption, SetOption, WorkspaceOption, is_verbose


class ReasonClass(StrEnum):
    """Why an item failed, as the ledger says it."""

    PERMANENT = "permanent"
    TRANSIENT = "transient"
    THROTTLED = "throttled"
    DECODE = "decode"
    CRASH = "crash"
    TIMEOUT = "timeout"


def retry(
    workspace: WorkspaceOption,
    classes: Annotated[list[ReasonClass] | None, typer.Option("--class", help="Only failures of this class.")] = None,
    source: Annotated[list[str] | None, typer.Option(help="Only this source; repeatable.")] = None,
    set_: SetOption = None,
    inline: InlineOption = False,
    ray: RayOption = None,
) -> None:
    """Try again what failed, also what was left alone; the latest build's sources and settings are used."""
    from flows.build import BuildRequest, retry_failures
    from flows.cli.progress import BuildDisplay
    from flows.cli.status import print_status
    from pipeline.store.workspace import Workspace

    settings = tuple(set_ or ())
    request = BuildRequest("", workspace, settings=settings, ray_address=ray, inline=inline, verbose=is_verbose())
    with BuildDisplay() as display:
        num_items, num_sources = retry_failures(request, set(classes or ()), set(source or ()), display)
    print(f"tried {num_items} items of {num_sources} sources again")  # noqa: T201
    print_status(Workspace(workspace))
