"""People of one source: never joined when seen together, named in the order in which they are met."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.curate.identities import Sighting, distance_of, identify, seen_in_both
from schemas.base import TimeSpan

LIMIT = 0.4


def face(angle):
    """Two faces lie about as far apart as their angles, in radians."""
    return np.array([np.cos(angle), np.sin(angle)], np.float16)


def seen(name, angle=0.0, *, shot=0, track=0, start=0.0, stop=None):
    print_ = np.zeros(0, np.float16) if angle is None else face(angle)
    return Sighting(name, shot, track, TimeSpan(start_s=start, stop_s=start + 3 if stop is None else stop), print_)


@st.composite
def sources(draw):
    """Tracks of 0.1 rad steps, some at the same time in one shot."""
    num = draw(st.integers(1, 8))
    steps, shots, starts = st.integers(0, 15), st.integers(0, 2), st.integers(0, 9)
    return [seen(f"c{n}", draw(steps) / 10, shot=draw(shots), track=n, start=draw(starts)) for n in range(num)]


@given(sources(), st.randoms())
def test_the_order_of_clips_does_not_matter(sightings, random):
    shuffled = random.sample(sightings, len(sightings))
    assert identify("film", shuffled, LIMIT) == identify("film", sightings, LIMIT)


@given(sources())
def test_whoever_is_seen_together_is_two_people(sightings):
    people = identify("film", sightings, LIMIT)
    for a in sightings:
        for b in sightings:
            together = a.span.start_s < b.span.stop_s and b.span.start_s < a.span.stop_s
            if a is not b and a.shot_index == b.shot_index and together:
                assert people[a.clip_id] != people[b.clip_id]


@given(sources())
def test_no_two_prints_of_a_person_are_farther_apart_than_the_limit(sightings):
    people = identify("film", sightings, LIMIT)
    for a in sightings:
        for b in sightings:
            if people[a.clip_id] == people[b.clip_id]:
                gap = np.linalg.norm(a.face.astype(np.float64) - b.face.astype(np.float64))
                assert gap <= LIMIT + 1e-3


@given(sources())
def test_the_first_one_met_has_the_sources_name(sightings):
    people = identify("film", sightings, LIMIT)
    first = min(sightings, key=lambda one: (one.span.start_s, one.clip_id))
    assert people[first.clip_id] == "film"
    met = list(dict.fromkeys(people[one.clip_id] for one in sorted(sightings, key=lambda one: (one.span.start_s, one.clip_id))))  # fmt: skip  # noqa: E501
    assert met == ["film", *(f"film-{number}" for number in range(2, len(met) + 1))]


def test_clips_of_one_track_are_one_person_whatever_they_look_like():
    people = identify("film", [seen("a", 0.0), seen("b", 1.5, start=5), seen("c", None, start=9)], LIMIT)
    assert set(people.values()) == {"film"}


def test_the_same_face_in_another_shot_is_the_same_person():
    people = identify("film", [seen("a"), seen("b", 0.1, shot=1, track=1, start=5), seen("c", 1.2, shot=2, track=2, start=9)], LIMIT)  # fmt: skip  # noqa: E501
    assert people == {"a": "film", "b": "film", "c": "film-2"}


def test_touching_spans_are_not_seen_together():
    a, b = seen("a", stop=3.0), seen("b", track=1, start=3.0)
    assert set(identify("film", [a, b], LIMIT).values()) == {"film"}
    assert len(set(identify("film", [a, seen("b", track=1, start=2.9)], LIMIT).values())) == 2


def test_tracks_without_a_print_remain_alone():
    people = identify("film", [seen("a", None), seen("b", None, shot=1, track=1, start=5)], LIMIT)
    assert people == {"a": "film", "b": "film-2"}
    assert identify("film", [seen("a", None)], LIMIT) == {"a": "film"}


def test_nobody_gets_the_name_of_another_source():
    two = [seen("a"), seen("b", 1.5, shot=1, track=1, start=5)]
    assert identify("film", two, LIMIT, {"film", "film-2"})["b"] == "film-3"


def test_names_stay_within_the_length_of_an_id():
    source = "f" * 96
    people = identify(source, [seen("a"), seen("b", 1.5, shot=1, track=1, start=5)], LIMIT)
    assert people["b"] == "f" * 94 + "-2"


def test_no_clips_no_people():
    assert identify("film", [], LIMIT) == {}


@pytest.mark.parametrize(("angle", "people"), [(0.39, 1), (0.42, 2)])
def test_the_limit(angle, people):
    found = identify("film", [seen("a"), seen("b", angle, shot=1, track=1, start=5)], LIMIT)
    assert len(set(found.values())) == people


# --- people of several sources ---

ANGLES = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 2), st.floats(0, 3)), max_size=12)


@given(ANGLES, st.floats(0.01, 2), st.randoms())
def test_sources_are_tied_when_two_of_their_people_are_near(rows, limit, random):
    """As comparing every two of them says, in whatever order they come."""
    rows = list({(source, number): (source, number, angle) for source, number, angle in rows}.values())
    people = {(source, str(number)): [face(angle)] for source, number, angle in rows}
    near = {tuple(sorted((a, b))) for a, i, x in rows for b, j, y in rows if a != b and abs(x - y) < limit - 0.01}
    far = {(a, b) for a in "abcd" for b in "abcd" if a < b} - {
        tuple(sorted((a, b))) for a, i, x in rows for b, j, y in rows if a != b and abs(x - y) <= limit + 0.01
    }
    found = seen_in_both(people, np.cos(limit))
    assert set(found) >= near
    assert not set(found) & far
    shuffled = dict(random.sample(sorted(people.items()), len(people)))
    assert seen_in_both(shuffled, np.cos(limit)) == found


def test_a_person_is_compared_by_the_mean_of_the_clips():
    people = {("a", "a"): [face(0.0), face(1.0)], ("b", "b"): [face(0.5)], ("c", "c"): [face(1.5)]}
    assert seen_in_both(people, np.cos(0.1)) == [("a", "b")]
    assert seen_in_both({}, 0.4) == []


def test_people_are_compared_a_block_at_a_time(monkeypatch):
    people = {(f"s{n:02}", "x"): [face(n / 10)] for n in range(20)}
    whole = seen_in_both(people, np.cos(0.15))
    assert whole == [(f"s{n:02}", f"s{n + 1:02}") for n in range(19)]
    monkeypatch.setattr("pipeline.curate.identities._ROWS", 3)
    assert seen_in_both(people, np.cos(0.15)) == whole


@pytest.mark.parametrize("angle", [0.0, 0.3, 1.5, 3.1])
def test_a_cosine_is_a_distance(angle):
    gap = np.linalg.norm(face(angle).astype(np.float64) - face(0.0))
    assert distance_of(np.cos(angle)) == pytest.approx(gap, abs=1e-3)
