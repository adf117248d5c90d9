"""Scores of a clip that are measured only where the configuration asks for them.

What is not asked for leaves no trace in a clip's record, so that builds without it keep their bytes.
"""

from typing import Any

from pipeline.clip.burnt_in import BurntInMeter
from pipeline.clip.crop import Tap
from pipeline.clip.router import RouterMeter
from pipeline.clip.stability import StabilityMeter
from pipeline.models.registry import ModelSet
from schemas.clip import ClipPlan


class OptionalScores:
    """The taps of one clip, and after its last frame what they found, by the names of ``Scores``."""

    def __init__(self, models: ModelSet, domain: str, plan: ClipPlan, size_px: int) -> None:
        quality, router = models.config.quality, models.config.router
        self._stability = StabilityMeter(plan, size_px) if quality else None
        self._burnt_in = BurntInMeter(plan, size_px, quality) if quality else None
        self._router = RouterMeter(router, domain, plan, models.zero_shot()) if router else None

    @property
    def taps(self) -> list[Tap]:
        """To be shown every frame."""
        return [tap for tap in (self._stability, self._burnt_in, self._router) if tap is not None]

    def measured(self) -> dict[str, Any]:
        """What to add to the clip's scores."""
        found: dict[str, Any] = {}
        if self._stability and self._burnt_in:
            found |= {"stability": round(self._stability.stability, 4), "overlay": self._burnt_in.overlay}
        if self._router:
            found["router"] = self._router.finish()
        return found
