"""What was learned, in use: all that evaluation and animation know of a trained model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, device

from schemas.base import Record

Pictures = Float[Tensor, "B 3 S S"]  # RGB in [0, 1]


@dataclass(frozen=True, slots=True)
class Driving:
    """B frames of what moves a picture: whichever of these a driver asks for.

    Attributes:
        pictures: RGB in [0, 1].
        landmarks: [B, P, 3]: x, y in pixels of the driver's side, confidence.
        features: [B, …] by name, such as a speech model's at the film's rate.
    """

    pictures: Pictures | None = None
    landmarks: Float[Tensor, "B P 3"] | None = None
    features: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])


DrivingField = Literal["pictures", "landmarks", "features"]


class MotionConfig(Record):
    """Whose motion is shown: the driving head's own, its change added to the source's, or angles of one's own."""

    relative: bool = False
    """Add the driving head's change to the source's pose; otherwise its pose itself is taken."""
    motion_multiplier: float = Field(default=1.0, ge=0)
    """Of the change of expression, where motion is relative."""
    yaw_deg: float | None = Field(default=None, ge=-90, le=90)
    """Replaces the driving head's yaw, in the sign of POSE_CONVENTION."""
    pitch_deg: float | None = Field(default=None, ge=-90, le=90)
    """Replaces the driving head's pitch, in the sign of POSE_CONVENTION."""
    roll_deg: float | None = Field(default=None, ge=-90, le=90)
    """Replaces the driving head's roll, in the sign of POSE_CONVENTION."""


class Driver(Protocol):
    """All that evaluation and animation know of a trained model; in evaluation mode, without gradients.

    Attributes:
        image_px: side of pictures, in and out.
        needs: what a :class:`Driving` has to hold.
        device: where it computes.
    """

    image_px: int
    needs: tuple[DrivingField, ...]
    device: device

    def look(self, source: Pictures, domain: str) -> Any:
        """Everything about one source picture that no driving frame changes."""
        ...

    def follow(self, driving: Driving, domain: str) -> Any:
        """The motion of B driving frames.

        Raises:
            UsageError: when ``driving`` lacks what the driver needs.
        """
        ...

    def carried(self, looked: Any, motion: Any, reference: Any, config: MotionConfig) -> Any:
        """The motion that the source is to show; ``reference`` is one frame's, or None for absolute motion."""
        ...

    def frame_of(self, motion: Any, index: int) -> Any:
        """The motion of one of its frames."""
        ...

    def unlikeness(self, looked: Any, motion: Any) -> Float[Tensor, " B"]:
        """How little each driving frame is like the source, to choose the one that motion is relative to."""
        ...

    def render(self, looked: Any, motion: Any) -> Pictures:
        """The source, once for every frame of a motion."""
        ...

    def faster(self, *, half: bool = False, channels_last: bool = False, channels_last_3d: bool = False) -> "Driver":
        """A copy that computes the same in less time; ``half`` is for use under autocast on a GPU."""
        ...


class Encoder(Protocol):
    """What of a trained model a later stage learns from: computed once for all clips by ``training.engine.encode``.

    Attributes:
        image_px: side of the frames that it looks at.
        fields: names of the members that it writes, such as ``latents.npy``.
    """

    image_px: int
    fields: tuple[str, ...]

    def encode(self, frames: Pictures, domain: str) -> Mapping[str, Tensor]:
        """By name, [T, …] f32 of T frames of one clip; every frame's depends on itself alone."""
        ...
