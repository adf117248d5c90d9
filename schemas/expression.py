"""How an expression network sees a face, and what its numbers mean: enough to ask it again elsewhere."""

from typing import Self

from pydantic import Field, model_validator

from schemas.base import Record

# AffectNet's labels 0 to 7 (Mollahosseini et al., 2017), the order of emotion.npy.
EMOTIONS = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")


class ExpressionInput(Record):
    """What is done to a clip's picture before the network sees it; the same square in every frame.

    1. The clip's face box (``plan.face``) is put on the crop: minus the square's corner, times size over width.
    2. A square around its middle of ``scale`` times its longer side, edges rounded to whole pixels (half to even) and
       kept inside the picture, is cut out.
    3. RGB over 255 as float32, bilinear to ``size_px``² (pixel centres at half, no anti-aliasing), minus ``mean``,
       over ``spread``.

    """

    size_px: int = Field(default=224, ge=32)
    """Side in pixels of the picture that the network sees."""
    scale: float = Field(default=1.0, gt=0)
    """Side of the square in longer sides of the face box."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Mean of R, G and B, 0 to 1: ImageNet's, torchvision's convention."""
    spread: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Standard deviation of R, G and B, 0 to 1: ImageNet's, torchvision's convention."""
    classes: tuple[str, ...] = EMOTIONS
    """The order in which the network gives its logits; ``emotion.npy`` has them in AffectNet's."""

    @model_validator(mode="after")
    def _all_classes(self) -> Self:
        if sorted(self.classes) != sorted(EMOTIONS):
            raise ValueError(f"expression classes must be {', '.join(sorted(EMOTIONS))} in the network's order")
        return self
