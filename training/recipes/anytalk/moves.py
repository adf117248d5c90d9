"""Whose motion a made picture shows: the driving frame's own, its change added to the source's, or a view of one's own.

Absolute motion is what training does within a clip. Between heads of different shape it carries the driving head's
shape along; relative motion (LivePortrait, §3.3, for column vectors here) adds only what changed since a reference
frame, which has to resemble the source: ``unlikeness`` says how much it does.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from training.networks.geometry import head_degrees, head_rotation, transform_keypoints
from training.recipes.anytalk.config import ModelConfig
from training.recipes.anytalk.motion import Motion


class Placing(NamedTuple):
    """Where heads are: R, t and δ of x = R x_c + t + δ, in single precision."""

    rotation: Float[Tensor, "B 3 3"]
    translation: Float[Tensor, "B 3"]
    deformation: Float[Tensor, "B K 3"]

    def points(self, canonical: Float[Tensor, "B K 3"]) -> Float[Tensor, "B K 3"]:
        """Keypoints of the frames; a single source serves all of them."""
        return transform_keypoints(canonical.expand(len(self.rotation), -1, -1), *self)


def placing(motion: Motion, config: ModelConfig) -> Placing:
    """Of motions as the network tells them."""
    rotation = head_rotation(motion.degrees, config.euler_order, config.pitch_sign)
    return Placing(rotation, motion.translation, motion.deformation)


def relative(source: Placing, driving: Placing, reference: Placing, multiplier: float = 1.0) -> Placing:
    """The source's placing, changed as the driving head changed since its reference frame.

    R = R_d R_0⁻¹ R_s, t = t_s + t_d - t_0, δ = δ_s + m (δ_d - δ_0).

    Args:
        source: of one picture.
        driving: of B frames.
        reference: of one frame of the driving film.
        multiplier: m; more than 1 exaggerates the expression.
    """
    return Placing(
        driving.rotation @ reference.rotation.mT @ source.rotation,
        source.translation + driving.translation - reference.translation,
        source.deformation + multiplier * (driving.deformation - reference.deformation),
    )


def seen_from(
    heads: Placing, yaw_deg: float | None, pitch_deg: float | None, roll_deg: float | None, config: ModelConfig
) -> Placing:
    """The same heads with some of their angles replaced, in the signs of ``schemas.face.POSE_CONVENTION``."""
    wanted = (yaw_deg, pitch_deg, roll_deg)
    if all(angle is None for angle in wanted):
        return heads
    degrees_now = head_degrees(heads.rotation, config.euler_order, config.pitch_sign).unbind(dim=1)
    degrees = [old if new is None else torch.full_like(old, new) for old, new in zip(degrees_now, wanted, strict=True)]
    rotation = head_rotation(torch.stack(degrees, dim=1), config.euler_order, config.pitch_sign)
    return heads._replace(rotation=rotation)


def unlikeness(points: Float[Tensor, "B K 3"], source: Float[Tensor, "1 K 3"]) -> Float[Tensor, " B"]:
    """How far keypoints lie from the source's once both have the same place and size, as a share of that size.

    Procrustes' distance without its turn: a frame in which the head is turned as the source's counts as nearer.
    """
    first, second = (_normalised(set_of) for set_of in (points, source))
    return (first - second).square().sum(dim=(1, 2)).sqrt()


def _normalised(points: Float[Tensor, "B K 3"]) -> Float[Tensor, "B K 3"]:
    centred = points - points.mean(dim=1, keepdim=True)
    return centred / centred.square().sum(dim=(1, 2), keepdim=True).sqrt().clamp_min(1e-6)
