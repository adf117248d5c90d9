"""From the loader's batches to what a training step asks for: augmented on the device, one flat table of tensors.

The feed has no position of its own: the loader's is the run's, and augmentation depends on the batch's own seed.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from schemas.release import Split
from training.data import (
    AugmentConfig,
    Batch,
    BatchLoader,
    Draw,
    FramePairs,
    WindowBatch,
    as_float,
    augment,
    open_batches,
)
from training.data.contract import check_labels
from training.data.shards import Where, split_domains
from training.recipes.base import DataFacts, TrainConfig

_HELD_OUT: tuple[Split, ...] = ("val", "test")  # the first that has clips is looked at
_BATCH_ROWS = 16  # of validation; only memory depends on it


class Feed:
    """Endless batches: pairs of frames as ``training.data.contract`` has them, windows as ``flat_windows``.

    Iterating again goes on.

    Args:
        loader: of this process.
        config: how pictures and labels are changed.
        device: where, and where the batches end up.
    """

    def __init__(self, loader: BatchLoader[Any], config: AugmentConfig, device: torch.device) -> None:
        self.loader, self._config, self._device = loader, config, device

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for batch in self.loader:
            if isinstance(batch, WindowBatch):
                yield flat_windows(batch.to(self._device))
                continue
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
        return DataFacts(self.loader.domains, self.loader.groups, self.loader.expressions, self.loader.landmark_schemes)


def open_feed(where: Where, draw: Draw, config: TrainConfig, device: torch.device) -> Feed:
    """The batches of a run, for this process.

    Raises:
        UsageError: when something was asked for that these shards cannot give.
        DataError: when they cannot be reached, or are of another version or convention.
    """
    loader = open_batches(where, config.loading, draw, pin_memory=device.type == "cuda")
    return Feed(loader, config.augment, device)


def flat(batch: Batch) -> dict[str, Tensor]:
    """A loader's batch by the names of ``training.data.contract``, and ``group``; nothing is copied."""
    table = {"domain": batch.domain, "group": batch.group, "driving_face": batch.face}
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


def flat_windows(batch: WindowBatch) -> dict[str, Tensor]:
    """Windows as one table: members by name, ``present/NAME`` where a clip may lack one, and labels of the rows.

    The reference windows' are under ``reference/``.
    """
    table = {"domain": batch.domain, "group": batch.group, "scheme": batch.scheme, "points": batch.points}
    sides = {"": batch.window} if batch.reference is None else {"": batch.window, "reference/": batch.reference}
    for prefix, side in sides.items():
        table |= {f"{prefix}{name}": values for name, values in side.fields.items()}
        table |= {f"{prefix}present/{name}": values for name, values in side.present.items()}
        table |= {f"{prefix}valid": side.valid, f"{prefix}start": side.start}
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
    """The same held out rows for every process and every run, each domain's equally many on average, as stored.

    Quotas do not hold here. Pairs of two equal pictures are left out: no picture can be nearer to one than the other.
    """
    changes = {"split": split, "domains": domains, "weights": {}, "alpha": 0.0, "num_workers": 0, "seed": 0}
    shape = {"batch_size": _BATCH_ROWS, "pairs_per_clip": 2, "shuffle_pairs": 1, "epoch_batches": None}
    plain = FramePairs() if isinstance(draw, FramePairs) else replace(draw, quotas={})
    settings = config.loading.model_copy(update={**changes, **shape})
    loader = open_batches(where, settings, plain, rank=0, world_size=1)
    batches, missing = [], config.num_validation_pairs
    for batch in itertools.islice(loader, 2 + missing // 4):  # clips may stand still all along
        table = flat_windows(batch) if isinstance(batch, WindowBatch) else flat(as_float(cast("Batch", batch)))
        rows = _differing(table)[:missing]
        if len(rows):
            batches.append({name: values[rows] for name, values in table.items()})
        missing -= len(rows)
        if missing <= 0:
            break
    return batches


def _differing(table: Mapping[str, Tensor]) -> Tensor:
    """Numbers of the rows whose two pictures differ; all rows of windows."""
    if "source" not in table:
        return torch.arange(len(table["domain"]))
    return (table["source"] != table["driving"]).flatten(1).any(dim=1).nonzero()[:, 0]
