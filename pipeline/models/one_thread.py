"""PyTorch on one thread, as every other runtime here."""

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def one_thread(torch: Any) -> Iterator[None]:
    """Sums come out differently with another number of threads, and the same inputs must give the same bytes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
