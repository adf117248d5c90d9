"""Cohen's kappa between reviewers, and between a reviewer's first look and a blind second one.

Share of equal verdicts alone flatters: where nine of ten clips are good, two people who accept everything agree nine
times in ten without having looked. Kappa takes away what chance would give.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations, pairwise

from pipeline.store.reviews import in_force
from schemas.review import Review, ReviewAction
from schemas.review_report import Agreement, AgreementRow

_VERDICTS = frozenset({ReviewAction.ACCEPT, ReviewAction.REJECT})
_Pair = tuple[bool, bool]  # whether the first accepted, whether the second did


def agreement(reviews: Iterable[Review]) -> Agreement:
    """Compare everybody's verdicts, accept or reject, on the same versions of the same clips.

    Between two people the latest verdict of each counts. A blind second look is compared with the same person's
    verdict before it. What was undone counts nowhere; reasons, domains, identities and trims are not compared.
    """
    by_reviewer = _verdicts(reviews)
    latest: defaultdict[str, dict[tuple[str, str], bool]] = defaultdict(dict)
    looks: defaultdict[str, list[_Pair]] = defaultdict(list)
    for (who, clip_id, version), verdicts in by_reviewer.items():
        latest[who][clip_id, version] = _accepts(verdicts[-1])
        for before, after in pairwise(verdicts):
            if after.blind:
                looks[who].append((_accepts(before), _accepts(after)))
    pairs: list[AgreementRow] = []
    for first, second in combinations(sorted(latest), 2):
        common = sorted(latest[first].keys() & latest[second].keys())
        if common:
            pairs.append(
                _row(
                    first,
                    second,
                    [(latest[first][version_of_clip], latest[second][version_of_clip]) for version_of_clip in common],
                )
            )
    own = [_row(who, who, looks_of) for who, looks_of in sorted(looks.items())]
    return Agreement(num_reviewers=len(latest), pairs=tuple(pairs), second_looks=tuple(own))


def cohens_kappa(verdicts: Sequence[_Pair]) -> float | None:
    """Kappa of two raters over two categories: (observed - expected) / (1 - expected) agreement.

    J. Cohen, A coefficient of agreement for nominal scales, Educational and Psychological Measurement 20 (1960),
    equation 1. None where it is not defined: nothing was rated, or chance alone gives full agreement.
    """
    num = len(verdicts)
    first, second = (sum(pair[k] for pair in verdicts) for k in (0, 1))
    # Counted in whole numbers, so that full agreement by chance is found exactly.
    by_chance = first * second + (num - first) * (num - second)
    if by_chance == num * num:
        return None
    observed = sum(a == b for a, b in verdicts) * num
    return (observed - by_chance) / (num * num - by_chance)


def _verdicts(reviews: Iterable[Review]) -> dict[tuple[str, str, str], list[Review]]:
    """The verdicts in force by who, clip and version, each list in order of time."""
    by_clip: defaultdict[str, list[Review]] = defaultdict(list)
    for review in reviews:
        by_clip[review.clip_id].append(review)
    verdicts: defaultdict[tuple[str, str, str], list[Review]] = defaultdict(list)
    for clip_id, clip_reviews in sorted(by_clip.items()):
        for review in in_force(clip_reviews):
            if review.action in _VERDICTS:
                verdicts[review.who, clip_id, review.version].append(review)
    return verdicts


def _accepts(review: Review) -> bool:
    return review.action is ReviewAction.ACCEPT


def _row(first: str, second: str, verdicts: Sequence[_Pair]) -> AgreementRow:
    return AgreementRow(
        first=first,
        second=second,
        num_clips=len(verdicts),
        num_agreed=sum(a == b for a, b in verdicts),
        kappa=cohens_kappa(verdicts),
    )
