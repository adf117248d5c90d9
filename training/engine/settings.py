"""Read the settings of a run: defaults, then a YAML file, then single ones, then the stage."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from schemas.base import Record
from schemas.errors import UsageError
from schemas.layers import LayerError, layered, problems_of
from training.recipes.base import Recipe, TrainConfig
from training.recipes.registry import DEFAULT_RECIPE, find_recipe

_R = TypeVar("_R", bound=Record)


def read_settings(
    path: Path | None = None, overrides: Iterable[str] = (), stage: str | None = None, recipe: str = DEFAULT_RECIPE
) -> TrainConfig:
    """The settings of a run.

    Args:
        path: a YAML file that names only what differs from the defaults.
        overrides: ``key.inside=value`` settings, applied last; values are read as YAML. ``model.preset`` (a name of
            the recipe's presets) says from which sizes the model's begin.
        stage: goes before the file's and the overrides'.
        recipe: whose settings they are.

    Raises:
        UsageError: naming every setting that is unknown, was renamed, or has a value that is not allowed.
    """
    of = find_recipe(recipe)
    defaults = of.Config().model_dump(mode="json", exclude={"model"})
    given = given_settings(defaults, path, overrides, "data.batch_size=8")
    if stage is not None:
        given["stage"] = stage
    where = str(path) if path else "--set"
    _check_names(of, given, where)
    return validated(of.Config, of.settings(given, where), where)


def given_settings(
    defaults: dict[str, Any], path: Path | None, overrides: Iterable[str], example: str
) -> dict[str, Any]:
    """Defaults with a file and single settings over them.

    Raises:
        UsageError: when the file cannot be read, or a setting is no ``key=value``.
    """
    try:
        return layered(defaults, path, overrides, example=example)
    except LayerError as error:
        raise UsageError(str(error)) from error


def validated(kind: type[_R], given: dict[str, Any], where: str) -> _R:
    """The record that settings make.

    Raises:
        UsageError: a sentence for every setting that is wrong.
    """
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise UsageError("\n".join(problems_of(error, given, where))) from error


def with_present_names(recipe: Recipe, values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that an earlier version wrote, by the names that they have now."""
    renamed = dict(values)
    for old, new in recipe.renamed.items():
        group, _, name = old.partition(".")
        inside = renamed.get(group)
        if isinstance(inside, dict) and name in inside:
            renamed[group] = {key: value for key, value in inside.items() if key != name}
            renamed[group][new.partition(".")[2]] = inside[name]
    return renamed


def _check_names(recipe: Recipe, given: Mapping[str, Any], where: str) -> None:
    for old, new in recipe.renamed.items():
        group, _, name = old.partition(".")
        inside = given.get(group)
        if isinstance(inside, dict) and name in inside:
            raise UsageError(f"{where}: {old} is called {new} now: rename it")
