"""Windows of labels and speech features: exactly in time, from anywhere, evenly drawn, and never a picture decoded."""

import json
import shutil
from collections import Counter
from io import BytesIO
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import CheckpointError, DataError, UsageError
from schemas.expression import ExpressionInput
from tests.helpers.pair_shards import numbered_release, rewritten
from tests.helpers.release_items import SETUP, encode_npy
from tests.helpers.stores import bucket, object_store
from tests.helpers.web import serving
from tests.training.data.test_loader import SMALL, same, take
from tests.training.data.test_loader_sources import edit_json, serve, unchanged
from training.data import PairsConfig, Quota, WindowBatch, Windows, open_batches
from training.data.contract import WINDOW_REQUIRED, window_table
from training.data.order import draw_apart, draw_starts

T = 3
EVERY = ("landmarks.npy", "pose.npy", "motion.npy", "mel.npy", "hubert.npy")
DRAW = Windows(T, EVERY)
CONFIG = PairsConfig(**SMALL, backoff_s=0.0)


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    return numbered_release(
        folder, {"mesh": 4, "real": 8}, min_shards=4, mesh={"hubert": True}, real={"hubert": True, "num_frames": 10}
    )


@pytest.fixture(autouse=True)
def _no_cache_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


# ---- what a window is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_field_is_cut_to_the_windows_time(release, num_workers):
    loader = open_batches(release, CONFIG.model_copy(update={"num_workers": num_workers}), DRAW)
    for batch in take(loader, 12):
        assert isinstance(batch, WindowBatch)
        clips = torch.tensor([int(name.rpartition("-")[2]) for name in batch.clip_ids])
        frames = batch.start[:, None] + torch.arange(T)
        assert batch["landmarks.npy"].shape == (5, T, 68, 3)
        assert batch["hubert.npy"].shape == (5, 2, T, 5)
        assert batch["hubert.npy"].dtype == torch.float16
        for labels in (batch["pose.npy"], batch["motion.npy"], batch["landmarks.npy"][:, :, 30]):
            assert (labels[..., 0] == frames).all()
            assert (labels[..., 1] == clips[:, None]).all()
        assert (batch["mel.npy"][..., 0] == 4 * batch.start[:, None] + torch.arange(4 * T)).all()
        assert (batch["mel.npy"][..., 1] == clips[:, None]).all()
        for layer in range(2):
            assert (batch["hubert.npy"][:, layer, :, 0] == frames).all()
            assert (batch["hubert.npy"][:, layer, :, 2] == layer).all()
        assert batch.valid.shape == (5, T)
        assert batch.valid.all()
        assert [loader.domains[number] for number in batch.domain] == [name.split("-")[0] for name in batch.clip_ids]
        assert batch.reference is None


def test_the_mask_says_where_a_face_is(tmp_path):
    valid = [True, False, True, True, False, True, True, False]
    release = numbered_release(tmp_path, {"real": 4}, real={"valid": valid})
    for batch in take(open_batches(release, CONFIG, Windows(T, ("pose.npy", "valid.npy"))), 10):
        expected = torch.tensor(valid)[batch.start[:, None] + torch.arange(T)]
        assert (batch.valid == expected).all()
        assert (batch["valid.npy"] == expected).all()


def test_no_picture_is_looked_at(release, tmp_path):
    def blind(key: str, members: dict[str, bytes]) -> None:
        members["mp4"] = b"no video at all"

    paths = rewritten(release, tmp_path / "s", blind)
    rewritten(release, tmp_path / "s", unchanged, "speech")
    loader = open_batches(paths, CONFIG, DRAW)
    assert same(take(loader, 6), take(open_batches(release, CONFIG, DRAW), 6))
    assert not loader.skipped


def test_labels_are_scaled_with_the_frames_they_are_of(release):
    draw = Windows(T, ("landmarks.npy", "pose.npy"))
    [stored] = take(open_batches(release, CONFIG, draw), 1)
    loader = open_batches(release, CONFIG.model_copy(update={"size_px": 32}), draw)
    [scaled] = take(loader, 1)
    assert loader.size_px == 32
    expected = (stored["landmarks.npy"][..., :2] + 0.5) / 2 - 0.5
    np.testing.assert_allclose(scaled["landmarks.npy"][..., :2], expected, atol=1e-5)
    expected = (stored["pose.npy"][..., 3:5] * 64 + 0.5) / 2
    np.testing.assert_allclose(scaled["pose.npy"][..., 3:5] * 32 + 0.5, expected, atol=1e-4)


