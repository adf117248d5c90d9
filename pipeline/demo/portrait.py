"""Make a photograph talk: its mouth follows a soundtrack, and a camera moves over it.

The demo needs one filmed person with a known mouth. NASA's portrait of Eileen Collins (public domain, inside the
scikit-image wheel) is warped where lips and chin are, so a landmarker reads back the opening that was put in.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

Image = UInt8[np.ndarray, "H W 3"]

ENLARGEMENT = 4  # the face is 100 px wide in the photograph; the warp needs finer steps than its pixels
# Measured on the 512 px photograph, xyxy: hairline to chin, cheek to cheek.
FACE_BOX = (182.0, 76.0, 270.0, 178.0)
_MOUTH = np.array([223.8, 149.0])  # between the teeth and the lower lip, at the middle
_HALF_WIDTH = 19.5  # to the corners
_SMILE = 8.3  # how far the corners lie above the middle
_CHIN_Y, _THROAT_Y = 178.0, 192.0
_WINDOW = (188, 132, 258, 196)  # everything that the warp can move, xyxy
_DROP = 10.0  # pixels of the photograph that the lower lip falls at full opening
_CLOSE = 4.5  # pixels that it rises from the photograph's smile to cover the teeth


@dataclass(frozen=True, slots=True)
class Camera:
    """What is seen of a photograph: centre in its pixels, output pixels per pixel of it, roll + clockwise."""

    centre: tuple[float, float]
    zoom: float
    roll_deg: float = 0.0

    def matrix(self, size: tuple[int, int], enlargement: float = 1.0) -> Float[np.ndarray, "2 3"]:
        """From pixels of the (enlarged) photograph to those of a picture of ``size`` (width, height)."""
        roll = np.radians(self.roll_deg)
        turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
        linear = turn * self.zoom / enlargement
        # Pixel centres: x of the enlarged photograph is (x + 1/2) × enlargement − 1/2.
        centre = (np.array(self.centre) + 0.5) * enlargement - 0.5
        return np.column_stack([linear, np.array(size) / 2 - 0.5 - linear @ centre])


@lru_cache(maxsize=8)
def photograph(name: str) -> Image:
    """One of the pictures inside the scikit-image wheel, RGB; nothing is downloaded for those used here."""
    from skimage import data

    picture = np.asarray(getattr(data, name)())
    return np.ascontiguousarray(picture[..., :3]) if picture.ndim == 3 else np.dstack([picture] * 3)


def film_photograph(picture: Image, camera: Camera, size: tuple[int, int]) -> Image:
    """The view of ``camera``, ``size`` (width, height); beyond its edge the picture is mirrored."""
    return cv2.warpAffine(picture, camera.matrix(size), size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)


def film_talker(mouth_open: float, camera: Camera, size: tuple[int, int]) -> Image:
    """The astronaut with her mouth opened by 0 to 1, seen by ``camera``."""
    picture = _enlarged().copy()
    x0, y0, x1, y1 = (ENLARGEMENT * side for side in _WINDOW)
    picture[y0:y1, x0:x1] = _speak(mouth_open)
    matrix = camera.matrix(size, ENLARGEMENT)
    return cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def face_box(camera: Camera, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Upright xyxy box around the astronaut's face, hairline to chin (mouth closed), in the camera's picture."""
    x0, y0, x1, y1 = FACE_BOX
    corners = np.array([[x0, y0, 1], [x1, y0, 1], [x1, y1, 1], [x0, y1, 1]]) @ camera.matrix(size).T
    low, high = corners.min(0), corners.max(0)
    return (float(low[0]), float(low[1]), float(high[0]), float(high[1]))


@lru_cache(maxsize=1)
def _enlarged() -> Image:
    picture = photograph("astronaut")
    return cv2.resize(picture, None, fx=ENLARGEMENT, fy=ENLARGEMENT, interpolation=cv2.INTER_CUBIC)


@lru_cache(maxsize=1)
def _grid() -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """Position of every pixel of the window, in pixels of the photograph."""
    x0, y0, x1, y1 = _WINDOW
    columns = (np.arange(x0 * ENLARGEMENT, x1 * ENLARGEMENT, dtype=np.float32) + 0.5) / ENLARGEMENT - 0.5
    rows = (np.arange(y0 * ENLARGEMENT, y1 * ENLARGEMENT, dtype=np.float32) + 0.5) / ENLARGEMENT - 0.5
    x, y = np.meshgrid(columns, rows)
    return x, y


def _speak(mouth_open: float) -> Image:
    """The window around the mouth with the lower lip and the chin moved, and the mouth's inside where it is open.

    The warp is inverse: a pixel below the lip line at y shows the photograph at y − drop. The drop fades towards the
    corners, so that they stay closed, and from the chin to the throat, so that the collar stays put.
    """
    x, y = _grid()
    across = (x - _MOUTH[0]) / _HALF_WIDTH
    line = _MOUTH[1] - _SMILE * across**2  # where the lower lip meets the teeth in the photograph
    drop = -_CLOSE + (_DROP + _CLOSE) * mouth_open
    lips = np.sqrt(np.clip(1.0 - across**2, 0.0, 1.0))
    # Lower down the whole jaw moves, not the lips alone: wider, up to its edge.
    jaw = 0.8 * np.clip((33.0 - np.abs(x - _MOUTH[0])) / 16.0, 0.0, 1.0)
    depth = np.clip((y - line) / (_CHIN_Y - _MOUTH[1]), 0.0, 1.0)
    profile = lips * (1.0 - depth) + jaw * depth
    fade = np.clip((_THROAT_Y - y) / (_THROAT_Y - _CHIN_Y + max(drop, 0.0)), 0.0, 1.0)
    fall = (drop * profile * fade * fade * (3.0 - 2.0 * fade)).astype(np.float32)
    source_y = y - fall
    below = source_y >= line
    # Above the displaced lip nothing moves; when the lip rises it covers what was there.
    shown = np.where(below, source_y, y).astype(np.float32)
    enlarged = _enlarged()
    columns = (x + 0.5) * ENLARGEMENT - 0.5
    window = cv2.remap(enlarged, columns, (shown + 0.5) * ENLARGEMENT - 0.5, cv2.INTER_LINEAR)
    inside = (~below & (y > line)).astype(np.float32)
    inside = cv2.GaussianBlur(inside, (0, 0), 0.35 * ENLARGEMENT)[..., None]
    # Darkest right under the teeth, a hint of tongue on the lip.
    rise = np.clip((y - line) / max(drop, 1.0), 0.0, 1.0)[..., None] ** 2
    throat = np.array([52.0, 20.0, 22.0]) * (1.0 - rise) + np.array([150.0, 78.0, 78.0]) * rise
    return np.rint(window * (1.0 - inside) + throat * inside).astype(np.uint8)
