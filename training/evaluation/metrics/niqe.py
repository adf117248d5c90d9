"""NIQE: how far a picture's statistics lie from those of undisturbed pictures (Mittal et al., IEEE SPL 20, 2013).

The undisturbed ones are a file of parameters. The authors' are what papers report; others can be fitted here on
pictures of one's own domain, and then figures are comparable among themselves alone.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from schemas.errors import UsageError
from training.evaluation.metrics.filters import both_ways

Luma = Float[np.ndarray, "H W"]
Features = Float[np.ndarray, "N 36"]

BLOCK_PX = 96
_NUM_FEATURES = 36
_MEAN_KEY, _COVARIANCE_KEY = "mu_pris_param", "cov_pris_param"
_SHARP = 0.75  # of the sharpest block's contrast: blocks that undisturbed statistics are taken from
_NOISE = 1e-9
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
_WINDOW = np.exp(-0.5 * (np.arange(-3, 4) / (7 / 6)) ** 2)
# Halving by cubic convolution (a = -1/2) stretched over twice as many pixels: a pixel lies between the middle two.
_HALVING = np.array(
    [-0.01171875, -0.03515625, 0.11328125, 0.43359375, 0.43359375, 0.11328125, -0.03515625, -0.01171875]
)


@dataclass(frozen=True, slots=True)
class Naturalness:
    """Mean and covariance of the features of undisturbed pictures."""

    mean: Float[np.ndarray, " 36"]
    covariance: Float[np.ndarray, "36 36"]

    @classmethod
    def read(cls, path: Path, key: str) -> Self:
        """From .npz or .safetensors with ``mu_pris_param`` and ``cov_pris_param``.

        Raises:
            UsageError: naming ``key`` when the file is something else.
        """
        try:
            if path.suffix == ".safetensors":
                given = load_file(path)
            else:
                with np.load(path, allow_pickle=False) as archive:
                    given = {name: archive[name] for name in (_MEAN_KEY, _COVARIANCE_KEY)}
            mean = np.asarray(given[_MEAN_KEY], np.float64).reshape(_NUM_FEATURES)
            covariance = np.asarray(given[_COVARIANCE_KEY], np.float64).reshape(_NUM_FEATURES, _NUM_FEATURES)
        except (
            OSError,
            EOFError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            BadZipFile,
            SafetensorError,
        ) as error:
            raise UsageError(
                f"{key}: {path} is no .npz or .safetensors with {_MEAN_KEY} (36 numbers) and {_COVARIANCE_KEY} "
                "(36 × 36): name another"
            ) from error
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise UsageError(f"{key}: {path} holds NaN or infinity")
        return cls(mean, covariance)

    @classmethod
    def of(cls, pictures: Iterable[Luma]) -> Self:
        """Fitted to undisturbed pictures, on their blocks of most contrast.

        Raises:
            ValueError: for fewer than two such blocks.
        """
        kept: list[Features] = []
        for picture in pictures:
            features, contrast = block_features(picture)
            kept.append(features[contrast > _SHARP * contrast.max()])
        features = np.concatenate(kept) if kept else np.empty((0, _NUM_FEATURES))
        return cls(*_moments(features))

    def save(self, path: Path) -> None:
        """As .safetensors."""
        save_file({_MEAN_KEY: self.mean, _COVARIANCE_KEY: self.covariance}, path)


def niqe(luma: Luma, natural: Naturalness) -> float:
    """Distance of a picture's statistics from ``natural``; lower is better. NaN for a picture without contrast.

    Args:
        luma: 0 to 255, two blocks of 96 px or more; what reaches beyond whole blocks counts nothing.
        natural: of undisturbed pictures.

    Raises:
        ValueError: for a smaller picture.
    """
    features, _ = block_features(luma)
    if len(features) < 2:
        raise ValueError(f"NIQE needs two blocks of {BLOCK_PX} px, found a picture of {luma.shape[1]}×{luma.shape[0]}")
    if np.isfinite(features).all(axis=1).sum() < 2:
        return math.nan
    mean, covariance = _moments(features)
    apart = mean - natural.mean
    return float(np.sqrt(apart @ np.linalg.pinv((covariance + natural.covariance) / 2) @ apart))


def _moments(features: Features) -> tuple[Float[np.ndarray, " 36"], Float[np.ndarray, "36 36"]]:
    whole = features[np.isfinite(features).all(axis=1)]
    if len(whole) < 2:
        raise ValueError(f"statistics need two blocks of {BLOCK_PX} px with some contrast, found {len(whole)}")
    # What only some of a block's numbers say counts in the mean, as in the authors' code.
    known = np.where(np.isfinite(features), features, np.nan)
    return np.nanmean(known, axis=0), np.cov(whole, rowvar=False)


# ---- features ------------------------------------------------------------------------------------------------------


def block_features(luma: Luma) -> tuple[Features, Float[np.ndarray, " N"]]:
    """18 numbers of each block at full and 18 at half size, and each block's mean local contrast."""
    rows, columns = (size // BLOCK_PX for size in luma.shape)
    cut = np.asarray(luma, np.float64)[: rows * BLOCK_PX, : columns * BLOCK_PX]
    if not cut.size:
        return np.empty((0, _NUM_FEATURES)), np.empty(0)
    normal, contrast = _normalised(cut)
    half, _ = _normalised(both_ways(cut, _HALVING, "symmetric")[::2, ::2])
    both = [_statistics(_blocks(normal, BLOCK_PX)), _statistics(_blocks(half, BLOCK_PX // 2))]
    return np.concatenate(both, axis=1), _blocks(contrast, BLOCK_PX).mean(axis=(1, 2))


def _normalised(luma: Luma) -> tuple[Luma, Luma]:
    """Each pixel less its surroundings' mean over their spread plus one, and that spread."""
    taps = _WINDOW / _WINDOW.sum()
    mean = both_ways(luma, taps, "edge")
    spread = np.sqrt(np.abs(both_ways(luma**2, taps, "edge") - mean**2))
    normal = (luma - mean) / (spread + 1)
    # In even surroundings only the sums' rounding is left, and its sign would decide to which side a pixel counts.
    return np.where(np.abs(normal) < _NOISE, 0, normal), spread


def _blocks(values: Luma, size: int) -> Float[np.ndarray, "N s s"]:
    rows, columns = values.shape[0] // size, values.shape[1] // size
    return values.reshape(rows, size, columns, size).swapaxes(1, 2).reshape(-1, size, size)


def _statistics(blocks: Float[np.ndarray, "N s s"]) -> Float[np.ndarray, "N 18"]:
    """Shape and width of the pixels' distribution; shape, mean and both widths of that of neighbours' products."""
    shape, left, right = _asymmetric(blocks)
    parameters = [shape, (left + right) / 2]
    for shift in _SHIFTS:
        shape, left, right = _asymmetric(blocks * np.roll(blocks, shift, axis=(1, 2)))
        parameters += [shape, (right - left) * _gammas(2 / shape) / _gammas(1 / shape), left, right]
    return np.stack(parameters, axis=1)


def _asymmetric(blocks: Float[np.ndarray, "N s s"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shape, left and right width of the asymmetric generalised Gaussian whose moments these are (Lasmar, 2009)."""
    values = blocks.reshape(len(blocks), -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = (np.sqrt((values**2 * side).sum(axis=1) / side.sum(axis=1)) for side in (values < 0, values > 0))
        skew = low / high
        ratio = np.abs(values).mean(axis=1) ** 2 / (values**2).mean(axis=1)
        ratio = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shapes, ratios = _shape_table()
    shape = shapes[np.abs(ratios - ratio[:, None]).argmin(axis=1)]
    width = np.sqrt(_gammas(1 / shape) / _gammas(3 / shape))
    return shape, low * width, high * width


@cache
def _shape_table() -> tuple[np.ndarray, np.ndarray]:
    shapes = np.arange(200, 10001) / 1000
    return shapes, _gammas(2 / shapes) ** 2 / (_gammas(1 / shapes) * _gammas(3 / shapes))


def _gammas(values: np.ndarray) -> np.ndarray:
    return np.array([math.gamma(value) for value in values])
