"""Rows by quota and pairs in both directions: what every batch holds, and that it stays a function of its position."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import CheckpointError, UsageError
from tests.helpers.pair_shards import numbered_release, read_numbers, rewritten
from tests.training.data.test_loader import SMALL, same, take
from tests.training.data.test_loader_sources import broken_frames
from training.data import AugmentConfig, FramePairs, PairsConfig, Quota, augment, open_batches, pairs

REAL, DRAWN = Quota(("real",), 3), Quota(("animal", "mesh"), 2)
BOTH = FramePairs(quotas={"real": REAL, "drawn": DRAWN})


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    return numbered_release(tmp_path_factory.mktemp("release"), {"animal": 2, "mesh": 4, "real": 8}, min_shards=2)


# ---- quotas --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_batch_has_the_rows_of_each_quota_in_their_order(release, num_workers):
    loader = open_batches(release, PairsConfig(**SMALL, num_workers=num_workers), BOTH)
    assert loader.groups == ("real", "drawn")
    assert loader.domains == ("animal", "mesh", "real")
    for batch in take(loader, 20):
        assert batch.group.tolist() == [0, 0, 0, 1, 1]
        names = [loader.domains[number] for number in batch.domain]
        assert set(names[:3]) == {"real"}
        assert set(names[3:]) <= {"animal", "mesh"}
        assert [clip.partition("-")[0] for clip in batch.clip_ids] == names


def test_the_order_of_quotas_is_the_order_of_rows(release):
    turned = FramePairs(quotas={"drawn": DRAWN, "real": REAL})
    loader = open_batches(release, PairsConfig(**SMALL), turned)
    assert loader.groups == ("drawn", "real")
    assert [loader.domains[number] for number in take(loader, 1)[0].domain][2:] == ["real"] * 3


def test_domains_of_a_group_are_mixed_by_clips_and_weight_among_themselves(release):
    draw = FramePairs(quotas={"real": Quota(("real",), 10), "drawn": Quota(("animal", "mesh"), 40)})
    config = PairsConfig(batch_size=50, alpha=1.0, weights={"animal": 4.0, "real": 100.0})
    loader = open_batches(release, config, draw)
    domains = torch.cat([batch.domain[10:] for batch in take(loader, 15)])
    assert abs((domains == 0).float().mean().item() - 2 / 3) < 0.06  # 2 · 4 of 2 · 4 + 4; 600 draws
    assert loader.shares == pytest.approx({"animal": 0.8 * 2 / 3, "mesh": 0.8 / 3, "real": 0.2})


def test_without_quotas_there_is_one_group(release):
    loader = pairs(release, PairsConfig(**SMALL))
    assert loader.groups == ("all",)
    assert not take(loader, 1)[0].group.any()


def test_a_domain_of_no_quota_is_not_read(release):
    loader = open_batches(release, PairsConfig(**SMALL), FramePairs(quotas={"only": Quota(("mesh",), 5)}))
    assert loader.domains == ("mesh",)
    assert set(loader.clips) == {"mesh"}


@settings(max_examples=10, deadline=None)
@given(before=st.integers(0, 9), num_ranks=st.sampled_from([1, 2]), pairs_per_frames=st.sampled_from([1, 2]))
def test_a_loader_with_quotas_goes_on_where_another_stopped(release, before, num_ranks, pairs_per_frames):
    quotas = {"real": Quota(("real",), 4), "drawn": Quota(("mesh", "animal"), 2)}
    draw = FramePairs(quotas, pairs_per_frames=pairs_per_frames)
    config = PairsConfig(**(SMALL | {"batch_size": 6}))
    share = {"rank": num_ranks - 1, "world_size": num_ranks}
    whole, stopped, later = (open_batches(release, config, draw, **share) for _ in range(3))
    assert same(take(whole, before), take(stopped, before))
    later.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
    assert same(take(later, 4), take(whole, 4))
    assert later.state_dict() == whole.state_dict()


def test_a_position_belongs_to_its_draw(release):
    config = PairsConfig(**SMALL)
    plain, quotas = pairs(release, config), open_batches(release, config, BOTH)
    turned = open_batches(release, config, FramePairs(quotas={"drawn": DRAWN, "real": REAL}))
    assert "draw" not in plain.state_dict()["made_with"], "positions that were saved before there were draws still fit"
    for saved, other in ((plain, quotas), (quotas, plain), (quotas, turned)):
        with pytest.raises(CheckpointError, match="made with draw = "):
            other.load_state_dict(json.loads(json.dumps(saved.state_dict())))


@pytest.mark.parametrize(
    ("quotas", "changes", "said"),
    [
        ({"real": REAL}, {}, r"the quotas ask for 3 rows of each batch \(real 3\) and batch_size is 5"),
        ({"real": REAL, "toon": Quota(("toon",), 2)}, {}, "there is no domain 'toon' in the split 'train'"),
        ({"real": REAL, "drawn": DRAWN}, {"domains": ("real", "mesh")}, "asks for the domain 'animal', which domains"),
        ({"real": REAL, "drawn": DRAWN}, {"weights": {"real": 0.0}}, "every domain of the quota 'real' has weight 0"),
        (
            {"real": Quota(("real", "real"), 5)},
            {},
            "the quota of 'real' has to name at least one row and some different",
        ),
        ({"real": Quota((), 5)}, {}, "has to name at least one row"),
    ],
)
def test_quotas_that_cannot_be_kept_are_refused_before_the_first_batch(release, quotas, changes, said):
    with pytest.raises(UsageError, match=said) as caught:
        open_batches(release, PairsConfig(**(SMALL | changes)), FramePairs(quotas=quotas))
    assert "\n" not in str(caught.value)


# ---- both directions -----------------------------------------------------------------------------------------------


def test_both_directions_are_neighbours_and_each_frame_keeps_its_labels(release):
    config = PairsConfig(**(SMALL | {"batch_size": 6}))
    for batch in take(open_batches(release, config, FramePairs(pairs_per_frames=2)), 10):
        there, back = slice(0, None, 2), slice(1, None, 2)
        assert (batch.source.frames[there] == batch.driving.frames[back]).all()
        assert (batch.source.frames[back] == batch.driving.frames[there]).all()
        assert batch.clip_ids[there] == batch.clip_ids[back]
        assert (batch.domain[there] == batch.domain[back]).all()
        assert (batch.frame[there] == batch.frame[back].flip(1)).all()
        for side in (batch.source, batch.driving):
            frames, clips = read_numbers(side.frames.numpy())
            assert [f"{clip}" for clip in clips] == [name.rpartition("-")[2] for name in batch.clip_ids]
            for labels in (side.pose, side.landmarks[:, 67], side.motion):
                assert labels[:, 0].tolist() == frames.tolist()
                assert labels[:, 1].tolist() == clips.tolist()


def test_both_directions_cost_half_the_clips(release):
    config = PairsConfig(**(SMALL | {"batch_size": 6, "pairs_per_clip": 1}))
    opened = []
    for count in (1, 2):
        loader = open_batches(release, config, FramePairs(pairs_per_frames=count))
        take(loader, 10)
        opened.append(loader.state_dict()["readers"]["0"]["opened"])
    assert opened == [60, 30]


def test_augmentation_treats_both_directions_as_rows_of_their_own(release):
    config = PairsConfig(**(SMALL | {"batch_size": 6}))
    [batch] = take(open_batches(release, config, FramePairs(pairs_per_frames=2)), 1)
    changed = augment(batch, AugmentConfig(flip=0.0, time_flip=1.0, brightness=0, contrast=0, saturation=0, hue=0))
    assert (changed.frame == batch.frame.flip(1)).all()
    assert (changed.group == batch.group).all()


@pytest.mark.parametrize(
    ("draw", "batch_size", "said"),
    [
        (FramePairs(pairs_per_frames=3), 6, "pairs_per_frames is 3"),
        (FramePairs(pairs_per_frames=2), 5, "batch_size is 5: ask for an even number"),
        (
            FramePairs({"a": Quota(("real",), 3), "b": Quota(("mesh",), 3)}, 2),
            6,
            "the quota of 'a' is 3: ask for an even",
        ),
    ],
)
def test_rows_that_have_no_other_direction_are_refused(release, draw, batch_size, said):
    with pytest.raises(UsageError, match=said):
        open_batches(release, PairsConfig(batch_size=batch_size), draw)


def test_a_damaged_frame_is_replaced_in_both_directions(release, tmp_path):
    def spoil(key: str, members: dict[str, bytes]) -> None:
        if key == "real-7":
            members["mp4"] = broken_frames(members["mp4"])

    paths = rewritten(release, tmp_path / "shards", spoil)
    config = PairsConfig(**(SMALL | {"batch_size": 6, "max_skipped_ratio": 0.5}))
    loader = open_batches(paths, config, FramePairs(pairs_per_frames=2))
    counted = Counter(clip for batch in take(loader, 30) for clip in batch.clip_ids)
    assert "real-7" not in counted
    assert all(count % 2 == 0 for count in counted.values())
    assert loader.skipped["decode"]
