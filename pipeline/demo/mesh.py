"""The neutral face and what its muscles can do: open the jaw, close the eyes, be another person.

The points are in the order of MediaPipe's FaceMesh, so a landmarker's answer can be compared point by point.
``neutral_face.json`` was measured here, since the pinned mediapipe wheel does not carry the canonical face: FaceMesh
read 65 crops of NASA's portrait of Eileen Collins (public domain), their mean was made symmetric and its mouth closed.

Axes are the camera's: x image right, y down, z away from the viewer, in centimetres.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation

NUM_POINTS = 468
CHIN, FOREHEAD, NOSE_TIP = 152, 10, 1
INNER_LIP_UPPER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
INNER_LIP_LOWER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
OUTER_LIP_UPPER = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291)
OUTER_LIP_LOWER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)
# Subject's right (image left), then left; both run from the outer corner to the inner one.
UPPER_LIDS = ((33, 246, 161, 160, 159, 158, 157, 173, 133), (263, 466, 388, 387, 386, 385, 384, 398, 362))
LOWER_LIDS = ((33, 7, 163, 144, 145, 153, 154, 155, 133), (263, 249, 390, 373, 374, 380, 381, 382, 362))
BROWS = ((70, 63, 105, 66, 107, 55, 65, 52, 53, 46), (300, 293, 334, 296, 336, 285, 295, 282, 283, 276))
_CHIN_RIDGE = (152, 148, 377, 176, 400, 199, 175, 200)
_EARS = (234, 93, 132, 454, 323, 361, 127, 356)
_JAW_HINGE = np.array([0.0, 0.5, 7.2])  # in front of the ears
_JAW_ANGLE = np.radians(14.0)  # lips about 2 cm apart

Points = Float[np.ndarray, "P 3"]


@dataclass(frozen=True, slots=True)
class Proportions:
    """A person's shape relative to the neutral face; 1 leaves it as it is."""

    width: float = 1.0
    height: float = 1.0
    jaw_width: float = 1.0
    nose_size: float = 1.0
    eye_size: float = 1.0
    lip_size: float = 1.0


@dataclass(frozen=True, slots=True)
class FaceMesh:
    """A face ready to move. ``jaw_weights`` is 1 where a point goes all the way with the jaw, 0 on the skull."""

    points: Points
    triangles: Int[np.ndarray, "M 3"]
    jaw_weights: Float[np.ndarray, "P"]
    lid_paths: Float[np.ndarray, "2 P 3"]

    def deform(self, *, mouth_open: float, eye_closure: float | tuple[float, float] = 0.0) -> Points:
        """Points [468, 3] with the mouth and the eyes moved; both run from 0 to 1, eyes as (image left, right)."""
        angles = mouth_open * _JAW_ANGLE * self.jaw_weights
        cos, sin = np.cos(angles), np.sin(angles)
        arm = self.points - _JAW_HINGE
        moved = np.column_stack([arm[:, 0], cos * arm[:, 1] - sin * arm[:, 2], sin * arm[:, 1] + cos * arm[:, 2]])
        closure = np.broadcast_to(eye_closure, (2,))
        return moved + _JAW_HINGE + np.tensordot(closure, self.lid_paths, axes=1)


@lru_cache(maxsize=1)
def _neutral() -> tuple[Points, Int[np.ndarray, "M 3"]]:
    stored = json.loads((files("pipeline.demo") / "neutral_face.json").read_text(encoding="utf-8"))
    return np.array(stored["vertices"]) / 100.0, np.array(stored["triangles"])


@lru_cache(maxsize=16)
def face_mesh(proportions: Proportions = Proportions()) -> FaceMesh:
    """The face of one person, with the paths of its jaw and lids worked out once."""
    neutral, triangles = _neutral()
    points = _reshape(neutral, proportions)
    return FaceMesh(
        points=points,
        triangles=triangles,
        jaw_weights=_spread(_jaw_anchors(points), triangles)[:, 0],
        lid_paths=np.stack([_lid_path(points, triangles, side) for side in (0, 1)]),
    )


def head_rotation(yaw_deg: float, pitch_deg: float, roll_deg: float) -> Float[np.ndarray, "3 3"]:
    """Rz(roll) Ry(yaw) Rx(−pitch), the project's convention: yaw + nose to image left, pitch + up, roll + clockwise."""
    return Rotation.from_euler("ZYX", [roll_deg, yaw_deg, -pitch_deg], degrees=True).as_matrix()


def _reshape(points: Points, shape: Proportions) -> Points:
    """Stretch smoothly: every field fades with distance, so that no crease appears."""
    moved = points.copy()
    for lids in UPPER_LIDS:
        moved += _swelling(points, points[list(lids)].mean(0) + np.array([0.0, 0.25, 0.0]), 1.9, shape.eye_size)
    moved += _swelling(points, points[NOSE_TIP] + [0, -0.5, 1.5], 2.2, shape.nose_size)
    moved += _swelling(points, points[list(INNER_LIP_UPPER)].mean(0), 1.8, shape.lip_size)
    low = np.clip((points[:, 1] - 1.0) / 7.0, 0.0, 1.0)
    moved[:, 0] *= 1.0 + (shape.jaw_width - 1.0) * low
    return moved * [shape.width, shape.height, 1.0]


