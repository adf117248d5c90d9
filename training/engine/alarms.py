"""Notice a run that is collapsing while its losses still look well."""

from collections.abc import Mapping, Sequence

from training.recipes.base import Limit


class Alarms:
    """Told a step's figures, answers with what is wrong.

    Args:
        limits: of the figures.
        past_since: by figure, the step from which on it has always been past a limit that allows some steps.
    """

    def __init__(self, limits: Sequence[Limit], past_since: Mapping[str, int] | None = None) -> None:
        self.limits = limits
        self.past_since = dict(past_since or {})

    def look(self, step: int, figures: Mapping[str, float]) -> dict[str, str]:
        """A sentence for every figure past a limit, by the figure's name.

        Args:
            step: number of the step.
            figures: by name; one that is not there is not looked at.
        """
        sentences = {}
        for limit in self.limits:
            if limit.figure not in figures:
                continue
            value = figures[limit.figure]
            problem = _past(limit, value)
            since = self._since(step, limit, past=problem is not None)
            if problem is not None and step - since >= limit.steps:
                lasting = f" since step {since}" if limit.steps else ""
                sentences[limit.figure] = f"{limit.meaning}: {limit.figure} {value:.3g} is {problem}{lasting}"
        return sentences

    def _since(self, step: int, limit: Limit, *, past: bool) -> int:
        if not limit.steps:
            return step
        if not past:
            self.past_since.pop(limit.figure, None)
            return step
        return self.past_since.setdefault(limit.figure, step)


def _past(limit: Limit, value: float) -> str | None:
    if limit.below is not None and value < limit.below:
        return f"below {limit.below:g}"
    if limit.above is not None and value > limit.above:
        return f"above {limit.above:g}"
    return None
