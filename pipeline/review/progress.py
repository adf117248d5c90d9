"""How far screening has come: what is decided, how much of it is accepted, and what an accepted hour costs."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from pipeline.build.survey import FinishedClip
from pipeline.store.reviews import Standing, standing
from schemas.review import Review, ReviewAction

IDLE_S = 120.0  # a longer pause between two words was not spent on a clip (mine)


@dataclass(frozen=True, slots=True)
class DomainProgress:
    """One domain: ``num_decided`` clips have a verdict, ``num_left`` wait for one; ``accepted_h`` as trimmed."""

    domain: str
    num_clips: int
    num_decided: int
    num_left: int
    num_accepted: int
    accepted_h: float


@dataclass(frozen=True, slots=True)
class Progress:
    """All domains, and the time that people spent, of which pauses count ``IDLE_S`` at most.

    ``minutes_per_accepted_h`` is None until something is accepted.
    """

    domains: tuple[DomainProgress, ...]
    spent_min: float
    accepted_h: float
    minutes_per_accepted_h: float | None


def progress(clips: Sequence[FinishedClip], reviews: Iterable[Review]) -> Progress:
    """What verdicts on the present versions of clips amount to.

    Args:
        clips: as made or as reviewed.
        reviews: all there are. Imported ones decide, but tell nothing of the time spent.
    """
    everything = list(reviews)
    standings = standing(everything, {finished.clip.clip_id: finished.key for finished in clips})
    by_domain: defaultdict[str, list[tuple[FinishedClip, Standing]]] = defaultdict(list)
    for finished in clips:
        one = standings.get(finished.clip.clip_id, Standing())
        name = one.domain.domain if one.domain and one.domain.domain else finished.clip.domain
        by_domain[name].append((finished, one))
    domains = tuple(_domain(name, mine) for name, mine in sorted(by_domain.items()))
    spent_min, accepted_h = spent_s(everything) / 60, sum(one.accepted_h for one in domains)
    return Progress(domains, spent_min, accepted_h, spent_min / accepted_h if accepted_h else None)


def _domain(name: str, clips: Sequence[tuple[FinishedClip, Standing]]) -> DomainProgress:
    decided = [(finished, review) for finished, review in clips if review.verdict]
    accepted = [
        (finished, review)
        for finished, review in decided
        if review.verdict and review.verdict.action is ReviewAction.ACCEPT
    ]
    return DomainProgress(
        domain=name,
        num_clips=len(clips),
        num_decided=len(decided),
        num_left=len(clips) - len(decided),
        num_accepted=len(accepted),
        accepted_h=sum(_duration_s(finished, review) for finished, review in accepted) / 3600,
    )


def _duration_s(finished: FinishedClip, review: Standing) -> float:
    span = review.trim.trim if review.trim else None
    return len(span) / finished.clip.plan.fps if span else finished.clip.duration_s


def spent_s(reviews: Iterable[Review]) -> float:
    """Seconds between one word of a person and the next, long pauses cut short."""
    times: defaultdict[str, list[datetime]] = defaultdict(list)
    for review in reviews:
        if not review.origin:
            times[review.who].append(datetime.fromisoformat(review.at))
    return sum(
        min((after - before).total_seconds(), IDLE_S)
        for mine in times.values()
        for before, after in pairwise(sorted(mine))
    )
