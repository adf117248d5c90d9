"""Where the frames of batches lie: memory is used again, since new pages cost more than what is copied into them.

A page that is new to a process has to be cleared and mapped first. For batches on their way from a worker, that took a
tenth of the worker's time; so each worker has a few places that both processes see, and the training copies from there.
"""

import sys

import numpy as np
import torch
from jaxtyping import UInt8

_MAX_KEPT = 4  # arrays: the batch in use, the next, and two that another thread is copying from
_SOME = [object()]
_REFERENCES_OF_UNUSED = sys.getrefcount(_SOME[0])  # the list's, and what asking takes


class OwnMemory:
    """Memory of this process, given out again once nobody holds a view of it."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._kept: list[np.ndarray] = []

    def take(self) -> UInt8[np.ndarray, "2 B S S 3"]:
        """An array with any content."""
        for index in range(len(self._kept)):
            if sys.getrefcount(self._kept[index]) == _REFERENCES_OF_UNUSED:  # views, and tensors of them, hold one each
                return self._kept[index]
        frames = np.empty(self._shape, np.uint8)
        if len(self._kept) < _MAX_KEPT:
            self._kept.append(frames)
        return frames


class TurnMemory:
    """The places [K, 2, B, S, S, 3] of one worker, one after the other."""

    def __init__(self, places: UInt8[torch.Tensor, "K 2 B S S 3"]) -> None:
        self._places = places.numpy()
        self._turn = 0

    def take(self) -> UInt8[np.ndarray, "2 B S S 3"]:
        """The next place, with what was there K batches ago."""
        self._turn += 1
        return self._places[(self._turn - 1) % len(self._places)]


def shared_places(num_workers: int, num_places: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Places [W, K, 2, B, S, S, 3] u8 of all workers, which they and this process see."""
    return torch.empty((num_workers, num_places, *shape), dtype=torch.uint8).share_memory_()
