"""The loader's laws: what a pair is, which come, in which order, and that a run which goes on sees the same."""

import io
import itertools
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.media.pixels import to_rgb
from schemas.errors import CheckpointError
from schemas.expression import ExpressionInput
from tests.helpers.pair_shards import NUM_FRAMES, numbered_release, read_numbers, shards_of
from tests.helpers.release_items import SETUP, SIZE_PX
from training.data import Batch, PairsConfig, pairs
from training.data.order import BlockShape, Purpose, block_of, deal, draw_frames, generator, mixture
from training.data.plan import make_plan
from training.data.reader import Reader

# Blocks of a few clips, so that every test crosses some of their ends.
SMALL = {"batch_size": 5, "pairs_per_clip": 3, "clips_per_shard": 2, "shuffle_pairs": 8}


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    return numbered_release(tmp_path_factory.mktemp("release"), {"mesh": 4, "real": 8}, min_shards=4)


def take(loader, count: int) -> list[Batch]:
    return list(itertools.islice(loader, count))


def contents(batch: Batch) -> list[object]:
    """Everything in a batch, comparable bit for bit."""
    tensors: list[torch.Tensor] = []
    batch.map(lambda tensor: tensors.append(tensor) or tensor)
    return [*(tensor.numpy().tobytes() for tensor in tensors), batch.clip_ids, batch.seed]


def same(first: list[Batch], second: list[Batch]) -> bool:
    return [contents(batch) for batch in first] == [contents(batch) for batch in second]


# --- memory ---


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_memory_is_used_again_only_when_nobody_looks_at_it(release, num_workers):
    """Whatever a user keeps of batches stays as it was; a worker that runs ahead overwrites nothing."""
    kept, before = [], []
    for number, batch in enumerate(pairs(release, PairsConfig(**SMALL, num_workers=num_workers))):
        part = [batch, batch.driving.frames[1:3], batch.source.frames.numpy()[0], None][number % 4]
        kept.append(part)
        before.append(digest(part))
        if num_workers and number % 5 == 0:
            time.sleep(0.05)
        if number == 30:
            break
    assert [digest(part) for part in kept] == before


def digest(part) -> object:
    if isinstance(part, Batch):
        return contents(part)
    return None if part is None else np.asarray(part).tobytes()


def test_a_worker_gives_what_the_process_itself_gives(release):
    alone, helped = (pairs(release, PairsConfig(**SMALL, num_workers=number)) for number in (0, 1))
    assert same(take(alone, 12), take(helped, 12))


# --- what a pair is ---


def test_a_pair_is_two_frames_of_one_clip_and_all_that_is_said_of_them_is_theirs(release):
    loader = pairs(release, PairsConfig(**SMALL))
    for batch in take(loader, 12):
        assert batch.source.frames.shape == (5, 3, SIZE_PX, SIZE_PX)
        assert batch.source.frames.dtype == torch.uint8
        assert batch.source.frames.is_contiguous(memory_format=torch.channels_last)
        assert (batch.frame[:, 0] != batch.frame[:, 1]).all()
        for column, side in enumerate((batch.source, batch.driving)):
            frames, clips = read_numbers(side.frames.numpy())
            named = [f"{loader.domains[domain]}-{clip}" for domain, clip in zip(batch.domain, clips, strict=True)]
            assert tuple(named) == batch.clip_ids
            assert frames.tolist() == batch.frame[:, column].tolist()
            for labels in (side.pose, side.landmarks[:, 67], side.motion):
                assert labels[:, 0].tolist() == frames.tolist()
                assert labels[:, 1].tolist() == clips.tolist()
            assert side.landmarks.shape == (5, 68, 3)
            assert side.pose.shape == (5, 7)
            assert side.valid.all()
            assert side.emotion is None


