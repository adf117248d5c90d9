"""What is used of SciPy here, with types. Each import takes half a second, which a look at stored results must not."""
# pyright: reportMissingTypeStubs=false

from typing import Any, Literal, cast

import numpy as np
from jaxtyping import Float, Float64


def gaussian_smooth(
    series: Float[np.ndarray, "T ..."], sigma: float, mode: Literal["nearest", "reflect"]
) -> Float[np.ndarray, "T ..."]:
    """The series smoothed along its first axis.

    Args:
        series: in any float type, which is kept.
        sigma: of the Gaussian, in rows.
        mode: what lies beyond the ends: the last row, or the series again in a mirror.
    """
    from scipy import ndimage

    return cast("Any", ndimage).gaussian_filter1d(series, sigma, axis=0, mode=mode)


def complete_linkage(distances: Float64[np.ndarray, "N N"], max_distance: float) -> list[int]:
    """A number per item, the same for items of one cluster; within a cluster no distance is above the limit.

    Args:
        distances: symmetric, zeros on the diagonal; of two items at least.
        max_distance: of two items of a cluster.
    """
    from scipy.cluster import hierarchy
    from scipy.spatial import distance

    tree = cast("Any", hierarchy).linkage(cast("Any", distance).squareform(distances, checks=False), "complete")
    return [int(label) for label in cast("Any", hierarchy).fcluster(tree, max_distance, "distance")]
