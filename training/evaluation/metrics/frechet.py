"""The Fréchet distance between two sets of features, taken as Gaussians; with Inception's pool3 features it is FID.

FID (Heusel et al., NeurIPS 2017) depends on the number of pictures: compare only equal counts of 2048 and more.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Features = Float[np.ndarray, "N D"]


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and covariance of ``count`` feature vectors, in double precision."""

    mean: Float[np.ndarray, " D"]
    covariance: Float[np.ndarray, "D D"]
    count: int

    @classmethod
    def of(cls, features: Features) -> "Moments":
        """Moments of at least two vectors, the covariance over N - 1.

        Raises:
            ValueError: for fewer.
        """
        if len(features) < 2:
            raise ValueError(f"a covariance needs two vectors and more, found {len(features)}")
        exact = np.asarray(features, np.float64)
        return cls(exact.mean(axis=0), np.atleast_2d(np.cov(exact, rowvar=False)), len(exact))


def frechet_distance(first: Moments, second: Moments) -> float:
    """|μ₁ - μ₂|² + tr(C₁ + C₂ - 2 (C₁ C₂)^½).

    The trace of the root is that of (C₁^½ C₂ C₁^½)^½, which is symmetric: no complex numbers, no offset for
    covariances of too few pictures.
    """
    root = _root(first.covariance)
    between = np.linalg.eigvalsh(root @ second.covariance @ root)
    noise = between[-1] * len(between) * np.finfo(np.float64).eps  # of what would be 0; its root would not be small
    shared = np.sqrt(between[between > noise]).sum()
    apart = first.mean - second.mean
    return float(apart @ apart + np.trace(first.covariance) + np.trace(second.covariance) - 2 * shared)


def _root(matrix: Float[np.ndarray, "D D"]) -> Float[np.ndarray, "D D"]:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
