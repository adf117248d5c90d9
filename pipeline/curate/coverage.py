"""What became of a published clip list that was built again: clips made, of which file, and those that were not.

Whoever rebuilds a list has to know how much of it the world still holds. Sentences are made of stages and classes,
never of the messages in the ledger, which name folders of the machine.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

from pipeline.build.survey import Survey
from schemas.cliplist import ListedClip, by_source
from schemas.ledger import LedgerRow
from schemas.release import Coverage, LostRow

_REFUSED = {
    "not_in_file": "they do not lie inside the file that was found",
    "shot_too_short": "they are shorter than clips may be",
}
_STOPPED = {
    "acquire": "the source's file could not be fetched",
    "probe": "the source's file could not be read",
    "analyse": "no clips could be planned in the source's file",
    "plan": "no clips could be planned in the source's file",
    "clip": "they could not be cut",
}
_WAITING = "they have no outcome yet"


def coverage_of(listed: Sequence[ListedClip], survey: Survey) -> Coverage | None:
    """Count a list's clips by what became of them; None where no list was built.

    A clip counts as made of the same file when the source's file has the sha256 that the list names for it, whether
    or not selection keeps the clip afterwards.
    """
    if not listed:
        return None
    rows: defaultdict[str, list[LedgerRow]] = defaultdict(list)
    for row in survey.rows:
        rows[row.source_id].append(row)
    finished_by_source = {
        source_id: [finished for finished in survey.clips if finished.source.id == source_id]
        for source_id in by_source(listed)
    }
    counts: Counter[str] = Counter()
    lost: list[LostRow] = []
    for source_id, clips in by_source(listed).items():
        named = {clip.sha256 for clip in clips}
        for finished in finished_by_source[source_id]:
            counts["same" if finished.source_sha256 in named else "unnamed" if "" in named else "other"] += 1
        lost += _lost(source_id, len(clips) - len(finished_by_source[source_id]), rows[source_id])
    return Coverage(
        num_listed=len(listed),
        num_same=counts["same"],
        num_other=counts["other"],
        num_unnamed=counts["unnamed"],
        lost=tuple(lost),
    )


def _lost(source_id: str, num_clips: int, rows: Sequence[LedgerRow]) -> list[LostRow]:
    """Divide a source's missing clips over the reasons in its rows; what no row explains shares the source's fate."""
    counts: Counter[str] = Counter()
    fate = _WAITING
    for row in rows:
        if row.outcome == "done":
            continue
        if row.item == source_id:
            fate = _sentence(row)
        elif counts.total() < num_clips:
            counts[_sentence(row)] += 1
    counts[fate] += num_clips - counts.total()
    return [LostRow(source_id=source_id, num_clips=n, reason=reason) for reason, n in sorted(counts.items()) if n]


def _sentence(row: LedgerRow) -> str:
    if row.outcome == "rejected":
        return _REFUSED.get(row.reason, f"they were refused ({row.reason})")
    return f"{_STOPPED[row.stage]} ({row.reason_class or row.reason})"
