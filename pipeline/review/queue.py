"""In which order clips are offered to a reviewer.

The one place where the page's server asks for it, so that a better order replaces this one function.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.review.catalogue import Catalogue
from pipeline.review.decisions import standing
from schemas.review import Review


@dataclass(frozen=True, slots=True)
class Turn:
    """A clip that a reviewer is asked about; ``blind``: again, and without being shown what was said before."""

    clip_id: str
    blind: bool = False


def queue_of(catalogue: Catalogue, reviews: Iterable[Review], reviewer: str) -> list[Turn]:
    """The clips that nobody has judged yet, those that the limits keep first, each group as it is listed.

    Args:
        catalogue: all clips.
        reviews: all there are, in any order.
        reviewer: whom to ask.
    """
    del reviewer  # everybody is asked the same in this order
    said = standing(reviews, catalogue.versions)
    waiting = [entry for entry in catalogue.entries if entry.clip_id not in said or not said[entry.clip_id].verdict]
    return [Turn(entry.clip_id) for entry in sorted(waiting, key=lambda entry: not entry.measured.keep)]
