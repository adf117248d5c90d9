"""What a camera of the demo sees: a talking photograph, a moving still, talking heads, each frame with its truth.

A take is drawn frame by frame from its own clock, with motion from slow sines of a seeded phase: nothing is
remembered between frames, so any of them can be drawn alone.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import UInt8

from pipeline.demo.head import HeadPlacement, render_head
from pipeline.demo.portrait import Camera, face_box, film_photograph, film_talker, photograph
from pipeline.demo.solids import Character

Image = UInt8[np.ndarray, "H W 3"]
Size = tuple[int, int]  # width, height
_BLINK_S = 0.28
_BLINK_EVERY_S = 3.1


@dataclass(frozen=True, slots=True)
class FaceTruth:
    """One face in one frame; angles in degrees are None where only the picture moves, not the head."""

    name: str
    box: tuple[float, float, float, float]
    mouth_open: float
    yaw_deg: float | None = None
    pitch_deg: float | None = None
    roll_deg: float | None = None


@dataclass(frozen=True, slots=True)
class View:
    """One frame and the faces in it."""

    image: Image
    faces: tuple[FaceTruth, ...] = ()


@dataclass(frozen=True, slots=True)
class PhotoTake:
    """A photograph from one camera to another, without a stop at either end of the move."""

    picture: str
    begin: Camera
    end: Camera

    def view(self, time_s: float, duration_s: float, size: Size, mouth_open: float) -> View:  # noqa: ARG002
        """The picture at ``time_s`` of a take that lasts ``duration_s``."""
        share = time_s / duration_s
        centre = tuple(_between(a, b, share) for a, b in zip(self.begin.centre, self.end.centre, strict=True))
        zoom = _between(self.begin.zoom, self.end.zoom, share)
        camera = Camera((centre[0], centre[1]), zoom, _between(self.begin.roll_deg, self.end.roll_deg, share))
        return View(film_photograph(photograph(self.picture), camera, size))


@dataclass(frozen=True, slots=True)
class PortraitTake:
    """The astronaut talking before a hand-held camera, or, with ``shake`` 0 and a shut mouth, a mere still."""

    camera: Camera
    shake: float = 1.0
    talks: bool = True

    def view(self, time_s: float, duration_s: float, size: Size, mouth_open: float) -> View:  # noqa: ARG002
        """The astronaut at ``time_s``, her mouth opened by 0 to 1."""
        sway = self.shake * np.array([_wave(time_s, 5.3, 0.1) * 5.0, _wave(time_s, 3.7, 0.6) * 2.5])
        camera = Camera(
            centre=(self.camera.centre[0] + sway[0], self.camera.centre[1] + sway[1]),
            zoom=self.camera.zoom * (1.0 + 0.05 * self.shake * _wave(time_s, 7.1, 0.3)),
            roll_deg=self.camera.roll_deg + 1.8 * self.shake * _wave(time_s, 4.3, 0.8),
        )
        opening = mouth_open if self.talks else 0.3  # .3 is the photograph as it was taken
        roll = camera.roll_deg if self.shake else None
        truth = FaceTruth("astronaut", face_box(camera, size), opening, roll_deg=roll)
        return View(film_talker(opening, camera, size), (truth,))


@dataclass(frozen=True, slots=True)
class Actor:
    """A head in a take: where it stands (shares of the picture), how large, and how lively (degrees)."""

    name: str
    character: Character
    position: tuple[float, float] = (0.5, 0.42)
    scale_px: float = 14.0
    turn_deg: float = 16.0
    facing_deg: float = 0.0
    phase: float = 0.0
    talks: bool = True

    def pose(self, time_s: float, size: Size) -> HeadPlacement:
        """Pose at ``time_s``: the slow sines of a person who talks."""
        x, y = (share * side for share, side in zip(self.position, size, strict=True))
        return HeadPlacement(
            yaw_deg=self.facing_deg + self.turn_deg * _wave(time_s, 4.1, self.phase),
            pitch_deg=0.45 * self.turn_deg * _wave(time_s, 2.9, self.phase + 0.4),
            roll_deg=0.4 * self.turn_deg * _wave(time_s, 5.7, self.phase + 0.7),
            centre_px=(
                x + self.scale_px * 0.9 * _wave(time_s, 6.1, self.phase),
                y + self.scale_px * 0.4 * _wave(time_s, 3.3, self.phase),
            ),
            scale_px=self.scale_px * (1.0 + 0.02 * _wave(time_s, 7.3, self.phase)),
        )


@dataclass(frozen=True, slots=True)
class HeadTake:
    """One or more rendered heads before a soft wall."""

    actors: tuple[Actor, ...]
    wall: tuple[int, int, int]

    def view(self, time_s: float, duration_s: float, size: Size, mouth_open: float) -> View:  # noqa: ARG002
        """The heads at ``time_s``; those who talk open their mouths by 0 to 1."""
        image = _wall(self.wall, size)
        faces = []
        for actor in self.actors:
            pose = actor.pose(time_s, size)
            opening = mouth_open if actor.talks else 0.0
            gaze = (0.35 * _wave(time_s, 2.3, actor.phase), 0.2 * _wave(time_s, 3.9, actor.phase))
            closure = _blink(time_s + 2.0 * actor.phase)
            image, truth = render_head(image, actor.character, pose, mouth_open=opening, eye_closure=closure, gaze=gaze)
            angles = (pose.yaw_deg, pose.pitch_deg, pose.roll_deg)
            faces.append(FaceTruth(actor.name, truth.box, opening, *angles))
        return View(image, tuple(faces))


Take = PhotoTake | PortraitTake | HeadTake


def _between(begin: float, end: float, share: float) -> float:
    return begin + (end - begin) * share


def _wave(time_s: float, period_s: float, phase: float) -> float:
    return float(np.sin(2 * np.pi * (time_s / period_s + phase)))


def _blink(time_s: float) -> float:
    """Eye closure 0 to 1: a lid goes down and comes up again within a quarter of a second."""
    since = time_s % _BLINK_EVERY_S
    return float(np.sin(np.pi * since / _BLINK_S) ** 2) if since < _BLINK_S else 0.0


@lru_cache(maxsize=4)
def _wall(colour: tuple[int, int, int], size: Size) -> Image:
    """A wall lit from the left, with two blurred lamps: flat colour would make a detector's life too easy."""
    width, height = size
    x = np.linspace(0.0, 1.0, width)
    y = np.linspace(0.0, 1.0, height)[:, None]
    light = 1.05 - 0.45 * x - 0.25 * y
    for centre_x, centre_y, radius in ((0.12, 0.25, 0.16), (0.88, 0.15, 0.22)):
        away = ((x - centre_x) * width / height) ** 2 + (y - centre_y) ** 2
        light = light + 0.35 / (1.0 + np.exp((np.sqrt(away) - radius) * 60.0))
    return cv2.multiply(np.full((height, width, 3), colour, np.uint8), np.dstack([light] * 3), dtype=cv2.CV_8U)