def test_a_batch_changes_and_travels_as_one(release):
    [batch] = take(open_batches(release, CONFIG, Windows(T, ("pose.npy",), reference=True)), 1)
    doubled = batch.map(lambda tensor: tensor * 2)
    assert (doubled["pose.npy"] == 2 * batch["pose.npy"]).all()
    assert doubled.reference is not None
    assert (doubled.start == 2 * batch.start).all()
    assert batch.to("cpu").clip_ids == batch.clip_ids
    assert len(batch) == 5


def test_a_field_that_only_some_domains_have_is_zeros_and_said_to_be_missing(tmp_path):
    setup = SETUP.__class__(SETUP.tool_version, SETUP.config_hash, mel=SETUP.mel, expression=ExpressionInput())
    release = numbered_release(tmp_path, {"mesh": 2, "real": 2}, setup=setup, real={"emotion": True})
    loader = open_batches(release, CONFIG, Windows(T, ("emotion.npy", "pose.npy")))
    for batch in take(loader, 6):
        is_real = batch.domain == loader.domains.index("real")
        assert (batch.window.present["emotion.npy"] == is_real).all()
        assert not batch["emotion.npy"][~is_real].any()
        assert (batch["emotion.npy"][is_real, :, 1] == batch["pose.npy"][is_real, :, 1]).all()
        assert "pose.npy" not in batch.window.present


def test_landmarks_of_different_schemes_are_padded_and_named(tmp_path):
    release = numbered_release(tmp_path / "r", {"animal": 2, "mesh": 2, "real": 2}, min_shards=1)

    def other_schemes(key: str, members: dict[str, bytes]) -> None:
        if key.startswith("animal"):
            edit_json(landmark_scheme="points9")(key, members)
            members["landmarks.npy"] = encode_npy(np.full((8, 9, 3), 9, np.float32))
        if key.startswith("mesh"):
            edit_json(landmark_scheme="none")(key, members)
            members["landmarks.npy"] = encode_npy(np.zeros((8, 68, 3), np.float32))

    loader = open_batches(
        rewritten(release, tmp_path / "s", other_schemes), CONFIG, Windows(T, ("landmarks.npy", "pose.npy"))
    )
    assert loader.landmark_schemes == ("ibug68", "none", "points9")
    seen = set()
    for batch in take(loader, 10):
        assert batch["landmarks.npy"].shape == (5, T, 68, 3)
        for row, domain in enumerate(batch.domain.tolist()):
            name = loader.domains[domain]
            seen.add(name)
            scheme = {"animal": "points9", "mesh": "none", "real": "ibug68"}[name]
            count = {"animal": 9, "mesh": 0, "real": 68}[name]
            assert loader.landmark_schemes[batch.scheme[row]] == scheme
            assert batch.points[row].tolist() == [point < count for point in range(68)]
            assert batch["landmarks.npy"][row, :, :count].all() or name == "real"
            assert not batch["landmarks.npy"][row, :, count:].any()
    assert seen == {"animal", "mesh", "real"}


def test_the_table_of_windows_has_what_its_contract_says(release):
    [batch] = take(open_batches(release, CONFIG, Windows(T, ("mel.npy", "hubert.npy"), reference=True)), 1)
    table = window_table(batch)
    for name, axes in WINDOW_REQUIRED.items():
        assert len(table[name]) == 5
        assert table[name].dim() == 1 + len(axes)
    assert table["mel"] is batch["mel.npy"]
    assert table["has_hubert"].all()
    assert batch.reference is not None
    assert table["reference_hubert"] is batch.reference.fields["hubert.npy"]
    assert table["reference_start"] is batch.reference.start


# ---- which come ----------------------------------------------------------------------------------------------------


def test_clips_and_beginnings_are_drawn_evenly(release):
    config = PairsConfig(batch_size=50, pairs_per_clip=1, alpha=1.0)
    batches = take(open_batches(release, config, Windows(T, ("pose.npy",))), 40)
    clips = Counter(name for batch in batches for name in batch.clip_ids)
    assert len(clips) == 12
    assert max(abs(count / (2000 / 12) - 1) for count in clips.values()) < 0.35  # each about 167 ± 13
    starts = Counter(
        start
        for batch in batches
        for start, name in zip(batch.start.tolist(), batch.clip_ids, strict=True)
        if name.startswith("real")
    )
    assert set(starts) == set(range(10 - T + 1))
    assert max(abs(count * 8 / sum(starts.values()) - 1) for count in starts.values()) < 0.35


