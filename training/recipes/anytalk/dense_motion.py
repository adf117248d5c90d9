"""D: from two sets of keypoints to a dense flow over the feature volume, and what of it cannot be seen."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from training.networks.blocks import ColumnConv, Conv, Hourglass
from training.networks.geometry import coordinate_grid, gaussian_heatmaps, translated
from training.networks.precision import single_precision
from training.recipes.anytalk.config import ModelConfig

_OCCLUSION_KERNEL = 7


class DenseMotion(NamedTuple):
    """Where each voxel is read in the source's volume, x y z in [-1, 1], and how much of it is seen, 0 to 1."""

    grid: Float[Tensor, "B D H W 3"]
    occlusion: Float[Tensor, "B 1 H W"]


class DenseMotionNetwork(nn.Module):
    """Weighs K translations and standing still against one another (supplement, Fig. 1d).

    Without first-order terms the k-th sparse motion reads the source at p + x_s,k - x_d,k.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        candidates = config.num_keypoints + 1  # the first stands still
        self.variance = config.heatmap_variance
        self.compress = Conv(config.feature_channels, config.compressed_channels, 1, dims=3)
        width_in = candidates * (config.compressed_channels + 1)
        self.hourglass = Hourglass(width_in, config.widths(config.hourglass_levels))
        width = self.hourglass.width
        self.merge = Conv(width, width, dims=3)
        self.mask = ColumnConv(width, candidates, config.mask_kernel)
        self.occlusion = nn.Conv2d(width * config.depth, 1, _OCCLUSION_KERNEL, padding=_OCCLUSION_KERNEL // 2)

    def forward(  # noqa: D102
        self, features: Float[Tensor, "B C D H W"], source: Float[Tensor, "B K 3"], driving: Float[Tensor, "B K 3"]
    ) -> DenseMotion:
        depth, height, width = features.shape[2:]
        shift = _with_still(source.float() - driving.float())
        copies = translated(self.compress(features), shift)
        seen = [gaussian_heatmaps(points, (depth, height, width), self.variance) for points in (driving, source)]
        difference = _with_still(seen[0] - seen[1])
        merged = self.merge(self.hourglass(torch.cat([difference[:, :, None], copies], dim=2).flatten(1, 2)))
        grid = _weighted(self.mask(merged), shift)
        return DenseMotion(grid, self.occlusion(merged.flatten(1, 2)).sigmoid())


def _with_still(values: Float[Tensor, "B K ..."]) -> Float[Tensor, "B K+1 ..."]:
    """Zeros for the candidate that stands still, before the K others."""
    return torch.cat([torch.zeros_like(values[:, :1]), values], dim=1)


@single_precision
def _weighted(logits: Float[Tensor, "B J D H W"], shift: Float[Tensor, "B J 3"]) -> Float[Tensor, "B D H W 3"]:
    grid = coordinate_grid(*logits.shape[2:], device=logits.device)
    return grid + torch.einsum("bjdhw,bjc->bdhwc", logits.softmax(dim=1), shift)
