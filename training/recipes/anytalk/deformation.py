"""Random smooth deformations of pictures, under which keypoints have to move along.

A deformation T says where each output pixel is *read*: the deformed picture at p shows the original at T(p). So a
point seen at q in the deformed picture lies at T(q) in the original, and that is the direction to compare in.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from training.networks.geometry import axis_coordinates, coordinate_grid, sample
from training.networks.precision import single_precision

AFFINE_SPREAD = 0.05  # FOMM's standard deviations, which AnyTalk's loss inherits
BEND_SPREAD = 0.005
NUM_CONTROL = 5  # control points per side
_EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class Deformation:
    """T(p) = θ (p, 1) + Σ_i w_i u(|p - c_i|₁), u(r) = r² ln(r + 1e-6); one per picture.

    Args:
        affine: θ.
        bend: w, one weight per control point, the same for x and y.
    """

    affine: Float[Tensor, "B 2 3"]
    bend: Float[Tensor, "B 25"]

    @classmethod
    def random(cls, count: int, generator: torch.Generator, device: torch.device | None = None) -> "Deformation":
        """Draw ``count`` of them; drawn on the CPU, so that every device and any split of a batch gets the same."""
        affine = torch.eye(2, 3) + AFFINE_SPREAD * torch.randn(count, 2, 3, generator=generator)
        bend = BEND_SPREAD * torch.randn(count, NUM_CONTROL**2, generator=generator)
        return cls(affine.to(device), bend.to(device))

    @classmethod
    def drawn(cls, seed: int, step: int, count: int, rank: int, size: int, device: torch.device) -> "Deformation":
        """The part that process ``rank`` of ``size`` draws for its ``count`` pictures of a step.

        Together the processes draw what one would draw for the whole batch.
        """
        mixed = np.random.SeedSequence((seed, step)).generate_state(1)  # torch looks at 32 bits only
        generator = torch.Generator().manual_seed(int(mixed[0]))
        return cls.random(size * count, generator, device)[rank * count : (rank + 1) * count]

    def __getitem__(self, part: slice) -> "Deformation":
        return Deformation(self.affine[part], self.bend[part])

    def __call__(self, points: Float[Tensor, "#B N 2"]) -> Float[Tensor, "B N 2"]:
        """Where the points of the deformed pictures, or the same ones of all, lie in the originals."""
        return _deformed(points, self.affine, self.bend)

    def apply(self, pictures: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """The deformed pictures; what lies outside is mirrored in."""
        height, width = pictures.shape[-2:]
        grid = coordinate_grid(height, width, device=pictures.device).flatten(0, 1)
        read = self(grid[None]).unflatten(1, (height, width))
        return sample(pictures, read, padding="reflection")


@single_precision
def _deformed(points: Tensor, affine: Tensor, bend: Tensor) -> Tensor:
    axis = axis_coordinates(NUM_CONTROL, points.device)
    control = torch.stack(torch.meshgrid(axis, axis, indexing="ij")[::-1], dim=-1).flatten(0, 1)
    radius = (points[:, :, None] - control).abs().sum(dim=-1)
    # No matrix product: its last bits depend on the batch's size, and processes share what one would draw.
    bent = (radius**2 * torch.log(radius + _EPSILON) * bend[:, None]).sum(dim=-1, keepdim=True)
    return points @ affine[:, :, :2].mT + affine[:, None, :, 2] + bent
