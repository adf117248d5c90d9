"""What networks and measures see in one picture, once per picture; metrics compare what was seen.

A face's place is the clip's own box in every frame, so nothing is detected here, and what is made is looked at where
the driving face is: AnyTalk puts it there.
"""

from collections.abc import Collection
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from training.evaluation.metrics.config import MetricsConfig
from training.evaluation.metrics.cpbd import cpbd
from training.evaluation.metrics.niqe import Naturalness, niqe
from training.losses.expression import seen
from training.networks.arcface import EMBEDDING_SIZE, aligned
from training.networks.fan import FaceAlignment
from training.networks.frozen import FrozenFile, load

Pictures = Float[Tensor, "B 3 S S"]  # RGB in [0, 1], of whole levels of 255
Boxes = Float[Tensor, "B 4"]  # xyxy as shares of the picture
_MIN_CERTAINTY = 0.5  # mean height of the heat maps below which there is no face, as the builder has it
_POINTS_PX = 256  # papers measure AKD in pixels of pictures of this side

Sights = dict[str, np.ndarray]  # by name, the pictures first; a row of NaN: nothing was found


class Eyes:
    """Looks at pictures in all the ways that metrics ask for.

    Args:
        names: of the ways: ``cpbd``, ``niqe``, ``inception``, ``points``, ``identity``, ``expression``, ``emotion``.
        config: where their weights lie.
        device: where networks run.

    Raises:
        UsageError: when a file of weights cannot be used.
    """

    def __init__(self, names: Collection[str], config: MetricsConfig, device: torch.device) -> None:
        self._names = frozenset(names)
        self._natural = Naturalness.read(_path(config.niqe), "metrics.niqe") if "niqe" in names else None
        self._given = config.expression.given
        self._networks: dict[str, nn.Module] = {}
        for look, (name, file, key) in {
            "inception": ("inception", config.fid, "metrics.fid"),
            "points": ("fan", config.points, "metrics.points"),
            "identity": (config.identity.network, config.identity.file, "metrics.identity.file"),
            "expression": (config.expression.network, config.expression.file, "metrics.expression.file"),
        }.items():
            if look in names or (look == "expression" and "emotion" in names):
                self._networks[look] = load(name, file, key=key).to(device)

    @torch.no_grad()
    def look(self, pictures: Pictures, faces: Boxes, *, whole: bool) -> Sights:
        """What is asked for, of every picture.

        Args:
            pictures: to look at.
            faces: where each one's face is.
            whole: also what judges a picture or a set of them, not only what is compared picture by picture.
        """
        return (self._pictures(pictures) if whole else {}) | self._faces(pictures, faces)

    def _pictures(self, pictures: Pictures) -> Sights:
        sights: Sights = {}
        grey = luma(pictures)
        if "cpbd" in self._names:
            sights["cpbd"] = np.array([cpbd(picture) for picture in grey])
        if self._natural is not None:
            sights["niqe"] = np.array([niqe(picture, self._natural) for picture in grey])
        if "inception" in self._networks:
            sights["inception"] = self._networks["inception"](pictures).cpu().numpy()
        return sights

    def _faces(self, pictures: Pictures, faces: Boxes) -> Sights:
        sights: Sights = {}
        if "points" in self._networks:
            sights |= self._points(pictures, faces)
        if "expression" in self._networks:
            logits, features = self._networks["expression"](seen(pictures, self._given, faces))
            sights |= {"emotion": logits.cpu().numpy(), "expression": features.cpu().numpy()}
        return sights

    def _points(self, pictures: Pictures, faces: Boxes) -> Sights:
        """Points in pixels at 256, and embeddings of the faces that they put into place."""
        network = self._networks["points"]
        located = cast("FaceAlignment", network).locate(pictures, faces).double().cpu().numpy()
        points, there = located[..., :2], located[..., 2].mean(axis=1) >= _MIN_CERTAINTY
        sights = {"points": np.where(there[:, None, None], points, np.nan) * (_POINTS_PX / pictures.shape[-1])}
        if "identity" in self._networks:
            rows = np.full((len(pictures), EMBEDDING_SIZE), np.nan)
            if there.any():
                inside = torch.from_numpy(there).to(pictures.device)
                rows[there] = self._networks["identity"](aligned(pictures[inside], points[there])).cpu().numpy()
            sights["identity"] = rows
        return sights


def _path(file: FrozenFile) -> Path:
    return Path(file.path or "").expanduser()


def luma(pictures: Pictures) -> Float[np.ndarray, "B S S"]:
    """Rec. 601 luma from 0 to 255, in whole levels as image libraries have it."""
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    exact = pictures.double().cpu() * 255
    return torch.einsum("bchw,c->bhw", exact, weights).round().numpy()
