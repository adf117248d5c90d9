"""Shards as open local files: those of this machine where they lie, all others through a bounded folder.

Many processes share the folder without a lock: a shard appears under its final name whole or not at all, two that
fetch the same one do the work twice, and a file that is dropped stays readable for whoever has it open.
"""

import contextlib
import errno
import hashlib
import logging
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from platformdirs import user_cache_path

from schemas.errors import DataError, UsageError
from schemas.uri import local_path, redact
from training.data.config import PairsConfig
from training.data.remote import Patience, is_local, iter_parts
from training.data.shards import Shard

log = logging.getLogger(__name__)

_OWN_NAME = re.compile(r"[0-9a-f]{64}\.tar")  # nothing else in the folder is ours to drop
_UNFINISHED = re.compile(rf"\.tmp-\d+-\d+-{_OWN_NAME.pattern}")
_ABANDONED_S = 24 * 3600.0  # an unfinished file this old belongs to nobody


class DamagedShardError(Exception):
    """A shard is not what its index says; the message says how."""


class ShardCache:
    """Opens shards, fetching what lies elsewhere.

    Raises:
        UsageError: when the folder cannot be made.
    """

    def __init__(self, config: PairsConfig) -> None:
        self._folder = Path(config.cache_dir) if config.cache_dir else user_cache_path("anitalk") / "shards"
        self._max_bytes = config.cache_bytes
        self._check_sums = config.check_sums
        self._patience = Patience(config.num_attempts, config.backoff_s)
        self._checked: set[str] = set()
        self._turn = threading.Lock()

    def open(self, shard: Shard) -> int:
        """A file descriptor for reading, the caller's to close.

        Raises:
            DamagedShardError: when size or sha256 are not as the release says, also when fetched again.
            DataError: when it cannot be reached or kept here.
        """
        if is_local(shard.uri):
            return self._open_local(shard)
        with self._turn, self._clear_errors(shard):
            return self._open_fetched(shard)

    def fetch_ahead(self, shards: Iterable[Shard]) -> None:
        """Begin to fetch shards that will be wanted; returns at once."""
        wanted = [shard for shard in shards if not is_local(shard.uri) and not self._path(shard).exists()]
        if wanted:
            threading.Thread(target=self._fetch_all, args=(wanted,), daemon=True).start()

    def _fetch_all(self, shards: list[Shard]) -> None:
        for shard in shards:
            try:
                os.close(self.open(shard))
            except (DataError, DamagedShardError, FileNotFoundError) as error:
                log.info("not fetched ahead: %s", error)  # whoever wants it meets the same, and says so
                return

    # ---- shards of this machine ------------------------------------------------------------------------------------

    def _open_local(self, shard: Shard) -> int:
        try:
            descriptor = os.open(local_path(shard.uri), os.O_RDONLY)
        except OSError as error:
            raise DataError(f"{shard.uri} cannot be read: {error.strerror}") from error
        try:
            self._check(shard, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _check(self, shard: Shard, descriptor: int) -> None:
        num_bytes = os.fstat(descriptor).st_size
        if num_bytes != shard.num_bytes:
            raise DamagedShardError(f"{num_bytes} bytes where its index says {shard.num_bytes}")
        if not (shard.sha256 and self._check_sums) or shard.name in self._checked:
            return
        with os.fdopen(os.dup(descriptor), "rb") as file:
            _same_sum(shard, hashlib.file_digest(file, "sha256").hexdigest())
        self._checked.add(shard.name)

    # ---- shards from elsewhere -------------------------------------------------------------------------------------

    def _path(self, shard: Shard) -> Path:
        """Named by content where that is known, so that copies of a release share what is here."""
        name = shard.sha256 or hashlib.sha256(f"{shard.uri} {shard.num_bytes}".encode()).hexdigest()
        return self._folder / f"{name}.tar"

    def _open_fetched(self, shard: Shard) -> int:
        path = self._path(shard)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return self._fetch(shard, path)
        if os.fstat(descriptor).st_size == shard.num_bytes:
            os.utime(path)  # the oldest are dropped first
            return descriptor
        os.close(descriptor)
        return self._fetch(shard, path)

    def _fetch(self, shard: Shard, path: Path) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._make_room(shard.num_bytes)
        try:
            return self._fetch_once(shard, path)
        except DamagedShardError as error:  # on the way, perhaps
            log.warning("%s: %s; fetched once more", redact(shard.uri), error)
            return self._fetch_once(shard, path)

    @contextlib.contextmanager
    def _clear_errors(self, shard: Shard) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise DataError(f"{redact(shard.uri)} is no longer there") from error
        except OSError as error:
            remedy = "free some space or lower cache_bytes" if error.errno == errno.ENOSPC else "choose another"
            raise DataError(f"the cache folder {self._folder} cannot be used ({error.strerror}): {remedy}") from error

    def _fetch_once(self, shard: Shard, path: Path) -> int:
        began = time.monotonic()
        temporary = path.with_name(f".tmp-{os.getpid()}-{threading.get_ident()}-{path.name}")
        digest = hashlib.sha256()
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            for part in iter_parts(shard.uri, 0, shard.num_bytes, self._patience):
                digest.update(part)
                view = memoryview(part)
                while view:
                    view = view[os.write(descriptor, view) :]
            if shard.sha256:
                _same_sum(shard, digest.hexdigest())
            os.fsync(descriptor)
            temporary.replace(path)
        except BaseException:
            os.close(descriptor)
            temporary.unlink(missing_ok=True)
            raise
        log.info("fetched %s: %.0f MB in %.1f s", shard.name, shard.num_bytes / 1e6, time.monotonic() - began)
        return descriptor

    def _make_room(self, num_bytes: int) -> None:
        """Drop the files that were not used for longest until ``num_bytes`` more fit."""
        kept: list[tuple[float, int, Path]] = []
        for path in self._folder.iterdir():
            try:
                state = path.stat()
            except FileNotFoundError:  # dropped by another process
                continue
            if _UNFINISHED.fullmatch(path.name) and time.time() - state.st_mtime > _ABANDONED_S:
                path.unlink(missing_ok=True)
            elif _OWN_NAME.fullmatch(path.name) or _UNFINISHED.fullmatch(path.name):
                kept.append((state.st_mtime, state.st_size, path))
        total = sum(size for _, size, _ in kept)
        for _, size, path in sorted(kept):
            if total + num_bytes <= self._max_bytes:
                return
            if _OWN_NAME.fullmatch(path.name):
                path.unlink(missing_ok=True)
                total -= size


def _same_sum(shard: Shard, sha256: str) -> None:
    if sha256 != shard.sha256:
        raise DamagedShardError(f"its sha256 is {sha256[:12]}… where its index says {shard.sha256[:12]}…")


def check_cache(config: PairsConfig, shards: Iterable[Shard]) -> None:
    """Whether the cache can hold each of the shards that have to be fetched.

    Raises:
        UsageError: when the largest does not fit.
    """
    largest = max((shard.num_bytes for shard in shards if not is_local(shard.uri)), default=0)
    if largest > config.cache_bytes:
        raise UsageError(
            f"the cache of {config.cache_bytes} bytes cannot hold the largest shard, {largest} bytes: raise cache_bytes"
        )
