"""Networks with random weights in place of trained ones: whatever does not depend on what was learned can be tested."""

import torch
from torch import nn

from training.engine.checkpoint import Parts, Store
from training.recipes.anytalk.config import TINY
from training.recipes.anytalk.model import AnyTalk

SMALL = TINY.model_copy(update={"image_px": 32, "network_px": 32, "base_channels": 4, "max_channels": 16})


def random_weights_stand_in(config=SMALL, seed=0):
    """AnyTalk whose norms have seen something, and whose heads say something."""
    torch.manual_seed(seed)
    model = AnyTalk(config)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.3, 1.5)
            nn.init.uniform_(module.weight, 0.6, 1.4)
            nn.init.normal_(module.bias, 0, 0.2)
    for head in (model.motion.yaw, model.motion.pitch, model.motion.roll):
        nn.init.normal_(head.weight, 0, 0.3)
    for head in (model.motion.translation, model.motion.deformation, model.keypoints.head):
        nn.init.normal_(head.weight, 0, 0.1)
    nn.init.normal_(model.dense_motion.mask.weight, 0, 0.05)
    return model.eval().requires_grad_(False)


def stand_in_run(folder, config=SMALL):
    """A run's folder with one checkpoint of such a model."""
    model = random_weights_stand_in(config)
    Store(folder / "checkpoints").save(1, Parts({"model": model, "average": model}), config, {"score": 1.0})
    return folder


def films_frames(count, size=32, seed=0):
    """Smooth pictures that drift, u8 [3, S, S]."""
    numbers = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 6 + count, generator=numbers)
    wide = nn.functional.interpolate(coarse, size=(size, size + 3 * count), mode="bicubic")[0].clamp(0, 1)
    return [(wide[:, :, 3 * number : 3 * number + size] * 255).round().byte() for number in range(count)]
