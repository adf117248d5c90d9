"""Draw a head around the face mesh: skull, hair, ears, neck and shoulders, lit and painted back to front.

Every surface is triangles, filled by OpenCV in the order of their depth at twice the size, then halved: a rasteriser
of thirty lines that a detector trained on photographs takes for a face.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from pipeline.demo import mesh
from pipeline.demo.mesh import FaceMesh, face_mesh, head_rotation
from pipeline.demo.solids import Character, Surface, body, hair, inside_of, skull

Image = UInt8[np.ndarray, "H W 3"]

_OVERSAMPLING = 2
_CAMERA_CM = 75.0  # distance; nearer would swell the nose
_EYE = np.array([0.0, 0.0, _CAMERA_CM])  # from the camera to the origin
_NECK_PIVOT = np.array([0.0, 3.0, 7.0])
_KEY_LIGHT = np.array([-0.45, -0.55, -0.70]) / np.linalg.norm([0.45, 0.55, 0.70])
_FILL_LIGHT = np.array([0.8, 0.0, -0.6])
_SUBPIXEL_BITS = 4


@dataclass(frozen=True, slots=True)
class HeadPlacement:
    """Angles in degrees (see ``head_rotation``), nose bridge in pixels, pixels per centimetre at the face."""

    yaw_deg: float = 0.0
    pitch_deg: float = 0.0
    roll_deg: float = 0.0
    centre_px: tuple[float, float] = (320.0, 320.0)
    scale_px: float = 16.0


@dataclass(frozen=True, slots=True)
class HeadTruth:
    """What was drawn: ``landmarks`` [468, 2] and xyxy ``box`` (hairline to chin) in pixels of the picture."""

    box: tuple[float, float, float, float]
    landmarks: Float[np.ndarray, "468 2"]


def render_head(
    background: Image,
    character: Character,
    pose: HeadPlacement,
    *,
    mouth_open: float = 0.0,
    eye_closure: float = 0.0,
    gaze: tuple[float, float] = (0.0, 0.0),
) -> tuple[Image, HeadTruth]:
    """Draw one head over ``background`` (RGB, left as it is) and say where it is.

    ``mouth_open`` and ``eye_closure`` run from 0 to 1; ``gaze`` is in half eye widths, right and down.
    """
    face = face_mesh(character.proportions)
    moved = face.deform(mouth_open=mouth_open, eye_closure=eye_closure)
    rotation = head_rotation(pose.yaw_deg, pose.pitch_deg, pose.roll_deg)

    def turned(points: Float[np.ndarray, "V 3"]) -> Float[np.ndarray, "V 3"]:
        return (points - _NECK_PIVOT) @ rotation.T + _NECK_PIVOT

    corner, patch = _patch(background, pose)
    lens = _Lens(pose, corner)
    placed = turned(moved)
    skin = _skin(character)
    locks = hair(character)
    locks = replace(locks, points=turned(locks.points))
    # Farthest first: within a group by depth, between groups by hand, since they touch.
    _paint(patch, lens, [inside_of(locks)])
    for solid in body(character):
        _paint(patch, lens, [solid])
    _paint(patch, lens, [replace(solid, points=turned(solid.points)) for solid in skull(character)])
    _paint_openings(patch, lens, placed, character, gaze)
    skin_surface = Surface(skin.refinement.apply(placed), skin.triangles, skin.colours, skin.gloss)
    _paint(patch, lens, [skin_surface, *_lashes(placed, rotation, character)])
    _paint(patch, lens, [locks])
    image = background.copy()
    height, width = (side // _OVERSAMPLING for side in patch.shape[:2])
    x, y = corner
    image[y : y + height, x : x + width] = cv2.resize(patch, (width, height), interpolation=cv2.INTER_AREA)
    landmarks = _Lens(pose, (0, 0), oversampling=1).project(placed)
    low, high = landmarks.min(0), landmarks.max(0)
    return image, HeadTruth(box=(low[0], low[1], high[0], high[1]), landmarks=landmarks)


class _Lens:
    """Perspective from centimetres to pixels of the enlarged patch; depth 0 keeps the pose's scale."""

    def __init__(self, pose: HeadPlacement, corner: tuple[int, int], oversampling: int = _OVERSAMPLING) -> None:
        self.scale_px = pose.scale_px * oversampling
        # Pixel centres lie at whole numbers, before and after enlarging.
        self._origin = (np.array(pose.centre_px) - corner + 0.5) * oversampling - 0.5

    def project(self, points: Float[np.ndarray, "V 3"]) -> Float[np.ndarray, "V 2"]:
        return self._origin + points[:, :2] * (self.scale_px * _CAMERA_CM / (_CAMERA_CM + points[:, 2:]))

    def polygon(self, points: Float[np.ndarray, "V 3"]) -> Int[np.ndarray, "V 2"]:
        return np.rint(self.project(points) * (1 << _SUBPIXEL_BITS)).astype(np.int32)


def _patch(background: Image, pose: HeadPlacement) -> tuple[tuple[int, int], Image]:
    """Corner and enlarged copy of the part of the picture that the head and shoulders may cover."""
    height, width = background.shape[:2]
    reach = pose.scale_px * np.array([[-26.0, -16.0], [26.0, 75.0]]) + pose.centre_px
    x0, y0 = np.clip(np.floor(reach[0]).astype(int), 0, [width - 1, height - 1])
    x1, y1 = np.clip(np.ceil(reach[1]).astype(int), [x0 + 1, y0 + 1], [width, height])
    part = background[y0:y1, x0:x1]
    return (int(x0), int(y0)), cv2.resize(part, None, fx=_OVERSAMPLING, fy=_OVERSAMPLING)


def _paint(patch: Image, lens: _Lens, surfaces: Iterable[Surface]) -> None:
    """Fill the triangles of all surfaces that face the camera, farthest first."""
    polygons, colours, depths = [], [], []
    for surface in surfaces:
        shade, visible = _light(surface)
        corners = lens.polygon(surface.points)[surface.triangles[visible]]
        polygons.append(corners)
        colours.append(shade[visible])
        depths.append(surface.points[surface.triangles[visible], 2].mean(1))
    order = np.argsort(-np.concatenate(depths), kind="stable")
    painted = np.concatenate(colours)[order].tolist()
    for polygon, colour in zip(np.concatenate(polygons)[order], painted, strict=True):
        cv2.fillConvexPoly(patch, polygon, colour, cv2.LINE_8, _SUBPIXEL_BITS)