def test_frames_are_those_that_the_builder_looks_at(tmp_path):
    release = numbered_release(tmp_path, {"real": 1}, min_shards=1)
    with tarfile.open(shards_of(release)[0]) as tar:
        mp4 = tar.extractfile("real-0.mp4").read()
    with av.open(io.BytesIO(mp4)) as video:
        pictures = [to_rgb(frame, SIZE_PX) for frame in video.decode(video=0)]
    for batch in take(pairs(release, PairsConfig(**SMALL)), 2):
        for column, side in enumerate((batch.source, batch.driving)):
            expected = np.stack([pictures[number] for number in batch.frame[:, column]])
            assert (side.frames.permute(0, 2, 3, 1).numpy() == expected).all()


def test_frames_without_a_face_are_drawn_only_when_asked_for(tmp_path):
    valid = [True, False, True, False, False, True, False, False]
    release = numbered_release(tmp_path, {"real": 4}, real={"valid": valid})
    seen = {True: Counter(), False: Counter()}
    for faces_only in (True, False):
        for batch in take(pairs(release, PairsConfig(**SMALL, faces_only=faces_only)), 20):
            assert (batch.source.valid == torch.tensor(valid)[batch.frame[:, 0]]).all()
            seen[faces_only].update(batch.frame.ravel().tolist())
    assert set(seen[True]) == {0, 2, 5}
    assert set(seen[False]) == set(range(NUM_FRAMES))


def test_emotion_is_there_where_a_clip_has_it(tmp_path):
    setup = SETUP.__class__(SETUP.tool_version, SETUP.config_hash, mel=SETUP.mel, expression=ExpressionInput())
    release = numbered_release(tmp_path, {"mesh": 2, "real": 2}, setup=setup, real={"emotion": True})
    loader = pairs(release, PairsConfig(**SMALL))
    for batch in take(loader, 4):
        is_real = batch.domain == loader.domains.index("real")
        assert (batch.has_emotion == is_real).all()
        assert batch.driving.emotion is not None
        assert (batch.driving.emotion[:, 0] == torch.where(is_real, batch.frame[:, 1], 0)).all()
        assert not batch.driving.emotion[~is_real].any()


@pytest.mark.parametrize("size_px", [32, 128])
def test_scaled_frames_carry_their_labels_along(release, size_px):
    config = PairsConfig(**SMALL)
    stored, scaled = (
        take(pairs(release, config.model_copy(update={"size_px": to})), 1)[0].driving for to in (None, size_px)
    )
    assert scaled.frames.shape[-2:] == (size_px, size_px)
    assert np.abs(np.subtract(*(read_numbers(side.frames.numpy()) for side in (stored, scaled)))).max() == 0
    # A pixel's outer edge is half a pixel beyond its centre, and edges scale.
    scale = size_px / SIZE_PX
    np.testing.assert_allclose(scaled.landmarks[..., :2] + 0.5, (stored.landmarks[..., :2] + 0.5) * scale, atol=1e-4)
    np.testing.assert_allclose(
        scaled.pose[:, 3:5] * size_px + 0.5, (stored.pose[:, 3:5] * SIZE_PX + 0.5) * scale, atol=1e-4
    )
    assert (scaled.pose[:, [0, 1, 2, 5, 6]] == stored.pose[:, [0, 1, 2, 5, 6]]).all()


# --- which come ---


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 12))
def test_every_shard_is_dealt_to_one_reader_and_all_have_about_equally_many_clips(sizes, num_readers):
    hands = deal(sizes, num_readers)
    assert sorted(itertools.chain(*hands)) == list(range(len(sizes)))
    held = [sum(sizes[index] for index in hand) for hand in hands]
    assert max(held) - min(held) <= max(sizes)
    assert all(hands) or len(sizes) < num_readers


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 4), st.integers(1, 5), st.integers(0, 99))
def test_a_block_holds_every_pair_of_every_clip_that_it_opens_once(sizes, num_pairs, num_clips, seed):
    refs = block_of(BlockShape(num_pairs, num_clips, 30), sizes, np.random.default_rng(seed))
    assert len(refs) == len(set(refs))
    assert len(refs) >= 30
    opened = Counter((ref.visit, ref.shard, ref.clip) for ref in refs)
    assert set(opened.values()) == {num_pairs}
    for visit, group in itertools.groupby(sorted(opened), key=lambda key: key[0]):
        places = list(group)
        assert len({shard for _, shard, _ in places}) == 1, visit
        assert len(places) == min(num_clips, sizes[places[0][1]])


