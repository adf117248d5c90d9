"""A recipe that needs all that AnyTalk does not: two domains at once, a stage upon a stage, batches without pictures.

``reenact`` has an encoder per group of domains, and a critic for each: three updates a step. ``speak`` learns motion
from mel windows and from latents that ``reenact``'s checkpoint encoded, by an error that falls. ``style`` learns mouth
points from mel and from another clip of the same person. None of them is good at anything.
"""

# ruff: noqa: ARG002 - a protocol says more than a toy wants to know

from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from torch import nn
from torch.nn import functional

from schemas.base import Record
from schemas.errors import DataError, UsageError
from training.data.contract import prepared
from training.data.draws import FramePairs, Quota, Windows
from training.losses.pixels import l1, psnr_db
from training.recipes.base import Driving, Limit, Literature, Loss, Score, Stage, StageConfig, TrainConfig, Update

GROUPS = {"real": ("real",), "drawn": ("mesh",)}
LATENT = 4
ANIMATED = "toy"


class ToySizes(Record):
    """Of the networks of every stage."""

    image_px: int = 16
    width: int = 4
    num_frames: int = 4  # of a window


class ToyConfig(TrainConfig):
    """Settings of the toy."""

    STAGES: ClassVar[Mapping[str, Stage]] = {
        "reenact": Stage(),
        "speak": Stage(after="reenact", inherits=False),
        "style": Stage(),
    }

    sizes: ToySizes = ToySizes()
    latents: str | None = None  # where ``encode`` wrote
    stage: str = "reenact"
    reenact: StageConfig = StageConfig(num_pairs=8, learning_rate=1e-3)
    speak: StageConfig = StageConfig(num_pairs=8, learning_rate=1e-3)
    style: StageConfig = StageConfig(num_pairs=8, learning_rate=1e-3)

    @property
    def networks(self):
        return self.sizes

    @property
    def image_px(self):
        return self.sizes.image_px if self.stage == "reenact" else None


# ---- reenact ---------------------------------------------------------------------------------------------------------


class Reenactor(nn.Module):
    """An encoder of motion per group of domains, one decoder for all."""

    def __init__(self, sizes):
        super().__init__()
        self.sizes = sizes
        self.encoders = nn.ModuleDict({group: self._encoder(sizes.width) for group in GROUPS})
        self.decoder = nn.Sequential(
            nn.Conv2d(3 + LATENT, sizes.width, 3, 1, 1), nn.ReLU(), nn.Conv2d(sizes.width, 3, 1)
        )

    @staticmethod
    def _encoder(width):
        layers = (nn.Conv2d(3, width, 4, 4), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return nn.Sequential(*layers, nn.Linear(width, LATENT))

    def forward(self, source, driving, in_group):
        latents = torch.zeros(len(source), LATENT, device=source.device)
        for group, rows in in_group.items():
            if rows.any():
                latents = latents.index_put((rows.nonzero()[:, 0],), self.encoders[group](driving[rows]))
        return self.decoded(source, latents)

    def decoded(self, source, latents):
        planes = latents[:, :, None, None].expand(-1, -1, *source.shape[2:])
        return torch.sigmoid(self.decoder(torch.cat([source, planes], dim=1)))


def group_of(domain):
    return next(group for group, domains in GROUPS.items() if domain in domains)


class ReenactLearner:
    """Three updates a step: the model, and the critic of either group of domains."""

    score = Score("psnr_db")

    def __init__(self, config, facts):
        self.config, self.facts = config, facts
        self.model = Reenactor(config.sizes)
        self.critics = {
            group: nn.Sequential(nn.Conv2d(3, config.sizes.width, 4, 4), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 1))
            for group in GROUPS
        }

    def modules(self):
        return {"model": self.model, **{f"{group}_critic": critic for group, critic in self.critics.items()}}

    def frozen(self):
        return []

    def averaged(self):
        return "model"

    def updates(self):
        critics = [
            Update(f"{group}_critic", (f"{group}_critic",), self._critic_loss(group), rate=0.5) for group in GROUPS
        ]
        return [Update("model", ("model",), self._model_loss), *critics]

    def prepare(self, batch, on):
        there = {name: values.to(on) for name, values in batch.items()}
        table = dict(prepared(there, self.config.sizes.image_px))
        return table | ({"group": there["group"]} if "group" in there else {})

    def rows(self, batch):
        """Which rows are of which group, by what the facts say that the numbers of domains mean."""
        domains = self.facts.domains
        numbers = {group: [domains.index(name) for name in names if name in domains] for group, names in GROUPS.items()}
        return {group: torch.isin(batch["domain"], torch.tensor(own)) for group, own in numbers.items()}

    def _model_loss(self, step):
        batch, rows = step.batch, self.rows(step.batch)
        rendered = step.networks["model"](batch["source"], batch["driving"], rows)
        step.results["made"] = rendered
        pixel = l1(rendered, batch["driving"]).mean()
        fooled = [-step.networks[f"{group}_critic"](rendered[own]).mean() for group, own in rows.items() if own.any()]
        adversarial = torch.stack(fooled).sum()
        share = rows["real"].float().mean()
        return Loss(
            pixel + 0.01 * adversarial, {"pixel": pixel.detach(), "adversarial": adversarial.detach(), "real": share}
        )

    def _critic_loss(self, group):
        def loss(step):
            own = self.rows(step.batch)[group]
            critic, rendered = step.networks[f"{group}_critic"], step.results["made"].detach()
            total = functional.relu(1 - critic(step.batch["driving"][own])).mean()
            total = total + functional.relu(1 + critic(rendered[own])).mean()
            return Loss(total, {f"{group}_critic_loss": total.detach()})

        return loss

    def figures(self, step):
        return {"spread": step.results["made"].std()}

    def limits(self):
        return [Limit("spread", "all pictures are one", below=-1.0)]

    def sheet(self, step):
        return (step.results["made"][0] * 255).byte()

    def validate(self, module, batch):
        training = module.training
        with torch.no_grad():
            rendered = module.eval()(batch["source"], batch["driving"], self.rows(batch))
        module.train(training)
        return {"psnr_db": psnr_db(rendered, batch["driving"]).mean().item()}

    def validation_sheet(self, module, batch):
        return (batch["source"][0] * 255).byte()

    def validation_line(self, figures):
        return f"held out: {figures['psnr_db']:.1f} dB"

    def summary(self):
        return ["two encoders", "losses: pixel 1"]


