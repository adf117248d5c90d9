"""Pictures of a training step: what went in, what came out, and what the networks believe in between."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from training.networks.geometry import sample
from training.recipes.anytalk.model import Rendered

_MAX_ROWS = 4


@torch.no_grad()
def training_sheet(
    source: Float[Tensor, "B 3 S S"], driving: Float[Tensor, "B 3 S S"], rendered: Rendered
) -> UInt8[Tensor, "3 H W"]:
    """A row per pair: source, driving, generated, source warped by the mean flow, keypoints, what is seen.

    Keypoints are drawn on the driving picture: the source's in blue, the driving ones over them in red.
    """
    count = min(len(source), _MAX_ROWS)
    source, driving = source[:count].float(), driving[:count].float()
    size = source.shape[2:]
    flow = rendered.dense.grid[:count, ..., :2].mean(dim=1).movedim(-1, 1)
    grid = functional.interpolate(flow, size=size, mode="bilinear", align_corners=True).movedim(1, -1)
    marked = driving.clone()
    for points, colour in ((rendered.source_points, (0.0, 0.3, 1.0)), (rendered.driving_points, (1.0, 0.1, 0.1))):
        marked = _marked(marked, points[:count, :, :2], colour)
    seen = functional.interpolate(rendered.dense.occlusion[:count].float(), size=size, mode="nearest")
    columns = (
        source,
        driving,
        rendered.picture[:count].float(),
        sample(source, grid),
        marked,
        seen.expand(-1, 3, -1, -1),
    )
    rows = torch.cat(columns, dim=3)  # side by side
    return (torch.cat(list(rows), dim=1).clamp(0, 1) * 255).round().byte()


def _marked(
    pictures: Float[Tensor, "B 3 S S"], points: Float[Tensor, "B K 2"], colour: tuple[float, float, float]
) -> Float[Tensor, "B 3 S S"]:
    """Squares of a fortieth of the side around points in [-1, 1]."""
    height, width = pictures.shape[2:]
    half = max(1.0, width / 80)
    x = (points[..., 0] + 1) / 2 * (width - 1)
    y = (points[..., 1] + 1) / 2 * (height - 1)
    across = (torch.arange(width, device=x.device) - x[..., None]).abs() <= half
    down = (torch.arange(height, device=y.device) - y[..., None]).abs() <= half
    here = (down[..., :, None] & across[..., None, :]).any(dim=1)
    paint = torch.tensor(colour, device=pictures.device).view(3, 1, 1)
    return torch.where(here[:, None], paint, pictures)
