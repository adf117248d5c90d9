"""Splits: no person, film or file is in two of them, whatever the counts, the seed or the order."""

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.curate.split import Member, groups_of, split
from schemas.config import PAPER_TEST, PAPER_TRAIN, SplitConfig
from schemas.release import ties

DOMAINS = ("real", "mesh")


@st.composite
def collections(draw):
    """From one great heap that everything ties together to clips that hardly share a name."""
    pool = ["", *(f"n{number}" for number in range(draw(st.sampled_from([3, 8, 40]))))]
    names = st.sampled_from(pool)
    rows = draw(st.lists(st.tuples(st.sampled_from(DOMAINS), *[names] * 6), max_size=25))
    return [Member(f"clip-{number}", *row) for number, row in enumerate(rows)]


COUNTS = st.dictionaries(st.sampled_from(DOMAINS), st.integers(0, 12))
CONFIGS = st.one_of(
    st.builds(SplitConfig, seed=st.integers(0, 3), train=COUNTS, val=COUNTS, test=COUNTS),
    st.builds(SplitConfig, seed=st.integers(0, 3), val_ratio=st.floats(0, 0.49), test_ratio=st.floats(0, 0.49)),
)


def tied(member):
    named = ties(source_id=member.source_id, identity_id=member.identity_id, title=member.title, sha256=member.sha256)
    across = {"copies": member.copies, "people": member.people}
    return (*named, *(f"{name}:{value}" for name, value in across.items() if value))


def simple(sizes, domain="real"):
    """One group per size."""
    return [
        Member(
            f"{domain}-{group}-{number}", domain, f"{domain}-s{group}", f"{domain}-p{group}", f"{domain} {group}", ""
        )
        for group, size in enumerate(sizes)
        for number in range(size)
    ]


def counts_of(result, members):
    domains = {member.clip_id: member.domain for member in members}
    return Counter((name, domains[clip_id]) for clip_id, name in result.assignment.items())


@settings(max_examples=200, deadline=None)
@given(collections(), CONFIGS)
def test_nobody_is_in_two_splits(members, config):
    result = split(members, config)
    homes = {}
    for member in members:
        for tie in tied(member) if member.clip_id in result.assignment else ():
            assert homes.setdefault(tie, result.assignment[member.clip_id]) == result.assignment[member.clip_id]


@settings(max_examples=100, deadline=None)
@given(collections(), CONFIGS, st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(members, config, random):
    shuffled = list(members)
    random.shuffle(shuffled)
    assert split(shuffled, config) == split(members, config)
    names = [group.name for group in groups_of(members, config.seed)]
    assert [group.name for group in groups_of(shuffled, config.seed)] == names


@settings(max_examples=100, deadline=None)
@given(collections(), CONFIGS)
def test_every_clip_is_placed_or_left_out_and_requests_are_accounted_for(members, config):
    result = split(members, config)
    assert result.assignment.keys() | result.left_out == {member.clip_id for member in members}
    assert not result.assignment.keys() & result.left_out
    got = counts_of(result, members)
    short = {(fall.split, fall.domain): fall for fall in result.shortfalls}
    for name, requested in result.requested.items():
        for domain, count in requested.items():
            assert got[name, domain] <= count
            assert (got[name, domain] < count) == ((name, domain) in short)
            if (name, domain) in short:
                assert short[name, domain].got == got[name, domain]
    if not result.requested:
        assert not result.left_out


@settings(max_examples=100, deadline=None)
@given(collections(), st.integers(0, 3), st.floats(0, 0.49), st.floats(0, 0.49))
def test_train_is_never_empty_by_ratio(members, seed, val_ratio, test_ratio):
    result = split(members, SplitConfig(seed=seed, val_ratio=val_ratio, test_ratio=test_ratio))
    got = counts_of(result, members)
    assert all(got["train", member.domain] for member in members)


@settings(max_examples=50, deadline=None)
@given(collections(), st.integers(0, 3))
def test_groups_are_what_ties_connect(members, seed):
    groups = groups_of(members, seed)
    home = {member.clip_id: group.name for group in groups for member in group.members}
    for one, other in itertools.combinations(members, 2):
        if set(tied(one)) & set(tied(other)):
            assert home[one.clip_id] == home[other.clip_id]
    for group in groups:  # and nothing else is together: the members form one connected piece
        reached, rest = [group.members[0]], list(group.members[1:])
        for member in reached:
            near = [other for other in rest if set(tied(member)) & set(tied(other))]
            reached += near
            rest = [other for other in rest if other not in near]
        assert not rest


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Big Film (HD)", "big  film – hd", True),
        ("Amélie", "AMELIE", True),
        ("Part 1", "Part 2", False),
        ("", "", False),
        ("!!!", "???", False),
    ],
)
def test_titles_that_count_as_one(one, other, same):
    members = [Member("a", "real", "s1", "p1", one, "f1"), Member("b", "real", "s2", "p2", other, "f2")]
    assert (len(groups_of(members, 0)) == 1) is same