class ReenactDriver:
    """Moved by pictures; which encoder looks depends on their domain."""

    needs = ("pictures",)

    def __init__(self, model):
        self.model = model.eval().requires_grad_(False)
        self.image_px, self.device = model.sizes.image_px, next(model.parameters()).device

    def look(self, source, domain):
        return source, domain

    def follow(self, driving, domain):
        return self.model.encoders[group_of(domain)](driving.pictures)

    def carried(self, looked, motion, reference, config):
        return motion if reference is None else motion - reference

    def frame_of(self, motion, index):
        return motion[index, None]

    def unlikeness(self, looked, motion):
        own = self.model.encoders[group_of(looked[1])](looked[0])
        return (motion - own).norm(dim=1)

    def render(self, looked, motion):
        return self.model.decoded(looked[0].expand(len(motion), -1, -1, -1), motion)

    def faster(self, *, half=False, channels_last=False, channels_last_3d=False):
        return self


class LatentEncoder:
    """What ``speak`` learns to say."""

    fields = ("latents.npy",)

    def __init__(self, model):
        self.model = model.eval().requires_grad_(False)
        self.image_px = model.sizes.image_px

    def encode(self, frames, domain):
        return {"latents.npy": self.model.encoders[group_of(domain)](frames)}


# ---- windows: speak and style ----------------------------------------------------------------------------------------


class Speaker(nn.Module):
    """Mel rows, four a frame, to one row of numbers a frame."""

    def __init__(self, sizes, num_out, num_style=0):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4 * 80 + num_style, sizes.width), nn.ReLU(), nn.Linear(sizes.width, num_out)
        )

    def forward(self, mel, style=None):
        rows = mel.float().unflatten(1, (-1, 4)).flatten(2)
        if style is not None:
            rows = torch.cat([rows, style[:, None].expand(-1, rows.shape[1], -1)], dim=2)
        return self.layers(rows)


class WindowLearner:
    """One update; the error that is its score falls."""

    score = Score("error", higher_is_better=False)

    def __init__(self, module, kept=None):
        self.module, self.kept = module, kept or {}

    def modules(self):
        return {"speaker": self.module, **self.kept}

    def frozen(self):
        return []

    def averaged(self):
        return "speaker"

    def updates(self):
        return [Update("speaker", ("speaker",), self._loss)]

    def prepare(self, batch, on):
        if "source" in batch:
            raise DataError("this stage reads windows, and there are pictures")
        return {name: values.to(on) for name, values in batch.items()}

    def _loss(self, step):
        error = self.error(step.networks["speaker"], step.batch)
        return Loss(error, {"error": error.detach()})

    def error(self, module, batch):
        raise NotImplementedError

    def figures(self, step):
        return {}

    def limits(self):
        return []

    def sheet(self, step):
        return None

    def validate(self, module, batch):
        with torch.no_grad():
            return {"error": self.error(module, batch).item()}

    def validation_sheet(self, module, batch):
        return None

    def validation_line(self, figures):
        return f"held out: error {figures['error']:.3f}"

    def summary(self):
        return ["one speaker", "losses: error 1"]


