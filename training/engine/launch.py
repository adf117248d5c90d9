"""Start one process of a run: alone, or one of those that torchrun started."""

import os

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy

from schemas.errors import UsageError
from training.recipes.base import TrainConfig


def start(config: TrainConfig, accelerator: str = "auto") -> Fabric:
    """Fabric for this process, launched, with the random numbers seeded alike in all of them.

    Args:
        config: of the run.
        accelerator: ``cpu``, ``cuda`` or ``auto``.

    Raises:
        UsageError: when there is no GPU for a process; for bf16 on a processor, where torch 2.13 writes past its
            buffers in the backward pass of 3D convolutions.
    """
    size, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    gpus = torch.cuda.device_count()
    if (accelerator == "cuda" or (accelerator == "auto" and gpus)) and gpus < local:
        raise UsageError(f"there are {gpus} GPUs here for {local} processes: start fewer, or train on 'cpu'")
    fabric = Fabric(
        accelerator=accelerator,
        devices=local,
        num_nodes=max(1, size // local),
        # Buffers agree already: running means are taken over all processes, and sending them before every forward
        # would change them in place between two of one step.
        strategy=DDPStrategy(broadcast_buffers=False) if size > 1 else "auto",
        precision="bf16-mixed" if config.precision == "bf16" else "32-true",
    )
    if config.precision == "bf16" and fabric.device.type == "cpu":
        raise UsageError("precision 'bf16' needs an accelerator: set it to 'fp32' to train on a processor")
    fabric.launch()
    torch.manual_seed(config.seed)
    return fabric


def one_device(wanted: str) -> torch.device:
    """Where one process runs alone: ``cpu``, ``cuda``, or for ``auto`` the GPU where there is one.

    Raises:
        UsageError: when there is no GPU.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: there is no GPU here that torch can use: use cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")
