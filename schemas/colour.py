"""Whether a clip's colour is measured."""

from pydantic import Field

from schemas.base import Record


class ColourConfig(Record):
    """Turns on the score ``colourfulness``, by which black-and-white and tinted films are told from coloured ones."""

    num_frames: int = Field(default=8, ge=1)
    """Frames of a clip that are looked at, evenly spaced; frames of one shot differ little, and so many hold off a
    flash (mine)."""
