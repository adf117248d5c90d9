"""Open what a run has learned: a checkpoint's averaged weights, which are what is evaluated and animated with."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from schemas.base import Record
from schemas.errors import CheckpointError, UsageError
from schemas.files import sha256_of_file
from training.engine.checkpoint import AVERAGE, Store, fill, read_config, read_state
from training.recipes.base import Driver, Recipe
from training.recipes.registry import DEFAULT_RECIPE, find_recipe

__all__ = ["SavedCheckpoint", "find_checkpoint", "load_driver", "recipe_of"]

_R = TypeVar("_R", bound=Record)


@dataclass(frozen=True, slots=True)
class SavedCheckpoint:
    """One checkpoint on the disk, as recipes know it (:class:`training.recipes.base.Checkpoint`)."""

    path: Path

    @property
    def recipe(self) -> str:
        """Whose it is; those that do not say are older than the second recipe."""
        return read_state(self.path).get("recipe", DEFAULT_RECIPE)

    @property
    def stage(self) -> str:
        """Which it is of."""
        return read_state(self.path)["progress"].get("stage", "")

    @property
    def made_from(self) -> dict[str, str]:
        """SHA-256 of the checkpoints that it depends on."""
        return read_state(self.path).get("made_from", {})

    @property
    def sha256(self) -> str:
        """Of its averaged weights.

        Raises:
            CheckpointError: when they cannot be read.
        """
        try:
            return sha256_of_file(self.path / f"{AVERAGE}.safetensors")
        except OSError as error:
            raise CheckpointError(f"{self.path} is missing or damaged: use an earlier checkpoint") from error

    def networks(self, kind: type[_R]) -> _R:
        """What its modules were built from; raises as ``read_config``."""
        return read_config(self.path, kind)

    def fill(self, module: nn.Module, name: str) -> None:
        """Put its tensors ``name`` into a module; raises as ``fill``."""
        fill(module, self.path, name)


def find_checkpoint(path: Path, *, newest: bool = False) -> SavedCheckpoint:
    """A checkpoint itself, or of a run's folder its best one, or else its newest.

    Args:
        path: of either.
        newest: of a run's folder the newest, whatever their scores.

    Raises:
        UsageError: when there is nothing, or a run without a checkpoint.
    """
    inside = path / "checkpoints"
    if not inside.is_dir():
        if not path.is_dir():
            raise UsageError(f"{path} is no checkpoint and no folder of a run: name what anitalk train wrote")
        return SavedCheckpoint(path)
    store = Store(inside)
    checkpoint = store.latest() if newest else store.best() or store.latest()
    if checkpoint is None:
        raise UsageError(f"the run in {path} has no checkpoint yet")
    return SavedCheckpoint(checkpoint)


def recipe_of(checkpoint: SavedCheckpoint, expected: str | None = None) -> Recipe:
    """The recipe that a checkpoint is of.

    Raises:
        UsageError: when it is of another recipe than the one expected, or of one that is not here.
        CheckpointError: when it is damaged or none of this trainer's.
    """
    name = checkpoint.recipe
    if expected is not None and name != expected:
        raise UsageError(f"{checkpoint.path} is of the recipe {name}, not of {expected}: name one of {expected}'s")
    return find_recipe(name)


def load_driver(path: Path, device: torch.device, recipe: str | None = None) -> Driver:
    """What a checkpoint or run has learned, in evaluation mode and without gradients, ready to move pictures.

    Args:
        path: of a checkpoint, or the folder of a run, whose best one is taken.
        device: where it computes.
        recipe: whose it has to be; None: whatever it says.

    Raises:
        UsageError: when there is none at ``path``, or it is of another recipe or of a stage that moves no pictures.
        CheckpointError: when it is damaged or none of this trainer's.
    """
    checkpoint = find_checkpoint(path)
    return recipe_of(checkpoint, recipe).driver(checkpoint, device)
