"""AnyTalk: a source picture moved as a driving picture moves, by canonical 3D keypoints.

In: pairs of frames of one clip. Out: the networks, their losses, and a driver for evaluation and animation.
"""

from training.recipes.anytalk.recipe import RECIPE

__all__ = ["RECIPE"]
