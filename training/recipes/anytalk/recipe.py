"""How AnyTalk learns: one frame of a clip is made from another, against a discriminator.

Both stages are the same step; they differ in the clips, the length and the rate (AnyTalk, "Network Learning").
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from schemas.errors import DataError
from training.data.contract import confidence
from training.engine.config import TrainConfig
from training.losses.adversarial import accuracy, fooling_loss, judging_loss, matching_loss
from training.losses.expression import ExpressionLoss, expression_loss
from training.losses.perceptual import perceptual_loss
from training.losses.pixels import l1, psnr_db
from training.networks.discriminator import Discriminator, Judgement
from training.recipes.anytalk.deformation import Deformation
from training.recipes.anytalk.losses import deformation_loss, equivariance_loss, label_weight, pose_loss, spread_loss
from training.recipes.anytalk.model import AnyTalk, Rendered
from training.recipes.anytalk.sheet import training_sheet

Batch = Mapping[str, Tensor]
Scalars = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Moment:
    """Where in a run a step is: all that its random numbers depend on.

    ``rank`` of ``size`` processes draws its part of what one process would draw for the whole batch.
    """

    seed: int
    step: int
    rank: int = 0
    size: int = 1

    def deformation(self, count: int, device: torch.device) -> Deformation:
        """The deformations of this process's ``count`` pictures."""
        mixed = np.random.SeedSequence((self.seed, self.step)).generate_state(1)  # torch looks at 32 bits only
        generator = torch.Generator().manual_seed(int(mixed[0]))
        every = Deformation.random(self.size * count, generator, device)
        return every[self.rank * count : (self.rank + 1) * count]


class Made(NamedTuple):
    """The generator's half of a step: its loss, the unweighted terms of it, and what it made."""

    loss: Float[Tensor, ""]
    terms: Scalars
    rendered: Rendered


