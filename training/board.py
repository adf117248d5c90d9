"""What a run shows in TensorBoard: figures and pictures by step."""

from collections.abc import Mapping
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor
from torch.utils.tensorboard.writer import SummaryWriter


class Board:
    """Writes one run's event file; a run that goes on adds another beside it.

    Args:
        folder: where it goes.
    """

    def __init__(self, folder: Path) -> None:
        self._writer = SummaryWriter(folder)

    def scalars(self, figures: Mapping[str, float], step: int) -> None:
        """Figures by name; a slash makes a group."""
        for name, value in figures.items():
            self._writer.add_scalar(name if "/" in name else f"train/{name}", value, step)

    def picture(self, name: str, picture: UInt8[Tensor, "3 H W"], step: int) -> None:
        """An RGB picture."""
        self._writer.add_image(name, picture.cpu(), step)

    def flush(self) -> None:
        """Write what is still held back."""
        self._writer.flush()
