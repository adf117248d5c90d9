"""What networks and measures see in one picture, once per picture; metrics compare what was seen.

A face's place is the clip's own box in every frame, so nothing is detected here, and what is made is looked at where
the driving face is: AnyTalk puts it there.
"""

from collections.abc import Callable, Collection

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from training.metrics.config import MetricsConfig
from training.metrics.cpbd import cpbd

Pictures = Float[Tensor, "B 3 S S"]  # RGB in [0, 1], of whole levels of 255
Boxes = Float[Tensor, "B 4"]  # xyxy as shares of the picture
Sights = dict[str, np.ndarray]  # by name, the pictures first; a row of NaN: nothing was found


class Eyes:
    """Looks at pictures in all the ways that metrics ask for.

    Args:
        names: of the ways.
        config: where their weights lie.
        device: where networks run.

    Raises:
        UsageError: when a file of weights cannot be used.
    """

    def __init__(self, names: Collection[str], config: MetricsConfig, device: torch.device) -> None:
        del config, device
        self._looks: dict[str, Callable[[Pictures, Boxes], np.ndarray]] = {}
        if "cpbd" in names:
            self._looks["cpbd"] = lambda pictures, _: np.array([cpbd(one) for one in luma(pictures)])

    @torch.no_grad()
    def look(self, pictures: Pictures, faces: Boxes) -> Sights:
        """Everything that is asked for, of every picture."""
        return {name: look(pictures, faces) for name, look in self._looks.items()}


def luma(pictures: Pictures) -> Float[np.ndarray, "B S S"]:
    """Rec. 601 luma from 0 to 255, in whole levels as image libraries have it."""
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    exact = pictures.double().cpu() * 255
    return torch.einsum("bchw,c->bhw", exact, weights).round().numpy()
