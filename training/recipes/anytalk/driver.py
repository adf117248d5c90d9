"""AnyTalk in use: a picture's keypoints go where a driving frame's motion takes them."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from schemas.errors import UsageError
from training.networks.inference import folded
from training.recipes.anytalk.model import AnyTalk, Source
from training.recipes.anytalk.moves import Placing, placing, relative, seen_from, unlikeness
from training.recipes.base import Driving, DrivingField, MotionConfig, Pictures


class AnyTalkDriver:
    """The networks in evaluation mode; one model serves all domains.

    Args:
        model: with its weights, on its device.
    """

    needs: tuple[DrivingField, ...] = ("pictures",)

    def __init__(self, model: AnyTalk) -> None:
        self.model = model.eval().requires_grad_(False)
        self.image_px, self.device = model.config.image_px, next(model.parameters()).device

    def look(self, source: Pictures, domain: str) -> Source:
        """Features, canonical keypoints and motion of a source picture."""
        del domain
        return self.model.look(source)

    def follow(self, driving: Driving, domain: str) -> Placing:
        """Where the heads of driving pictures are."""
        del domain
        if driving.pictures is None:
            raise UsageError("AnyTalk is driven by pictures: give the driving frames themselves")
        return placing(self.model.follow(driving.pictures), self.model.config)

    def carried(self, looked: Source, motion: Placing, reference: Placing | None, config: MotionConfig) -> Placing:
        """Where the source's head goes for driving ones."""
        if config.relative and reference is not None:
            own = placing(looked.motion, self.model.config)
            motion = relative(own, motion, reference, config.motion_multiplier)
        return seen_from(motion, config.yaw_deg, config.pitch_deg, config.roll_deg, self.model.config)

    def frame_of(self, motion: Placing, index: int) -> Placing:
        """One head of several."""
        return Placing(*(values[index, None] for values in motion))

    def unlikeness(self, looked: Source, motion: Placing) -> Float[Tensor, " B"]:
        """How far the keypoints lie from the source's once both have the same place and size."""
        return unlikeness(motion.points(looked.canonical.points), looked.points)

    def render(self, looked: Source, motion: Placing) -> Pictures:
        """The source with its keypoints where a motion puts them: x = R x_c + t + δ."""
        count = len(motion.rotation)
        return self.model.render(looked.repeated(count), motion.points(looked.canonical.points))

    def faster(
        self, *, half: bool = False, channels_last: bool = False, channels_last_3d: bool = False
    ) -> "AnyTalkDriver":
        """A copy with norms that are constants in the weights.

        Args:
            half: the convolutions' weights in bfloat16.
            channels_last: the order of 2D weights in memory, and with it that of what they compute.
            channels_last_3d: the same of 3D weights.

        Raises:
            UsageError: for half precision on a processor.
        """
        if half and self.device.type != "cuda":
            raise UsageError("half precision needs a GPU: leave it out on a processor")
        # Not a deep copy: copies share the class that a parametrisation made, and folding one would spoil the other.
        model = AnyTalk(self.model.config).eval().requires_grad_(False).to(self.device)
        model.load_state_dict(self.model.state_dict())
        folded(model)
        for module in model.modules():
            if half and isinstance(module, (nn.Conv2d, nn.Conv3d, nn.Linear)):
                module.to(torch.bfloat16)
            if channels_last and isinstance(module, nn.Conv2d):
                module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
            if channels_last_3d and isinstance(module, nn.Conv3d):
                module.to(memory_format=torch.channels_last_3d)  # pyright: ignore[reportCallIssue]
        return AnyTalkDriver(model)


class AnyTalkEncoder:
    """Motion per frame, for what learns to make motion: δ, t and the angles.

    Args:
        model: with its weights, on its device.
    """

    fields: tuple[str, ...] = ("latents.npy",)

    def __init__(self, model: AnyTalk) -> None:
        self.model = model.eval().requires_grad_(False)
        self.image_px = model.config.image_px

    @torch.no_grad()
    def encode(self, frames: Pictures, domain: str) -> dict[str, Float[Tensor, "T L"]]:
        """Rows of 3K coordinates of δ, 3 of t, and yaw, pitch and roll in degrees."""
        del domain
        motion = self.model.follow(frames)
        columns = (motion.deformation.flatten(1), motion.translation, motion.degrees)
        return {"latents.npy": torch.cat(columns, dim=1).float()}