class SpeakLearner(WindowLearner):
    """Latents of the first stage from speech; that stage's model is kept beside, to render with."""

    def __init__(self, config, facts):
        if facts.checkpoint is None:
            raise UsageError("speak needs the checkpoint of reenact")
        renderer = averaged(facts.checkpoint).requires_grad_(False)
        super().__init__(Speaker(config.sizes, LATENT), {"renderer": renderer})

    def error(self, module, batch):
        return functional.mse_loss(module(batch["mel.npy"]), batch["latents.npy"].float())


class StyleLearner(WindowLearner):
    """Landmarks from speech, in the manner of another clip of the same person."""

    def __init__(self, config):
        super().__init__(Speaker(config.sizes, 2, num_style=2))

    def error(self, module, batch):
        style = batch["reference/landmarks.npy"][..., :2].float().mean(dim=(1, 2)) / 64
        wanted = batch["landmarks.npy"][..., :2].float().mean(dim=2) / 64
        return functional.mse_loss(module(batch["mel.npy"], style), wanted)


class SpeakDriver(ReenactDriver):
    """Moved by speech alone."""

    needs = ("features",)

    def __init__(self, renderer, speaker):
        super().__init__(renderer)
        self.speaker = speaker.eval().requires_grad_(False)

    def follow(self, driving, domain):
        return self.speaker(driving.features["mel.npy"])[0]


class StyleDriver:
    """Moved by landmarks: the source becomes as bright as their mean height."""

    needs = ("landmarks",)

    def __init__(self, image_px, on):
        self.image_px, self.device = image_px, on

    def look(self, source, domain):
        return source

    def follow(self, driving: Driving, domain):
        if driving.landmarks is None:
            raise UsageError("this model is driven by landmarks")
        return driving.landmarks[..., 1].mean(dim=1) / self.image_px

    def carried(self, looked, motion, reference, config):
        return motion

    def frame_of(self, motion, index):
        return motion[index, None]

    def unlikeness(self, looked, motion):
        return motion.abs()

    def render(self, looked, motion):
        return (looked * motion.view(-1, 1, 1, 1)).clamp(0, 1)

    def faster(self, **levers):
        return self


# ---- the recipe ------------------------------------------------------------------------------------------------------


def averaged(checkpoint):
    model = Reenactor(checkpoint.networks(ToySizes))
    checkpoint.fill(model, "average")
    return model


class ToyRecipe:
    """All three stages."""

    name = "toy"
    title = "Toy"
    Config = ToyConfig
    renamed: Mapping[str, str] = {}
    literature = Literature({("cross-domain", "mesh", "real"): {"Nobody": {"l1": 0.5}}}, ("*Published* by nobody.",))
    bench = None

    def settings(self, given: dict[str, Any], where: str) -> dict[str, Any]:
        return given

    def draw(self, config, checkpoint):
        toy = cast("ToyConfig", config)
        frames = toy.sizes.num_frames
        if toy.stage == "reenact":
            rows = toy.data.batch_size // 2
            return FramePairs({group: Quota(domains, rows) for group, domains in GROUPS.items()})
        if toy.stage == "style":
            return Windows(frames, ("landmarks.npy", "mel.npy"), reference=True)
        if toy.latents is None:
            raise UsageError("latents is not set: name what anitalk encode wrote")
        sha256 = None if checkpoint is None else checkpoint.sha256
        return Windows(
            frames, ("mel.npy",), sidecar=toy.latents, sidecar_fields=("latents.npy",), checkpoint_sha256=sha256
        )

    def learner(self, config, facts):
        if config.stage == "reenact":
            return ReenactLearner(config, facts)
        return SpeakLearner(config, facts) if config.stage == "speak" else StyleLearner(config)

    def driver(self, checkpoint, on):
        if checkpoint.stage == "reenact":
            return ReenactDriver(averaged(checkpoint).to(on))
        sizes = checkpoint.networks(ToySizes)
        if checkpoint.stage == "style":
            return StyleDriver(sizes.image_px, on)
        renderer, speaker = Reenactor(sizes), Speaker(sizes, LATENT)
        checkpoint.fill(renderer, "renderer")
        checkpoint.fill(speaker, "average")
        return SpeakDriver(renderer.to(on), speaker.to(on))

    def encoder(self, checkpoint, on):
        if checkpoint.stage != "reenact":
            raise UsageError(f"the stage {checkpoint.stage} encodes nothing: name a checkpoint of reenact")
        return LatentEncoder(averaged(checkpoint).to(on))


RECIPE = ToyRecipe()
