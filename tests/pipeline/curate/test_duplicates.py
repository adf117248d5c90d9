"""Duplicates: the same take however it was cut, and never two takes of one room, one voice or one stillness."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.curate.components import components
from pipeline.curate.duplicates import Take, agreement, find_duplicates, grouped, typical_hash
from schemas.base import Box, TimeSpan
from schemas.collection import DuplicateLink
from schemas.config import DuplicateConfig
from tests.helpers.prints import cut, make_prints

CONFIG = DuplicateConfig()


def take(name, *, source=None, sha256=None, start=0.0, stop=4.0, x0=0.0):
    source = source or f"s-{name}"
    span, square = TimeSpan(start_s=start, stop_s=stop), Box(x0=x0, y0=0, x1=x0 + 100, y1=100)
    return Take(name, source, sha256 or f"sha-{source}", span, square)


def found(prints, takes=None, config=CONFIG):
    takes = [take(name) for name in prints] if takes is None else takes
    return find_duplicates(takes, prints.__getitem__, config)


def kinds(groups):
    return {(*sorted((link.clip_id, link.twin_id)), link.kind) for group in groups for link in group.links}


ROOM = np.full(8, 0x0F0F0F0F0F0F0F0F, np.uint64)


def in_room(seed, num_frames=100, **changes):
    return make_prints(num_frames, seed=seed, hashes=ROOM, **changes)


# --- laws ---


@settings(max_examples=20)
@given(st.permutations(["a", "b", "c", "d", "e"]))
def test_the_order_of_clips_does_not_matter(order):
    whole = in_room(1, 200)
    prints = {"a": whole, "b": cut(whole, 10, 190), "c": in_room(2), "d": in_room(2), "e": make_prints(seed=3)}
    assert found(prints, [take(name) for name in order]) == found(prints)


@pytest.mark.parametrize(("start", "stop"), [(0, 100), (7, 100), (0, 80), (13, 63), (49, 99)])
def test_a_trimmed_copy_is_found_where_half_of_it_is_shared(start, stop):
    whole = in_room(1)
    assert kinds(found({"a": whole, "b": cut(whole, start, stop)})) == {("a", "b", "picture")}


def test_clips_of_one_room_are_no_duplicates():
    """The same wall, head and hours, 30 takes: neither what moves nor what sounds agrees at any delay."""
    assert found({f"c{seed:02d}": in_room(seed) for seed in range(30)}) == []


def test_overlapping_clips_count_from_half_of_the_shorter_one():
    """Independent movements, so that what is not shared does not agree by itself."""
    whole = in_room(1, 300)
    for shared, expected in ((60, 1), (50, 1), (40, 0)):
        pair = {"a": cut(whole, 0, 100), "b": cut(whole, 100 - shared, 200 - shared)}
        assert len(found(pair)) == expected, shared


def test_other_sound_over_the_same_pictures_is_the_same_take():
    other = in_room(2)
    dubbed = replace(in_room(1), chords=other.chords, bands=other.bands)
    assert kinds(found({"a": in_room(1), "b": dubbed})) == {("a", "b", "picture")}
    mute = replace(in_room(1), chords=np.zeros(100, np.uint32), heard=np.zeros(100, bool))
    assert kinds(found({"a": in_room(1), "b": mute})) == {("a", "b", "picture")}


def test_other_movement_with_the_same_sound_before_the_same_wall_is_the_same_take():
    """Such as a copy with a banner across it, or one slowed down in pictures only."""
    assert kinds(found({"a": in_room(1), "b": replace(in_room(1), grid=in_room(2).grid)})) == {("a", "b", "sound")}


def test_the_same_sound_under_other_pictures_is_another_clip():
    """One recording drives many animated faces."""
    other = make_prints(seed=2)
    assert found({"a": make_prints(seed=1), "b": replace(other, chords=make_prints(seed=1).chords)}) == []


def test_silence_and_stillness_agree_with_nothing():
    still = {"grid": np.full((100, 16), 90, np.float16)}
    silent = {"chords": np.zeros(100, np.uint32), "heard": np.zeros(100, bool)}
    assert found({"a": in_room(1, **still, **silent), "b": in_room(2, **still, **silent)}) == []


@pytest.mark.parametrize(("bits", "same"), [(15, True), (16, True), (17, False)])
def test_the_limit_of_the_pictures(bits, same):
    other = ROOM ^ np.uint64((1 << bits) - 1)
    assert bool(found({"a": in_room(1), "b": replace(in_room(1), hashes=other)})) is same


@pytest.mark.parametrize(("errors", "same"), [(0.2, True), (0.26, True), (0.29, False), (0.4, False)])
def test_the_limit_of_the_sound(errors, same):
    """An agreement of .45 is a bit error rate of .275."""
    rng = np.random.default_rng(0)
    flips = (rng.random((100, 32)) < errors) @ (1 << np.arange(32, dtype=np.int64))
    a = in_room(1)
    b = replace(in_room(2), chords=a.chords ^ flips.astype(np.uint32))
    assert bool(found({"a": a, "b": b})) is same


def test_all_pairs_are_compared_across_blocks(monkeypatch):
    monkeypatch.setattr("pipeline.curate.duplicates._BLOCK", 3)
    prints = {f"c{number}": make_prints(seed=number % 5) for number in range(10)}
    groups = found(prints)
    assert [group.clip_ids for group in groups] == [(f"c{number}", f"c{number + 5}") for number in range(5)]


# --- the same file ---


def listed_twice(**second):
    takes = [take("a", source="one", sha256="f"), take("b", **{"source": "two", "sha256": "f"} | second)]
    return found({"a": make_prints(seed=1), "b": make_prints(seed=2)}, takes)


def test_one_file_listed_twice():
    [group] = listed_twice()
    assert (group.clip_ids, group.links[0].kind, group.links[0].distance) == (("a", "b"), "file", 0.0)


@pytest.mark.parametrize(
    "other",
    [{"source": "one"}, {"sha256": "g"}, {"start": 2.1, "stop": 6.1}, {"x0": 60.0}],
    ids=["same source", "other file", "other time", "other face"],
)
def test_what_is_not_the_same_of_one_file(other):
    assert listed_twice(**other) == []


def test_half_of_the_time_is_enough():
    assert listed_twice(start=2.0, stop=6.0)[0].links[0].distance == 0.5


# --- parts ---


@given(st.integers(0, 40), st.integers(1, 60), st.integers(1, 60))
def test_agreement_is_the_correlation_of_the_common_part(delay, num_a, num_b):
    rng = np.random.default_rng(num_a * 100 + num_b)
    a, b = (rng.normal(size=(num, 3)).astype(np.float32) for num in (num_a, num_b))
    values = agreement(a, b, 0.0, 0.0)
    assert len(values) == num_a + num_b - 1
    delay = min(delay, num_a - 1)
    common = min(num_a - delay, num_b)
    x, y = a[delay : delay + common].ravel(), b[:common].ravel()
    assert values[num_b - 1 + delay] == pytest.approx(x @ y / np.sqrt((x @ x) * (y @ y)), abs=1e-3)


def test_the_typical_hash_is_the_majority_of_each_bit():
    assert typical_hash(np.array([0b1100, 0b1010, 0b1001], np.uint64)) == 0b1000
    high = np.uint64(1) << np.uint64(63)
    assert typical_hash(np.array([high, high, 0], np.uint64)) == high


def link(a, b, distance=0.1, kind="picture"):
    return DuplicateLink(clip_id=a, twin_id=b, kind=kind, distance=distance, limit=0.35)


def test_groups_are_what_links_connect():
    groups = grouped([link("b", "c"), link("x", "y", kind="sound"), link("a", "b", 0.2)])
    assert [group.clip_ids for group in groups] == [("a", "b", "c"), ("x", "y")]
    assert [one.distance for one in groups[0].links] == [0.1, 0.2]
    assert components([("b", "c"), ("c", "a"), ("x", "x")]) == {"a": "a", "b": "a", "c": "a", "x": "x"}
