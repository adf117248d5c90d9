"""The fitted domain router that ships with the package."""

from functools import lru_cache
from importlib.resources import files

from schemas.router import RouterModel


@lru_cache(maxsize=1)
def shipped_router() -> RouterModel:
    """The fitted model, ``manifests/router.json``; ``anitalk bench router`` fits it again."""
    return RouterModel.model_validate_json(files("manifests").joinpath("router.json").read_text(encoding="utf-8"))
