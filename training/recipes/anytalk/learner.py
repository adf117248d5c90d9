"""How AnyTalk learns: one frame of a clip is made from another, against a discriminator.

Both stages are the same step; they differ in the clips, the length and the rate (AnyTalk, "Network Learning").
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from schemas.errors import DataError, UsageError
from schemas.expression import ExpressionInput
from training.data.contract import check_labels, confidence, prepared
from training.losses.adversarial import accuracy, discriminator_loss, feature_matching_loss, generator_loss
from training.losses.config import ExpressionLossConfig
from training.losses.expression import ExpressionLoss, expression_loss
from training.losses.perceptual import perceptual_loss
from training.losses.pixels import l1, psnr_db
from training.networks.discriminator import Discriminator, Judgement
from training.recipes.anytalk.config import ModelConfig
from training.recipes.anytalk.deformation import Deformation
from training.recipes.anytalk.losses import (
    deformation_prior_loss,
    equivariance_loss,
    head_pose_loss,
    keypoint_prior_loss,
    label_weight,
)
from training.recipes.anytalk.model import AnyTalk, Rendered
from training.recipes.anytalk.settings import AnyTalkConfig
from training.recipes.anytalk.sheet import training_sheet
from training.recipes.base import Batch, DataFacts, Limit, Loss, Scalars, Score, Sheet, Step, Update

MODEL, DISCRIMINATOR = "model", "discriminator"


class GeneratorPass(NamedTuple):
    """The generator's half of a step: its loss, the unweighted terms of it, and what it made."""

    loss: Tensor
    terms: Scalars
    rendered: Rendered


