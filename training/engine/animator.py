"""Make a picture move as a film does, frame by frame: frames go in and pictures come out, and none is kept.

Everything about the source is computed once. Without the builder: pictures and frames are square crops such as those
of the shards, which is what the networks have seen (``anitalk animate`` cuts them).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor

from schemas.errors import UsageError
from training.networks.inference import Captured, halved
from training.recipes.base import Driver, Driving, MotionConfig

__all__ = ["SAFE_DEG", "AnimateConfig", "Animator", "Picture", "Pictures"]

Picture = UInt8[Tensor, "3 S S"]  # RGB
Pictures = UInt8[Tensor, "B 3 S S"]

# Beyond these face-vid2vid's makers advise against turning a head.
SAFE_DEG = {"yaw": 45.0, "pitch": 20.0, "roll": 20.0}


class AnimateConfig(MotionConfig):
    """How a source is moved, and how fast."""

    batch_size: int = Field(default=1, ge=1)
    """Frames made at once; a picture waits for the others of its batch."""
    half: bool = False
    """Networks in bfloat16, coordinates not; GPU only."""
    graph: bool = False
    """Record the step once and play it again; GPU only."""

    @property
    def doubts(self) -> str | None:
        """What to warn of before the work, in one sentence."""
        given = {"yaw": self.yaw_deg, "pitch": self.pitch_deg, "roll": self.roll_deg}
        beyond = [f"{name} {deg:g}°" for name, deg in given.items() if deg is not None and abs(deg) > SAFE_DEG[name]]
        limits = ", ".join(f"{name} ±{deg:g}°" for name, deg in SAFE_DEG.items())
        return f"{' and '.join(beyond)}: pictures fall apart beyond {limits}" if beyond else None


class Animator:
    """One source picture and what moves it.

    Args:
        driver: as ``training.engine.trained.load_driver`` gives it, or its ``faster()``.
        source: a square crop of a face, RGB.
        config: the motion and the speed.
        source_domain: which the source is of.
        driving_domain: which the driving frames are of.

    Raises:
        UsageError: when the picture has another size than the model's, or a setting needs a GPU and there is none.
    """

    def __init__(
        self,
        driver: Driver,
        source: Picture,
        config: AnimateConfig | None = None,
        *,
        source_domain: str = "real",
        driving_domain: str = "real",
    ) -> None:
        self.driver, self.config = driver, config or AnimateConfig()
        self._device, self._domain = driver.device, driving_domain
        if (self.config.half or self.config.graph) and self._device.type != "cuda":
            raise UsageError("half precision and recorded steps need a GPU: leave both out on a processor")
        with torch.no_grad(), halved(self._device, on=self.config.half):
            self.looked = driver.look(_as_input(self._checked(source)[None]), source_domain)

    def frames(self, driving: Iterable[Picture], reference: Any = None) -> Iterator[Picture]:
        """A picture of the source for every driving frame, on the driver's device.

        Args:
            driving: square crops of the model's size, on any device.
            reference: where motion is relative, the motion it is relative to; the first frame's by default.

        Raises:
            UsageError: for a frame of another size, or when the driver is not moved by pictures alone.
        """
        self._check_needs()
        step: Callable[[Pictures], Pictures] | None = None
        for batch in _batches(map(self._checked, driving), self.config.batch_size):
            if self.config.relative and reference is None:
                reference = self.follow(Driving(_as_input(batch[:1])))
            given = batch
            if self.config.graph:  # which has one shape
                given = torch.cat([batch, batch[-1:].expand(self.config.batch_size - len(batch), -1, -1, -1)])
            if step is None:
                step = self.step(reference)
                step = Captured(step, given) if self.config.graph else step
            yield from step(given)[: len(batch)]

    def driven(self, driving: Iterable[Driving], reference: Any = None) -> Iterator[Picture]:
        """As :meth:`frames`, by batches of whatever the driver is moved by (``driver.needs``)."""
        for batch in driving:
            if self.config.relative and reference is None:
                raise UsageError("relative motion needs the motion that it is relative to")
            yield from self._rendered(batch, reference)

    def nearest(self, driving: Iterable[Picture]) -> tuple[int, Any]:
        """The number of the driving frame that is most like the source, and its motion, to move relative to it.

        What is compared is the model's own, so that any domain has it and no landmarks are needed.

        Raises:
            UsageError: for a frame of another size, or none at all.
        """
        self._check_needs()
        best: tuple[float, int, Any] | None = None
        number = 0
        for batch in _batches(map(self._checked, driving), self.config.batch_size):
            motion = self.follow(Driving(_as_input(batch)))
            away = self.driver.unlikeness(self.looked, motion)
            index = int(away.argmin())
            if best is None or float(away[index]) < best[0]:
                best = float(away[index]), number + index, self.driver.frame_of(motion, index)
            number += len(batch)
        if best is None:
            raise UsageError("there is no driving frame to move relative to")
        return best[1], best[2]

    @torch.no_grad()
    def follow(self, driving: Driving) -> Any:
        """The motion of driving frames."""
        with halved(self._device, on=self.config.half):
            return self.driver.follow(driving, self._domain)

    def step(self, reference: Any = None) -> Callable[[Pictures], Pictures]:
        """What makes the pictures of one batch; ``reference`` as for :meth:`frames`, where it has to be given here."""

        def step(frames: Pictures) -> Pictures:
            return self._rendered(Driving(_as_input(frames)), reference)

        return step

    def _rendered(self, driving: Driving, reference: Any) -> Pictures:
        motion = self.driver.carried(self.looked, self.follow(driving), reference, self.config)
        with torch.no_grad(), halved(self._device, on=self.config.half):
            return _as_picture(self.driver.render(self.looked, motion))

    def _check_needs(self) -> None:
        missing = [name for name in self.driver.needs if name != "pictures"]
        if missing:
            raise UsageError(f"this model is moved by {' and '.join(missing)}, which a film's pictures do not give")

    def _checked(self, picture: Picture) -> Picture:
        size = self.driver.image_px
        if picture.dtype != torch.uint8 or picture.shape != (3, size, size):
            raise UsageError(
                f"a picture is {picture.dtype} {tuple(picture.shape)}: this model takes 8-bit RGB, (3, {size}, {size})"
            )
        return picture.to(self._device, non_blocking=True)


def _as_input(pictures: Pictures) -> Float[Tensor, "B 3 S S"]:
    return pictures.float() / 255


def _as_picture(pictures: Float[Tensor, "B 3 S S"]) -> Pictures:
    return (pictures.float().clamp(0, 1) * 255).round().byte()


def _batches(pictures: Iterable[Picture], size: int) -> Iterator[Pictures]:
    waiting: list[Picture] = []
    for picture in pictures:
        waiting.append(picture)
        if len(waiting) == size:
            yield torch.stack(waiting)
            waiting = []
    if waiting:
        yield torch.stack(waiting)
