"""The head that poses are measured against: 468 points of an average face, and which of them are bone.

MediaPipe's own canonical face is not in the wheel (only its sources have it). This one was measured
instead, with the packaged network, on two public-domain portraits that ship inside packages the project needs:
NASA's of Eileen Collins (scikit-image) and the US Navy's of Grace Hopper (matplotlib). `measure_canonical_face`
is how the table beside this module was made; a test makes it again.

Axes as on screen: x image right, y down, z away from the viewer; the face looks along -z. The unit is the distance
of the outer eye corners; the origin is the mean of the rigid points.
"""

from functools import lru_cache
from importlib.resources import files

import numpy as np
from jaxtyping import Float, Float64, Int64

Points = Float64[np.ndarray, "P 3"]
Rotation = Float64[np.ndarray, "3 3"]

_TABLE = "canonical_face.csv"

# Brow ridge to nose, orbits, cheekbones and temples: the points that moved least against each other in eight
# talking clips, spread wide and deep, in mirrored pairs. Lips, lids, brows and the jaw are left out.
_RIGID_MIDDLE = (2, 4, 5, 6, 10, 151, 168, 195, 197)
_RIGID_PAIRS = (
    *((33, 263), (47, 277), (54, 284), (67, 297), (100, 329), (116, 345), (117, 346), (119, 348), (120, 349)),
    *((121, 350), (123, 352), (127, 356), (129, 358), (133, 362), (162, 389), (198, 420), (234, 454)),
)
RIGID_POINTS: Int64[np.ndarray, "R"] = np.array(
    sorted((*_RIGID_MIDDLE, *(point for pair in _RIGID_PAIRS for point in pair))), dtype=np.int64
)
_FOREHEAD, _CHIN = 10, 152
_EYE_CORNERS = (33, 263)

# Where pitch is zero is a convention. With the chin this far behind the vertical through the forehead, seven
# talking clips read on average the pitch that FSA-Net reads, which was trained on the labels of 300W-LP.
_CHIN_BACK_DEG = 2.0


@lru_cache(maxsize=1)
def canonical_face() -> Float64[np.ndarray, "468 3"]:
    """The average face at yaw, pitch and roll zero, in outer-eye-corner distances."""
    text = files("pipeline.models").joinpath(_TABLE).read_text(encoding="ascii")
    points = np.loadtxt(text.splitlines(), delimiter=",", comments="#", dtype=np.float64)
    points.setflags(write=False)  # cached and shared
    return points


def align(source: Points, target: Points) -> tuple[float, Rotation, Float64[np.ndarray, "3"]]:
    """The scale s, rotation R and shift t for which ``s * source @ R.T + t`` lies closest to ``target``.

    Least squares over corresponding points, without reflection: Umeyama, "Least-squares estimation of
    transformation parameters between two point patterns", PAMI 13 (1991), equations 40 to 42.
    """
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    a, b = source - source_mean, target - target_mean
    u, singular, vt = np.linalg.svd(b.T @ a)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * signs) @ vt
    scale = float((singular * signs).sum() / (a**2).sum())
    return scale, rotation, target_mean - scale * rotation @ source_mean


def measure_canonical_face(portraits: list[Float[np.ndarray, "N 468 3"]]) -> Float64[np.ndarray, "468 3"]:
    """Average the meshes of several people into one symmetric face at yaw, pitch and roll zero.

    Args:
        portraits: per person, meshes of several readings (other crops, mirrored and put back), in any pose and size.

    Generalised Procrustes analysis (Gower 1975), mirrored copies included, first per person and then over people,
    so that nobody counts more for being read more often.
    """
    people = [np.asarray(meshes, np.float64) for meshes in portraits]
    mirror = mirror_pairs(people[0].mean(axis=0))
    return _average(np.stack([_average(meshes, mirror) for meshes in people]), mirror)


def mirror_pairs(points: Points) -> Int64[np.ndarray, "P"]:
    """For each point the index of its partner on the other half of the face; middle points are their own."""
    from scipy.optimize import linear_sum_assignment

    mirrored = points * [-1.0, 1.0, 1.0]
    # The eyes' corners say how the two halves lie; the refinement then uses all points.
    pairs = np.array([_EYE_CORNERS[0], _EYE_CORNERS[1], _FOREHEAD, _CHIN])
    swapped = np.array([_EYE_CORNERS[1], _EYE_CORNERS[0], _FOREHEAD, _CHIN])
    scale, rotation, shift = align(mirrored[swapped], points[pairs])
    partner = np.arange(len(points))
    for _ in range(5):
        moved = scale * mirrored @ rotation.T + shift
        partner = linear_sum_assignment(np.linalg.norm(points[:, None] - moved[None], axis=-1))[1]
        scale, rotation, shift = align(mirrored[partner], points)
    if not np.array_equal(partner[partner], np.arange(len(points))):
        raise ValueError("the two halves of the face don't pair up: the reading is too far from symmetric")
    return partner


def _average(meshes: Float64[np.ndarray, "N P 3"], mirror: Int64[np.ndarray, "P"]) -> Points:
    mean = _upright(meshes[0], mirror)
    for _ in range(10):
        fits = [align(mesh, mean) for mesh in meshes]
        moved = [s * mesh @ r.T + t for mesh, (s, r, t) in zip(meshes, fits, strict=True)]
        mean = _upright(np.mean(moved, axis=0), mirror)
    return mean


def _upright(points: Points, mirror: Int64[np.ndarray, "P"]) -> Points:
    """Make a face symmetric about x = 0, looking along -z, in eye-corner distances, centred on its rigid points."""
    scale, rotation, shift = align(points[mirror] * [-1.0, 1.0, 1.0], points)
    symmetric = (points + scale * (points[mirror] * [-1.0, 1.0, 1.0]) @ rotation.T + shift) / 2
    across = symmetric[_EYE_CORNERS[1]] - symmetric[_EYE_CORNERS[0]]
    across /= np.linalg.norm(across)
    down = symmetric[_CHIN] - symmetric[_FOREHEAD]
    down -= across * (down @ across)
    down /= np.linalg.norm(down)
    level = symmetric @ np.stack([across, down, np.cross(across, down)]).T
    lean = np.deg2rad(_CHIN_BACK_DEG)
    tilt = np.array([[1, 0, 0], [0, np.cos(lean), -np.sin(lean)], [0, np.sin(lean), np.cos(lean)]])
    level = level @ tilt.T
    level -= level[RIGID_POINTS].mean(axis=0)
    level = (level + level[mirror] * [-1.0, 1.0, 1.0]) / 2
    return level / np.linalg.norm(level[_EYE_CORNERS[0]] - level[_EYE_CORNERS[1]])