class AnyTalkLearner:
    """Networks, losses and the two halves of a step.

    Args:
        config: of the run.
        facts: about the data.

    Raises:
        UsageError: when a frozen network that has a weight cannot be loaded, or the data have no emotion logits that
            the losses need.
    """

    score: ClassVar[Score] = Score("psnr_db")

    def __init__(self, config: AnyTalkConfig, facts: DataFacts | None = None) -> None:
        self.config = config
        if facts is not None:
            _check_expression(config.losses.expression, facts.expressions)
        self.perceptual = perceptual_loss(config.losses.perceptual, config.model.image_px)
        self.expression = expression_loss(config.losses.expression)
        self.model = AnyTalk(config.model)
        self.discriminator = discriminator_of(config.model)
        self.plays = config.losses.generator_loss > 0 or config.losses.feature_matching > 0

    # ---- what the engine asks ------------------------------------------------------------------------------------

    def modules(self) -> Mapping[str, nn.Module]:
        """The generator's side and the discriminator."""
        return {MODEL: self.model, DISCRIMINATOR: self.discriminator}

    def frozen(self) -> Sequence[nn.Module]:
        """The networks that judge, as far as their losses have a weight."""
        return [network for network in (self.perceptual, self.expression) if network is not None]

    def averaged(self) -> str:
        """The generator's side."""
        return MODEL

    def updates(self) -> Sequence[Update]:
        """The generator's side; then the discriminator, where it plays."""
        return (
            Update(MODEL, (MODEL,), self._model_loss),
            Update(DISCRIMINATOR, (DISCRIMINATOR,), self._discriminator_loss, when=lambda _step: self.plays),
        )

    def prepare(self, batch: Batch, on: torch.device) -> Batch:
        """Pairs of frames as floats on the device.

        Raises:
            DataError: for a missing field, another shape, or a label that is believed and no number.
        """
        if "driving_pose" in batch and not batch["driving_pose"].is_cuda:  # there, every look would stop the host
            check_labels(batch)
        there = {name: value.to(on, non_blocking=True) for name, value in batch.items()}
        return prepared(there, self.config.model.image_px)

    @torch.no_grad()
    def figures(self, step: Step) -> Scalars:
        """What tells a collapse: how near keypoints are, how sure, what is seen, and whether expressions are used."""
        rendered: Rendered = step.results["rendered"]
        points = rendered.driving_points
        apart = torch.cdist(points, points) + 9 * torch.eye(points.shape[1], device=points.device)
        return {
            "distance": apart.amin(),
            "entropy": rendered.canonical.entropy.mean(dim=0).amin(),
            "occlusion": rendered.dense.occlusion.float().mean(),
            "spread_of_deformation": rendered.driving_motion.deformation.std(dim=0, unbiased=False).mean(),
        }

    def limits(self) -> Sequence[Limit]:
        """Of those figures, and of how often the discriminator is right."""
        limits = self.config.alarms
        return (
            Limit("distance", "keypoints lie on one another", below=limits.min_distance),
            Limit("entropy", "keypoints are stuck to single voxels", below=limits.min_entropy),
            Limit("occlusion", "nothing of the source gets through", below=limits.min_occlusion),
            Limit("occlusion", "the occlusion map is open everywhere", above=limits.max_occlusion),
            Limit("spread_of_deformation", "expressions are not used", below=limits.min_deformation),
            Limit("accuracy", "the generator has lost", above=limits.max_accuracy, steps=limits.accurate_steps),
        )

    def sheet(self, step: Step) -> Sheet:
        """Source, driving, generated, warped, keypoints and occlusion, a row per pair."""
        return training_sheet(step.batch["source"], step.batch["driving"], step.results["rendered"])

    def validate(self, module: nn.Module, batch: Batch) -> dict[str, float]:
        """How well a fixed batch is made in evaluation mode, and how near its source pictures are already."""
        return {
            "psnr_db": psnr_db(self.render(module, batch).picture, batch["driving"]).mean().item(),
            "psnr_source_db": psnr_db(batch["source"], batch["driving"]).mean().item(),
        }

    def validation_sheet(self, module: nn.Module, batch: Batch) -> Sheet:
        """As :meth:`sheet`, of a held out batch in evaluation mode."""
        return training_sheet(batch["source"], batch["driving"], self.render(module, batch))

    def validation_line(self, figures: Mapping[str, float]) -> str:
        """Made pictures and the sources themselves against the driving ones."""
        generated, source = figures["psnr_db"], figures["psnr_source_db"]
        return (
            f"held out: made {generated:.2f} dB, the source itself {source:.2f} dB, gain {generated - source:+.2f} dB"
        )

    def summary(self) -> list[str]:
        """Numbers of parameters, the side of pictures, and the weights of the losses."""
        model, discriminator = (
            sum(weight.numel() for weight in network.parameters()) / 1e6 for network in (self.model, self.discriminator)
        )
        losses = ", ".join(f"{name} {weight:g}" for name, weight in self.weights().items() if weight)
        return [
            f"{model:.2f} M parameters, its discriminator {discriminator:.2f} M, {self.config.model.image_px} px",
            f"losses: {losses}",
        ]

    # ---- the two halves of a step --------------------------------------------------------------------------------

    def _model_loss(self, step: Step) -> Loss:
        batch, moment = step.batch, step.moment
        count = len(batch["source"])
        deformation = Deformation.drawn(
            moment.seed, moment.step, count, moment.rank, moment.size, batch["source"].device
        )
        generated = self.generate(step.networks[MODEL], step.networks[DISCRIMINATOR], batch, deformation)
        step.results["rendered"] = generated.rendered
        return Loss(generated.loss, generated.terms)

    def _discriminator_loss(self, step: Step) -> Loss:
        return self.judge(step.networks[DISCRIMINATOR], step.batch, step.results["rendered"])

    def generate(
        self, model: nn.Module, discriminator: nn.Module, batch: Batch, deformation: Deformation
    ) -> GeneratorPass:
        """Make the driving frames and judge what was made.

        Args:
            model: the generator's side, as wrapped for this process.
            discriminator: unwrapped, without gradients for its own weights.
            batch: as ``training.data.contract`` prepares it.
            deformation: of the driving frames.
        """
        source, driving = batch["source"], batch["driving"]
        rendered: Rendered = model(source, driving, deformation.apply(driving))
        terms = self._terms(rendered, batch, deformation)
        if self.plays:
            with torch.no_grad():
                real = discriminator(driving)
            generated = discriminator(rendered.picture)
            terms |= {
                "generator_loss": generator_loss(generated),
                "feature_matching": feature_matching_loss(generated, real),
            }
        weights = self.weights()
        loss = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
        return GeneratorPass(loss, {name: value.detach() for name, value in terms.items()}, rendered)

    def judge(self, discriminator: nn.Module, batch: Batch, rendered: Rendered) -> Loss:
        """The discriminator's half: its loss, and how often it is right; real and made pictures go in one call."""
        driving = batch["driving"]
        judged = discriminator(torch.cat([driving, rendered.picture.detach().to(driving.dtype)]))
        real, generated = ([_half(judgement, part) for judgement in judged] for part in range(2))
        loss = discriminator_loss(real, generated)
        return Loss(loss, {"discriminator_loss": loss.detach(), "accuracy": accuracy(real, generated).detach()})

    @torch.no_grad()
    def render(self, model: nn.Module, batch: Batch) -> Rendered:
        """A batch as it is made in evaluation mode."""
        training = model.training
        rendered: Rendered = model.eval()(batch["source"], batch["driving"], batch["driving"])
        model.train(training)
        return rendered

    def weights(self) -> dict[str, float]:
        """Of every term of the loss, by its name."""
        losses = self.config.losses
        return {
            "pixel": losses.pixel,
            "generator_loss": losses.generator_loss,
            "feature_matching": losses.feature_matching,
            "equivariance": losses.equivariance,
            "keypoint_prior": losses.keypoint_prior,
            "head_pose": losses.head_pose,
            "deformation_prior": losses.deformation_prior,
            "perceptual": losses.perceptual.weight,
            "expression_consistency": losses.expression.weight,
        }

    def _terms(self, rendered: Rendered, batch: Batch, deformation: Deformation) -> Scalars:
        losses, driving = self.config.losses, batch["driving"]
        believed = label_weight(confidence(batch["driving_pose"]), batch["driving_valid"], losses.min_pose_confidence)
        points, motion = rendered.driving_points, rendered.driving_motion
        terms = {
            "equivariance": equivariance_loss(points, rendered.deformed_points, deformation),
            "keypoint_prior": keypoint_prior_loss(points, losses.min_distance_squared, losses.mean_depth),
            "head_pose": head_pose_loss(motion.degrees, batch["driving_pose"][:, :3], believed),
            "deformation_prior": deformation_prior_loss(motion.deformation),
        }
        if losses.pixel:
            terms["pixel"] = l1(rendered.picture, driving).mean()
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(rendered.picture, driving)
        if self.expression is not None:
            terms["expression_consistency"] = self._same_expression(self.expression, rendered.picture, batch)
        return terms

    def _same_expression(self, loss: ExpressionLoss, generated: Tensor, batch: Batch) -> Tensor:
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
        return loss(generated, wanted, counts.float(), faces)


def discriminator_of(size: ModelConfig) -> Discriminator:
    """The discriminator of these sizes."""
    return Discriminator(size.base_channels, size.discriminator_blocks, size.discriminator_scales)


def _half(judgement: Judgement, part: int) -> Judgement:
    return Judgement(judgement.scores.chunk(2)[part], tuple(plane.chunk(2)[part] for plane in judgement.features))


def _check_expression(config: ExpressionLossConfig, inputs: Mapping[str, ExpressionInput | None]) -> None:
    """Refuse targets from shards that have none, or whose network saw faces otherwise."""
    if not config.weight or config.target != "shards":
        return
    for domain, given in inputs.items():
        if given is None:
            raise UsageError(
                f"losses.expression.target is 'shards' and the domain {domain!r} has no emotion logits: build it with "
                "an expression model, or set the target to 'network'"
            )
        if given != config.input:
            raise UsageError(
                f"the emotion logits of the domain {domain!r} were made with {given.model_dump_json()}: set "
                "losses.expression.input to it, or the target to 'network'"
            )
