"""People are asked where their answer teaches most, the same way every time, and now and then about what they knew."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.build.survey import FinishedClip
from pipeline.review.order import RECHECK_AFTER, RECHECK_EVERY, Order, Why
from pipeline.review.progress import IDLE_S, progress
from schemas.base import FrameSpan
from schemas.config import SelectLimits
from schemas.review import Review
from schemas.scores import SyncScore
from tests.helpers.release_items import make_clip, make_source
from tests.helpers.reviewing import at, review_of

LIMITS = {"real": SelectLimits(), "mesh": SelectLimits()}
SOURCES = {name: make_source("film", domain=name) for name in LIMITS}


@dataclass(frozen=True)
class Population:
    """Synthetic clips of which the right verdict is known: a line through two scores, blurred a little."""

    clips: list[FinishedClip]
    right: dict[str, bool]


def population(num: int, seed: int, domain: str = "real") -> Population:
    rng = np.random.default_rng(seed)
    sharpness, z, speech = rng.normal(300, 100, num), rng.normal(3, 1.5, num), rng.uniform(0.3, 1, num)
    clips, right = [], {}
    for k in range(num):
        name = f"{domain}-{k:05d}"
        sync = SyncScore(status="known", score=0.5, lag_frames=0, z=float(z[k]), p=0.01)
        scores = {"sharpness": float(sharpness[k]), "sync": sync, "speech_ratio": float(speech[k])}
        clip = make_clip(name, "film", domain=domain, num_frames=100, scores=scores)
        clips.append(FinishedClip(f"key-{name}", clip, SOURCES[domain], "0" * 64))
        right[name] = bool((sharpness[k] - 300) / 100 + (z[k] - 3) / 1.5 + rng.normal(0, 0.1) > 0.8)
    return Population(clips, right)


def judged(people: Population, names, *, who="eva", start=0, blind=False) -> list[Review]:
    by_id = {finished.clip.clip_id: finished for finished in people.clips}
    return [
        review_of(
            by_id[name],
            "accept" if people.right[name] else "reject",
            who=who,
            at=at(10 * (start + k)),
            blind=blind,
            **({} if people.right[name] else {"reason": "occluded"}),
        )
        for k, name in enumerate(names)
    ]


@pytest.fixture(scope="module")
def people() -> Population:
    return population(300, seed=4)


def mistakes(order: Order, people: Population, reviews: list[Review]) -> int:
    """How many of the clips that nobody judged the model calls wrongly."""
    asked = [turn for turn in order.turns(reviews, "nobody") if turn.why is not Why.RECHECK]
    assert all(turn.probability is not None for turn in asked)
    return sum((turn.probability > 0.5) != people.right[turn.clip_id] for turn in asked)


def test_the_boundary_is_found_with_fewer_answers_than_by_chance():
    """Over five populations: after 60 answers the ordered ones leave fewer mistakes, each counted by the same model."""
    ours, chance = 0, 0
    for seed in range(5):
        some = population(300, seed)
        order, rng = Order(some.clips, LIMITS), np.random.default_rng(seed)
        names = [finished.clip.clip_id for finished in some.clips]
        reviews = judged(some, rng.permutation(names)[:20])
        while len(reviews) < 60:
            fresh = [turn.clip_id for turn in order.turns(reviews, "eva") if turn.why is not Why.RECHECK][:5]
            reviews += judged(some, fresh, start=len(reviews))
        ours += mistakes(order, some, reviews)
        chance += mistakes(order, some, judged(some, rng.permutation(names)[:60]))
    assert ours < 0.7 * chance


def test_probabilities_are_calibrated(people):
    order = Order(people.clips, LIMITS)
    turns = order.turns(judged(people, [finished.clip.clip_id for finished in people.clips[:150]]), "bob")
    waiting = [turn for turn in turns if turn.why is Why.UNSURE]
    assert len(waiting) == 150
    expected = sum(turn.probability for turn in waiting)
    assert expected == pytest.approx(sum(people.right[turn.clip_id] for turn in waiting), abs=10)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 299), unique=True, max_size=90), st.randoms(use_true_random=False))
def test_everyone_waiting_is_asked_once_and_the_order_is_a_function_of_the_words(people, chosen, chance):
    names = [people.clips[k].clip.clip_id for k in chosen]
    reviews = judged(people, names)
    turns = Order(people.clips, LIMITS).turns(reviews, "eva")
    waiting = [turn.clip_id for turn in turns if turn.why is not Why.RECHECK]
    assert Counter(waiting) == Counter({finished.clip.clip_id for finished in people.clips} - set(names))
    again = [turn.clip_id for turn in turns if turn.why is Why.RECHECK]
    assert len(again) == len(set(again))
    assert set(again) <= set(names)
    for things in (reviews, shuffled := list(people.clips)):
        chance.shuffle(things)
    assert Order(shuffled, LIMITS).turns(reviews, "eva") == turns


def test_before_there_are_both_kinds_the_limits_decide(people):
    order = Order(people.clips, LIMITS)
    first = order.turns([], "eva")
    assert {turn.why for turn in first} == {Why.LIMITS}
    assert {turn.probability for turn in first} == {None}
    accepted = [name for name in people.right if people.right[name]][:40]
    assert {turn.why for turn in order.turns(judged(people, accepted), "bob")} == {Why.LIMITS, Why.RECHECK}


def test_what_lies_at_a_limit_comes_first_and_exact_misses_last():
    def clip(name, **scores):
        known = SyncScore(status="known", score=0.5, lag_frames=0, z=scores.pop("z", 5.0), p=0.01)
        plain = make_clip(name, num_frames=scores.pop("num_frames", 100), scores={**scores, "sync": known})
        return FinishedClip(f"key-{name}", plain, SOURCES["real"], "0" * 64)

    clips = [clip(f"far{k}", z=4.0 + k) for k in range(6)]
    clips += [clip("near", z=1.45), clip("short", num_frames=20, z=1.5), clip("mute", speech_ratio=None)]
    asked = [turn.clip_id for turn in Order(clips, LIMITS).turns([], "eva")]
    assert asked[0] == "near"
    assert asked[-1] == "short"
    assert "mute" not in asked, "nobody could keep it"


def test_a_domain_learns_from_its_own_clips(people):
    other = population(40, seed=9, domain="mesh")
    order = Order([*people.clips, *other.clips], LIMITS)
    turns = order.turns(judged(people, [finished.clip.clip_id for finished in people.clips[:100]]), "bob")
    kinds = {(turn.clip_id.split("-")[0], turn.why) for turn in turns if turn.why is not Why.RECHECK}
    assert kinds == {("real", Why.UNSURE), ("mesh", Why.LIMITS)}


def test_words_about_another_version_leave_a_clip_waiting(people):
    finished = people.clips[0]
    old = review_of(finished, "accept", version="earlier")
    assert finished.clip.clip_id in {turn.clip_id for turn in Order(people.clips, LIMITS).turns([old], "eva")}


# ---- second looks ----------------------------------------------------------------------------------


def test_one_turn_in_twenty_is_a_second_look_at_what_is_long_past(people):
    """A reviewer follows the order to the end, asking anew after every answer."""
    order, reviews, seen = Order(people.clips, LIMITS), [], []
    while len(reviews) < 160:
        asked = order.turns(reviews, "eva")[0]
        seen.append(asked)
        reviews += judged(people, [asked.clip_id], start=len(reviews), blind=asked.why is Why.RECHECK)
    again = [turn for turn, shown in enumerate(seen) if shown.why is Why.RECHECK]
    assert len(again) == 160 // RECHECK_EVERY - 1, "in the first twenty there is nothing to look at again"
    assert [turn // RECHECK_EVERY for turn in again] == list(range(1, 8))
    first = {past.clip_id: turn for turn, past in reversed(list(enumerate(seen)))}
    assert all(turn - first[seen[turn].clip_id] >= RECHECK_AFTER for turn in again)
    assert max(Counter(turn.clip_id for turn in seen).values()) == 2, "nobody looks three times"


def test_a_second_person_is_shown_what_the_first_has_judged(people):
    reviews = judged(people, [finished.clip.clip_id for finished in people.clips[:30]])
    turns = Order(people.clips, LIMITS).turns(reviews, "bob")
    again = {turn.clip_id for turn in turns if turn.why is Why.RECHECK}
    assert len(again) == len(turns) // RECHECK_EVERY
    assert again <= {review.clip_id for review in reviews}
    assert [turn.clip_id for turn in turns] != [
        turn.clip_id for turn in Order(people.clips, LIMITS).turns(reviews, "cleo")
    ]


# ---- progress --------------------------------------------------------------------------------------


def test_progress_counts_hours_as_trimmed_and_cuts_pauses(people):
    clips = people.clips[:4]
    accept, reject = review_of(clips[0], "accept", at=at(0)), review_of(clips[1], "reject", reason="still", at=at(30))
    trim = review_of(clips[0], "trim", trim=FrameSpan(start=0, stop=50), at=at(40))
    moved = review_of(clips[2], "domain", domain="mesh", at=at(40 + 3 * IDLE_S))
    imported = review_of(clips[3], "accept", origin="csv", at=at(10_000), who="bob")
    counted = progress(clips, [accept, reject, trim, moved, imported])
    real, mesh = counted.domains[1], counted.domains[0]
    assert (mesh.domain, mesh.num_clips, mesh.num_left, mesh.accepted_h) == ("mesh", 1, 1, 0)
    assert (real.num_clips, real.num_decided, real.num_left, real.num_accepted) == (3, 3, 0, 2)
    assert counted.accepted_h == pytest.approx((50 + 100) / 25 / 3600)
    assert counted.spent_min == pytest.approx((40 + IDLE_S) / 60)
    assert counted.minutes_per_accepted_h == pytest.approx(counted.spent_min / counted.accepted_h)


def test_nothing_accepted_costs_nothing_yet(people):
    assert progress(people.clips, []).minutes_per_accepted_h is None
