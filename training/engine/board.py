"""What a run shows: figures and pictures by step in TensorBoard, and the pictures as files too."""

from collections.abc import Mapping
from pathlib import Path

from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torch.utils.tensorboard.writer import SummaryWriter


class Board:
    """Writes one run's event file; a run that goes on adds another beside it.

    Args:
        folder: where it goes.
        pictures: where the pictures go as PNG.
    """

    def __init__(self, folder: Path, pictures: Path) -> None:
        self._writer = SummaryWriter(folder)
        self._pictures = pictures

    def scalars(self, figures: Mapping[str, float], step: int) -> None:
        """Figures by name; a slash makes a group."""
        for name, value in figures.items():
            self._writer.add_scalar(name if "/" in name else f"train/{name}", value, step)

    def picture(self, name: str, picture: UInt8[Tensor, "3 H W"] | None, step: int) -> None:
        """An RGB picture; its file is ``NAME-000000100.png``. None: there is nothing to see."""
        if picture is None:
            return
        self._writer.add_image(name, picture.cpu(), step)
        self._pictures.mkdir(exist_ok=True)
        pixels = picture.movedim(0, -1).cpu().numpy()
        Image.fromarray(pixels).save(self._pictures / f"{name}-{step:09d}.png")

    def flush(self) -> None:
        """Write what is still held back."""
        self._writer.flush()
