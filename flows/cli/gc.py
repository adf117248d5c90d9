"""``anitalk gc``: fetched media that are needed no more, dropped."""

from flows.cli.options import WorkspaceOption


def gc(workspace: WorkspaceOption) -> None:
    """Drop fetched media whose clips are all done; their hashes stay, and local sources are never touched."""
    from pipeline.build.results import load_build
    from pipeline.build.upkeep import drop_leftovers, drop_media
    from pipeline.store.workspace import Workspace

    opened = Workspace(workspace)
    with opened.lock():
        num_files, num_bytes = drop_media(opened, load_build(opened))
        num_leftovers = drop_leftovers(opened)
    print(f"dropped {num_files} fetched files, {num_bytes / 1e6:.1f} MB")  # noqa: T201
    if num_leftovers:
        print(f"dropped {num_leftovers} files that interrupted runs left half-written")  # noqa: T201
