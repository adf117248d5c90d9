"""Ctrl-C that cannot get lost.

Python raises it wherever the program happens to be, and a library that is being imported or called back there may
swallow it. So it is remembered, and raised again at the next step of the build.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_asked = threading.Event()


@contextlib.contextmanager
def kept_interrupts() -> Iterator[None]:
    """Remember a Ctrl-C for the length of a block; does nothing outside the main thread, which alone is interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        _asked.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        _asked.clear()


def raise_interrupt() -> None:
    """Raise what was asked for and has not ended the program yet.

    Raises:
        KeyboardInterrupt: in the main thread, after a Ctrl-C.
    """
    if _asked.is_set() and threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt
