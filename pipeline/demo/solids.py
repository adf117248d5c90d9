"""The rest of the head as lathe-turned solids: skull, hair, ears, neck and shoulders.

A face alone reads as a mask, and a detector trained on photographs wants the head that belongs to it.
Axes and units are those of ``mesh``: x image right, y down, z away from the viewer, in centimetres.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int

from pipeline.demo.mesh import Proportions

Rgb = tuple[float, float, float]
_SKULL_CENTRE = np.array([0.0, -1.5, 6.2])
_CROWN_Y = -12.4


@dataclass(frozen=True, slots=True)
class Character:
    """Who is drawn: shape and colours (RGB, 0 to 255), hair length in cm below the top of the ears."""

    proportions: Proportions = Proportions()  # noqa: RUF009 (frozen)
    skin: Rgb = (224, 172, 142)
    lips: Rgb = (176, 84, 84)
    hair: Rgb = (70, 44, 28)
    iris: Rgb = (84, 62, 40)
    cloth: Rgb = (58, 84, 120)
    hair_cm: float = 1.0


@dataclass(frozen=True, slots=True)
class Surface:
    """Triangles with a colour and a gloss each; points in centimetres, fronts counter-clockwise from outside."""

    points: Float[np.ndarray, "V 3"]
    triangles: Int[np.ndarray, "M 3"]
    colours: Float[np.ndarray, "M 3"]
    gloss: Float[np.ndarray, "M"]


@lru_cache(maxsize=16)
def skull(character: Character) -> tuple[Surface, ...]:
    """Skull and ears, which turn with the head and lie behind the face."""
    width = character.proportions.width
    shaded = np.array(character.skin) * 0.82
    bone = _turned_on_lathe(_SKULL_CENTRE, np.array([7.3 * width, 9.3, 7.6]), shaded, rings=14, spokes=24)
    ears = [
        _turned_on_lathe(
            np.array([side * 8.0 * width, 0.2, 8.0]), np.array([0.8, 2.4, 1.5]), shaded, rings=7, spokes=10
        )
        for side in (-1, 1)
    ]
    return (bone, *ears)


@lru_cache(maxsize=16)
def hair(character: Character) -> Surface:
    """A shell from the crown to a hairline that is high over the forehead and low behind the ears."""
    rings, spokes = 14, 60
    azimuth = np.linspace(-np.pi, np.pi, spokes, endpoint=False)  # 0 looks at the viewer
    edge = np.interp(
        np.abs(np.degrees(azimuth)),
        [0, 30, 46, 58, 68, 100, 180],
        [-7.3, -7.2, -5.4, -1.2, character.hair_cm, character.hair_cm, max(character.hair_cm, 6.0)],
    )
    edge = edge + 0.35 * np.sin(9 * azimuth) * (np.abs(azimuth) > 0.5)
    share = np.linspace(0.0, 1.0, rings)[:, None] ** 1.4
    y = _CROWN_Y + share * (edge - _CROWN_Y)
    climb = np.clip((y - _SKULL_CENTRE[1]) / (_CROWN_Y - _SKULL_CENTRE[1]), 0.0, 1.0)
    fall = np.maximum(y - _SKULL_CENTRE[1], 0.0)
    profile = np.sqrt(1.0 - climb**2) * (1.0 + 0.022 * fall)
    x = _SKULL_CENTRE[0] + 8.9 * character.proportions.width * profile * np.sin(azimuth)
    z = _SKULL_CENTRE[2] - 8.75 * profile * np.cos(azimuth)
    points = np.stack(np.broadcast_arrays(x, y, z), axis=-1).reshape(-1, 3)
    triangles = _lattice(rings, spokes)
    # Strands: streaks that run from crown to edge, seeded so that a character keeps its hair.
    streak = np.random.default_rng(7).normal(1.0, 0.13, spokes)[triangles[:, 0] % spokes]
    colours = np.array(character.hair) * streak[:, None]
    return Surface(points, triangles, np.clip(colours, 0, 255), np.full(len(triangles), 0.14))


def inside_of(shell: Surface) -> Surface:
    """The same shell seen from within, darker: the hair behind a neck."""
    return replace(shell, triangles=shell.triangles[:, ::-1], colours=shell.colours * 0.55)


@lru_cache(maxsize=16)
def body(character: Character) -> tuple[Surface, ...]:
    """Neck and shoulders, which stay where they are when the head turns."""
    shirt = np.array(character.cloth)
    chest = _turned_on_lathe(
        np.array([0.0, 42.0, 9.0]), np.array([21.0, 30.0, 9.5]), shirt, rings=20, spokes=32, fullness=0.8
    )
    # The rounded end of the neck, painted over the chest, is the neckline.
    throat = np.array(character.skin) * 0.76
    neck = _turned_on_lathe(
        np.array([0.0, 7.5, 7.3]), np.array([5.3, 8.3, 5.0]), throat, rings=16, spokes=40, fullness=0.45
    )
    return (chest, neck)


def _turned_on_lathe(
    centre: Float[np.ndarray, "3"],
    radii: Float[np.ndarray, "3"],
    colour: Float[np.ndarray, "3"],
    rings: int = 18,
    spokes: int = 28,
    fullness: float = 1.0,
) -> Surface:
    """An ellipsoid of one colour; a ``fullness`` below 1 makes it a rounded cylinder."""
    polar = np.linspace(0.0, np.pi, rings)[:, None]
    azimuth = np.linspace(-np.pi, np.pi, spokes, endpoint=False)
    girth = np.clip(np.sin(polar), 0.0, 1.0) ** fullness
    unit = np.broadcast_arrays(girth * np.sin(azimuth), -np.cos(polar), -girth * np.cos(azimuth))
    points = centre + radii * np.stack(unit, axis=-1).reshape(-1, 3)
    triangles = _lattice(rings, spokes)
    return Surface(points, triangles, np.broadcast_to(colour, (len(triangles), 3)), np.full(len(triangles), 0.03))


def _lattice(rings: int, spokes: int) -> Int[np.ndarray, "M 3"]:
    """Triangles over a grid that closes around the axis; their fronts look outwards."""
    ring, spoke = np.meshgrid(np.arange(rings - 1), np.arange(spokes), indexing="ij")
    a = ring * spokes + spoke
    b = ring * spokes + (spoke + 1) % spokes
    upper = np.stack([a, a + spokes, b], axis=-1)
    lower = np.stack([b, a + spokes, b + spokes], axis=-1)
    return np.concatenate([upper, lower], axis=-1).reshape(-1, 3)
