"""Where things are: coordinate grids, rotations, head angles from bins, keypoints, and translation warps.

Coordinates run from -1 to 1 between the *centres* of the first and last pixel (``align_corners=True`` everywhere):
grids built that way and sampled the other way do not leave a picture alone, but darken its border. Points are
(x right, y down, z), column vectors. Everything here is single precision.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from training.networks.precision import single_precision

EulerOrder = Literal["xyz", "zyx"]
NUM_ANGLE_BINS = 66
DEGREES_PER_BIN = 3.0
_FAINT = 1e-12


def axis_coordinates(size: int, device: torch.device | None = None) -> Float[Tensor, " S"]:
    """Centres of ``size`` pixels in [-1, 1]; a single one lies at 0."""
    if size == 1:
        return torch.zeros(1, device=device)
    return torch.linspace(-1.0, 1.0, size, device=device)


def coordinate_grid(*sizes: int, device: torch.device | None = None) -> Float[Tensor, "... N"]:
    """Coordinates of every voxel of an array of shape ``sizes`` = (D, H, W) or (H, W); last axis x, y(, z)."""
    axes = [axis_coordinates(size, device) for size in sizes]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], dim=-1)


@single_precision
def sample(
    values: Float[Tensor, "B C ..."], grid: Float[Tensor, "B ... N"], padding: str = "zeros"
) -> Float[Tensor, "B C ..."]:
    """Values at the points of ``grid``, bi- or trilinear between pixels; outside zero or as ``padding`` says."""
    return functional.grid_sample(values, grid, mode="bilinear", padding_mode=padding, align_corners=True)


# ---- rotations -----------------------------------------------------------------------------------------------------


@single_precision
def euler_to_matrix(
    pitch: Float[Tensor, "..."], yaw: Float[Tensor, "..."], roll: Float[Tensor, "..."], order: EulerOrder = "xyz"
) -> Float[Tensor, "... 3 3"]:
    """Rotation for column vectors: ``xyz`` is Rx(pitch) Ry(yaw) Rz(roll), ``zyx`` is Rz(roll) Ry(yaw) Rx(pitch).

    Each factor is right-handed about its axis. Both orders are in use (face-vid2vid and AnyTalk the first,
    LivePortrait and Takin-ADA the second) and differ by several degrees once two angles are large.

    Args:
        pitch: about x, radians.
        yaw: about y, radians.
        roll: about z, radians.
        order: of the product.
    """
    x, y, z = (_about(axis, angle) for axis, angle in enumerate((pitch, yaw, roll)))
    return x @ y @ z if order == "xyz" else z @ y @ x


def _about(axis: int, angle: Tensor) -> Tensor:
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix = torch.zeros(*angle.shape, 3, 3, device=angle.device)
    matrix[..., axis, axis] = 1.0
    matrix[..., first, first] = matrix[..., second, second] = angle.cos()
    matrix[..., second, first] = angle.sin()
    matrix[..., first, second] = -angle.sin()
    return matrix


@single_precision
def expected_degrees(logits: Float[Tensor, "... 66"], offset_deg: float = 97.5) -> Float[Tensor, "..."]:
    """Head angle as the expectation over 66 bins of 3° (Ruiz et al., "Hopenet", CVPR workshops 2018).

    Args:
        logits: one per bin.
        offset_deg: taken off bin 0; 97.5 centres the bins on 0° (LivePortrait), face-vid2vid's 99 leaves them
            1.5° off.
    """
    bins = torch.arange(NUM_ANGLE_BINS, device=logits.device, dtype=logits.dtype)
    return logits.softmax(dim=-1) @ bins * DEGREES_PER_BIN - offset_deg


# ---- keypoints -----------------------------------------------------------------------------------------------------


@single_precision
def transform_keypoints(
    canonical: Float[Tensor, "B K 3"],
    rotation: Float[Tensor, "B 3 3"],
    translation: Float[Tensor, "B 3"],
    deformation: Float[Tensor, "B K 3"],
) -> Float[Tensor, "B K 3"]:
    """Keypoints of a frame: x = R x_c + t + δ (AnyTalk, Eq. 1)."""
    return canonical @ rotation.mT + translation[:, None] + deformation


@single_precision
def expected_keypoints(
    logits: Float[Tensor, "B K D H W"], temperature: float = 0.1
) -> tuple[Float[Tensor, "B K 3"], Float[Tensor, "B K"]]:
    """Keypoints as the mean position under a softmax over the volume, and that softmax's entropy in nats.

    An entropy near 0 means that a keypoint has collapsed onto one voxel and gets no gradient any more.
    """
    scaled = logits.flatten(2) / temperature
    log_mass = scaled.log_softmax(dim=-1)
    mass = log_mass.exp()
    grid = coordinate_grid(*logits.shape[2:], device=logits.device).flatten(0, 2)
    return mass @ grid, -(mass * log_mass).sum(dim=-1)


@single_precision
def gaussian_heatmaps(
    points: Float[Tensor, "B K 3"], shape: tuple[int, int, int], variance: float = 0.01
) -> Float[Tensor, "B K D H W"]:
    """exp(-|p - x|² / 2σ²) around every keypoint, as the product of three one-dimensional ones.

    What is below 1e-12 along an axis is 0: processors take a hundred times as long for products near 1e-40.
    """
    x, y, z = (
        torch.exp(-0.5 * (axis_coordinates(size, points.device) - points[..., index, None]) ** 2 / variance)
        for index, size in enumerate(reversed(shape))
    )
    x, y, z = (torch.where(factor < _FAINT, torch.zeros_like(factor), factor) for factor in (x, y, z))
    return torch.einsum("bkx,bky,bkz->bkzyx", x, y, z)


# ---- warps by translation ------------------------------------------------------------------------------------------


@single_precision
def translated(volume: Float[Tensor, "B C D H W"], shift: Float[Tensor, "B K 3"]) -> Float[Tensor, "B K C D H W"]:
    """K copies of a volume, the k-th read at every grid point plus ``shift[k]``; zero outside.

    The same as sampling at shifted grids, since the trilinear weights of a pure translation are a product over
    axes: each axis is one banded matrix, so there is no gather and the backward pass is deterministic.

    Args:
        volume: what is read.
        shift: x, y, z in coordinates of [-1, 1].
    """
    depth, height, width = volume.shape[2:]
    along_x, along_y, along_z = (
        _lerp_matrix(shift[..., axis], size) for axis, size in enumerate((width, height, depth))
    )
    rows = torch.einsum("bcdhw,bkxw->bkcdhx", volume, along_x)
    planes = torch.einsum("bkcdhx,bkyh->bkcdyx", rows, along_y)
    return torch.einsum("bkcdyx,bkzd->bkczyx", planes, along_z)


def _lerp_matrix(shift: Float[Tensor, "B K"], size: int) -> Float[Tensor, "B K S S"]:
    """Row i holds the weights with which the pixels around i + shift enter."""
    index = torch.arange(size, device=shift.device, dtype=shift.dtype)
    pixels = shift * ((size - 1) / 2)
    distance = index[:, None] + pixels[..., None, None] - index
    return functional.relu(1.0 - distance.abs())


# ---- angles as labels have them ------------------------------------------------------------------------------------


def head_rotation(
    degrees: Float[Tensor, "B 3"], order: EulerOrder = "xyz", pitch_sign: Literal[-1, 1] = -1
) -> Float[Tensor, "B 3 3"]:
    """Rotation of a head from yaw, pitch and roll in degrees, in the signs of ``schemas.face.POSE_CONVENTION``.

    Labels count yaw up as the nose goes to image left and pitch up as it goes up. With y down, one rigid head
    obeys both only if pitch turns it the other way about x; face-vid2vid had +1, so its pitch worked against its
    yaw and was left to δ.

    Args:
        degrees: yaw, pitch, roll.
        order: of the product.
        pitch_sign: +1 for weights trained elsewhere.
    """
    yaw, pitch, roll = (degrees.float() * (math.pi / 180)).unbind(dim=-1)
    return euler_to_matrix(pitch_sign * pitch, yaw, roll, order)


@single_precision
def head_degrees(
    rotation: Float[Tensor, "B 3 3"], order: EulerOrder = "xyz", pitch_sign: Literal[-1, 1] = -1
) -> Float[Tensor, "B 3"]:
    """Yaw, pitch and roll in degrees of a rotation: the inverse of ``head_rotation`` for |yaw| below 90°."""
    r = rotation
    if order == "xyz":
        angles = (r[:, 0, 2], torch.atan2(-r[:, 1, 2], r[:, 2, 2]), torch.atan2(-r[:, 0, 1], r[:, 0, 0]))
    else:
        angles = (-r[:, 2, 0], torch.atan2(r[:, 2, 1], r[:, 2, 2]), torch.atan2(r[:, 1, 0], r[:, 0, 0]))
    sine, pitch, roll = angles
    return torch.stack([sine.clamp(-1, 1).asin(), pitch_sign * pitch, roll], dim=1) * (180 / math.pi)
