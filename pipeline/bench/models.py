"""The models of the accuracy bench: those of packages, and weights files of a folder of assets."""

from pathlib import Path

from pipeline.models.registry import ModelSet
from pipeline.models.weights import WeightsStore
from schemas.config import BuildConfig, WeightsConfig


def asset_models(assets: Path) -> ModelSet:
    """The embedded profile's models, with the weights folder of the assets beside them: its files bear known names."""
    return ModelSet(BuildConfig(), WeightsStore(WeightsConfig(dir=str(assets / "weights"))))
