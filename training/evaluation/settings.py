"""Read the settings of an evaluation: defaults, then a YAML file, then single ones."""

from collections.abc import Iterable
from pathlib import Path

from training.engine.settings import given_settings, validated
from training.evaluation.metrics.config import EvaluationConfig


def read_evaluation(path: Path | None = None, overrides: Iterable[str] = ()) -> EvaluationConfig:
    """The settings of an evaluation.

    Args:
        path: a YAML file that names only what differs from the defaults.
        overrides: ``key.inside=value`` settings, applied last; values are read as YAML.

    Raises:
        UsageError: naming every setting that is unknown or has a value that is not allowed.
    """
    given = given_settings(EvaluationConfig().model_dump(mode="json"), path, overrides, "num_pairs=50")
    return validated(EvaluationConfig, given, str(path) if path else "--set")
