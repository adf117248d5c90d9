"""AnyTalk with random weights and random batches, to measure its speed by."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import save_file
from torch import nn

from training.data.config import PairsConfig
from training.losses.config import ExpressionLossConfig, PerceptualConfig
from training.networks.backbones import ExpressionResNet, SqueezeNet, Vgg19
from training.networks.frozen import FrozenFile
from training.recipes.anytalk.config import PRESETS
from training.recipes.anytalk.driver import AnyTalkDriver
from training.recipes.anytalk.model import AnyTalk
from training.recipes.anytalk.settings import AnyTalkConfig, LossConfig
from training.recipes.base import Batch, TrainConfig

_SMALL_PX = 128  # pictures below it are too small for VGG19 at four scales


class AnyTalkBench:
    """The presets, under the paper's losses."""

    presets = tuple(PRESETS)
    cpu_preset, gpu_preset = "tiny64", "256"

    @contextmanager
    def config(self, preset: str, batch_size: int) -> Iterator[tuple[AnyTalkConfig, str]]:
        """A preset with random weights for the networks that judge; small pictures get a small one, alone."""
        with _stand_ins(preset) as losses:
            networks = [f"{losses.perceptual.backbone} at {losses.perceptual.num_scales} scales"]
            networks += ["expression_resnet50"] if losses.expression.weight else []
            data = PairsConfig(batch_size=batch_size)
            note = f"judged by {' and '.join(networks)} with random weights"
            yield AnyTalkConfig(model=PRESETS[preset], losses=losses, data=data), note

    def batch(self, count: int, config: TrainConfig) -> Batch:
        """Pairs of noise whose labels are believed."""
        generator = torch.Generator().manual_seed(0)
        pose = torch.zeros(count, 7)
        pose[:, 6] = 1.0
        image_px = cast("AnyTalkConfig", config).image_px
        shape = (count, 3, image_px, image_px)
        batch = {"domain": torch.zeros(count, dtype=torch.long)}
        for side in ("source", "driving"):
            batch |= {
                side: torch.randint(256, shape, generator=generator, dtype=torch.uint8),
                f"{side}_pose": pose,
                f"{side}_landmarks": torch.zeros(count, 68, 3),
                f"{side}_valid": torch.ones(count, dtype=torch.bool),
            }
        return batch

    def driver(self, preset: str, on: torch.device) -> AnyTalkDriver:
        """Random networks of a preset's sizes."""
        return AnyTalkDriver(AnyTalk(PRESETS[preset]).to(on))


@contextmanager
def _stand_ins(preset: str) -> Iterator[LossConfig]:
    small = PRESETS[preset].image_px < _SMALL_PX
    with tempfile.TemporaryDirectory() as folder:

        def file(network: nn.Module) -> FrozenFile:
            path = Path(folder, f"{type(network).__name__}.safetensors")
            save_file(network.state_dict(), path)
            return FrozenFile(path=str(path))

        if small:
            perceptual = PerceptualConfig(backbone="squeezenet1_1", num_scales=2, file=file(SqueezeNet()))
            yield LossConfig(perceptual=perceptual, expression=ExpressionLossConfig(weight=0))
        else:
            expression = ExpressionLossConfig(file=file(ExpressionResNet()))
            yield LossConfig(perceptual=PerceptualConfig(file=file(Vgg19())), expression=expression)
