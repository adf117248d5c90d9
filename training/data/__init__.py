"""Shards straight into batches of frame pairs: ``pairs`` reads, ``augment`` changes pictures and labels together."""

from training.data.augment import as_float, augment
from training.data.batch import Batch, Side
from training.data.config import AugmentConfig, PairsConfig
from training.data.loader import PairLoader, pairs

__all__ = ["AugmentConfig", "Batch", "PairLoader", "PairsConfig", "Side", "as_float", "augment", "pairs"]
