"""The tombstones of a workspace: read before anything is fetched, written before anything is deleted.

    tombstones/SOURCE.json    a source that was taken down

Whoever wants a source back deletes its tombstone and builds again.
"""

import shutil

from pydantic import ValidationError

from pipeline.store.workspace import Workspace
from schemas.base import canonical_json
from schemas.errors import SourceError, WorkspaceError
from schemas.source import Fetched, Source
from schemas.tombstone import Tombstone, covering, uri_hash

FOLDER = "tombstones"


class ForgottenError(SourceError):
    """A file turned out to be one that was taken down."""


def read_tombstones(workspace: Workspace) -> list[Tombstone]:
    """All tombstones, by source id.

    Raises:
        WorkspaceError: when one cannot be read; without it, its source would come back.
    """
    stones: list[Tombstone] = []
    for name in workspace.storage.names(FOLDER):
        try:
            stones.append(Tombstone.model_validate_json(workspace.storage.read(name)))
        except ValidationError as error:
            path = workspace.storage.path(name)
            raise WorkspaceError(
                f"{path} is damaged, and without it a forgotten source would come back: delete that file and run "
                "'anitalk forget' with its name again"
            ) from error
    return stones


def write_tombstone(workspace: Workspace, stone: Tombstone) -> None:
    """Publish a tombstone, in place of an earlier one of that source."""
    workspace.storage.write(f"{FOLDER}/{stone.source_id}.json", canonical_json(stone))


def refuse_forgotten(workspace: Workspace, source: Source, fetched: Fetched) -> None:
    """Let go of a file that was fetched under a new id and address and turns out to have been taken down.

    Its new address joins the tombstone, so that it is not fetched again.

    Raises:
        ForgottenError: when the file is one of those.
    """
    stone = covering(read_tombstones(workspace), source, fetched.sha256)
    if stone is None:
        return
    if workspace.media_path(source.id).is_dir():
        shutil.rmtree(workspace.media_path(source.id))
    more = Tombstone(source_id=stone.source_id, uri_hashes=(uri_hash(source.uri),))
    write_tombstone(workspace, stone.joined_with(more))
    raise ForgottenError(
        f"source {source.id} is the same file as {stone.source_id}, which was forgotten: remove it from the manifest"
    )
