"""Distances between points and between embeddings that other networks gave: AKD, AED, CSIM and CEIM.

The reference code's AKD is the mean |Δ| over x and y, not a distance, and its AED is a squared distance in spite of
its name; what each function gives is in its name.
"""

import numpy as np
from jaxtyping import Bool, Float

Points = Float[np.ndarray, "N P 2"]
Vectors = Float[np.ndarray, "N D"]


def akd_l1(generated: Points, real: Points, seen: Bool[np.ndarray, " N"] | None = None) -> float:
    """Mean |Δ| over x and y of all points, in their unit (papers: pixels at 256); the reference code's AKD.

    Args:
        generated: landmarks of generated pictures.
        real: of the real ones.
        seen: pairs in which both were found; the others do not count.

    Raises:
        ValueError: when nothing counts.
    """
    return float(np.abs(_counted(generated, seen) - _counted(real, seen)).mean())


def akd_l2(generated: Points, real: Points, seen: Bool[np.ndarray, " N"] | None = None) -> float:
    """Mean Euclidean distance of all points; otherwise as :func:`akd_l1`."""
    return float(np.linalg.norm(_counted(generated, seen) - _counted(real, seen), axis=-1).mean())


def aed_squared(generated: Vectors, real: Vectors) -> float:
    """Mean squared Euclidean distance of identity vectors; with OpenFace's 128 numbers the reference code's AED."""
    return float(np.square(_exact(generated) - _exact(real)).sum(axis=1).mean())


def aed(generated: Vectors, real: Vectors) -> float:
    """Mean Euclidean distance of the directions of identity vectors, 0 to 2."""
    mine, theirs = (
        _exact(vectors) / np.linalg.norm(_exact(vectors), axis=1, keepdims=True) for vectors in (generated, real)
    )
    return float(np.linalg.norm(mine - theirs, axis=1).mean())


def mean_cosine(generated: Vectors, real: Vectors) -> float:
    """Mean cosine: CSIM for ArcFace embeddings of generated and source, CEIM for expressions of generated and driving.

    Raises:
        ValueError: for a vector of length 0, which has no direction.
    """
    mine, theirs = _exact(generated), _exact(real)
    lengths = np.linalg.norm(mine, axis=1) * np.linalg.norm(theirs, axis=1)
    if not (lengths > 0).all():
        raise ValueError(f"the vectors of pair {int(np.argmin(lengths > 0))} have no direction")
    return float(((mine * theirs).sum(axis=1) / lengths).mean())


def _counted(points: Points, seen: Bool[np.ndarray, " N"] | None) -> Float[np.ndarray, "M P 2"]:
    counted = _exact(points if seen is None else points[seen])
    if not len(counted):
        raise ValueError("no pair has landmarks in both pictures")
    return counted


def _exact(values: np.ndarray) -> Float[np.ndarray, "..."]:
    return np.asarray(values, np.float64)
