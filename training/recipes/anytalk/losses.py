"""What keypoints, head pose and deformation have to obey (supplement, B.2), in single precision."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from training.networks.precision import single_precision
from training.recipes.anytalk.deformation import Deformation

Loss = Float[Tensor, ""]
Points = Float[Tensor, "B K 3"]


def equivariance_loss(points: Points, deformed_points: Points, deformation: Deformation) -> Loss:
    """L_E: mean |x - T(x')| over x and y of all points.

    The paper writes T⁻¹ of a deformation that moves points; ours says where pixels are read, which is its inverse.

    Args:
        points: in the picture.
        deformed_points: in the deformed picture.
        deformation: T.
    """
    return (points[..., :2].float() - deformation(deformed_points[..., :2])).abs().mean()


@single_precision
def keypoint_prior_loss(points: Points, min_distance_squared: float = 0.1, mean_depth: float = 0.33) -> Loss:
    """L_dist: Σ over ordered pairs i ≠ j of relu(D_t - |x_i - x_j|²), and |mean z - z_t|; mean over the batch."""
    squared = (points[:, :, None] - points[:, None]).square().sum(dim=-1)
    other = ~torch.eye(points.shape[1], dtype=torch.bool, device=points.device)
    crowded = ((min_distance_squared - squared).clamp(min=0) * other).sum(dim=(1, 2))
    return (crowded + (points[..., 2].mean(dim=1) - mean_depth).abs()).mean()


def label_weight(
    confidence: Float[Tensor, " B"], valid: Bool[Tensor, " B"], min_confidence: float = 0.5
) -> Float[Tensor, " B"]:
    """How much each frame's pose label counts: its confidence, or nothing where it is low or there is no face.

    Some domains have no head pose that anyone could label; those frames are never given one.
    """
    counts = valid.bool() & (confidence >= min_confidence)
    return torch.where(counts, confidence, torch.zeros_like(confidence))


@single_precision
def head_pose_loss(degrees: Float[Tensor, "B 3"], labels: Float[Tensor, "B 3"], weight: Float[Tensor, " B"]) -> Loss:
    """L_M: |Δ| in degrees, summed over yaw, pitch and roll, times each frame's weight; mean over the batch."""
    off = torch.where(weight[:, None] > 0, (degrees - labels).abs(), torch.zeros_like(degrees))
    return (off.sum(dim=1) * weight).mean()


@single_precision
def deformation_prior_loss(deformation: Points) -> Loss:
    """L_Δ: Σ |δ| over all points and axes; mean over the batch."""
    return deformation.abs().sum(dim=(1, 2)).mean()
