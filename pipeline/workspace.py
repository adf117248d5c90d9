"""Where stage results, the ledger and decisions live.

A stage result is stored under a key computed from everything it depends on, so nothing has to be
tracked: whoever knows the inputs can compute the key and look. The result's record is written
last and is the done-marker.

    build.json                        the sources and configuration of the latest build
    results/STAGE/KEY/record.json     one stage result; its files lie beside it
    ledger/SOURCE/STAGE_ITEM_N.json   one row per item and attempt
    decisions/…                       one object per human decision
    media/SHA256                      fetched media, a cache: may be dropped at any time
    releases/NAME/…                   finished releases
"""

import contextlib
import json
import os
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout
from platformdirs import user_cache_path
from pydantic import ValidationError

from pipeline.errors import UsageError, WorkspaceError
from pipeline.storage import Storage, clear_write_errors
from schemas.base import Record, canonical_json, content_hash
from schemas.decision import Decision
from schemas.ledger import LedgerRow

R = TypeVar("R", bound=Record)

_HEARTBEAT_S = 30.0
_LOCK_EXPIRES_S = 180.0


class Workspace:
    """One workspace, by local path or fsspec URI.

    Raises:
        UsageError: when it does not exist (unless ``create``) or cannot be written.
    """

    def __init__(self, uri: str | Path, *, create: bool = False) -> None:
        self.storage = Storage(uri)
        if self.storage.is_local:
            root = Path(self.storage.root)
            if root.exists() and not root.is_dir():
                raise UsageError(f"the workspace {root} is a file: name a folder")
            if create:
                _make_writable_folder(root)
            elif not (root / "build.json").is_file():
                raise UsageError(f"{root} is not a workspace: 'anitalk build MANIFEST --workspace {uri}' makes one")
            self.media_folder = root / "media"
            self.scratch_folder = root / "scratch"
        else:
            # Decoders want local files; an object-store workspace keeps fetched media in this machine's cache.
            cache = user_cache_path("anitalk") / content_hash(self.storage.uri)[:16]
            self.media_folder = cache / "media"
            self.scratch_folder = cache / "scratch"

    # ---- stage results -------------------------------------------------------------------------

    def result(self, stage: str, key: str, kind: type[R]) -> R | None:
        """The record of a finished stage, or None when it has not been computed."""
        data = self.storage.read_if_there(f"results/{stage}/{key}/record.json")
        if data is None:
            return None
        try:
            return kind.model_validate_json(data)
        except ValidationError as error:
            place = self.storage.path(f"results/{stage}/{key}")
            raise WorkspaceError(f"{place}/record.json is damaged: delete that folder and run again") from error

    def publish(self, stage: str, key: str, record: Record, files: Mapping[str, bytes] | None = None) -> None:
        """Store a stage's files, then its record; only the record makes them visible."""
        for name, data in sorted((files or {}).items()):
            self.storage.write(f"results/{stage}/{key}/{name}", data)
        self.storage.write(f"results/{stage}/{key}/record.json", canonical_json(record))

    def result_file(self, stage: str, key: str, name: str) -> bytes:
        """One file of a finished stage."""
        return self.storage.read(f"results/{stage}/{key}/{name}")

    # ---- ledger --------------------------------------------------------------------------------

    def log(self, row: LedgerRow) -> LedgerRow:
        """Add a row as the item's next attempt; returns it with the attempt and time filled in."""
        item = row.item.replace("/", "_")
        attempt = row.attempt
        while True:
            stamped = row.model_copy(
                update={"attempt": attempt, "at": datetime.now(UTC).isoformat(timespec="milliseconds")}
            )
            name = f"ledger/{row.source_id}/{row.stage}_{item}_{attempt}.json"
            if self.storage.write_new(name, canonical_json(stamped)):
                return stamped
            attempt += 1

    def ledger(self, source_id: str | None = None) -> list[LedgerRow]:
        """All rows, or one source's, by item and attempt."""
        prefix = "ledger" if source_id is None else f"ledger/{source_id}"
        rows = [LedgerRow.model_validate_json(self.storage.read(name)) for name in self.storage.names(prefix)]
        return sorted(rows, key=lambda row: (row.source_id, row.at, row.stage, row.item, row.attempt))

    def reviews(self) -> list[Decision]:
        """All human decisions, in order of their names."""
        return [Decision.model_validate_json(self.storage.read(name)) for name in self.storage.names("decisions")]

    # ---- folders on this machine ---------------------------------------------------------------

    def media_path(self, sha256: str) -> Path:
        """Where a fetched file of that content is cached on this machine."""
        return self.media_folder / sha256

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for temporary files on the workspace's disk, removed afterwards."""
        with clear_write_errors(str(self.scratch_folder)):
            self.scratch_folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.scratch_folder) as folder:
            yield Path(folder)

    # ---- one writer at a time ------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the workspace for writing.

        Locally the kernel's file lock ends with its process, however that ends. In an object store a
        record with a heartbeat does the same work and expires by age.

        Raises:
            UsageError: when another run holds it; the sentence names its owner and age.
        """
        held = self._local_lock() if self.storage.is_local else self._remote_lock()
        with held:
            yield

    def _owner(self) -> bytes:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return canonical_json({"host": socket.gethostname(), "pid": os.getpid(), "since": now, "at": now})

    def _busy(self) -> UsageError:
        owner = json.loads(self.storage.read_if_there("lock.json") or b"{}")
        who = f"process {owner.get('pid', '?')} on {owner.get('host', '?')}, since {owner.get('since', '?')}"
        return UsageError(f"the workspace {self.storage.uri} is in use by {who}: wait for it or end it, then run again")

    @contextlib.contextmanager
    def _local_lock(self) -> Iterator[None]:
        lock = FileLock(self.storage.path(".lock"), timeout=0)
        try:
            with clear_write_errors(self.storage.path(".lock")):
                lock.acquire()
        except Timeout as error:
            raise self._busy() from error
        try:
            self.storage.write("lock.json", self._owner())
            yield
        finally:
            self.storage.delete("lock.json")
            lock.release()

    @contextlib.contextmanager
    def _remote_lock(self) -> Iterator[None]:
        mine = self._owner()
        if not self.storage.write_new("lock.json", mine):
            owner = json.loads(self.storage.read_if_there("lock.json") or b"{}")
            age = datetime.now(UTC) - datetime.fromisoformat(owner.get("at", "1970-01-01T00:00:00+00:00"))
            if age.total_seconds() < _LOCK_EXPIRES_S:
                raise self._busy()
            self.storage.delete("lock.json")
            if not self.storage.write_new("lock.json", mine):
                raise self._busy()
        stop = threading.Event()
        beat = threading.Thread(target=self._beat, args=(stop, json.loads(mine)), daemon=True)
        beat.start()
        try:
            yield
        finally:
            stop.set()
            beat.join()
            self.storage.delete("lock.json")

    def _beat(self, stop: threading.Event, owner: dict[str, str]) -> None:
        while not stop.wait(_HEARTBEAT_S):
            self.storage.write(
                "lock.json", canonical_json({**owner, "at": datetime.now(UTC).isoformat(timespec="seconds")})
            )


def _make_writable_folder(root: Path) -> None:
    try:
        with clear_write_errors(str(root)):
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=root) as probe:
                probe.write(b"1")
    except WorkspaceError as error:
        raise UsageError(str(error)) from error
