"""Fit the limits of a domain to the clips that were accepted there: what nearly all of them reach.

One sharpness is soft for a film and crisp for a flat-shaded cartoon. Where people have looked at some clips of a
domain, or its first limits are trusted, the accepted ones say what is usual.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.curate.select import RULES, Rule, decide
from schemas.clip import Clip
from schemas.config import SelectLimits
from schemas.decision import Decision

# What differs between domains; geometry, length and pose are matters of choice and stay.
FITTED = (
    "min_speech_ratio",
    "min_sync_z",
    "min_motion",
    "min_sharpness",
    "min_exposure",
    "max_exposure",
    "min_stability",
    "max_overlay",
)
_DIGITS = 3


@dataclass(frozen=True, slots=True)
class Fit:
    """One limit of one domain: as it is (None: off), as fitted, and how many of all clips with that score miss each."""

    domain: str
    limit: str
    now: float | None
    fitted: float
    num_accepted: int
    num_clips: int
    missed_now: int
    missed_fitted: int


@dataclass(frozen=True, slots=True)
class Effect:
    """What all fitted limits of one domain do together to its finished clips, reviews and duplicates aside."""

    domain: str
    num_clips: int
    kept_now: int
    kept_fitted: int
    newly_dropped: int
    newly_kept: int


def fit_limits(
    clips: Iterable[Clip],
    decisions: Iterable[Decision],
    limits: Mapping[str, SelectLimits],
    *,
    share: float = 0.98,
    min_clips: int = 20,
) -> list[Fit]:
    """The limits that ``share`` of the accepted clips of a domain reach, rounded outwards to three digits.

    Args:
        clips: all finished ones.
        decisions: of those; the latest word on each, reviews included.
        limits: by domain, as they are.
        share: of the accepted clips that every limit must keep, above 0 and at most 1.
        min_clips: accepted clips that know a score, below which nothing is fitted: a tail needs a body.

    Returns:
        By domain, then in the order of ``FITTED``; what cannot be fitted is not there.
    """
    kept = {decision.clip_id for decision in decisions if decision.keep}
    by_domain: defaultdict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        by_domain[clip.domain].append(clip)
    rules = {rule.limit: rule for rule in RULES}
    fits: list[Fit] = []
    for domain, clips_of_domain in sorted(by_domain.items()):
        for name in FITTED:
            accepted = _measured(rules[name], [clip for clip in clips_of_domain if clip.clip_id in kept])
            if len(accepted) >= max(min_clips, 1):
                fits.append(
                    _fit(domain, rules[name], limits[domain], accepted, _measured(rules[name], clips_of_domain), share)
                )
    return fits


def fitted_limits(limits: Mapping[str, SelectLimits], fits: Iterable[Fit]) -> dict[str, SelectLimits]:
    """The limits by domain with the fitted ones in place."""
    changes: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for fit in fits:
        changes[fit.domain][fit.limit] = fit.fitted
    return {domain: domain_limits.model_copy(update=changes[domain]) for domain, domain_limits in limits.items()}


def effects(
    clips: Iterable[Clip], limits: Mapping[str, SelectLimits], fitted: Mapping[str, SelectLimits]
) -> list[Effect]:
    """How many clips of each domain the limits keep now, and would keep."""
    outcomes: defaultdict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for clip in clips:
        now, then = (decide(clip, limits_by_domain[clip.domain]).keep for limits_by_domain in (limits, fitted))
        outcomes[clip.domain].append((now, then))
    return [
        Effect(
            domain=domain,
            num_clips=len(pairs),
            kept_now=sum(now for now, _ in pairs),
            kept_fitted=sum(then for _, then in pairs),
            newly_dropped=sum(now and not then for now, then in pairs),
            newly_kept=sum(then and not now for now, then in pairs),
        )
        for domain, pairs in sorted(outcomes.items())
    ]


def _measured(rule: Rule, clips: Sequence[Clip]) -> list[float]:
    return sorted(value for value in map(rule.measure, clips) if value is not None)


def _fit(
    domain: str, rule: Rule, limits: SelectLimits, accepted: list[float], everything: list[float], share: float
) -> Fit:
    least = rule.bound == "min"
    spared = math.floor((1 - share) * len(accepted) + 1e-9)
    fitted = _outwards(accepted[spared] if least else accepted[-1 - spared], down=least)
    now = rule.of(limits)
    return Fit(
        domain=domain,
        limit=rule.limit,
        now=now,
        fitted=fitted,
        num_accepted=len(accepted),
        num_clips=len(everything),
        missed_now=0 if now is None else sum(rule.missed_by(value, now) for value in everything),
        missed_fitted=sum(rule.missed_by(value, fitted) for value in everything),
    )


def _outwards(value: float, *, down: bool) -> float:
    """The value at three digits, on the side that keeps it inside its own limit."""
    if value == 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(abs(value))) - _DIGITS + 1)
    steps = value / step
    whole = math.floor(steps + 1e-9) if down else math.ceil(steps - 1e-9)
    rounded = round(whole * step, 12)
    return min(rounded, value) if down else max(rounded, value)
