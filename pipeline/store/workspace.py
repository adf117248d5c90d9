"""Where stage results, the ledger and decisions live.

A stage result is stored under a key computed from everything it depends on, so nothing has to be
tracked: whoever knows the inputs can compute the key and look. The result's record is written
last and is the done-marker.

    build.json                        the sources and configuration of the latest build
    results/STAGE/KEY/record.json     one stage result; its files lie beside it
    ledger/SOURCE/STAGE_ITEM_N.json   one row per item and attempt
    decisions/CLIP/REVIEW.json        one thing that one person said of a clip
    tombstones/SOURCE.json            a source that was taken down
    media/SOURCE/…                    fetched media, a cache: may be dropped at any time (in an object store the
                                      copy that other machines take)
    releases/NAME/…                   finished releases
    state/…                           this machine's own: turns at hosts, who is fetching
"""

import contextlib
import hashlib
import json
import logging
import os
import socket
import tempfile
import threading
from collections.abc import Generator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast

from filelock import FileLock, Timeout
from platformdirs import user_cache_path
from pydantic import ValidationError

from pipeline.store.storage import Storage, clear_write_errors
from schemas.base import Record, canonical_json, content_hash
from schemas.errors import TransientError, UsageError, WorkspaceError
from schemas.files import now_iso
from schemas.ledger import LedgerRow

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Record)

