"""Room for so many at once, where the room may grow and shrink while others wait.

asyncio's semaphore has a fixed size; a cluster that scales itself has not.
"""

import asyncio
from collections import deque


class Slots:
    """As many at once as there is room for, first come first served; the room may change. For one event loop."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        if self._taken < self.size and not self._waiting:
            self._taken += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn in self._waiting:
                self._waiting.remove(turn)
            else:  # the turn came at the same moment
                self._taken -= 1
                self._next()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._taken -= 1
        self._next()

    def resize(self, size: int) -> None:
        """Make more room, or less as soon as some is given back."""
        self.size = size
        self._next()

    def _next(self) -> None:
        while self._waiting and self._taken < self.size:
            self._taken += 1
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
