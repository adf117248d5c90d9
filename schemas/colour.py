"""Whether a clip's colour is measured."""

from pydantic import Field

from schemas.base import Record


class ColourConfig(Record):
    """Turns on the score ``colourfulness``, by which black-and-white and tinted films are told from coloured ones."""

    # Of a clip, evenly spaced; frames of one shot differ little, and so many hold off a flash (mine).
    num_frames: int = Field(default=8, ge=1)
