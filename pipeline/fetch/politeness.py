"""Space the requests to each host, and leave a host alone once it has asked for that.

The state can lie in a folder, because a build runs in many processes and a host counts them as one visitor:
turns are handed out under a file lock. In memory it serves one process. pyrate-limiter has no breaker and
its shared bucket is an SQLite file; this needs a list of times and one "not before".
"""

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Protocol

from filelock import FileLock

from schemas.config import AcquireConfig
from schemas.errors import ThrottledError

logger = logging.getLogger(__name__)

Kind = Literal["file", "video"]
_MAX_RETRY_AFTER_S = 7 * 86400.0  # a header must not close a host for ever
_HOUR_S = 3600.0


class HostTurns(Protocol):
    """Whoever hands out turns at hosts; see :class:`HostLimiter`."""

    def wait(self, host: str, kind: Kind) -> None:
        """Wait for this host's next turn."""
        ...

    def check(self, host: str) -> None:
        """Pass if the host may be asked now."""
        ...

    def throttled(self, host: str, retry_after_s: float | None = None) -> None:
        """Leave the host alone."""
        ...


class HostLimiter:
    """Turns per host: files every ``file_interval_s``, web videos every ``host_interval_s`` and so many an hour.

    Args:
        config: the intervals and the cool-down.
        folder: where processes of one run share their turns, on a file system with working locks; in
            memory without it.
        clock: seconds since 1970; sleep: waits that many seconds. Both for tests.
    """

    def __init__(
        self,
        config: AcquireConfig,
        folder: Path | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._config, self._folder, self._clock, self._sleep = config, folder, clock, sleep
        self._lock = threading.Lock()
        self._memory: dict[str, dict[str, Any]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to a worker as configuration and folder; locks and clocks stay behind."""
        return HostLimiter, (self._config, self._folder)

    def wait(self, host: str, kind: Kind) -> None:
        """Wait for this host's next turn.

        Raises:
            ThrottledError: at once, while the host is left alone; also when that begins during the wait.
        """
        self.check(host)
        wait_s = self.reserve(host, kind)
        if wait_s > 0:
            logger.debug("host %s: %s waits %.1f s for its turn", host, kind, wait_s)
            self._sleep(wait_s)
            self.check(host)

    def reserve(self, host: str, kind: Kind) -> float:
        """Take this host's next turn; returns the seconds until it comes."""
        with self._state(host) as state:
            now = self._clock()
            return self._next_slot(state.setdefault(kind, []), now, kind) - now

    def _next_slot(self, slots: list[float], now: float, kind: Kind) -> float:
        interval = self._config.host_interval_s if kind == "video" else self._config.file_interval_s
        hourly = self._config.host_videos_per_hour if kind == "video" else 1
        slot = max(now, slots[-1] + interval) if slots else now
        if kind == "video" and len(slots) >= hourly:
            slot = max(slot, slots[-hourly] + _HOUR_S)
        slots.append(slot)
        del slots[:-hourly]
        return slot

    def check(self, host: str) -> None:
        """Pass if the host may be asked now.

        Raises:
            ThrottledError: while its cool-down lasts.
        """
        with self._state(host) as state:
            left_s = state.get("not_before", 0.0) - self._clock()
        if left_s > 0:
            raise ThrottledError(f"{host} asked for fewer requests; it is left alone for {_in_words(left_s)} more.")

    def throttled(self, host: str, retry_after_s: float | None = None) -> None:
        """Leave the host alone for the cool-down, or longer if it said so."""
        asked = min(retry_after_s or 0.0, _MAX_RETRY_AFTER_S)
        pause_s = max(self._config.throttle_cooldown_s, asked)
        with self._state(host) as state:
            state["not_before"] = max(state.get("not_before", 0.0), self._clock() + pause_s)
        logger.warning("host %s asked for fewer requests: left alone for %s", host, _in_words(pause_s))

    @contextmanager
    def _state(self, host: str) -> Iterator[dict[str, Any]]:
        if self._folder is None:
            with self._lock:
                yield self._memory.setdefault(host, {})
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{sha256(host.encode()).hexdigest()[:32]}.json"
        with self._lock, FileLock(path.with_suffix(".lock")):
            try:
                state = json.loads(path.read_text())
            except (FileNotFoundError, ValueError):  # a torn write costs one turn, not the run
                state = {}
            before = json.dumps(state)
            yield state
            if (after := json.dumps(state)) != before:
                path.write_text(after)


def _in_words(seconds: float) -> str:
    return f"{math.ceil(seconds)} s" if seconds < 120 else f"{math.ceil(seconds / 60)} min"
