"""Pairs of an evaluation: what a protocol says holds of every one of them, and a seed says which they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import UsageError
from training.evaluation.protocols import PairDraw, PairedClip, draw_pairs, read_pairs, spread, write_pairs

PROTOCOLS = ("same-identity", "cross-identity", "cross-domain")


@st.composite
def candidates(draw):
    """Clips of a few domains and identities, some without a face, some with one frame of it."""
    rows = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["animal", "mesh", "real"]),
                st.integers(0, 3),
                st.lists(st.integers(0, 40), unique=True, max_size=12),
            ),
            max_size=12,
        )
    )
    return [
        PairedClip(f"clip-{number}", domain, f"{domain}-{who}", tuple(sorted(seen)))
        for number, (domain, who, seen) in enumerate(rows)
    ]


def request(protocol="cross-domain", **changes):
    return PairDraw(**({"protocol": protocol, "seed": 0, "num_pairs": 5, "num_frames": 4} | changes))


@given(candidates(), st.sampled_from(PROTOCOLS), st.integers(0, 3), st.integers(1, 20), st.integers(1, 9))
def test_every_pair_is_what_its_protocol_says(clips, protocol, seed, num_pairs, num_frames):
    draw = request(protocol, seed=seed, num_pairs=num_pairs, num_frames=num_frames)
    by_id = {clip.clip_id: clip for clip in clips}
    try:
        pairs = draw_pairs(clips, draw)
    except UsageError:
        pairs = []
    for pair in pairs:
        source, driver = by_id[pair.source_clip], by_id[pair.driving_clip]
        assert pair.source_frame == source.seen[0]
        assert set(pair.driving_frames) <= set(driver.seen)
        assert 0 < len(pair.driving_frames) <= num_frames
        assert (pair.source_domain, pair.driving_domain) == (source.domain, driver.domain)
        if protocol == "same-identity":
            assert pair.source_clip == pair.driving_clip
            assert pair.source_frame not in pair.driving_frames
        elif protocol == "cross-identity":
            assert source.identity_id != driver.identity_id
            assert source.domain == driver.domain
        else:
            assert source.domain != driver.domain
    for group in {pair.group for pair in pairs}:
        own = [(pair.source_clip, pair.driving_clip) for pair in pairs if pair.group == group]
        assert len(own) == len(set(own)) <= num_pairs
    possible = {
        (driver.domain, source.domain)
        for driver in clips
        for source in clips
        if driver.seen
        and source.seen
        and {
            "same-identity": driver is source and len(driver.seen) > 1,
            "cross-identity": driver.domain == source.domain and driver.identity_id != source.identity_id,
            "cross-domain": driver.domain != source.domain,
        }[protocol]
    }
    assert {pair.group for pair in pairs} == possible


def crowd(domains=("mesh", "real"), count=12):
    frames = tuple(range(30))
    return [PairedClip(f"{name}-{k:02d}", name, f"{name}-{k}", frames) for name in domains for k in range(count)]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_seed_says_which_pairs_whatever_the_order_of_the_clips(protocol):
    pairs = draw_pairs(crowd(), request(protocol))
    assert pairs == draw_pairs(crowd()[::-1], request(protocol))
    assert pairs != draw_pairs(crowd(), request(protocol, seed=1))


def test_a_domain_more_leaves_the_others_their_pairs():
    before = draw_pairs(crowd(), request())
    after = draw_pairs(crowd(("animal", "mesh", "real")), request())
    assert [pair for pair in after if "animal" not in pair.group] == before


def test_groups_are_limited_by_who_drives_and_who_is_driven():
    clips = crowd(("animal", "mesh", "real"))
    pairs = draw_pairs(clips, request(driving_domains=("real",), source_domains=("mesh", "real")))
    assert {pair.group for pair in pairs} == {("real", "mesh")}
    with pytest.raises(UsageError, match="no clip with a face of the domain 'fish'"):
        draw_pairs(clips, request(source_domains=("fish",)))


def test_too_few_of_what_a_protocol_needs_is_told_with_what_there_is():
    alone = [PairedClip("a", "mesh", "ada", (0, 1)), PairedClip("b", "mesh", "ada", (3,))]
    with pytest.raises(UsageError, match=r"two identities in one domain, and there are mesh 2 \(identities: 1\)"):
        draw_pairs(alone, request("cross-identity"))
    with pytest.raises(UsageError, match="clips of two domains"):
        draw_pairs(alone, request("cross-domain"))
    with pytest.raises(UsageError, match="there are none"):
        draw_pairs([PairedClip("a", "mesh", "ada", ())], request("same-identity"))


@given(st.integers(0, 200), st.integers(1, 60))
def test_spread_frames_are_distinct_in_order_and_reach_both_ends(count, at_most):
    frames = spread(range(count), at_most)
    assert list(frames) == sorted(set(frames))
    assert len(frames) == min(count, at_most)
    if frames:
        assert max(frames[0], count - 1 - frames[-1]) <= count / (2 * len(frames))


def test_a_written_list_comes_back_and_one_of_another_protocol_does_not(tmp_path):
    pairs = draw_pairs(crowd(), request())
    write_pairs(tmp_path / "pairs.jsonl", pairs)
    assert read_pairs(tmp_path / "pairs.jsonl", "cross-domain") == pairs
    with pytest.raises(UsageError, match="pairs of the protocol cross-domain, and same-identity was asked for"):
        read_pairs(tmp_path / "pairs.jsonl", "same-identity")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "holds no pairs"),
        ("{}\n", "line 1: protocol: Field required"),
        ("nonsense\n", "line 1"),
        (None, "cannot be read"),
    ],
)
def test_other_files_are_no_lists_of_pairs(tmp_path, content, sentence):
    path = tmp_path / "pairs.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=sentence):
        read_pairs(path, "cross-domain")
