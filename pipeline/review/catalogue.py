"""All finished clips of a workspace as the screening page lists them.

It is read once and kept, since ten thousand records take seconds to read and a page must not wait for them. What a
face did frame by frame is left out of memory: it is most of a record, and one clip at a time is looked at.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from pipeline.build.results import BuildRecord, Results
from pipeline.build.survey import FinishedClip
from pipeline.curate.choice import identity_of
from pipeline.curate.unreviewed import read_unreviewed
from pipeline.review.order import Order
from schemas.collection import Collection, DuplicateLink
from schemas.config import SelectLimits
from schemas.decision import Decision

# Short names, since there are ten thousand of each: what every clip of the list says.
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One clip: its record without the face's path, what the limits say of it, and who it shows."""

    made: FinishedClip
    measured: Decision
    identity_id: str

    @property
    def clip_id(self) -> str:
        """The clip's id."""
        return self.made.clip.clip_id


@dataclass(frozen=True)
class Catalogue:
    """Every clip in order of sources and time, and by id. ``edition`` names this reading of the workspace."""

    results: Results
    entries: tuple[Entry, ...]
    limits: Mapping[str, SelectLimits]
    collection: Collection | None
    edition: str = field(default_factory=lambda: secrets.token_hex(8))

    @cached_property
    def by_id(self) -> dict[str, Entry]:
        """Entries by clip id: the only way from a request to a file."""
        return {entry.clip_id: entry for entry in self.entries}

    @cached_property
    def versions(self) -> dict[str, str]:
        """The whole key of each clip's present result."""
        return {entry.clip_id: entry.made.key for entry in self.entries}

    @cached_property
    def of_identity(self) -> dict[str, list[str]]:
        """Clip ids by the person they show."""
        people: dict[str, list[str]] = {}
        for entry in self.entries:
            people.setdefault(entry.identity_id, []).append(entry.clip_id)
        return people

    @cached_property
    def links(self) -> dict[str, list[DuplicateLink]]:
        """What is known of each clip's other copies; empty where clips have not been compared."""
        links: dict[str, list[DuplicateLink]] = {}
        for group in self.collection.duplicates if self.collection else ():
            for link in group.links:
                links.setdefault(link.clip_id, []).append(link)
                links.setdefault(link.twin_id, []).append(link)
        return links

    @cached_property
    def order(self) -> Order:
        """In which clips are asked about."""
        return Order([entry.made for entry in self.entries], self.limits)

    @cached_property
    def domains(self) -> list[str]:
        """Names of the configuration's domains, sorted."""
        return sorted(self.results.config.domains)

    @cached_property
    def source_ids(self) -> list[str]:
        """Ids of the sources that have clips, in the order of the list."""
        return list(dict.fromkeys(entry.made.source.id for entry in self.entries))

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {source_id: position for position, source_id in enumerate(self.source_ids)}

    def rows(self, start: int, count: int) -> list[Row]:
        """A part of the list."""
        return [self._row(entry) for entry in self.entries[start : start + count]]

    def _row(self, entry: Entry) -> Row:
        clip, measured = entry.made.clip, entry.measured
        row: Row = {
            "id": clip.clip_id,
            "v": entry.made.key,
            "source": self._positions[entry.made.source.id],
            "domain": clip.domain,
            "frames": clip.plan.num_frames,
            "fps": clip.plan.fps,
            "start": round(clip.plan.span.start_s, 2),
            "who": entry.identity_id,
        }
        if not measured.keep:
            row["missed"] = str(measured.reason)
        if clip.flags:
            row["flags"] = clip.flags
        if clip.scores.router and clip.scores.router.doubtful:
            row["proposed"] = clip.scores.router.proposed
        return row


def read_catalogue(results: Results, build: BuildRecord) -> Catalogue:
    """Read all finished clips, and what the filters decide of them; people's words are not looked at."""
    unreviewed = read_unreviewed(results, build)
    entries = tuple(
        Entry(_light(finished), decision, identity_of(finished, build, unreviewed.collection))
        for finished, decision in zip(unreviewed.clips, unreviewed.decisions, strict=True)
    )
    return Catalogue(results, entries, unreviewed.limits, unreviewed.collection)


def _light(finished: FinishedClip) -> FinishedClip:
    face = finished.clip.face.model_copy(update={"times_s": (), "boxes": ()})
    return replace(finished, clip=finished.clip.model_copy(update={"face": face}))