_FETCH_WAIT_S = 60.0
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
            self.state_folder = root / "state"
        else:
            # Decoders want local files; an object-store workspace keeps fetched media in this machine's cache.
            cache = user_cache_path("anitalk") / content_hash(self.storage.uri)[:16]
            self.media_folder = cache / "media"
            self.scratch_folder = cache / "scratch"
            self.state_folder = cache / "state"

    # ---- stage results -------------------------------------------------------------------------

    def result(self, stage: str, key: str, kind: type[R]) -> R | None:
        """The record of a finished stage, or None when it has not been computed."""
        data = self.storage.read_if_there(f"results/{stage}/{key}/record.json")
        if data is None:
            return None
        try:
            return kind.model_validate_json(data)
        except ValidationError as error:
            folder = self.storage.path(f"results/{stage}/{key}")
            raise WorkspaceError(f"{folder}/record.json is damaged: delete that folder and run again") from error

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
            stamped = row.model_copy(update={"attempt": attempt, "at": now_iso("milliseconds")})
            name = f"ledger/{row.source_id}/{row.stage}_{item}_{attempt}.json"
            if self.storage.write_new(name, canonical_json(stamped)):
                return stamped
            attempt += 1

    def ledger(self, source_id: str | None = None) -> list[LedgerRow]:
        """All rows, or one source's, by item and attempt."""
        prefix = "ledger" if source_id is None else f"ledger/{source_id}"
        rows = [self._read(name, LedgerRow) for name in self.storage.names(prefix)]
        return sorted(rows, key=lambda row: (row.source_id, row.at, row.stage, row.item, row.attempt))

    def _read(self, name: str, kind: type[R]) -> R:
        try:
            return kind.model_validate_json(self.storage.read(name))
        except ValidationError as error:
            raise WorkspaceError(f"{self.storage.path(name)} is damaged: delete that file and run again") from error

    # ---- folders on this machine ---------------------------------------------------------------

    def media_path(self, source_id: str) -> Path:
        """The folder on this machine where a source's fetched file is cached."""
        return self.media_folder / source_id

    def keep_media(self, source_id: str, name: str) -> None:
        """Let other machines have a fetched file: an object store gets a copy, on a disk it lies in the workspace.

        ``name`` is relative to the source's folder; a local source's absolute path is left where it is.
        """
        if not self.storage.is_local and not Path(name).is_absolute():
            self.storage.put_file(self.media_path(source_id) / name, f"media/{source_id}/{name}")

    def has_media(self, source_id: str, name: str) -> bool:
        """Whether the object store has a copy of a fetched file."""
        if self.storage.is_local or Path(name).is_absolute():
            return False
        return self.storage.exists(f"media/{source_id}/{name}")

    def recall_media(self, source_id: str, name: str) -> bool:
        """Bring a kept file to this machine; says whether there was one."""
        if not self.has_media(source_id, name):
            return False
        self.storage.get_file(f"media/{source_id}/{name}", self.media_path(source_id) / name)
        return True

    @contextlib.contextmanager
    def fetching(self, source_id: str) -> Generator[None]:
        """Keep other processes of this machine from fetching the same source, also those of a build that was killed.

        Raises:
            TransientError: when another one is still at it after a minute.
        """
        folder = self.state_folder / "fetching"
        with clear_write_errors(str(folder)):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / f"{source_id}.lock", timeout=_FETCH_WAIT_S):
                yield
        except Timeout as error:
            raise TransientError(f"another process is fetching {source_id}: run again when it has ended") from error

    @contextlib.contextmanager
    def scratch(self) -> Generator[Path]:
        """A folder for temporary files on the workspace's disk, removed afterwards."""
        with clear_write_errors(str(self.scratch_folder)):
            self.scratch_folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.scratch_folder) as folder:
            yield Path(folder)

    # ---- one writer at a time ------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(self) -> Generator[None]:
        """Hold the workspace for writing.

        Locally the kernel's file lock ends with its process, however that ends. In an object store a
        record with a heartbeat does the same work and expires by age.

        Raises:
            UsageError: when another run holds it; the sentence names its owner and age.
        """
        held = self._local_lock() if self.storage.is_local else self._remote_lock()
        with held:
            yield

    def _owner(self) -> dict[str, str | int]:
        now = now_iso("milliseconds")
        return {"host": socket.gethostname(), "pid": os.getpid(), "since": now, "at": now}

    def _busy(self, owner: Mapping[str, Any]) -> UsageError:
        if not owner:
            who = "another process that has just begun"
        else:
            since = str(owner.get("since", "?"))
            begun = f"since {since} ({_age_s(since):.0f} s ago)"
            who = f"process {owner.get('pid', '?')} on {owner.get('host', '?')}, {begun}"
        more = "" if self.storage.is_local else f"; should it have died, it is overruled after {_LOCK_EXPIRES_S:.0f} s"
        return UsageError(
            f"the workspace {self.storage.uri} is in use by {who}: wait for it or end it, then run again{more}"
        )

    @contextlib.contextmanager
    def _local_lock(self) -> Generator[None]:
        lock = FileLock(self.storage.path(".lock"), timeout=0)
        try:
            with clear_write_errors(self.storage.path(".lock")):
                lock.acquire()
        except Timeout as error:
            raise self._busy(_parsed(self.storage.read_if_there("lock.json"))) from error
        try:
            self.storage.write("lock.json", canonical_json(self._owner()))
            yield
        finally:
            # Also when the disk is full: what is left says only who was here last.
            with contextlib.suppress(WorkspaceError):
                self.storage.delete("lock.json")
            lock.release()

    @contextlib.contextmanager
    def _remote_lock(self) -> Generator[None]:
        mine = self._owner()
        try:
            if not self.storage.write_new("lock.json", canonical_json(mine)):
                self._overrule(canonical_json(mine))
        except WorkspaceError as error:  # the first write of a run: its address or credentials are wrong
            raise UsageError(str(error)) from error
        stop = threading.Event()
        beat = threading.Thread(target=self._beat, args=(stop, mine), daemon=True)
        beat.start()
        try:
            yield
        finally:
            stop.set()
            beat.join()
            with contextlib.suppress(WorkspaceError):
                if self._is_mine(mine):
                    self.storage.delete("lock.json")

    def _overrule(self, mine: bytes) -> None:
        """Take the lock of a run that shows no sign of life any more.

        Nothing can be replaced on a condition everywhere, but creating can: for every record that is
        overruled there is one note that only one run can create. A run that died between its note and
        its lock is overruled in turn, by a note about its note.
        """
        record = self.storage.read_if_there("lock.json")
        if record is None:  # its holder has ended meanwhile
            if not self.storage.write_new("lock.json", mine):
                raise self._busy({})
            return
        while _age_s(_parsed(record).get("at", "")) >= _LOCK_EXPIRES_S:
            note = f"locks/{hashlib.sha256(record).hexdigest()[:32]}.json"
            if self.storage.write_new(note, mine):
                self.storage.write("lock.json", mine)
                return
            record = self.storage.read_if_there(note) or b""
        raise self._busy(_parsed(record))

    def _is_mine(self, mine: Mapping[str, Any]) -> bool:
        record = _parsed(self.storage.read_if_there("lock.json"))
        return all(record.get(name) == mine[name] for name in ("host", "pid", "since"))

    def _beat(self, stop: threading.Event, owner: Mapping[str, Any]) -> None:
        while not stop.wait(_HEARTBEAT_S):
            try:
                if not self._is_mine(owner):
                    log.error("the lock of %s was taken over by another run while this one slept", self.storage.uri)
                    return
                self.storage.write("lock.json", canonical_json({**owner, "at": now_iso("milliseconds")}))
            except WorkspaceError as error:  # the next beat may come through; the lock outlives several
                log.warning("the lock could not be renewed: %s", error)


def _age_s(since: str) -> float:
    """Seconds since a time; for one that cannot be read, more than any lock lasts."""
    try:
        return (datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds()
    except (ValueError, TypeError):
        return float("inf")


def _parsed(lock: bytes | None) -> dict[str, Any]:
    """A lock's record; empty when it is gone or damaged."""
    try:
        content = json.loads(lock or b"{}")
    except ValueError:
        return {}
    return cast("dict[str, Any]", content) if isinstance(content, dict) else {}


def _make_writable_folder(root: Path) -> None:
    try:
        with clear_write_errors(str(root)):
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=root) as probe:
                probe.write(b"1")
    except WorkspaceError as error:
        raise UsageError(str(error)) from error
