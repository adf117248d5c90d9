"""Free what is no longer needed."""

import shutil
from pathlib import Path

from pipeline.build.results import BuildRecord, results_of
from pipeline.store.workspace import Workspace


def drop_leftovers(workspace: Workspace) -> int:
    """Delete what killed runs left half-written, and return how many files; the caller holds the lock."""
    folders = [workspace.scratch_folder]
    if workspace.storage.is_local:
        folders += [Path(workspace.storage.path(name)) for name in ("results", "ledger", "decisions")]
    left = [
        path for folder in folders for path in folder.rglob("*") if path.is_file() and _is_leftover(path, folders[0])
    ]
    for path in left:
        path.unlink()
    return len(left)


def _is_leftover(path: Path, scratch: Path) -> bool:
    return path.is_relative_to(scratch) or path.name.startswith(".tmp-")


def drop_media(workspace: Workspace, build: BuildRecord) -> tuple[int, int]:
    """Delete fetched media of sources whose planned clips are all there.

    Files that lie outside the workspace (local sources) are never touched. The acquire results stay,
    with their hashes, so nothing is fetched again until something has to be decoded again.

    Returns:
        How many files were deleted, and their bytes.
    """
    results = results_of(workspace, build)
    num_files = num_bytes = 0
    for source in build.sources:
        folder = workspace.media_path(source.id)
        if not results.complete(source):
            continue
        if not workspace.storage.is_local:
            workspace.storage.delete(f"media/{source.id}")
        if not folder.is_dir():
            continue
        files = [path for path in folder.rglob("*") if path.is_file()]
        num_files += len(files)
        num_bytes += sum(path.stat().st_size for path in files)
        shutil.rmtree(folder)
    return num_files, num_bytes