@settings(max_examples=60)
@given(st.integers(1, 9), st.integers(0, 20), st.integers(0, 99))
def test_windows_lie_in_their_clip_and_two_of_one_clip_apart(length, spare, seed):
    num_frames = 2 * length + spare
    numbers = np.random.default_rng(seed)
    starts = draw_starts(num_frames, length, 50, numbers)
    assert ((starts >= 0) & (starts + length <= num_frames)).all()
    both = draw_apart(num_frames, length, 50, numbers)
    assert ((both >= 0) & (both + length <= num_frames)).all()
    assert (np.abs(both[:, 0] - both[:, 1]) >= length).all()


def test_all_pairs_of_windows_of_a_clip_are_equally_likely():
    drawn = draw_apart(7, 2, 24_000, np.random.default_rng(0))
    counts = Counter(map(tuple, drawn.tolist()))
    assert set(counts) == {(a, b) for a in range(6) for b in range(6) if abs(a - b) >= 2}
    assert max(abs(count * len(counts) / 24_000 - 1) for count in counts.values()) < 0.12


def test_short_clips_are_skipped_counted_and_named_and_end_no_run(tmp_path, caplog):
    release = numbered_release(tmp_path, {"mesh": 6, "real": 2}, real={"num_frames": 5})
    draw = Windows(6, ("pose.npy",), quotas={"mesh": Quota(("mesh",), 5)})
    assert not take_all(open_batches(release, CONFIG, draw), 4).skipped
    loader = open_batches(release, CONFIG, Windows(6, ("pose.npy",)))
    with pytest.raises(
        DataError, match=r"none of the 2 clips of 'real' that one reader has can be used \(real-\d has 5"
    ):
        take(loader, 1)
    mixed = numbered_release(tmp_path / "m", {"mesh": 1}, min_shards=1)
    assert take_all(open_batches(mixed, CONFIG, Windows(8, ("pose.npy",))), 3).skipped == Counter()


def test_many_short_clips_among_long_ones_end_no_run(release, tmp_path, caplog):
    def shorten(key: str, members: dict[str, bytes]) -> None:
        if key in {"real-4", "real-5", "real-6", "real-7", "real-8"}:
            edit_json(num_frames=4)(key, members)
            for suffix in ("pose.npy", "valid.npy"):
                array = np.load(BytesIO(members[suffix]))
                members[suffix] = encode_npy(array[:4])

    loader = open_batches(rewritten(release, tmp_path / "s", shorten), CONFIG, Windows(5, ("pose.npy",)))
    batches = take(loader, 40)
    assert {len(batch) for batch in batches} == {5}
    assert loader.skipped["short"] > 16
    assert set(loader.skipped) == {"short"}
    [line] = [record.getMessage() for record in caplog.records if record.name == "training.data.loader"]
    assert line.startswith("skipped (short): real-")
    assert "has 4 frames, and a window needs 5" in line


def take_all(loader, count):
    take(loader, count)
    return loader


@pytest.mark.parametrize("num_workers", [0, 2])
def test_quotas_hold_for_windows(release, num_workers):
    draw = Windows(T, ("mel.npy",), quotas={"speech": Quota(("real",), 4), "toon": Quota(("mesh",), 1)})
    loader = open_batches(release, CONFIG.model_copy(update={"num_workers": num_workers}), draw)
    assert loader.groups == ("speech", "toon")
    for batch in take(loader, 6):
        assert batch.group.tolist() == [0, 0, 0, 0, 1]
        assert [loader.domains[number] for number in batch.domain] == ["real"] * 4 + ["mesh"]


# ---- references ----------------------------------------------------------------------------------------------------


