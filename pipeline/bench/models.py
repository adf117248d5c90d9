"""The models of the accuracy bench: those of packages, and weights files of a folder of assets."""

from pathlib import Path

from pipeline.clip.meters import model_files
from pipeline.models.files.weights import WeightsStore
from pipeline.models.registry import ModelSet
from schemas.config import BuildConfig, WeightsConfig


def asset_models(assets: Path, weights_dir: str = "") -> ModelSet:
    """The embedded profile's models, and beside them a weights folder.

    Args:
        assets: hold a folder ``weights``, whose files bear the registry's names.
        weights_dir: another weights folder.
    """
    return ModelSet(model_files(BuildConfig(), WeightsStore(WeightsConfig(dir=weights_dir or str(assets / "weights")))))
