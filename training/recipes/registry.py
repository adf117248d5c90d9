"""Which recipes there are; each is imported when it is asked for."""

from importlib import import_module

from schemas.errors import UsageError
from training.recipes.base import Recipe

DEFAULT_RECIPE = "anytalk"  # of checkpoints and runs that are older than the second recipe

RECIPES: dict[str, str] = {"anytalk": "training.recipes.anytalk:RECIPE"}


def find_recipe(name: str) -> Recipe:
    """A recipe by its name.

    Raises:
        UsageError: when there is none.
    """
    if name not in RECIPES:
        raise UsageError(f"there is no recipe {name!r}: choose from {', '.join(RECIPES)}")
    module, _, attribute = RECIPES[name].partition(":")
    return getattr(import_module(module), attribute)
