"""How colourful a clip is: black-and-white and tinted films told from coloured ones.

The measure is Hasler and Süsstrunk's M̂(3) ("Measuring colourfulness in natural images", SPIE 5007, 2003, section 5),
which they fitted to what 20 people said of 84 pictures: with rg = R - G and yb = (R + G) / 2 - B in levels of 0 to 255,

    sqrt(var(rg) + var(yb)) + 0.3 * sqrt(mean(rg)² + mean(yb)²)

It is 0 for grey pictures, however bright, and by their table 15 is slightly, 33 moderately, 59 quite and 109 extremely
colourful. The clip's is the median over some of its frames, so that a flash or a title does not count.
"""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from pipeline.clip.meter import Measurement, Meter, Reading
from schemas.clip import ClipPlan
from schemas.colour import ColourConfig
from schemas.face import XYXY

if TYPE_CHECKING:  # starts network runtimes
    from pipeline.models.registry import ModelSet


class ColourMeter(Meter[ColourConfig]):
    """Adds the score ``colourfulness``."""

    name = "colour"

    def start(self, models: "ModelSet", domain: str, plan: ClipPlan, frame_px: int) -> Measurement:  # noqa: D102
        del frame_px
        tap = ColourTap(plan.num_frames, self.settings_where_on(models.config, domain).num_frames)
        return Measurement(tap, lambda _: Reading(scores={"colourfulness": round(tap.colourfulness, 2)}))


class ColourTap:
    """Feed every output frame of a clip in order, then read ``colourfulness``.

    Args:
        num_frames: of the clip.
        num_looks: how many of them are looked at, in the middle of equal parts of it.
    """

    def __init__(self, num_frames: int, num_looks: int) -> None:
        self._wanted = frozenset((2 * look + 1) * num_frames // (2 * num_looks) for look in range(num_looks))
        self._num_seen = 0
        self._values: list[float] = []

    def add(self, frame: UInt8[np.ndarray, "H W 3"], face: XYXY) -> None:
        """One RGB frame; its face box is not needed."""
        del face
        if self._num_seen in self._wanted:
            self._values.append(colourfulness(frame))
        self._num_seen += 1

    @property
    def colourfulness(self) -> float:
        """Of the clip: the median over the frames that were looked at, in levels of 0 to 255."""
        return float(np.median(self._values))


def colourfulness(image: UInt8[np.ndarray, "H W 3"]) -> float:
    """M̂(3) of one RGB picture, in levels of 0 to 255."""
    red, green, blue = np.moveaxis(image.astype(np.float64), -1, 0)
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    spread = np.hypot(red_green.std(), yellow_blue.std())
    return float(spread + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean()))
