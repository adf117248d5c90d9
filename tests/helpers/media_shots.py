"""Synthetic films whose shot boundaries are known to the frame.

Photographs from scikit-image's wheel and drawn scenes are filmed with a moving, noisy camera and joined by
cuts, fades and dissolves; flashes, whip pans, exposure steps and objects rushing past are put in as traps.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import skimage.data

SIZE = (160, 90)  # width, height
PHOTOS = ("astronaut", "coffee", "chelsea", "rocket", "camera", "coins", "immunohistochemistry", "moon", "clock")
TRAPS = ("flash", "whip", "object", "exposure", "twos")
Joint = Literal["cut", "black", "white", "dissolve", "black_in", "black_out"]


@dataclass(frozen=True)
class Truth:
    """One boundary: ``frame`` of the next shot, and the extent [start, stop) of its transition."""

    frame: int
    kind: Literal["cut", "fade", "dissolve"]
    start: int
    stop: int


@dataclass(frozen=True)
class Film:
    frames: list[np.ndarray]
    truth: list[Truth]
    traps: list[tuple[int, str]]


def photo(name: str) -> np.ndarray:
    image = getattr(skimage.data, name)()
    image = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    scale = 420 / image.shape[1]
    height = max(240, round(image.shape[0] * scale))
    return np.ascontiguousarray(cv2.resize(image[..., 2::-1], (420, height), interpolation=cv2.INTER_AREA))


def _drawing(rng: np.random.Generator) -> np.ndarray:
    """A flat-shaded scene: two background colours and a dozen shapes."""
    image = np.empty((280, 420, 3), np.uint8)
    horizon = int(rng.integers(80, 220))
    image[:horizon], image[horizon:] = rng.integers(20, 240, 3), rng.integers(20, 240, 3)
    for _ in range(12):
        centre, axes = rng.integers(0, (420, 280)), rng.integers(12, 70, 2)
        colour, angle = tuple(int(c) for c in rng.integers(0, 256, 3)), float(rng.uniform(0, 180))
        cv2.ellipse(image, (tuple(map(float, centre)), tuple(map(float, axes * 2)), angle), colour, -1)
    return image


class Scene:
    """A place filmed for ``length`` frames, by a camera that drifts and zooms slowly."""

    def __init__(self, picture: np.ndarray, length: int, rng: np.random.Generator, trap: str | None) -> None:
        self.picture, self.length, self.trap = picture, length, trap
        self.noise = np.random.default_rng(int(rng.integers(2**32)))
        self.width = float(rng.uniform(190, 260))
        self.zoom = float(rng.uniform(-0.004, 0.004))
        height, width = picture.shape[:2]
        self.centre = np.array([rng.uniform(0.4, 0.6) * width, rng.uniform(0.45, 0.55) * height])
        self.drift = rng.uniform(-0.8, 0.8, 2)
        self.at = length // 2
        self.flash_length = int(rng.integers(1, 5))
        self.whip = float(rng.choice([-1, 1]) * rng.uniform(8, 16))
        self.colour = rng.integers(0, 256, 3)
        self.gain = 1.0 + float(rng.choice([-0.3, 0.3]))

    def frame(self, index: int) -> np.ndarray:
        if self.trap == "twos":
            index -= index % 2
        since = index - self.at
        centre = self.centre + self.drift * (index - self.length / 2)
        if self.trap == "whip":  # 4 to 8 % of the width per frame for eight frames, with motion blur
            centre = centre + np.array([self.whip * np.clip(since, 0, 8) - 4 * self.whip, 0.0])
        width = self.width * (1 + self.zoom * index)
        height = width * SIZE[1] / SIZE[0]
        limit = np.array([self.picture.shape[1] - width, self.picture.shape[0] - height])
        x, y = np.clip(centre - np.array([width, height]) / 2, 0, np.maximum(limit, 0))
        scale = SIZE[0] / width
        matrix = np.array([[scale, 0, -x * scale], [0, scale, -y * scale]], np.float64)
        image = cv2.warpAffine(self.picture, matrix, SIZE, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        image = image.astype(np.float32)
        if self.trap == "whip" and 0 <= since < 8:
            image = cv2.blur(image, (int(abs(self.whip) * scale) | 1, 1))
        elif self.trap == "flash" and 0 <= since < self.flash_length:
            image = image * 0.2 + 255 * 0.85
        elif self.trap == "exposure" and since >= 0:
            image = image * self.gain
        elif self.trap == "object" and 0 <= since < 10:
            left = int(since * 20 - 60)
            image[10:80, max(0, left) : max(0, left + 60)] = self.colour
        return np.clip(image + self.noise.normal(0, 2.0, image.shape), 0, 255)


def _mixed(a: np.ndarray, b: np.ndarray | float, share: float) -> np.ndarray:
    return (1 - share) * a + share * b


class _Cutter:
    """Joins scenes and writes down the truth."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.frames: list[np.ndarray] = []
        self.truth: list[Truth] = []

    def emit(self, frames: Iterator[np.ndarray]) -> None:
        self.frames.extend(frame.astype(np.uint8) for frame in frames)

    def join(self, kind: Joint, a: Callable[[int], np.ndarray], b: Callable[[int], np.ndarray]) -> int:
        """Emit the transition; ``a(k)`` and ``b(k)`` film on at both sides. Returns frames of ``b`` used up."""
        start = len(self.frames)
        if kind == "cut":
            self.truth.append(Truth(start, "cut", start, start))
            return 0
        if kind == "dissolve":
            length = int(self.rng.integers(5, 36))
            self.emit(_mixed(a(k), b(k), (k + 1) / (length + 1)) for k in range(length))
            self.truth.append(Truth(start + length // 2, "dissolve", start, start + length))
            return length
        flat = 255.0 if kind == "white" else 0.0
        out = 0 if kind == "black_in" else int(self.rng.integers(5, 25))
        into = 0 if kind == "black_out" else int(self.rng.integers(5, 25))
        held = int(self.rng.integers(1, 12)) if out and into else int(self.rng.integers(8, 20))
        self.emit(_mixed(a(k), flat, (k + 1) / (out + 1)) for k in range(out))
        self.emit(np.full((SIZE[1], SIZE[0], 3), flat) for _ in range(held))
        self.emit(_mixed(b(k), flat, 1 - (k + 1) / (into + 1)) for k in range(into))
        dark, light = start + out, start + out + held
        if kind == "black_in":  # a hard cut to black, then a fade in
            self.truth += [Truth(start, "cut", start, start), Truth(light, "fade", light, light + into)]
        elif kind == "black_out":
            self.truth += [Truth(dark, "fade", start, dark), Truth(light, "cut", light, light)]
        else:
            self.truth.append(Truth((dark + light) // 2, "fade", start, light + into))
        return into


def film(seed: int, num_scenes: int) -> Film:
    """A film of ``num_scenes`` scenes, the same for the same seed."""
    rng = np.random.default_rng(seed)
    photos = [photo(name) for name in PHOTOS]
    joints: list[Joint] = ["cut", "black", "white", "dissolve", "black_in", "black_out"]
    cutter, traps, last = _Cutter(rng), [], -1
    scene = None
    for _ in range(num_scenes):
        choice = int(rng.choice([k for k in range(len(photos) + 4) if k != last or k >= len(photos)]))
        last = choice
        picture = photos[choice] if choice < len(photos) else _drawing(rng)
        trap = str(rng.choice(TRAPS)) if rng.random() < 0.5 else None
        kind = rng.choice(joints, p=[0.5, 0.1, 0.07, 0.23, 0.05, 0.05])
        sudden = kind in {"cut", "black_out"}
        # No trap inside a transition: those take up to 35 frames of the scene that follows.
        following = Scene(picture, int(rng.integers(16, 70) if sudden else rng.integers(72, 84)), rng, trap)
        used = 0
        if scene is not None:
            used = cutter.join(kind, lambda k, s=scene: s.frame(s.length + k), lambda k, s=following: s.frame(k))
        first = len(cutter.frames) - used
        if trap:
            traps.append((first + following.at, trap))
        cutter.emit(following.frame(k) for k in range(used, following.length))
        scene = following
    return Film(cutter.frames, cutter.truth, traps)
