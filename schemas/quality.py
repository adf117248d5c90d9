"""What is measured of a clip's quality beyond what every clip has."""

from pydantic import Field

from schemas.base import Record


class QualityConfig(Record):
    """Turns on the scores ``stability`` and ``overlay``. Limits on them are each domain's own, and off by default.

    Measured on the 23 clips of a second and more that the embedded profile cuts from films at hand. ``stability`` is
    .82 to .99 on tripods and most drawings, .61 in a moving car and .47 to .68 from a telephone in the hand; a tremble
    of 1 % of the face's height that is added to any of them lowers it to .39 to .60. ``overlay`` is at most 3 on all of
    them. With subtitles burnt in (letters of 8 to 22 px in a crop of 256 px, opacity .35 to 1) it is above 3 on 97 %,
    with short logos (6 to 20 px) on 94 % at an opacity of .6 and more and on 72 % at .35.
    """

    num_overlay_frames: int = Field(default=16, ge=2)
    """Frames that are searched for what is burnt in, evenly spaced over the clip: enough to see what does not move with
    the scene."""