def test_every_clip_has_the_same_chance_whatever_shard_it_lies_in():
    sizes = [1, 3, 12]
    shape = BlockShape(pairs_per_clip=1, clips_per_shard=4, shuffle_pairs=50)
    seen = Counter()
    for number in range(400):
        numbers = generator(3, 0, Purpose.BLOCK, 0, number)
        seen.update((ref.shard, ref.clip) for ref in block_of(shape, sizes, numbers))
    assert len(seen) == sum(sizes)
    counts = np.array(list(seen.values()))
    assert np.abs(counts / counts.mean() - 1).max() < 0.12


@given(st.integers(2, 30), st.integers(0, 99))
def test_the_frames_of_a_pair_are_two_and_any_two_may_be(num_frames, seed):
    usable = np.flatnonzero(np.random.default_rng(seed).random(num_frames * 3) < 0.5)
    if len(usable) < 2:
        return
    drawn = draw_frames(usable, 2000, np.random.default_rng(seed))
    assert np.isin(drawn, usable).all()
    assert (drawn[:, 0] != drawn[:, 1]).all()
    if len(usable) <= 5:
        assert len({tuple(pair) for pair in drawn.tolist()}) == len(usable) * (len(usable) - 1)


def test_domains_are_mixed_by_clips_to_the_alpha_times_weight():
    counts = {"animal": 4, "mesh": 1, "real": 16}
    np.testing.assert_allclose(mixture(counts, {}, 0.0), [1 / 3] * 3)
    np.testing.assert_allclose(mixture(counts, {}, 1.0), [4 / 21, 1 / 21, 16 / 21])
    np.testing.assert_allclose(mixture(counts, {}, 0.5), [2 / 7, 1 / 7, 4 / 7])
    np.testing.assert_allclose(mixture(counts, {"mesh": 4.0}, 0.5), [2 / 10, 4 / 10, 4 / 10])


def test_batches_hold_the_domains_in_these_shares(release):
    config = PairsConfig(batch_size=50, weights={"mesh": 2.0}, alpha=1.0)
    domains = torch.cat([batch.domain for batch in take(pairs(release, config), 12)])
    assert abs((domains == 0).float().mean().item() - 0.5) < 0.06  # 4 · 2 of 4 · 2 + 8; 600 draws
    only = pairs(release, config.model_copy(update={"weights": {"mesh": 0.0}}))
    assert only.domains == ("real",)
    assert pairs(release, PairsConfig(domains=("mesh",))).domains == ("mesh",)


def test_ranks_read_other_shards_and_equally_many_batches(release):
    config = PairsConfig(**SMALL, epoch_batches=16)
    epochs = [list(pairs(release, config, rank=rank, world_size=4)) for rank in range(4)]
    assert [len(batches) for batches in epochs] == [16] * 4
    seen = [{clip for batch in batches for clip in batch.clip_ids} for batches in epochs]
    for mine, theirs in itertools.combinations(seen, 2):
        assert not mine & theirs
    assert set.union(*seen) == {f"mesh-{k}" for k in range(4)} | {f"real-{k}" for k in range(4, 12)}
    assert len({batch.seed for batches in epochs for batch in batches}) == 64, "augmentation differs everywhere"


# --- in which order ---


def test_equal_settings_give_equal_batches_and_another_seed_gives_others(release):
    first, again, other = (take(pairs(release, PairsConfig(**SMALL, seed=seed)), 6) for seed in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)


