"""Notice a run that is collapsing while its losses still look well."""

from collections.abc import Mapping

from training.engine.config import AlarmConfig


class Alarms:
    """Told a step's figures, answers with what is wrong.

    Args:
        config: the limits.
        accurate_since: step from which on the discriminator has always been right; None while it is not.
    """

    def __init__(self, config: AlarmConfig, accurate_since: int | None = None) -> None:
        self.config = config
        self.accurate_since = accurate_since

    def look(self, step: int, figures: Mapping[str, float]) -> dict[str, str]:
        """A sentence for every figure past its limit, by the figure's name.

        Args:
            step: number of the step.
            figures: ``distance``, ``entropy``, ``occlusion``, ``spread_of_deformation`` and ``accuracy``; what is not
                there is not looked at.
        """
        config, found = self.config, {}
        for name, limit, meaning in (
            ("distance", config.min_distance, "keypoints lie on one another"),
            ("entropy", config.min_entropy, "keypoints are stuck to single voxels"),
            ("occlusion", config.min_occlusion, "nothing of the source gets through"),
            ("spread_of_deformation", config.min_deformation, "expressions are not used"),
        ):
            if name in figures and figures[name] < limit:
                found[name] = f"{meaning}: {name} {figures[name]:.3g} is below {limit}"
        if figures.get("occlusion", 0.0) > config.max_occlusion:
            found["occlusion"] = f"the occlusion map is open everywhere: its mean is {figures['occlusion']:.3f}"
        if "accuracy" in figures:
            found |= self._game(step, figures["accuracy"])
        return found

    def _game(self, step: int, accuracy: float) -> dict[str, str]:
        if accuracy <= self.config.max_accuracy:
            self.accurate_since = None
            return {}
        self.accurate_since = step if self.accurate_since is None else self.accurate_since
        if step - self.accurate_since < self.config.accurate_steps:
            return {}
        return {"accuracy": f"the discriminator has been right since step {self.accurate_since}: the game is lost"}
