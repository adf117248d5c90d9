"""L_exp: the driving and the generated picture show the same expression, to a network that reads expressions."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from schemas.expression import EMOTIONS, ExpressionInput
from training.losses.config import ExpressionLossConfig
from training.networks.frozen import load
from training.networks.geometry import sample
from training.networks.precision import single_precision

Pictures = Float[Tensor, "B 3 S S"]
Boxes = Float[Tensor, "B 4"]  # the clip's face: xyxy as shares of the picture's width and height


class ExpressionLoss(nn.Module):
    """‖φ_d - φ_y‖₂ per picture, mean over the batch; φ are the logits in AffectNet's order.

    Args:
        network: faces to logits and features; frozen.
        given: how it sees a face, and the order of its logits.
    """

    def __init__(self, network: nn.Module, given: ExpressionInput) -> None:
        super().__init__()
        self.network = network
        self.given = given
        self.order = [given.classes.index(name) for name in EMOTIONS]

    def logits(self, pictures: Pictures, faces: Boxes | None = None) -> Float[Tensor, "B 8"]:
        """φ of pictures in [0, 1], looked at where their face is, or whole."""
        logits, _ = self.network(seen(pictures, self.given, faces))
        return logits[:, self.order].float()

    def forward(
        self, generated: Pictures, wanted: Float[Tensor, "B 8"], weight: Float[Tensor, " B"], faces: Boxes | None = None
    ) -> Float[Tensor, ""]:
        """The loss of ``generated`` against the driving frames' logits; frames of weight 0 count nothing."""
        off = torch.linalg.vector_norm(self.logits(generated, faces) - wanted.float().detach(), dim=1)
        return torch.where(weight > 0, off * weight, torch.zeros_like(off)).mean()


@single_precision
def seen(pictures: Pictures, given: ExpressionInput, faces: Boxes | None) -> Float[Tensor, "B 3 s s"]:
    """The squares that ``ExpressionInput`` says the network sees, differentiable in the pictures."""
    count, _, height, width = pictures.shape
    size = torch.tensor([width, height], device=pictures.device, dtype=torch.float32)
    if faces is None:
        first, last = torch.zeros(count, 2, device=pictures.device), size.expand(count, 2)
    else:
        low, high = faces[:, :2] * size, faces[:, 2:] * size
        half = given.scale * (high - low).amax(dim=1, keepdim=True) / 2
        middle = (low + high) / 2
        first, last = (middle - half).round().clamp(min=0), (middle + half).round().minimum(size)
    steps = (torch.arange(given.size_px, device=pictures.device) + 0.5) / given.size_px
    pixels = first[:, None] + steps[:, None] * (last - first)[:, None] - 0.5
    pixels = pixels.maximum(first[:, None]).minimum(last[:, None] - 1)  # the square is cut out before it is scaled
    x, y = (2 * pixels / (size - 1) - 1).unbind(dim=-1)
    grid = torch.stack([x[:, None].expand(-1, given.size_px, -1), y[:, :, None].expand(-1, -1, given.size_px)], dim=-1)
    mean, spread = (torch.tensor(values, device=pictures.device).view(3, 1, 1) for values in (given.mean, given.spread))
    return (sample(pictures, grid) - mean) / spread


def expression_loss(config: ExpressionLossConfig) -> ExpressionLoss | None:
    """The loss that the configuration asks for; None for a weight of 0.

    Raises:
        UsageError: when its network's file cannot be used.
    """
    if config.weight == 0:
        return None
    network = load("expression_resnet50", config.file, key="losses.expression.file")
    return ExpressionLoss(network, config.input)
