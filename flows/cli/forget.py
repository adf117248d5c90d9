"""``anitalk forget``: a source taken down, and what that did, said to a person."""

from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import WorkspaceOption

if TYPE_CHECKING:
    from pipeline.release.takedown import Takedown


def forget(
    source: Annotated[str, typer.Argument(help="Id of the source to take down.")],
    workspace: WorkspaceOption,
    reason: Annotated[str, typer.Option(help="Kept on the tombstone.")] = "",
    as_: Annotated[
        str | None, typer.Option("--as", help="Name of the new release; NAME-r2 and so on by default.")
    ] = None,
    releases: Annotated[list[str] | None, typer.Option(help="More places that hold releases; repeatable.")] = None,
    drop_old: Annotated[bool, typer.Option("--drop-old", help="Delete the releases that still hold it.")] = False,
) -> None:
    """Take a source down: out of the workspace, out of its releases (new ones are written), out of later builds."""
    from pipeline.release import takedown
    from pipeline.store.workspace import Workspace

    opened = Workspace(workspace)
    with opened.lock():
        done = takedown.forget(opened, source, reason=reason, name=as_, more_releases=releases or (), drop_old=drop_old)
    for line in _lines(done):
        print(line)  # noqa: T201


def _lines(done: "Takedown") -> list[str]:
    stone = done.tombstone
    counts = (
        _count(done.num_results, "stage result"),
        _count(done.num_media, "fetched file"),
        _count(done.num_reviews, "review"),
    )
    lines = [f"forgotten {stone.source_id}: deleted {', '.join(counts)}"]
    others = [name for name in done.source_ids if name != stone.source_id]
    if others:
        lines.append(f"the same film under other ids went with it: {', '.join(others)}")
    for release in done.rewritten:
        if release.successor is None:
            lines.append(f"release  {release.old.storage.uri} held nothing else: no release takes its place")
        else:
            lines.append(f"release  {release.successor}  (in place of {release.old.folder})")
    if done.dropped:
        lines.append(f"deleted  {', '.join(done.dropped)}")
    if done.holding:
        lines.append(
            f"still holding the material: {', '.join(done.holding)}; "
            f"'anitalk forget {stone.source_id} --drop-old' with the same options deletes "
            f"{'it' if len(done.holding) == 1 else 'them'}"
        )
    return lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
