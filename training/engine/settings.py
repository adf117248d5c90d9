"""Read the settings of a run or an evaluation: defaults, then a YAML file, then single ones, then the stage."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from schemas.base import Record
from schemas.errors import UsageError
from schemas.layers import LayerError, layered, merged
from training.engine.config import Stage, TrainConfig
from training.evaluation.metrics.config import EvaluationConfig
from training.recipes.anytalk.config import PRESETS

DEFAULT_PRESET = "256"
_R = TypeVar("_R", bound=Record)


def read_settings(path: Path | None = None, overrides: Iterable[str] = (), stage: Stage | None = None) -> TrainConfig:
    """The settings of a run.

    Args:
        path: a YAML file that names only what differs from the defaults.
        overrides: ``key.inside=value`` settings, applied last; values are read as YAML. ``model.preset`` (a name of
            ``PRESETS``) says from which sizes the model's begin.
        stage: goes before the file's and the overrides'.

    Raises:
        UsageError: naming every setting that is unknown or has a value that is not allowed.
    """
    defaults = TrainConfig().model_dump(mode="json", exclude={"model"})
    given = _given(defaults, path, overrides, "losses.pixel=10")
    if stage is not None:
        given["stage"] = stage
    where = str(path) if path else "--set"
    given["model"] = _model(given.get("model", {}), where)
    return _valid(TrainConfig, given, where)


def read_evaluation(path: Path | None = None, overrides: Iterable[str] = ()) -> EvaluationConfig:
    """The settings of an evaluation; arguments and errors as :func:`read_settings` has them."""
    given = _given(EvaluationConfig().model_dump(mode="json"), path, overrides, "num_pairs=50")
    return _valid(EvaluationConfig, given, str(path) if path else "--set")


def _given(defaults: dict[str, Any], path: Path | None, overrides: Iterable[str], example: str) -> dict[str, Any]:
    try:
        return layered(defaults, path, overrides, example=example)
    except LayerError as error:
        raise UsageError(str(error)) from error


def _valid(kind: type[_R], given: dict[str, Any], where: str) -> _R:
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        problems = [
            f"{where}: {'.'.join(str(part) for part in one['loc']) or 'settings'}: {one['msg']}"
            + ("" if isinstance(one["input"], dict) else f", found {one['input']!r}")
            for one in error.errors()
        ]
        raise UsageError("\n".join(problems)) from error


def _model(given: Any, where: str) -> dict[str, Any]:
    """The preset's sizes with those given over them."""
    if not isinstance(given, dict):
        raise UsageError(f"{where}: model: expected settings such as model.preset=tiny64, found {given!r}")
    preset = str(given.get("preset", DEFAULT_PRESET))
    if preset not in PRESETS:
        raise UsageError(f"{where}: model.preset: there is no {preset!r}: choose from {', '.join(PRESETS)}")
    changes = {name: value for name, value in given.items() if name != "preset"}
    return merged(PRESETS[preset].model_dump(mode="json"), changes)
