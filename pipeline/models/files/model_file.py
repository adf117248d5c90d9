"""A model file as stages get it, whether it came out of a pip package, the weights folder, or the user's hands."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from schemas.files import sha256_of_file
from schemas.models import ModelCard


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One verified model: where it lies on this machine, and what the dataset card says of it.

    ``path`` is a file, or the folder of a model that has several.
    """

    path: Path
    card: ModelCard

    @property
    def sha256(self) -> str:
        """What stage keys depend on."""
        return self.card.sha256


# Gives a model by its name, verified; see ``ModelSet.file``.
FindModel = Callable[[str], ModelFile]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content; read once per process and state of the file.

    Raises:
        OSError: when it cannot be read.
    """
    state = path.stat()
    return _sha256_of(path, (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns))


@lru_cache(maxsize=256)
def _sha256_of(path: Path, state: tuple[int, ...]) -> str:
    del state  # part of the cache's key
    return sha256_of_file(path)
