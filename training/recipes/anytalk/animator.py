"""Make a picture move as a film does, frame by frame: frames go in and pictures come out, and none is kept.

Everything about the source is computed once. Without the builder: pictures and frames are square crops such as those
of the shards, which is what the networks have seen (``anitalk animate`` cuts them).
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor

from schemas.base import Record
from schemas.errors import UsageError
from training.recipes.anytalk.fast import Captured, halved
from training.recipes.anytalk.model import AnyTalk
from training.recipes.anytalk.moves import Placing, placing, relative, seen_from, unlikeness

Picture = UInt8[Tensor, "3 S S"]  # RGB
Pictures = UInt8[Tensor, "B 3 S S"]

# Beyond these face-vid2vid's makers advise against turning a head.
SAFE_DEG = {"yaw": 45.0, "pitch": 20.0, "roll": 20.0}


class AnimateConfig(Record):
    """How a source is moved, and how fast."""

    relative: bool = False  # add the driving head's change to the source's pose; else its pose itself
    motion_multiplier: float = Field(default=1.0, ge=0)  # of the change of expression, where motion is relative
    # Angles that replace those of the driving head, in degrees in the signs of POSE_CONVENTION.
    yaw_deg: float | None = Field(default=None, ge=-90, le=90)
    pitch_deg: float | None = Field(default=None, ge=-90, le=90)
    roll_deg: float | None = Field(default=None, ge=-90, le=90)
    batch_size: int = Field(default=1, ge=1)  # frames made at once; a picture waits for the others of its batch
    half: bool = False  # networks in bfloat16, coordinates not; GPU only
    graph: bool = False  # record the step once and play it again; GPU only

    @property
    def doubts(self) -> str | None:
        """What to warn of before the work, in one sentence."""
        given = {"yaw": self.yaw_deg, "pitch": self.pitch_deg, "roll": self.roll_deg}
        beyond = [f"{name} {deg:g}°" for name, deg in given.items() if deg is not None and abs(deg) > SAFE_DEG[name]]
        limits = ", ".join(f"{name} ±{deg:g}°" for name, deg in SAFE_DEG.items())
        return f"{' and '.join(beyond)}: pictures fall apart beyond {limits}" if beyond else None


class Animator:
    """One source picture and the networks that move it.

    Args:
        model: as ``training.engine.trained.load_anytalk`` gives it, or ``training.recipes.anytalk.fast.prepared``.
        source: a square crop of a face, RGB.
        config: the motion and the speed.

    Raises:
        UsageError: when the picture has another size than the model's, or a setting needs a GPU and there is none.
    """

    def __init__(self, model: AnyTalk, source: Picture, config: AnimateConfig | None = None) -> None:
        self.model, self.config = model, config or AnimateConfig()
        self._device = next(model.parameters()).device
        if (self.config.half or self.config.graph) and self._device.type != "cuda":
            raise UsageError("half precision and recorded steps need a GPU: leave both out on a processor")
        with torch.no_grad(), halved(self._device, on=self.config.half):
            self.source = model.look(_as_input(self._checked(source)[None]))
        self._own = placing(self.source.motion, model.config)

    def frames(self, driving: Iterable[Picture], reference: Placing | None = None) -> Iterator[Picture]:
        """A picture of the source for every driving frame, on the model's device.

        Args:
            driving: square crops of the model's size, on any device.
            reference: where motion is relative, what it is relative to; the first frame by default.

        Raises:
            UsageError: for a frame of another size.
        """
        step: Callable[[Pictures], Pictures] | None = None
        for batch in _batches(map(self._checked, driving), self.config.batch_size):
            if self.config.relative and reference is None:
                reference = self.follow(batch[:1])
            given = batch
            if self.config.graph:  # which has one shape
                given = torch.cat([batch, batch[-1:].expand(self.config.batch_size - len(batch), -1, -1, -1)])
            if step is None:
                step = self.step(reference)
                step = Captured(step, given) if self.config.graph else step
            yield from step(given)[: len(batch)]

    def nearest(self, driving: Iterable[Picture]) -> tuple[int, Placing]:
        """The driving frame whose keypoints are most like the source's, to move relative to it; and its number.

        The keypoints are the model's own, so that any domain has them and no landmarks are needed.

        Raises:
            UsageError: for a frame of another size, or none at all.
        """
        best: tuple[float, int, Placing] | None = None
        number = 0
        for batch in _batches(map(self._checked, driving), self.config.batch_size):
            heads = self.follow(batch)
            away = unlikeness(heads.points(self.source.canonical.points), self.source.points)
            index = int(away.argmin())
            if best is None or float(away[index]) < best[0]:
                best = float(away[index]), number + index, Placing(*(part[index, None] for part in heads))
            number += len(batch)
        if best is None:
            raise UsageError("there is no driving frame to move relative to")
        return best[1], best[2]

    @torch.no_grad()
    def follow(self, frames: Pictures) -> Placing:
        """Where the heads of driving frames are."""
        with halved(self._device, on=self.config.half):
            motion = self.model.follow(_as_input(frames))
        return placing(motion, self.model.config)

    @torch.no_grad()
    def points(self, frames: Pictures, reference: Placing | None = None) -> Float[Tensor, "B K 3"]:
        """Where the source's keypoints go for driving frames; ``reference`` as for :meth:`frames`."""
        config, heads = self.config, self.follow(frames)
        if config.relative and reference is not None:
            heads = relative(self._own, heads, reference, config.motion_multiplier)
        heads = seen_from(heads, config.yaw_deg, config.pitch_deg, config.roll_deg, self.model.config)
        return heads.points(self.source.canonical.points)

    def step(self, reference: Placing | None = None) -> Callable[[Pictures], Pictures]:
        """What makes the pictures of one batch; ``reference`` as for :meth:`frames`, where it has to be given here."""

        def step(frames: Pictures) -> Pictures:
            points = self.points(frames, reference)
            with torch.no_grad(), halved(self._device, on=self.config.half):
                return _as_picture(self.model.render(self.source.repeated(len(frames)), points))

        return step

    def _checked(self, picture: Picture) -> Picture:
        size = self.model.config.image_px
        if picture.dtype != torch.uint8 or picture.shape != (3, size, size):
            raise UsageError(
                f"a picture is {picture.dtype} {tuple(picture.shape)}: this model takes 8-bit RGB, (3, {size}, {size})"
            )
        return picture.to(self._device, non_blocking=True)


def _as_input(pictures: Pictures) -> Float[Tensor, "B 3 S S"]:
    return pictures.float() / 255


def _as_picture(made: Float[Tensor, "B 3 S S"]) -> Pictures:
    return (made.float().clamp(0, 1) * 255).round().byte()


def _batches(pictures: Iterable[Picture], size: int) -> Iterator[Pictures]:
    waiting: list[Picture] = []
    for picture in pictures:
        waiting.append(picture)
        if len(waiting) == size:
            yield torch.stack(waiting)
            waiting = []
    if waiting:
        yield torch.stack(waiting)
