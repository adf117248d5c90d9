"""The fitted sync score: nobody is judged by what they taught, and only what belongs together scores."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.curate.ridge import score_ridge
from schemas.config import RidgeConfig
from tests.helpers.prints import cut, make_prints, talking_prints

CONFIG = RidgeConfig(min_other_groups=3)
TALKERS = {f"t{seed}": talking_prints(seed, noise=0.03) for seed in range(6)}


def score(prints, groups=None, teachers=None, config=CONFIG):
    groups = groups or {name: [name] for name in prints}
    everyone = [clip_id for clips in groups.values() for clip_id in clips]
    return score_ridge(groups, everyone if teachers is None else teachers, prints.__getitem__, config)


def with_sound_of(prints, other):
    return replace(prints, bands=other.bands)


@pytest.fixture(scope="module")
def scores():
    return score(TALKERS)


# --- laws ---


def test_what_a_group_holds_does_not_change_its_own_scores(scores):
    """The leave-one-out law: a clip's own source may teach whatever it likes."""
    lie = replace(TALKERS["t0"], mouth=-TALKERS["t0"].mouth)
    helped = score({**TALKERS, "copy": TALKERS["t0"]}, {**{n: [n] for n in TALKERS}, "t0": ["t0", "copy"]})
    harmed = score({**TALKERS, "lie": lie}, {**{n: [n] for n in TALKERS}, "t0": ["t0", "lie"]})
    assert helped["t0"].score == pytest.approx(scores["t0"].score, abs=1e-4)
    assert harmed["t0"].score == pytest.approx(scores["t0"].score, abs=1e-4)


def test_a_planted_leak_raises_no_score():
    """A mouth that is a function of its sound by a rule that no other source follows is not in sync with it."""
    rng = np.random.default_rng(5)
    strange = TALKERS["t0"]
    rule = rng.normal(size=(20, 3))
    planted = replace(strange, mouth=(strange.bands.astype(np.float64) @ rule).astype(np.float32))
    copies = {f"copy{number}": planted for number in range(8)}
    prints = {**TALKERS, "t0": planted, **copies}
    honest = score(prints, {"t0": ["t0", *copies], **{name: [name] for name in TALKERS if name != "t0"}})
    leaking = score(prints, {name: [name] for name in prints})
    assert leaking["t0"].z > honest["t0"].z + 2, "the rule can be learned, so leaving it out is what protects"
    assert honest["t0"].z < 3


def test_the_order_of_groups_and_clips_does_not_matter(scores):
    backwards = {name: [name] for name in reversed(TALKERS)}
    assert score(TALKERS, backwards) == scores


def test_clips_that_may_not_teach_change_nothing(scores):
    noise = make_prints(150, seed=9)
    more = score({**TALKERS, "noise": noise}, teachers=list(TALKERS))
    assert {name: more[name] for name in TALKERS} == scores
    assert more["noise"].p > 0.01


def test_true_pairs_beat_every_swapped_sound(scores):
    for name, prints in TALKERS.items():
        for other, voice in TALKERS.items():
            if other != name:
                swapped = score({**TALKERS, name: with_sound_of(prints, voice)})[name]
                assert swapped.score < scores[name].score, (name, other)
        assert scores[name].z > 3
        assert scores[name].p < 0.05


@pytest.mark.parametrize("lag", [-3, 0, 4])
def test_the_lag_is_positive_when_the_picture_comes_later(scores, lag):
    prints = TALKERS["t1"]
    moved = replace(cut(prints, 10, 140), mouth=prints.mouth[10 - lag : 140 - lag])
    found = score({**TALKERS, "t1": moved})["t1"]
    assert found.lag_frames == scores["t1"].lag_frames + lag


# --- when nothing can be said ---


@pytest.mark.parametrize(("others", "known"), [(2, False), (3, True), (4, True)])
def test_enough_other_sources_are_needed(others, known):
    prints = {name: TALKERS[name] for name in sorted(TALKERS)[: others + 1]}
    found = score(prints)["t0"]
    assert (found.status == "known") is known
    if not known:
        assert found.why == "2 other sources can teach the model, 3 needed"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"seen": np.arange(150) < 79}, "3.16 s with a face's landmarks, 3.2 s needed"),
        ({"mouth": np.full((150, 3), 0.2, np.float32)}, "the mouth never moves"),
        ({"bands": np.full((150, 20), -11.5, np.float16)}, "no sound, or one that never changes"),
    ],
)
def test_why_a_score_is_unknown(changes, why):
    found = score({**TALKERS, "t0": replace(TALKERS["t0"], **changes)})["t0"]
    assert (found.status, found.why) == ("unknown", why)


def test_eighty_frames_are_enough():
    assert score({**TALKERS, "t0": replace(TALKERS["t0"], seen=np.arange(150) < 80)})["t0"].status == "known"
