"""Prints as the workspace stores them, apart from what makes them: reading them needs numpy alone."""

import io
import zipfile
from dataclasses import fields

import numpy as np

from schemas.prints import Prints


def to_bytes(prints: Prints) -> bytes:
    """The prints as an .npz file, whose checksums notice damage; the same prints give the same bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, **{field.name: getattr(prints, field.name) for field in fields(prints)})
    return buffer.getvalue()


def from_bytes(data: bytes) -> Prints:
    """The prints in an .npz file.

    Raises:
        ValueError: for bytes that are no prints, or damaged.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return Prints.from_arrays(dict(archive))
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"expected an .npz file of prints, found {error}") from error