def test_a_reference_is_of_another_clip_of_the_same_person_and_domain(release):
    loader = open_batches(release, CONFIG, Windows(T, ("pose.npy", "mel.npy"), reference=True))
    seen = set()
    for batch in take(loader, 40):
        assert batch.reference is not None
        for own, other in zip(batch.clip_ids, batch.reference.clip_ids, strict=True):
            assert own != other
            assert own.split("-")[0] == other.split("-")[0]
            seen.add((own, other))
        frames = batch.reference.start[:, None] + torch.arange(T)
        assert (batch.reference.fields["pose.npy"][..., 0] == frames).all()
        assert (batch.reference.fields["mel.npy"][:, 0, 0] == 4 * batch.reference.start).all()
        assert batch.reference.valid.all()
    assert {other for _, other in seen} == {*(f"mesh-{k}" for k in range(4)), *(f"real-{k}" for k in range(4, 12))}


def test_a_person_of_one_clip_is_its_own_reference_at_another_time_or_is_skipped(tmp_path):
    release = numbered_release(
        tmp_path, {"mesh": 2, "real": 4}, strangers=True, real={"num_frames": 9}, mesh={"num_frames": 5}
    )
    config, draw = CONFIG.model_copy(update={"domains": ("real",)}), Windows(4, ("pose.npy",), reference=True)
    for batch in take(open_batches(release, config, draw), 10):
        assert batch.reference is not None
        assert batch.clip_ids == batch.reference.clip_ids
        assert (torch.abs(batch.start - batch.reference.start) >= 4).all()
    with pytest.raises(DataError, match=r"\(mesh-\d is the only clip of who-\d, and too short for two windows\)"):
        take(open_batches(release, CONFIG, draw), 1)


def test_references_are_the_same_without_the_releases_manifest(release, tmp_path):
    draw = Windows(T, ("pose.npy",), reference=True)
    paths = rewritten(release, tmp_path / "s", unchanged)
    assert same(take(open_batches(paths, CONFIG, draw), 5), take(open_batches(release, CONFIG, draw), 5))


# ---- in which order ------------------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(before=st.integers(0, 9), num_ranks=st.sampled_from([1, 2]), reference=st.booleans())
def test_a_loader_of_windows_goes_on_where_another_stopped(release, before, num_ranks, reference):
    draw = Windows(T, ("pose.npy", "hubert.npy"), reference=reference)
    share = {"rank": num_ranks - 1, "world_size": num_ranks}
    whole, stopped, later = (open_batches(release, CONFIG, draw, **share) for _ in range(3))
    assert same(take(whole, before), take(stopped, before))
    later.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
    assert same(take(later, 4), take(whole, 4))
    assert later.state_dict() == whole.state_dict()


@pytest.mark.parametrize("before", [1, 4])
def test_workers_of_windows_go_on_where_others_stopped(release, before):
    config, draw = CONFIG.model_copy(update={"num_workers": 2}), Windows(T, EVERY, reference=True)
    whole, later = open_batches(release, config, draw), open_batches(release, config, draw)
    take(whole, before)
    later.load_state_dict(json.loads(json.dumps(whole.state_dict())))
    assert same(take(later, 5), take(whole, 5))


def test_a_position_belongs_to_its_windows(release):
    state = open_batches(release, CONFIG, DRAW).state_dict()
    for other in (Windows(T + 1, EVERY), Windows(T, EVERY[:-1]), Windows(T, EVERY, reference=True)):
        with pytest.raises(CheckpointError, match=r"made with (draw|shards) = "):
            open_batches(release, CONFIG, other).load_state_dict(state)
    with pytest.raises(CheckpointError):
        open_batches(release, CONFIG).load_state_dict(state)


def test_ranks_read_other_windows_and_may_share_references(release):
    draw = Windows(T, ("pose.npy",), reference=True)
    seen, references = [], []
    for rank in range(2):
        batches = take(open_batches(release, CONFIG, draw, rank=rank, world_size=2), 20)
        seen.append({name for batch in batches for name in batch.clip_ids})
        references.append({name for batch in batches for name in batch.reference.clip_ids})
    assert not seen[0] & seen[1]
    assert references[0] & references[1], "a person's clips lie where they lie"


# ---- where they come from ------------------------------------------------------------------------------------------