def _light(surface: Surface) -> tuple[Float[np.ndarray, "M 3"], Float[np.ndarray, "M"]]:
    """Colour of each triangle under two lamps (Lambert, plus a Blinn highlight), and whether it faces the camera."""
    a, b, c = (surface.points[surface.triangles[:, corner]] for corner in range(3))
    flat = np.cross(b - a, c - a)
    towards = (flat * (a + _EYE)).sum(1) < 0
    smooth = np.zeros_like(surface.points)
    for corner in range(3):
        np.add.at(smooth, surface.triangles[:, corner], flat)
    normals = smooth[surface.triangles].sum(1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9
    key = np.maximum(normals @ _KEY_LIGHT, 0.0)
    fill = np.maximum(normals @ _FILL_LIGHT, 0.0)
    halfway = _KEY_LIGHT - np.array([0.0, 0.0, 1.0])
    shine = np.maximum(normals @ (halfway / np.linalg.norm(halfway)), 0.0) ** 30
    brightness = 0.42 + 0.60 * key + 0.16 * fill
    return np.clip(surface.colours * brightness[:, None] + 255 * (surface.gloss * shine)[:, None], 0, 255), towards


def _paint_openings(
    patch: Image,
    lens: _Lens,
    placed: Float[np.ndarray, "468 3"],
    character: Character,
    gaze: tuple[float, float],
) -> None:
    """Eyes, teeth and throat: behind the skin, which is painted over them with its holes."""
    for upper, lower in zip(mesh.UPPER_LIDS, mesh.LOWER_LIDS, strict=True):
        contour = placed[[*upper, *reversed(lower[1:-1])]]
        cv2.fillPoly(patch, [lens.polygon(contour)], (232, 228, 224), cv2.LINE_AA, _SUBPIXEL_BITS)
        corners = placed[[upper[0], upper[-1]]]
        half = np.linalg.norm(corners[0] - corners[1]) / 2
        # The iris hangs from the corners, not from the moving lid.
        centre = corners.mean(0) + half * np.array([0.55 * gaze[0], -0.22 + 0.4 * gaze[1], 0.0])
        for radius, offset, colour in (
            (0.45, 0.0, tuple(0.45 * part for part in character.iris)),
            (0.39, 0.0, character.iris),
            (0.19, 0.0, (14, 12, 12)),
            (0.09, -0.15, (250, 250, 250)),
        ):
            spot = lens.polygon((centre + half * np.array([offset, offset, 0.0]))[None])[0]
            size = round(half * radius * lens.scale_px * (1 << _SUBPIXEL_BITS))
            cv2.circle(patch, spot.tolist(), size, colour, -1, cv2.LINE_AA, _SUBPIXEL_BITS)
    upper, lower = placed[list(mesh.INNER_LIP_UPPER)], placed[list(mesh.INNER_LIP_LOWER)]
    cv2.fillPoly(patch, [lens.polygon(np.vstack([upper, lower[-2:0:-1]]))], (58, 18, 20), cv2.LINE_AA, _SUBPIXEL_BITS)
    gap = lower - upper
    teeth = np.vstack([upper[2:-2], (upper + 0.36 * gap)[-3:1:-1]])
    cv2.fillPoly(patch, [lens.polygon(teeth)], (236, 232, 222), cv2.LINE_AA, _SUBPIXEL_BITS)
    tongue = np.vstack([(lower - 0.3 * gap)[3:-3], lower[-4:2:-1]])
    cv2.fillPoly(patch, [lens.polygon(tongue)], (150, 66, 68), cv2.LINE_AA, _SUBPIXEL_BITS)


def _lashes(
    placed: Float[np.ndarray, "468 3"], rotation: Float[np.ndarray, "3 3"], character: Character
) -> list[Surface]:
    """Dark strips along the upper lids, as triangles, so that the nose hides the far ones on a turned head."""
    outwards = rotation @ np.array([0.0, -0.15, -0.30])
    strips = []
    for side, lids in enumerate(mesh.UPPER_LIDS):
        line = placed[list(lids)]
        points = np.vstack([line + 0.3 * outwards, line + outwards * (1.0 + np.sin(np.linspace(0, np.pi, 9)))[:, None]])
        near = np.arange(8)
        strip = np.concatenate([np.stack([near, near + 9, near + 1], 1), np.stack([near + 1, near + 9, near + 10], 1)])
        strip = strip[:, ::-1] if side == 0 else strip
        colours = np.tile(0.3 * np.array(character.hair), (len(strip), 1))
        strips.append(Surface(points, strip, colours, np.zeros(len(strip))))
    return strips


@dataclass(frozen=True, slots=True)
class _Skin:
    refinement: mesh.Refinement
    triangles: Int[np.ndarray, "M 3"]
    colours: Float[np.ndarray, "M 3"]
    gloss: Float[np.ndarray, "M"]


@lru_cache(maxsize=16)
def _skin(character: Character) -> _Skin:
    face = face_mesh(character.proportions)
    refinement, triangles = mesh.refine(face.triangles)
    lips = mesh.region_of(face.points, face.triangles, (*mesh.OUTER_LIP_UPPER, *mesh.OUTER_LIP_LOWER[-2:0:-1]))
    brows = np.logical_or.reduce([mesh.region_of(face.points, face.triangles, brow) for brow in mesh.BROWS])
    painted = np.repeat(lips | brows, 4)  # a triangle's four children keep its paint
    colours = np.where(lips[:, None], character.lips, character.skin)
    colours = np.where(brows[:, None], 0.65 * np.array(character.hair) + 0.2 * np.array(character.skin), colours)
    blush = np.where(painted, 0.0, _blush(face, refinement.apply(face.points)[triangles].mean(1)))
    colours = np.repeat(colours, 4, axis=0) * (1.0 + blush[:, None] * np.array([0.06, -0.10, -0.08]))
    gloss = np.where(lips, 0.22, np.where(brows, 0.0, 0.10))
    return _Skin(refinement, triangles, colours, np.repeat(gloss, 4))


def _blush(face: FaceMesh, places: Float[np.ndarray, "M 3"]) -> Float[np.ndarray, "M"]:
    """Redness of cheeks and nose, 0 to 1, at ``places``: without it a lit face looks like wax."""
    spots = [face.points[50], face.points[280], face.points[mesh.NOSE_TIP]]
    return np.sum([np.exp(-((places - spot) ** 2).sum(1) / 2.0**2) for spot in spots], axis=0)