def test_workers_change_nothing_but_the_time_it_takes(release):
    config = PairsConfig(**SMALL, num_workers=2)
    expected = take(pairs(release, config, rank=1, world_size=2), 9)
    readers = [iter(Reader(make_plan(release, config, 4), number)) for number in (2, 3)]
    assert same(expected, [next(readers[number % 2]).batch for number in range(9)])


@settings(max_examples=12)
@given(before=st.integers(0, 9), num_ranks=st.sampled_from([1, 2]))
def test_a_loader_goes_on_where_another_stopped(release, before, num_ranks):
    config = PairsConfig(**SMALL)
    share = {"rank": num_ranks - 1, "world_size": num_ranks}
    whole = pairs(release, config, **share)
    stopped = pairs(release, config, **share)
    assert same(take(whole, before), take(stopped, before))
    later = pairs(release, config, **share)
    later.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
    assert same(take(later, 4), take(whole, 4))
    assert later.state_dict() == whole.state_dict()


@pytest.mark.parametrize("before", [1, 4])
def test_a_loader_with_workers_goes_on_where_another_stopped(release, before):
    config = PairsConfig(**SMALL, num_workers=2)
    whole = pairs(release, config)
    take(whole, before)
    later = pairs(release, config)
    later.load_state_dict(json.loads(json.dumps(whole.state_dict())))
    assert same(take(later, 5), take(whole, 5))
    assert later.state_dict() == whole.state_dict()


def test_iterating_again_goes_on_and_an_epoch_that_was_left_is_finished(release):
    config = PairsConfig(**SMALL, epoch_batches=4)
    whole = take(pairs(release, config.model_copy(update={"epoch_batches": None})), 8)
    loader = pairs(release, config)
    assert same([*loader, *loader], whole)
    later = pairs(release, config)
    for batch in later:
        assert same([batch], whole[:1])
        break
    assert same(list(later), whole[1:4])


KILLED = """
import json, sys
from training.data import PairsConfig, pairs
loader = pairs(sys.argv[1], PairsConfig(**json.loads(sys.argv[2])))
for number, batch in enumerate(loader, start=1):
    print(json.dumps([number, batch.seed, loader.state_dict()]), flush=True)
"""


def test_a_killed_run_goes_on_with_the_batch_that_would_have_come(release):
    settings = SMALL | {"num_workers": 2, "epoch_batches": 1000}
    root = str(Path(__file__).resolve().parents[3])
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(release), json.dumps(settings)],
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            number, seed, state = json.loads(line)
            if number == 7:
                break
        child.send_signal(signal.SIGKILL)
    whole = take(pairs(release, PairsConfig(**settings)), 10)
    assert whole[6].seed == seed
    later = pairs(release, PairsConfig(**settings))
    later.load_state_dict(state)
    assert same(take(later, 3), whole[7:])


@pytest.mark.parametrize(
    ("changes", "share", "said"),
    [
        ({"seed": 4}, {}, "seed = 0, and this run has 4"),
        ({"num_workers": 1}, {}, "num_workers = 0, and this run has 1"),
        ({"domains": ("real",)}, {}, "domains = "),
        ({}, {"rank": 0, "world_size": 2}, "world_size = 1, and this run has 2"),
    ],
)
def test_a_position_of_another_run_is_refused(release, changes, share, said):
    state = pairs(release, PairsConfig(**SMALL)).state_dict()
    with pytest.raises(CheckpointError, match=said):
        pairs(release, PairsConfig(**(SMALL | changes)), **share).load_state_dict(state)


def test_settings_of_travel_do_not_belong_to_the_position(release, tmp_path):
    state = pairs(release, PairsConfig(**SMALL)).state_dict()
    pairs(release, PairsConfig(**SMALL, cache_dir=str(tmp_path), num_attempts=2)).load_state_dict(state)