# ---- ratios, small collections ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([10], {"train": 10}),
        ([10, 3], {"train": 10, "test": 3}),
        ([10, 3, 4], {"train": 10, "test": 3, "val": 4}),
        ([10, 3, 4, 5], {"train": 15, "test": 3, "val": 4}),
        ([1] * 100, {"train": 90, "test": 5, "val": 5}),
    ],
)
def test_ratios_with_few_groups(sizes, expected):
    members = simple(sizes)
    result = split(members, SplitConfig())
    assert Counter(result.assignment.values()) == expected


def test_a_ratio_of_nothing_asks_for_nothing():
    result = split(simple([3, 3, 3]), SplitConfig(val_ratio=0, test_ratio=0))
    assert set(result.assignment.values()) == {"train"}


def test_seeds_differ():
    members = simple([1] * 40)
    assert split(members, SplitConfig(seed=0)).assignment != split(members, SplitConfig(seed=1)).assignment


# ---- requested counts ------------------------------------------------------------------------------


def test_requests_are_met_exactly_where_clips_suffice():
    members = simple([7] * 30)
    result = split(members, SplitConfig(train={"real": 100}, val={"real": 10}, test={"real": 20}))
    assert Counter(result.assignment.values()) == {"train": 100, "val": 10, "test": 20}
    assert not result.shortfalls


def test_a_group_too_large_for_test_goes_to_train():
    members = simple([50, 2, 2, 1])
    result = split(members, SplitConfig(train={"real": 50}, test={"real": 5}))
    assert Counter(result.assignment.values()) == {"train": 50, "test": 5}
    assert {result.assignment[f"real-0-{number}"] for number in range(50)} == {"train"}


def test_a_shortage_is_shared_and_reported():
    members = simple([1] * 26)
    result = split(members, SplitConfig(train={"real": 100, "mesh": 3}, test={"real": 30}))
    assert Counter(result.assignment.values()) == {"train": 20, "test": 6}
    found = [(fall.domain, fall.split, fall.requested, fall.got) for fall in result.shortfalls]
    assert found == [("mesh", "train", 3, 0), ("real", "train", 100, 20), ("real", "test", 30, 6)]


def test_train_takes_the_rest_when_it_names_nothing():
    result = split(simple([1] * 10), SplitConfig(test={"real": 3}))
    assert Counter(result.assignment.values()) == {"train": 7, "test": 3}


def test_domains_nobody_asked_for_stay_out():
    members = simple([2] * 5) + simple([2] * 5, "mesh")
    result = split(members, SplitConfig(train={"real": 10}))
    assert result.left_out == {member.clip_id for member in members if member.domain == "mesh"}


def test_the_paper_preset():
    members = [
        member for domain in ("real", "disney_human", "disney_animal", "mesh") for member in simple([5] * 160, domain)
    ]
    result = split(members, SplitConfig(preset="paper"))
    got = counts_of(result, members)
    assert {domain: got["train", domain] for domain in PAPER_TRAIN} == PAPER_TRAIN
    assert {domain: got["test", domain] for domain in PAPER_TEST} == PAPER_TEST
    assert sum(PAPER_TRAIN.values()) == 1250 + 300
    assert sum(PAPER_TEST.values()) == 78
    assert not result.shortfalls


def test_a_preset_brings_its_own_counts():
    with pytest.raises(ValidationError, match="brings its own counts"):
        SplitConfig(preset="paper", test={"real": 3})


def test_a_clip_given_twice_is_a_mistake():
    with pytest.raises(ValueError, match="clip real-0-0 is given twice"):
        split(simple([1]) * 2, SplitConfig())
