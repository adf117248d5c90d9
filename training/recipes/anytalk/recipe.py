"""AnyTalk as the engine knows it."""

from collections.abc import Mapping
from typing import Any, cast

from torch import device

from training.data.draws import FramePairs
from training.recipes.anytalk.bench import AnyTalkBench
from training.recipes.anytalk.config import ModelConfig
from training.recipes.anytalk.driver import AnyTalkDriver, AnyTalkEncoder
from training.recipes.anytalk.learner import AnyTalkLearner
from training.recipes.anytalk.model import AnyTalk
from training.recipes.anytalk.published import PUBLISHED
from training.recipes.anytalk.settings import RENAMED, AnyTalkConfig, preset_resolved
from training.recipes.base import Checkpoint, DataFacts, Literature, RecipeBench, TrainConfig


class AnyTalkRecipe:
    """A source picture moved as a driving picture moves, by canonical 3D keypoints."""

    name = "anytalk"
    title = "AnyTalk"
    Config: type[TrainConfig] = AnyTalkConfig
    renamed: Mapping[str, str] = RENAMED
    literature: Literature = PUBLISHED
    bench: RecipeBench | None = AnyTalkBench()

    def settings(self, given: dict[str, Any], where: str) -> dict[str, Any]:
        """Settings with ``model.preset`` resolved."""
        return preset_resolved(given, where)

    def draw(self, config: TrainConfig, checkpoint: Checkpoint | None) -> FramePairs:
        """Two frames of one clip, in either stage."""
        del config, checkpoint
        return FramePairs()

    def learner(self, config: TrainConfig, facts: DataFacts) -> AnyTalkLearner:
        """Networks and losses."""
        return AnyTalkLearner(cast("AnyTalkConfig", config), facts)

    def driver(self, checkpoint: Checkpoint, on: device) -> AnyTalkDriver:
        """The averaged model of either stage."""
        return AnyTalkDriver(_averaged(checkpoint, on))

    def encoder(self, checkpoint: Checkpoint, on: device) -> AnyTalkEncoder:
        """The motion of every frame."""
        return AnyTalkEncoder(_averaged(checkpoint, on))


def _averaged(checkpoint: Checkpoint, on: device) -> AnyTalk:
    model = AnyTalk(checkpoint.networks(ModelConfig))
    checkpoint.fill(model, "average")
    return model.to(on)


RECIPE = AnyTalkRecipe()
