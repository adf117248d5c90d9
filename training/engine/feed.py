"""From the loader's batches to what a training step asks for: augmented on the device, one flat table of tensors.

The feed has no position of its own: the loader's is the run's, and augmentation depends on the batch's own seed.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from schemas.release import Split
from training.data import AugmentConfig, Batch, PairLoader, as_float, augment, pairs
from training.data.contract import check_labels
from training.data.draws import Draw
from training.data.shards import Where, split_domains
from training.recipes.base import DataFacts, TrainConfig

_HELD_OUT: tuple[Split, ...] = ("val", "test")  # the first that has clips is looked at
_BATCH_PAIRS = 16  # of validation; only memory depends on it


class Feed:
    """Endless batches as ``training.data.contract`` has them; iterating again goes on.

    Args:
        loader: of this process.
        config: how pictures and labels are changed.
        device: where, and where the batches end up.
    """

    def __init__(self, loader: PairLoader, config: AugmentConfig, device: torch.device) -> None:
        self.loader, self._config, self._device = loader, config, device

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for batch in self.loader:
            check_labels(flat(batch))
            yield flat(augment(batch.to(self._device), self._config))

    def state_dict(self) -> dict[str, Any]:
        """The loader's position after the last batch."""
        return self.loader.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a position.

        Raises:
            CheckpointError: when it was saved with other shards, settings, ranks or workers.
        """
        self.loader.load_state_dict(state)

    def facts(self) -> DataFacts:
        """What the shards say of themselves."""
        return DataFacts(self.loader.domains, self.loader.expressions)


def open_feed(where: Where, draw: Draw, config: TrainConfig, device: torch.device) -> Feed:
    """The batches of a run, for this process.

    Raises:
        UsageError: when something was asked for that these shards cannot give.
        DataError: when they cannot be reached, or are of another version or convention.
    """
    del draw
    loader = pairs(where, config.loading, pin_memory=device.type == "cuda")
    return Feed(loader, config.augment, device)


def flat(batch: Batch) -> dict[str, Tensor]:
    """A loader's batch by the names of ``training.data.contract``; nothing is copied."""
    table = {"domain": batch.domain, "driving_face": batch.face}
    if batch.driving.emotion is not None:
        table |= {"driving_emotion": batch.driving.emotion, "has_emotion": batch.has_emotion}
    for name, side in (("source", batch.source), ("driving", batch.driving)):
        table |= {
            name: side.frames,
            f"{name}_pose": side.pose,
            f"{name}_landmarks": side.landmarks,
            f"{name}_valid": side.valid,
        }
    return table


def held_out_domains(where: Where, config: TrainConfig) -> tuple[Split, tuple[str, ...]] | None:
    """The split that is looked at while training, and those of the run's domains that have clips in it.

    None where there is none: no such split, none of the domains in it, or shards instead of a release.
    """
    if not config.num_validation_pairs:
        return None
    splits, wanted = split_domains(where, config.loading), config.loading.domains
    for split in _HELD_OUT:
        domains = tuple(domain for domain in splits.get(split, ()) if not wanted or domain in wanted)
        if domains:
            return split, domains
    return None


def held_out(
    where: Where, draw: Draw, config: TrainConfig, split: Split, domains: tuple[str, ...]
) -> list[dict[str, Tensor]]:
    """The same held out pairs for every process and every run, each domain's equally many on average, as stored.

    Pairs of two equal pictures are left out: no picture can be nearer to one than the other is.
    """
    del draw
    changes = {"split": split, "domains": domains, "weights": {}, "alpha": 0.0, "num_workers": 0, "seed": 0}
    shape = {"batch_size": _BATCH_PAIRS, "pairs_per_clip": 2, "shuffle_pairs": 1, "epoch_batches": None}
    drawn = pairs(where, config.loading.model_copy(update={**changes, **shape}), rank=0, world_size=1)
    batches, missing = [], config.num_validation_pairs
    for batch in itertools.islice(drawn, 2 + missing // 4):  # clips may stand still all along
        table = flat(as_float(batch))
        differ = (table["source"] != table["driving"]).flatten(1).any(dim=1).nonzero()[:missing, 0]
        if len(differ):
            batches.append({name: values[differ] for name, values in table.items()})
        missing -= len(differ)
        if missing <= 0:
            break
    return batches
