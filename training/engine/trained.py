"""Open what a run has learned: a checkpoint's averaged weights, which are what is evaluated and animated with."""

from pathlib import Path

import torch

from schemas.errors import UsageError
from training.engine.checkpoint import Store, fill, read_config
from training.recipes.anytalk.config import ModelConfig
from training.recipes.anytalk.model import AnyTalk


def find_checkpoint(path: Path) -> Path:
    """A checkpoint itself, or of a run's folder its best one, or else its newest.

    Raises:
        UsageError: where there is none.
    """
    inside = path / "checkpoints"
    if not inside.is_dir():
        if not path.is_dir():
            raise UsageError(f"{path} is no checkpoint and no folder of a run: name what anitalk train wrote")
        return path
    store = Store(inside)
    found = store.best() or store.latest()
    if found is None:
        raise UsageError(f"the run in {path} has no checkpoint yet")
    return found


def load_anytalk(path: Path, device: torch.device) -> AnyTalk:
    """AnyTalk in evaluation mode, without gradients, with the weights of a checkpoint or run.

    Raises:
        UsageError: when there is none at ``path``.
        CheckpointError: when it is damaged or none of this trainer's.
    """
    checkpoint = find_checkpoint(path)
    model = AnyTalk(read_config(checkpoint, ModelConfig))
    fill(model, checkpoint, "average")
    return model.eval().requires_grad_(False).to(device)
