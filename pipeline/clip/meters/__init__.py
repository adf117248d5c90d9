"""What is measured of a clip: one object per meter, in one list."""

from pipeline.models.files.model_files import ModelFiles
from pipeline.models.files.weights import WeightsStore
from schemas.config import BuildConfig


def model_files(config: BuildConfig, store: WeightsStore | None = None) -> ModelFiles:
    """All model files of a configuration.

    Args:
        config: names the models.
        store: where weights files lie; the default folder where it is left out.
    """
    return ModelFiles(config, store or WeightsStore())
