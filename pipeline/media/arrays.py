"""Arrays as files of a workspace or a sample: .npy, never pickle."""

import io

import numpy as np


def npy(array: np.ndarray) -> bytes:
    """An array as the bytes of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def read_npy(data: bytes) -> np.ndarray:
    """The array in the bytes of a .npy file.

    Raises:
        ValueError: for other bytes, or an array of objects.
        EOFError: where the bytes end too early.
    """
    return np.load(io.BytesIO(data), allow_pickle=False)
