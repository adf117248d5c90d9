"""Ask people about the clips that teach most: those whose fate is least certain.

Until a domain has verdicts of both kinds, certainty is the distance from the limits. Then a logistic regression over
the stored scores, calibrated on verdicts that it was not fitted to, says how likely people are to accept a clip, and
what it finds closest to even comes first. One turn in twenty shows a clip again whose verdict is known and not shown:
nothing else tells how steady the verdicts are.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Bool, Float64
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from pipeline.build.survey import FinishedClip
from pipeline.curate.select import RULES
from pipeline.store.reviews import in_force, standing
from schemas.clip import Clip
from schemas.config import SelectLimits
from schemas.decision import RejectReason
from schemas.review import Review, ReviewAction

RECHECK_EVERY = 20  # turns; one of them is a blind second look
RECHECK_AFTER = 20  # a reviewer's own verdicts between the first look and the second, so that nobody remembers
_LEAST_VERDICTS, _LEAST_OF_A_KIND, _FOLDS = 20, 5, 5
_FAR = 5.0  # in usual spreads: beyond, a score says no more than that it is far away
_SEED = "order"

_VERDICTS = frozenset({ReviewAction.ACCEPT, ReviewAction.REJECT})
# These measure what they mean exactly; where a clip misses them, no look at it changes the number.
_EXACT = frozenset(
    {RejectReason.LOW_RESOLUTION, RejectReason.PADDING, RejectReason.TRACK_TOO_SHORT, RejectReason.SEVERAL_FACES}
)
# What is known of a clip beside what limits look at.
_MORE: tuple[Callable[[Clip], float | None], ...] = (
    lambda clip: clip.scores.face_px,
    lambda clip: clip.scores.landmark_ratio,
    lambda clip: clip.scores.landmark_confidence,
    lambda clip: clip.scores.yaw_range_deg,
    lambda clip: clip.scores.audio_rms,
    lambda clip: clip.scores.sync.score,
    lambda clip: clip.scores.duplicate_frame_ratio,
    lambda clip: clip.scores.hold_frames,
    lambda clip: clip.scores.track_purity,
    lambda clip: clip.scores.speaker.score if clip.scores.speaker else None,
)


class Why(StrEnum):
    """Why a clip is asked about now."""

    UNSURE = "unsure"  # the model finds both verdicts likely
    LIMITS = "limits"  # too few verdicts for a model yet: it lies close to a limit
    RECHECK = "recheck"  # blind: its verdict is known and must not be shown


@dataclass(frozen=True, slots=True)
class Asked:
    """A clip to ask about; ``probability`` that it is accepted, None where there is no model."""

    clip_id: str
    probability: float | None
    why: Why


class Order:
    """The order in which one set of clips is asked about; the clips are read once, the reviews every time.

    Args:
        clips: as made or as reviewed, in any order.
        limits: by domain.
    """

    def __init__(self, clips: Sequence[FinishedClip], limits: Mapping[str, SelectLimits]) -> None:
        ordered = sorted(clips, key=lambda finished: finished.clip.clip_id)
        self._ids = [finished.clip.clip_id for finished in ordered]
        self._versions = {finished.clip.clip_id: finished.key for finished in ordered}
        by_domain: defaultdict[str, list[int]] = defaultdict(list)
        for index, finished in enumerate(ordered):
            by_domain[finished.clip.domain].append(index)
        self._domains = {name: np.array(indices) for name, indices in sorted(by_domain.items())}
        self._features: dict[str, Float64[np.ndarray, "N F"]] = {}
        self._doubt = np.zeros(len(ordered))  # 0 at a limit, and the larger the farther from all of them
        for name, indices in self._domains.items():
            mine = [ordered[index].clip for index in indices]
            self._features[name], self._doubt[indices] = _described(mine, limits[name])
        # What has no sound can be in no release, whoever wants it.
        self._usable = np.array([finished.clip.scores.speech_ratio is not None for finished in ordered], bool)

    def turns(self, reviews: Iterable[Review], who: str) -> list[Asked]:
        """The clips that nobody has judged, the least certain first, and blind second looks among them.

        The same arguments give the same order. Where in twenty turns the second look comes follows from the reviewer's
        name and the number of their verdicts, so that asking again after each verdict keeps to one in twenty.

        Args:
            reviews: all there are, in any order; those of other versions of a clip are left out.
            who: the reviewer who is asked.
        """
        current = [review for review in reviews if self._versions.get(review.clip_id) == review.version]
        standings = standing(current, self._versions)
        verdicts = {clip_id: review.verdict for clip_id, review in standings.items() if review.verdict is not None}
        chance, known = self._chances(verdicts)
        open_ = np.array([name not in verdicts for name in self._ids], bool) & self._usable
        doubt = np.where(known, 2 * np.abs(chance - 0.5), np.tanh(self._doubt))
        rank = sorted(np.flatnonzero(open_), key=lambda index: (doubt[index], self._ids[index]))
        waiting = [
            Asked(self._ids[index], float(chance[index]), Why.UNSURE)
            if known[index]
            else Asked(self._ids[index], None, Why.LIMITS)
            for index in rank
        ]
        probability = {name: float(chance[index]) for index, name in enumerate(self._ids) if known[index]}
        return _with_rechecks(waiting, _verdicts_of(current), verdicts.keys(), who, probability)

    def _chances(self, verdicts: Mapping[str, Review]) -> tuple[Float64[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
        """How likely each clip is to be accepted, and where that is known."""
        accepted = np.array(
            [np.nan if name not in verdicts else verdicts[name].action is ReviewAction.ACCEPT for name in self._ids],
            np.float64,
        )
        chance, known = np.full(len(self._ids), 0.5), np.zeros(len(self._ids), bool)
        for name, indices in self._domains.items():
            answers = accepted[indices]
            taught = np.flatnonzero(~np.isnan(answers))
            fitted = _fit(self._features[name][taught], answers[taught] > 0)
            if fitted is not None:
                chance[indices] = fitted.predict_proba(self._features[name])[:, 1]
                known[indices] = True
        return chance, known


def _described(
    clips: Sequence[Clip], limits: SelectLimits
) -> tuple[Float64[np.ndarray, "N F"], Float64[np.ndarray, " N"]]:
    """Features of one domain's clips for the model, and how far each lies from what the limits would doubt.

    Features are in usual spreads of the domain around its middle; a column says where a score is unknown.
    """
    measures = [*(rule.measure for rule in RULES), *_MORE]
    values = np.array([[_number(measure(clip)) for measure in measures] for clip in clips])
    there = ~np.isnan(values)
    spread, middle = np.ones(len(measures)), np.zeros(len(measures))
    for column in np.flatnonzero(there.any(axis=0)):
        own = values[there[:, column], column]
        low, middle[column], high = np.percentile(own, [25, 50, 75])
        spread[column] = (high - low) or float(own.std()) or abs(float(middle[column])) or 1.0
    features = np.where(there, np.clip((values - middle) / spread, -_FAR, _FAR), 0.0)
    margins = np.full((len(clips), len(RULES)), np.inf)
    for column, rule in enumerate(RULES):
        limit = rule.of(limits)
        if limit is None:
            continue
        side = 1.0 if rule.bound == "min" else -1.0
        margin = side * (values[:, column] - limit) / spread[column]
        margins[:, column] = np.where(there[:, column], margin, np.inf)
    exact = np.array([rule.reason in _EXACT for rule in RULES])
    doubt = np.abs(np.minimum(margins[:, ~exact].min(axis=1), _FAR))
    # A miss of an exact limit is no doubt: such clips come after all others.
    missed = (margins[:, exact] < 0).any(axis=1)
    return np.hstack([features, ~there]), np.where(missed, 2 * _FAR, doubt)


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)


def _fit(features: Float64[np.ndarray, "M F"], accepted: Bool[np.ndarray, " M"]) -> CalibratedClassifierCV | None:
    """A model of one domain's verdicts; None while there are too few of either kind."""
    fewest = int(min(accepted.sum(), (~accepted).sum()))
    if len(accepted) < _LEAST_VERDICTS or fewest < _LEAST_OF_A_KIND:
        return None
    folds = StratifiedKFold(min(_FOLDS, fewest))
    scorer = LogisticRegression(max_iter=1000)
    # One model on all verdicts, its scale taken from folds; the stubs know the default of ``ensemble`` alone.
    model = CalibratedClassifierCV(scorer, method="sigmoid", cv=folds, ensemble=False)  # type: ignore[arg-type]
    return model.fit(features, accepted)


