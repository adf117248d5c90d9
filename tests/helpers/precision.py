"""64-bit floats for tests that hold two ways of computing one thing against each other.

Two orders of adding the same numbers differ by their rounding alone, and how much that is depends on the processor's
kernels and on what comes after. In 64 bits it is 2^29 times less than in 32, so one tolerance fits every processor and
still lies far below anything that a mistake would change.
"""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """64-bit floats by default, and also where networks ask for 32 bits (to be finer than 16)."""
    dtype, single = torch.get_default_dtype(), torch.Tensor.float
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double
    try:
        yield
    finally:
        torch.Tensor.float = single
        torch.set_default_dtype(dtype)
