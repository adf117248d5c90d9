"""Shards straight into batches: ``pairs`` of frames or, by ``open_batches``, windows of labels and speech features."""

from training.data.augment import as_float, augment
from training.data.batch import Batch, Side, WindowBatch, WindowSide
from training.data.config import AugmentConfig, PairsConfig
from training.data.draws import Draw, FramePairs, Quota, Windows
from training.data.loader import BatchLoader, PairLoader, open_batches, pairs

__all__ = [
    "AugmentConfig",
    "Batch",
    "BatchLoader",
    "Draw",
    "FramePairs",
    "PairLoader",
    "PairsConfig",
    "Quota",
    "Side",
    "WindowBatch",
    "WindowSide",
    "Windows",
    "as_float",
    "augment",
    "open_batches",
    "pairs",
]
