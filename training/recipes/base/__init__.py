"""What a recipe is: all of recipes/, beside the registry, that engine, evaluation and bench import.

A recipe is a folder that declares itself by an object ``RECIPE``: its settings, what it draws from shards, how its
networks are built and learn (a :class:`Learner` per stage), and how a picture is moved with what was learned (a
:class:`Driver`). The engine knows no network, no loss and no field of a batch but ``domain``.
"""

from training.recipes.base.driving import Driver, Driving, DrivingField, Encoder, MotionConfig, Pictures
from training.recipes.base.learning import (
    Batch,
    Checkpoint,
    DataFacts,
    Learner,
    Limit,
    Loss,
    Moment,
    Scalars,
    Score,
    Sheet,
    Step,
    Update,
)
from training.recipes.base.recipe import Literature, Recipe, RecipeBench
from training.recipes.base.settings import Stage, StageConfig, TrainConfig

__all__ = [
    "Batch",
    "Checkpoint",
    "DataFacts",
    "Driver",
    "Driving",
    "DrivingField",
    "Encoder",
    "Learner",
    "Limit",
    "Literature",
    "Loss",
    "Moment",
    "MotionConfig",
    "Pictures",
    "Recipe",
    "RecipeBench",
    "Scalars",
    "Score",
    "Sheet",
    "Stage",
    "StageConfig",
    "Step",
    "TrainConfig",
    "Update",
]
