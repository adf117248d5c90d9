"""Bring weights files into the weights folder: resumed, verified, and under their names only when whole.

The transfers are those of the sources (``pipeline.fetchers``), with their limits on size, schemes, redirects and
addresses. Bytes arrive in ``.incoming`` inside the folder, stay there when a transfer breaks, and get their name in one
step after their checksum was compared. A mirror has the folder's own layout, so any weights folder is one.
"""

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.fetch.direct import STAGE, WebPageError, download
from pipeline.fetch.objects import read_object
from pipeline.fetch.partial import Partial, check_size, disk_errors_named, publish
from pipeline.fetch.politeness import HostTurns
from pipeline.fetch.retries import attempts
from pipeline.models.files.model_file import sha256_of
from pipeline.models.files.weights import WeightsStore
from schemas.config import AcquireConfig
from schemas.errors import SourceError, UsageError
from schemas.files import now_iso
from schemas.progress import Report
from schemas.uri import local_path, redact, uri_scheme
from schemas.weights import Weights, WeightsFile

_CHUNK_BYTES = 1024 * 1024

# Told the file, the bytes done, and the bytes in all (None when unknown).
Watcher = Callable[[WeightsFile, int, int | None], None]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A file that is now in the folder. ``verified`` says that the registry knew the checksum of what was fetched."""

    file: WeightsFile
    path: Path
    sha256: str
    verified: bool


def fetch_weights(
    entries: Sequence[Weights],
    store: WeightsStore,
    config: AcquireConfig,
    *,
    limiter: HostTurns,
    watch: Watcher,
    mirror: str = "",
) -> Iterator[Arrival]:
    """Fetch what is missing or damaged of some entries, one file after the other.

    Args:
        entries: of the registry; whoever asks has agreed to their terms.
        store: the folder they go to.
        config: limits of transfers.
        limiter: turns at hosts.
        watch: told how far each file is.
        mirror: folder or URI prefix to fetch from; the publishers' own addresses where it is empty.

    Raises:
        SourceError: when a file cannot be had, or is not the one that was meant; what is resumable stays.
        UsageError: for a scheme that is not allowed, a folder that is none, or one that another process fetches into.
        WorkspaceError: when the folder cannot be written.
    """
    incoming = store.folder / ".incoming"
    try:
        with disk_errors_named(incoming):
            incoming.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"weights.dir is no folder: {store.folder}") from error
    with _alone(incoming):
        fetching = _Fetching(store, config, incoming, limiter, watch, mirror.rstrip("/"))
        for weights in entries:
            for file in [state.file for state in store.state(weights.name).files if state.state != "present"]:
                yield fetching.fetch(file)
        fetching.tidy()


@contextmanager
def _alone(incoming: Path) -> Iterator[None]:
    lock = FileLock(incoming / "lock")
    try:
        with disk_errors_named(incoming):
            lock.acquire(timeout=0)
    except Timeout as error:
        raise UsageError(
            f"another 'anitalk weights fetch' is writing to {incoming.parent}: wait until it ends"
        ) from error
    try:
        yield
    finally:
        lock.release()


@dataclass
class _Fetching:
    store: WeightsStore
    config: AcquireConfig
    incoming: Path
    limiter: HostTurns
    watch: Watcher
    mirror: str

    def __post_init__(self) -> None:
        self._archives: dict[str, Partial] = {}  # several members of one archive cost one transfer

    def fetch(self, file: WeightsFile) -> Arrival:
        """One file, under its name at the end."""
        target = self.store.folder / file.path
        with disk_errors_named(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        if self.mirror:
            partial = self._received(file, f"{self.mirror}/{file.path}", file.sha256, file.num_bytes)
            arrived, verified = partial.path, file.sha256 is not None
        else:
            partial = self._download(file)
            arrived, verified = self._made(file, partial), file.transfer_sha256 is not None
        digest = sha256_of(arrived)
        self._note(file, digest, partial)
        with disk_errors_named(target):
            publish(arrived, target)
        if not file.member or self.mirror:
            partial.discard()
        return Arrival(file, target, digest, verified)

    def tidy(self) -> None:
        """Drop archives whose members were all taken out."""
        for partial in self._archives.values():
            partial.discard()

    def _download(self, file: WeightsFile) -> Partial:
        if file.url not in self._archives:
            partial = self._received(file, file.url, file.transfer_sha256, file.transfer_num_bytes)
            if not file.member:
                return partial
            self._archives[file.url] = partial
        return self._archives[file.url]

    def _received(self, file: WeightsFile, uri: str, expected: str | None, num_bytes: int | None) -> Partial:
        """What lies at an address, whole, and with the checksum that is expected of it."""
        scheme = uri_scheme(uri)
        # Named by the address: two files may come out of one archive.
        partial = Partial(self.incoming, sha256(uri.encode()).hexdigest()[:24], uri)

        def report(stage: str, done: float | None, total: float | None) -> None:
            del stage
            done, total = int(done or 0), None if total is None else int(total)
            if num_bytes is not None and max(done, total or 0) > num_bytes:
                partial.discard()
                raise SourceError(
                    f"{redact(uri)} has {max(done, total or 0)} bytes, {num_bytes} are expected of {file.path}: "
                    "it is another file"
                )
            self.watch(file, done, total if total is not None else num_bytes)

        if scheme == "file":
            self._copy(local_path(uri), partial, report)
        elif scheme not in self.config.schemes:
            raise UsageError(f"{redact(uri)}: acquire.schemes does not allow {scheme}:")
        elif scheme in {"s3", "gs"}:
            attempts(self.config, file.path)(lambda: read_object(uri, partial, self.config, report))
        else:
            self._over_http(file, uri, partial, report)
        digest = sha256_of(partial.path)
        if expected is not None and digest != expected:
            partial.discard()
            raise SourceError(
                f"{redact(uri)} is not the file that {file.path} is made of (SHA-256 {expected} expected, {digest} "
                "found), and was not kept: run it again, and if that does not help fetch --from another place"
            )
        return partial

    def _over_http(self, file: WeightsFile, uri: str, partial: Partial, report: Report) -> None:
        try:
            attempts(self.config, file.path)(lambda: download(uri, partial, self.config, self.limiter, report))
        except WebPageError as error:
            raise SourceError(f"{error}: it is a page and not {file.path}") from error

    def _copy(self, source: Path, partial: Partial, report: Report) -> None:
        if not source.is_file():
            raise SourceError(f"{source} does not exist, or is no file: a mirror has the layout of a weights folder")
        total = source.stat().st_size
        check_size(total, self.config.max_bytes, str(source))
        partial.restart("", total)
        done = 0
        try:
            with source.open("rb") as stream, partial.append() as into:
                while chunk := stream.read(_CHUNK_BYTES):
                    into.write(chunk)
                    done += len(chunk)
                    report(STAGE, done, total)
        except OSError as error:
            raise SourceError(f"{source} cannot be read: {error.strerror}") from error

    def _made(self, file: WeightsFile, partial: Partial) -> Path:
        """The file itself, where what was fetched is an archive or another format."""
        if not file.is_made:
            return partial.path
        arrived = self.incoming / f"{sha256(file.path.encode()).hexdigest()[:24]}.made"
        with disk_errors_named(arrived):
            if file.member:
                _take_member(partial.path, file, arrived, self.config.max_bytes)
            else:
                _convert(partial.path, file, arrived)
        digest = sha256_of(arrived)
        if file.sha256 is not None and digest != file.sha256:
            arrived.unlink()
            raise SourceError(
                f"{file.path}, made from {redact(file.url)}, is not the file that was meant (SHA-256 {file.sha256} "
                f"expected, {digest} found), and was not kept: fetch it --from another place"
            )
        return arrived

    def _note(self, file: WeightsFile, digest: str, partial: Partial) -> None:
        """Write down what came where the registry knows no checksum; later it must still be that."""
        record = self.store.record(file)
        if file.sha256 is not None:
            record.unlink(missing_ok=True)
            return
        note = {
            "path": file.path,
            "sha256": digest,
            "from": redact(self.mirror or file.url),
            "download_sha256": sha256_of(partial.path),
            "fetched_at": now_iso(),
        }
        waiting = self.incoming / "record.json"
        with disk_errors_named(record):
            waiting.write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
            publish(waiting, record)


def _take_member(archive: Path, file: WeightsFile, arrived: Path, max_bytes: int) -> None:
    try:
        with zipfile.ZipFile(archive) as opened:
            check_size(opened.getinfo(file.member).file_size, max_bytes, f"{file.member} in {redact(file.url)}")
            with opened.open(file.member) as stream, arrived.open("wb") as into:
                shutil.copyfileobj(stream, into, _CHUNK_BYTES)
    except KeyError as error:
        raise SourceError(f"{redact(file.url)} holds no {file.member}") from error
    except zipfile.BadZipFile as error:
        raise SourceError(f"{redact(file.url)} is not a sound zip archive: {error}") from error


def _convert(state_dict: Path, file: WeightsFile, arrived: Path) -> None:
    """A PyTorch state dict as safetensors: the same tensors under the same names, each with memory of its own."""
    from safetensors.torch import save_file

    tensors = _read_tensors(state_dict, file)
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, arrived, {"format": "pt"})


def _read_tensors(state_dict: Path, file: WeightsFile) -> dict[str, Any]:
    import torch

    try:
        loaded: Any = torch.load(state_dict, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch raises its own, pickle's and zipfile's errors for a file that is none; all of them mean the same here.
        raise SourceError(f"{redact(file.url)} cannot be read as a state dict of tensors: {error}") from error
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise SourceError(f"{redact(file.url)} holds something else than tensors by name")
    return loaded
