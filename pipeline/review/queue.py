"""In which order clips are offered to a reviewer.

The one place where the page's server asks for it, so that a better order replaces this one function.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.review.catalogue import Catalogue
from pipeline.review.decisions import Standing


@dataclass(frozen=True, slots=True)
class Turn:
    """A clip that a reviewer is asked about; ``blind``: again, and without being shown what was said before."""

    clip_id: str
    blind: bool = False


def queue_of(catalogue: Catalogue, standings: Mapping[str, Standing], reviewer: str) -> list[Turn]:
    """The clips that nobody has judged yet, those that the limits keep first, each group as it is listed.

    Args:
        catalogue: all clips.
        standings: what people said of them, by clip id.
        reviewer: whom to ask.
    """
    del reviewer  # everybody is asked the same in this order
    waiting = [
        entry
        for entry in catalogue.entries
        if entry.clip_id not in standings or standings[entry.clip_id].verdict is None
    ]
    return [Turn(entry.clip_id) for entry in sorted(waiting, key=lambda entry: not entry.measured.keep)]
