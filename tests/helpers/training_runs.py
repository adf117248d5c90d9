"""Runs of the tiny model for tests."""

from training.engine.launch import start
from training.engine.loop import Trainer
from training.losses.config import ExpressionLossConfig, PerceptualConfig
from training.recipes.anytalk.config import TINY
from training.recipes.anytalk.learner import AnyTalkLearner
from training.recipes.anytalk.settings import AnyTalkConfig, LossConfig
from training.recipes.base import StageConfig


def small_config(steps, pairs_per_step, **changes):
    """So many steps of either stage, without frozen networks; whatever is due by steps happens at the last one."""
    length = StageConfig(num_pairs=steps * pairs_per_step, learning_rate=1e-3)
    losses = LossConfig(perceptual=PerceptualConfig(weight=0), expression=ExpressionLossConfig(weight=0), pixel=100.0)
    given = {
        "model": TINY,
        "losses": losses,
        "pretrain": length,
        "finetune": length,
        "log_every": 1,
        "images_every": steps,
        "validate_every": steps,
        "save_every": 1000,
        "average": 0.9,
    }
    return AnyTalkConfig(**(given | changes))


def trainer(config, folder, validation=()):
    """A fresh run in this process."""
    return Trainer(start(config, "cpu"), AnyTalkLearner(config), config, folder, validation)
