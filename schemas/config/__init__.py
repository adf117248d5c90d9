"""Every setting of a build: one frozen record per step, each setting with its unit and its origin.

A step's results are keyed by its record, so a setting that does not change what a step computes must not live in that
step's record: limits on stored scores live in SelectLimits, not with the steps.

The explanations below the settings are printed by ``anitalk schema``; where one says "chosen", the number was neither
measured nor taken from elsewhere.
"""

from schemas.config.analysis import CropConfig, FaceConfig, ShotConfig
from schemas.config.build import BuildConfig
from schemas.config.clip import (
    EmbeddingConfig,
    ExpressionConfig,
    LandmarkConfig,
    SpeakerConfig,
    SpeechConfig,
    SyncConfig,
)
from schemas.config.collection import CollectionConfig, DuplicateConfig, IdentityConfig, RidgeConfig
from schemas.config.domains import EMBEDDED_DOMAINS, DomainConfig
from schemas.config.engine import EngineConfig, WeightsConfig
from schemas.config.fetching import AcquireConfig, ProbeConfig
from schemas.config.limits import SelectLimits
from schemas.config.releasing import PAPER_MIN_NATIVE_CROP_PX, PAPER_TEST, PAPER_TRAIN, PackConfig, SplitConfig

__all__ = [
    "EMBEDDED_DOMAINS",
    "PAPER_MIN_NATIVE_CROP_PX",
    "PAPER_TEST",
    "PAPER_TRAIN",
    "AcquireConfig",
    "BuildConfig",
    "CollectionConfig",
    "CropConfig",
    "DomainConfig",
    "DuplicateConfig",
    "EmbeddingConfig",
    "EngineConfig",
    "ExpressionConfig",
    "FaceConfig",
    "IdentityConfig",
    "LandmarkConfig",
    "PackConfig",
    "ProbeConfig",
    "RidgeConfig",
    "SelectLimits",
    "ShotConfig",
    "SpeakerConfig",
    "SpeechConfig",
    "SplitConfig",
    "SyncConfig",
    "WeightsConfig",
]