def _swelling(points: Points, centre: Float[np.ndarray, "3"], reach_cm: float, size: float) -> Points:
    away = points - centre
    return (size - 1.0) * away * np.exp(-((away**2).sum(1) / reach_cm**2))[:, None]


def _jaw_anchors(points: Points) -> Mapping[int, Float[np.ndarray, "1"]]:
    """Where the jaw's pull is known: all of it at the chin and lower lip, none above the mouth and at the ears."""
    anchors = {int(index): 0.0 for index in np.flatnonzero(points[:, 1] < points[2, 1])}
    anchors |= dict.fromkeys((*INNER_LIP_UPPER[1:-1], *OUTER_LIP_UPPER[1:-1], *_EARS), 0.0)
    half_width = abs(points[INNER_LIP_LOWER[0], 0])
    for contour in (INNER_LIP_LOWER, OUTER_LIP_LOWER):
        for index in contour[1:-1]:
            # A round opening: the corners stay together.
            anchors[index] = float(np.sqrt(max(0.0, 1.0 - (points[index, 0] / half_width) ** 2)))
    anchors |= dict.fromkeys((61, 291, 78, 308), 0.12)
    anchors |= dict.fromkeys(_CHIN_RIDGE, 1.0)
    return {index: np.array([weight]) for index, weight in anchors.items()}


def _lid_path(points: Points, triangles: Int[np.ndarray, "M 3"], side: int) -> Points:
    """How far each point moves when the upper lid comes down on the lower one."""
    upper, lower = list(UPPER_LIDS[side]), list(LOWER_LIDS[side])
    centre = points[upper].mean(0)
    far = np.linalg.norm(points - centre, axis=1) > 2.6
    fixed = {int(index): np.zeros(3) for index in np.flatnonzero(far)}
    fixed |= {index: np.zeros(3) for index in (*lower, *BROWS[side])}
    for top, bottom in zip(upper[1:-1], lower[1:-1], strict=True):
        # Lids travel over the eyeball, so the middle of the path bulges; the end state is what is drawn most.
        fixed[top] = points[bottom] - points[top] + [0, -0.03, -0.1]
    return _spread(fixed, triangles)


def _spread(
    anchors: Mapping[int, Float[np.ndarray, "D"]], triangles: Int[np.ndarray, "M 3"]
) -> Float[np.ndarray, "P D"]:
    """Fill in between anchored points so that each free point is the mean of its neighbours (harmonic on the mesh)."""
    laplacian = np.zeros((NUM_POINTS, NUM_POINTS))
    for first, second in ((0, 1), (1, 2), (2, 0)):
        laplacian[triangles[:, first], triangles[:, second]] = -1.0
        laplacian[triangles[:, second], triangles[:, first]] = -1.0
    np.fill_diagonal(laplacian, -laplacian.sum(1))
    known = np.array(sorted(anchors))
    values = np.stack([anchors[index] for index in known])
    free = np.setdiff1d(np.arange(NUM_POINTS), known)
    filled = np.empty((NUM_POINTS, values.shape[1]))
    filled[known] = values
    filled[free] = np.linalg.solve(laplacian[np.ix_(free, free)], -laplacian[np.ix_(free, known)] @ values)
    return filled


def region_of(points: Points, triangles: Int[np.ndarray, "M 3"], contour: tuple[int, ...]) -> Bool[np.ndarray, "M"]:
    """Which triangles lie inside a closed contour, seen from the front: lips and brows by their outlines."""
    from matplotlib.path import Path

    return Path(points[list(contour), :2]).contains_points(points[triangles].mean(1)[:, :2])


@dataclass(frozen=True, slots=True)
class Refinement:
    """Adds a point on every edge, bent outwards by its neighbours (Loop's edge rule), so that facets are not seen."""

    sources: Int[np.ndarray, "E 4"]
    weights: Float[np.ndarray, "E 4"]

    def apply(self, points: Float[np.ndarray, "V 3"]) -> Float[np.ndarray, "VE 3"]:
        """The points themselves, then one per edge."""
        return np.vstack([points, (points[self.sources] * self.weights[..., None]).sum(1)])


def refine(triangles: Int[np.ndarray, "M 3"]) -> tuple[Refinement, Int[np.ndarray, "M4 3"]]:
    """Divide each triangle into four; the children of triangle m are 4 m to 4 m + 3."""
    opposite: dict[tuple[int, int], list[int]] = {}
    for triangle in triangles.tolist():
        for corner in range(3):
            a, b = triangle[corner], triangle[(corner + 1) % 3]
            opposite.setdefault((min(a, b), max(a, b)), []).append(triangle[(corner + 2) % 3])
    edge_point = {edge: NUM_POINTS + number for number, edge in enumerate(opposite)}
    sources, weights = [], []
    for (a, b), others in opposite.items():
        inner = len(others) == 2  # an edge with one triangle is a rim and stays straight
        sources.append((a, b, others[0], others[-1]))
        weights.append((0.375, 0.375, 0.125, 0.125) if inner else (0.5, 0.5, 0.0, 0.0))
    children = []
    for a, b, c in triangles.tolist():
        ab, bc, ca = (edge_point[min(p, q), max(p, q)] for p, q in ((a, b), (b, c), (c, a)))
        children += [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    return Refinement(np.array(sources), np.array(weights)), np.array(children)