class AnyTalkRecipe:
    """Networks, losses and the two halves of a step.

    Args:
        config: of the run.

    Raises:
        UsageError: when a frozen network that has a weight cannot be loaded.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.perceptual = perceptual_loss(config.losses.perceptual, config.model.image_px)
        self.expression = expression_loss(config.losses.expression)
        self.model = AnyTalk(config.model)
        self.discriminator = Discriminator(config.model)
        weights = config.losses
        self.plays = weights.adversarial > 0 or weights.feature_matching > 0

    def to(self, device: torch.device) -> None:
        """Move the frozen networks; the trained ones are moved by who wraps them."""
        for network in (self.perceptual, self.expression):
            if network is not None:
                network.to(device)

    def generate(self, model: nn.Module, discriminator: nn.Module, batch: Batch, moment: Moment) -> Made:
        """Make the driving frames and judge what was made.

        Args:
            model: the generator's side, as wrapped for this process.
            discriminator: unwrapped, without gradients for its own weights.
            batch: as ``training.data.contract`` prepares it.
            moment: of the step.
        """
        source, driving = batch["source"], batch["driving"]
        deformation = moment.deformation(len(source), source.device)
        rendered: Rendered = model(source, driving, deformation.apply(driving))
        terms = self._terms(rendered, batch, deformation)
        if self.plays:
            with torch.no_grad():
                real = discriminator(driving)
            made = discriminator(rendered.picture)
            terms |= {"adversarial": fooling_loss(made), "feature_matching": matching_loss(made, real)}
        weights = self.weights()
        loss = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
        return Made(loss, {name: value.detach() for name, value in terms.items()}, rendered)

    def judge(self, discriminator: nn.Module, batch: Batch, made: Made) -> tuple[Float[Tensor, ""], Scalars]:
        """The discriminator's half: its loss, and how often it is right; real and made pictures go in one call."""
        driving = batch["driving"]
        found = discriminator(torch.cat([driving, made.rendered.picture.detach().to(driving.dtype)]))
        real, fake = ([_part(one, half) for one in found] for half in range(2))
        loss = judging_loss(real, fake)
        return loss, {"judging": loss.detach(), "accuracy": accuracy(real, fake).detach()}

    @torch.no_grad()
    def figures(self, made: Made) -> Scalars:
        """What tells a collapse, as ``training.engine.alarms`` names it."""
        rendered = made.rendered
        points = rendered.driving_points
        apart = torch.cdist(points, points) + 9 * torch.eye(points.shape[1], device=points.device)
        return {
            "distance": apart.amin(),
            "entropy": rendered.canonical.entropy.mean(dim=0).amin(),
            "occlusion": rendered.dense.occlusion.float().mean(),
            "spread_of_deformation": rendered.driving_motion.deformation.std(dim=0, unbiased=False).mean(),
        }

    def sheet(self, batch: Batch, rendered: Rendered) -> UInt8[Tensor, "3 H W"]:
        """A picture of a batch: source, driving, generated, warped, keypoints and occlusion, a row per pair."""
        return training_sheet(batch["source"], batch["driving"], rendered)

    @torch.no_grad()
    def render(self, model: nn.Module, batch: Batch) -> Rendered:
        """A batch as it is made in evaluation mode."""
        training = model.training
        rendered: Rendered = model.eval()(batch["source"], batch["driving"], batch["driving"])
        model.train(training)
        return rendered

    def validate(self, model: nn.Module, batch: Batch) -> dict[str, float]:
        """How well a fixed batch is made in evaluation mode, and how near its source pictures are already."""
        return {
            "psnr_db": psnr_db(self.render(model, batch).picture, batch["driving"]).mean().item(),
            "psnr_source_db": psnr_db(batch["source"], batch["driving"]).mean().item(),
        }

    def weights(self) -> dict[str, float]:
        """Of every term of the loss, by its name."""
        losses = self.config.losses
        plain = ("pixel", "adversarial", "feature_matching", "equivariance", "spread", "pose", "deformation")
        weights = {name: float(getattr(losses, name)) for name in plain}
        return weights | {"perceptual": losses.perceptual.weight, "expression": losses.expression.weight}

    def _terms(self, rendered: Rendered, batch: Batch, deformation: Deformation) -> Scalars:
        losses, driving = self.config.losses, batch["driving"]
        believed = label_weight(confidence(batch["driving_pose"]), batch["driving_valid"], losses.min_pose_confidence)
        terms = {
            "equivariance": equivariance_loss(rendered.driving_points, rendered.deformed_points, deformation),
            "spread": spread_loss(rendered.driving_points, losses.min_distance_squared, losses.mean_depth),
            "pose": pose_loss(rendered.driving_motion.degrees, batch["driving_pose"][:, :3], believed),
            "deformation": deformation_loss(rendered.driving_motion.deformation),
        }
        if losses.pixel:
            terms["pixel"] = l1(rendered.picture, driving).mean()
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(rendered.picture, driving)
        if self.expression is not None:
            terms["expression"] = self._same_expression(self.expression, rendered.picture, batch)
        return terms

    def _same_expression(self, loss: ExpressionLoss, made: Tensor, batch: Batch) -> Tensor:
        faces, counts = batch.get("driving_face"), batch["driving_valid"]
        if self.config.losses.expression.target == "network":
            with torch.no_grad():
                wanted = loss.logits(batch["driving"], faces)
        elif faces is None or "driving_emotion" not in batch:
            raise DataError(
                "losses.expression.target is 'shards' and batches have no driving_emotion with driving_face: "
                "build the release with an expression model, or set the target to 'network'"
            )
        else:
            wanted, counts = batch["driving_emotion"], counts & batch.get("has_emotion", counts)
        return loss(made, wanted, counts.float(), faces)


def _part(judged: Judgement, half: int) -> Judgement:
    return Judgement(judged.scores.chunk(2)[half], tuple(one.chunk(2)[half] for one in judged.features))