# ---- second looks --------------------------------------------------------------------------------------------------


def _verdicts_of(reviews: Iterable[Review]) -> list[Review]:
    """All verdicts that nobody undid, in order of time."""
    by_clip: defaultdict[str, list[Review]] = defaultdict(list)
    for review in reviews:
        by_clip[review.clip_id].append(review)
    verdicts = [
        review for clip_reviews in by_clip.values() for review in in_force(clip_reviews) if review.action in _VERDICTS
    ]
    return sorted(verdicts, key=lambda review: (review.at, review.review_id))


def _with_rechecks(
    waiting: Sequence[Asked],
    verdicts: Sequence[Review],
    judged: Iterable[str],
    who: str,
    probability: Mapping[str, float],
) -> list[Asked]:
    own = [review for review in verdicts if review.who == who]
    looked_twice = {review.clip_id for review in own if review.blind}
    first_turn = {review.clip_id: turn for turn, review in enumerate(own)}
    candidates = sorted((name for name in judged if name not in looked_twice), key=lambda name: _draw(who, name))
    turns: list[Asked] = []
    for asked in waiting:
        turn = len(own) + len(turns)
        if turn % RECHECK_EVERY == _draw(who, str(turn // RECHECK_EVERY)) % RECHECK_EVERY:
            # Clips that only others have judged may come at once: a second person's word tells as much.
            ready = (name for name in candidates if turn - first_turn.get(name, -RECHECK_AFTER) >= RECHECK_AFTER)
            if (again := next(ready, None)) is not None:
                candidates.remove(again)
                turns.append(Asked(again, probability.get(again), Why.RECHECK))
        turns.append(asked)
    return turns


def _draw(who: str, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{_SEED}:{who}:{name}".encode()).digest()[:8], "big")
