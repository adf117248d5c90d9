"""Which landmarkers a domain may name, and how a user's own network is described."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from schemas.base import Record
from schemas.face import LANDMARK_SCHEMES

NUM_NAMED_POINTS = LANDMARK_SCHEMES["ibug68"]


class PointNetwork(Record):
    """How a network is asked for the points of a face: one square picture in, one list of points out.

    The input is [1, 3, input_px, input_px], (value - mean) / scale of values from 0 to 255; the output holds
    ``num_points`` rows of x, y (and the third column).
    """

    input_px: int = Field(ge=16, le=1024)
    """Side in pixels of the picture that the network sees."""
    num_points: int = Field(default=NUM_NAMED_POINTS, ge=3, le=9999)
    """Points that it gives; 68 are taken for those of iBUG, in its order."""
    channels: Literal["rgb", "bgr"] = "rgb"
    """Order of the colours that the network expects."""
    mean: float = 0.0
    """Value, 0 to 255, that is taken off every pixel."""
    scale: float = Field(default=255.0, gt=0)
    """What the rest is divided by."""
    units: Literal["crop", "pixels"] = "crop"
    """Unit of the points: shares of the square, or its pixels."""
    third: Literal["none", "depth", "certainty"] = "none"
    """What the third column holds. Depth is in the unit of x, away from the viewer; a certainty runs from 0 to 1."""
    box_scale: float = Field(default=1.0, gt=0)
    """Side of the first square in face heights, hairline to chin."""
    box_y_offset: float = 0.0
    """Shift of that square's centre in face heights; positive moves it down."""
    point_scale: float = Field(default=1.2, gt=0)
    """Side of the next square in extents of the last points."""


class UserLandmarker(PointNetwork):
    """A landmarker of the user's: an ONNX file."""

    path: str = Field(min_length=1)
    """The .onnx file."""


def _named_or_own(choice: object) -> str:
    return "named" if isinstance(choice, str) else "own"


# Told apart by their kind, so that a mistake is reported against one of them only.
LandmarkerChoice = Annotated[
    Annotated[Literal["facemesh", "pfld", "fan2d", "fan3d", "none"], Tag("named")]
    | Annotated[UserLandmarker, Tag("own")],
    Discriminator(_named_or_own),
]
