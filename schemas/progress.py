"""How everything that takes long says how far it is."""

from collections.abc import Callable

# Called with the stage, how much of it is done and how much there is in all, in the stage's own unit; None: unknown.
Report = Callable[[str, float | None, float | None], None]


def silent(stage: str, done: float | None, total: float | None) -> None:
    """Progress that nobody watches."""
    del stage, done, total