def test_speech_shards_name_their_visual_ones(release):
    expected = take(open_batches(release, CONFIG, DRAW), 5)
    for series in ("speech", "visual"):
        listed = sorted(str(path) for path in (release / "train").glob(f"*/*-{series}-*.tar"))
        assert same(take(open_batches(listed, CONFIG, DRAW), 5), expected)
    both = sorted(str(path) for path in (release / "train").glob("*/*.tar"))
    assert same(take(open_batches(both, CONFIG, DRAW), 5), expected)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_web_server_gives_the_same_windows(release, num_workers):
    config = CONFIG.model_copy(update={"num_workers": num_workers})
    draw = Windows(T, EVERY, reference=True)
    with serving() as server:
        url, answers = serve(server, release, "503", "")
        assert same(take(open_batches(url, config, draw), 5), take(open_batches(release, config, draw), 5))
    assert sum(answer.calls for answer in answers)


def test_an_object_store_gives_the_same_windows_also_after_a_stop(release, monkeypatch, tmp_path):
    config = CONFIG.model_copy(update={"cache_dir": str(tmp_path / "c")})
    with object_store(monkeypatch):
        uri = f"{bucket()}/v1"
        fsspec.filesystem("s3").put(f"{release}/", f"{uri}/", recursive=True)
        there, here = open_batches(uri, config, DRAW), open_batches(release, config, DRAW)
        assert same(take(there, 3), take(here, 3))
        later = open_batches(uri, config, DRAW)
        later.load_state_dict(json.loads(json.dumps(here.state_dict())))
        assert same(take(later, 3), take(here, 3))


def test_a_damaged_speech_shard_is_skipped_and_counted(release, tmp_path):
    damaged = tmp_path / "r"
    shutil.copytree(release, damaged)
    path = damaged / "train" / "real" / "train-real-speech-000001.tar"
    data = bytearray(path.read_bytes())
    data[2000] ^= 1
    path.write_bytes(bytes(data))
    config = CONFIG.model_copy(update={"max_skipped_ratio": 0.5})
    loader = open_batches(damaged, config, DRAW)
    take(loader, 20)
    assert set(loader.skipped) == {"shard"}
    assert not take_all(open_batches(damaged, config, Windows(T, ("pose.npy",))), 20).skipped, "it is not even opened"


@pytest.mark.parametrize(("suffix", "kind"), [("mel.npy", "labels"), ("hubert.npy", "labels"), (None, "missing")])
def test_spoiled_speech_is_skipped_and_named(release, tmp_path, suffix, kind, caplog):
    def spoil(key: str, members: dict[str, bytes]) -> None:
        if key != "real-5":
            return
        if suffix is None:
            members.pop("mel.npy")
        else:
            members[suffix] = encode_npy(np.full_like(np.load(BytesIO(members[suffix])), np.nan))

    rewritten(release, tmp_path / "s", spoil, "speech")
    paths = rewritten(release, tmp_path / "s", unchanged)
    loader = open_batches(paths, CONFIG.model_copy(update={"max_skipped_ratio": 0.5}), DRAW)
    assert "real-5" not in {name for batch in take(loader, 30) for name in batch.clip_ids}
    assert set(loader.skipped) == {kind}
    [line] = [record.getMessage() for record in caplog.records if record.name == "training.data.loader"]
    assert "real-5" in line


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (Windows(T, ("lips.npy",)), "there is no field 'lips.npy' for windows: choose from"),
        (Windows(T, ("mp4",)), "there is no field 'mp4' for windows"),
        (Windows(T, ()), "have to name at least one field"),
        (Windows(T, ("pose.npy", "pose.npy")), "none twice"),
        (Windows(0, ("pose.npy",)), "a window of 0 frames"),
        (Windows(T, ("emotion.npy",)), "no clip of mesh, real has emotion.npy"),
        (Windows(T, ("pose.npy",), sidecar="there"), "sidecar and sidecar_fields belong together"),
        (Windows(T, (), sidecar="there", sidecar_fields=("pose.npy",)), "must end in .npy and be none of the release"),
        (Windows(T, ("mel.npy",), quotas={"toon": Quota(("toon",), 5)}), "there is no domain 'toon'"),
    ],
)
def test_windows_that_cannot_be_are_refused_before_the_first_batch(release, draw, said):
    with pytest.raises(UsageError) as caught:
        open_batches(release, CONFIG, draw)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_visual_shard_without_speech_beside_it_is_refused(release, tmp_path):
    paths = rewritten(release, tmp_path / "s", unchanged)
    with pytest.raises(DataError, match=r"train-mesh-speech-000000.tar does not exist"):
        open_batches(paths, CONFIG, DRAW)
    take(open_batches(paths, CONFIG, Windows(T, ("pose.npy",))), 1)
