"""The hinge game between generator and discriminator, and feature matching (supplement, B.2)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from training.networks.discriminator import Judgement

Loss = Float[Tensor, ""]


def generator_loss(generated: Sequence[Judgement]) -> Loss:
    """Hinge: -mean D(y), what the generator minimises; summed over scales."""
    return torch.stack([-judgement.scores.float().mean() for judgement in generated]).sum()


def discriminator_loss(real: Sequence[Judgement], generated: Sequence[Judgement]) -> Loss:
    """Hinge: mean relu(1 - D(d)) + mean relu(1 + D(y)), what the discriminator minimises; summed over scales."""
    of_real = [functional.relu(1 - judgement.scores.float()).mean() for judgement in real]
    of_generated = [functional.relu(1 + judgement.scores.float()).mean() for judgement in generated]
    return torch.stack(of_real + of_generated).sum()


def feature_matching_loss(generated: Sequence[Judgement], real: Sequence[Judgement]) -> Loss:
    """Mean |Δ| of every feature map, summed over maps and scales; the real ones get no gradient."""
    pairs = [
        pair
        for mine, theirs in zip(generated, real, strict=True)
        for pair in zip(mine.features, theirs.features, strict=True)
    ]
    return torch.stack([functional.l1_loss(mine.float(), theirs.detach().float()) for mine, theirs in pairs]).sum()


def accuracy(real: Sequence[Judgement], generated: Sequence[Judgement]) -> Loss:
    """Share of patches on the right side of 0; near 1 for long means that the generator has lost."""
    right = [(judgement.scores > 0).float().mean() for judgement in real]
    right += [(judgement.scores < 0).float().mean() for judgement in generated]
    return torch.stack(right).mean()
