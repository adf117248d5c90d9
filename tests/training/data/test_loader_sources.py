"""Where shards come from changes no batch: disk, HTTP or S3, however badly they behave; and what is wrong is said."""

import io
import json
import os
import shutil
import tarfile
import threading
from pathlib import Path

import av
import fsspec
import numpy as np
import pytest

from schemas.errors import AnitalkError, DataError, UsageError
from schemas.release import RELEASE_FILE
from tests.helpers.mishaps import FaultyFile
from tests.helpers.pair_shards import numbered_release, rewritten, shards_of
from tests.helpers.release_items import encode_npy
from tests.helpers.stores import bucket, object_store
from tests.helpers.web import Server, serving
from tests.training.data.test_loader import SMALL, same, take
from training.data import PairsConfig, pairs, remote

QUICK = SMALL | {"backoff_s": 0.0, "num_attempts": 8}


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    return numbered_release(tmp_path_factory.mktemp("release"), {"mesh": 4, "real": 8}, min_shards=4)


@pytest.fixture(autouse=True)
def _no_cache_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def expected(release):
    return take(pairs(release, PairsConfig(**QUICK)), 8)


# --- addresses ---


def test_addresses_of_shards_are_as_good_as_their_release(release, expected):
    listed = pairs([str(path) for path in shards_of(release)], PairsConfig(**QUICK))
    assert same(take(listed, 8), expected)
    braces = f"{release}/train/{{mesh/train-mesh,real/train-real}}-visual-{{000000..000003}}.tar"
    assert same(take(pairs(braces, PairsConfig(**QUICK)), 8), expected)
    assert same(take(pairs(release.as_uri(), PairsConfig(**QUICK)), 8), expected)


def unchanged(key: str, members: dict[str, bytes]) -> None:
    pass


def test_shards_without_a_release_are_read_through(release, tmp_path):
    paths = rewritten(release, tmp_path / "loose", unchanged)
    loader = pairs(paths, PairsConfig(**QUICK))
    assert loader.domains == ("mesh", "real")
    assert {clip for batch in take(loader, 60) for clip in batch.clip_ids} == {
        *(f"mesh-{k}" for k in range(4)),
        *(f"real-{k}" for k in range(4, 12)),
    }


# --- over the network ---


def serve(server: Server, release: Path, *mishaps: str) -> tuple[str, list[FaultyFile]]:
    """A release on the server; its shards suffer the mishaps in turn."""
    answers = []
    for path in sorted(release.rglob("*")):
        if path.is_file():
            is_shard = path.suffix == ".tar"
            answers.append(FaultyFile(path.read_bytes(), *(mishaps if is_shard else ())))
            server.answers[f"/v1/{path.relative_to(release).as_posix()}"] = answers[-1]
    return server.url("/v1"), answers


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_release_on_a_web_server_gives_the_same_batches(release, num_workers):
    config = PairsConfig(**QUICK, num_workers=num_workers)
    with serving() as server:
        url, answers = serve(server, release)
        assert same(take(pairs(url, config), 6), take(pairs(release, config), 6))
        urls = f"{url}/train/{{mesh/train-mesh,real/train-real}}-visual-{{000000..000003}}.tar"
        assert same(take(pairs(urls, config), 6), take(pairs(release, config), 6))
    fetched = sum(answer.calls for answer in answers if b"ustar" in answer.body[:512])
    assert fetched <= 8 + 2 * 2, "each shard once, and the first record of each domain per run"


@pytest.mark.parametrize(
    "mishaps", [("503", ""), ("reset", ""), ("late",), ("cut", ""), ("503", "reset", "cut", "late", "")]
)
def test_mishaps_of_the_network_change_no_batch(release, expected, mishaps, monkeypatch):
    monkeypatch.setattr(remote, "_PART_BYTES", 16 << 10)
    monkeypatch.setattr(remote, "_MIN_PART_BYTES", 4 << 10)
    with serving() as server:
        url, _ = serve(server, release, *mishaps)
        loader = pairs(url, PairsConfig(**QUICK))
        assert same(take(loader, 8), expected)
        assert not loader.skipped


def test_a_part_is_asked_for_again_from_where_it_broke_off(release, monkeypatch):
    monkeypatch.setattr(remote, "_PART_BYTES", 8 << 10)
    body = shards_of(release)[0].read_bytes()
    with serving() as server:
        server.answers["/a.tar"] = FaultyFile(body, "", "", "503", "", "cut")
        parts = list(remote.iter_parts(server.url("/a.tar"), 0, len(body), remote.Patience(3, 0.0)))
        assert b"".join(parts) == body
        starts = [int(request.headers["Range"][6:].partition("-")[0]) for request in server.asked("/a.tar")]
    assert starts == sorted(starts)
    assert starts[:4] == [0, 8192, 16384, 16384]


def test_a_server_that_knows_no_ranges_will_do(release, expected):
    with serving() as server:
        for path in release.rglob("*.*"):
            body = path.read_bytes()
            server.answers[f"/v1/{path.relative_to(release).as_posix()}"] = lambda exchange, body=body: exchange.answer(
                200, body
            )
        assert same(take(pairs(server.url("/v1"), PairsConfig(**QUICK)), 8), expected)


@pytest.fixture
def store(release, monkeypatch):
    with object_store(monkeypatch):
        uri = f"{bucket()}/v1"
        fsspec.filesystem("s3").put(f"{release}/", f"{uri}/", recursive=True)
        yield uri


def test_a_release_in_an_object_store_gives_the_same_batches_also_after_a_stop(release, store, tmp_path):
    config = PairsConfig(**QUICK, num_workers=2, cache_dir=str(tmp_path / "c"))
    there, here = pairs(store, config), pairs(release, config)
    assert same(take(there, 5), take(here, 5))
    later = pairs(store, config)
    later.load_state_dict(json.loads(json.dumps(there.state_dict())))
    del there
    assert same(take(later, 4), take(here, 4))


def test_a_small_cache_stays_small_and_changes_no_batch(release, store, expected, tmp_path):
    largest = max(path.stat().st_size for path in shards_of(release))
    folder = tmp_path / "c"
    folder.mkdir()
    mine = folder / "my-own.tar"
    mine.write_bytes(b"kept")
    config = PairsConfig(**QUICK, cache_dir=str(folder), cache_bytes=2 * largest)
    loader = pairs(store, config)
    for batch, other in zip(loader, expected, strict=False):
        assert same([batch], [other])
        held = [path for path in folder.iterdir() if path != mine and not path.name.startswith(".tmp")]
        assert sum(path.stat().st_size for path in held) <= 2 * largest
        assert all(len(path.stem) == 64 for path in held)
    assert mine.read_bytes() == b"kept"
    with pytest.raises(UsageError, match="cannot hold the largest shard"):
        pairs(store, config.model_copy(update={"cache_bytes": largest - 1}))


def test_many_may_share_one_cache(release, expected, tmp_path):
    with serving() as server:
        url, _ = serve(server, release, "late")
        config = PairsConfig(**QUICK, cache_dir=str(tmp_path / "c"), cache_bytes=1 << 20)
        by_thread: list[list] = [[], [], []]

        def run(number: int) -> None:
            by_thread[number] = take(pairs(url, config), 8)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(same(batches, expected) for batches in by_thread)


def test_what_is_left_of_a_killed_fetch_is_cleared_away(release, tmp_path):
    folder = tmp_path / "c"
    folder.mkdir()
    names = [f".tmp-1-2-{'a' * 64}.tar", f".tmp-1-3-{'b' * 64}.tar"]
    for name in names:
        (folder / name).write_bytes(b"half")

    os.utime(folder / names[0], (0, 0))
    with serving() as server:
        url, _ = serve(server, release)
        take(pairs(url, PairsConfig(**QUICK, cache_dir=str(folder))), 1)
    assert not (folder / names[0]).exists()
    assert (folder / names[1]).exists(), "another process may still be writing it"


def test_a_shard_that_came_damaged_is_fetched_once_more_and_then_skipped(release, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(release, damaged)
    [path] = [path for path in shards_of(damaged) if path.name == "train-real-visual-000001.tar"]
    path.write_bytes(path.read_bytes()[:-2000] + bytes(2000 - 1) + b"x")
    with serving() as server:
        url, _ = serve(server, damaged)
        loader = pairs(url, PairsConfig(**QUICK, max_skipped_ratio=0.5))
        batches = take(loader, 30)
        assert len(server.asked(f"/v1/{path.relative_to(damaged).as_posix()}")) >= 2
    assert loader.skipped["shard"] > 0
    assert {len(batch) for batch in batches} == {5}
    local = pairs(damaged, PairsConfig(**QUICK, max_skipped_ratio=0.5))
    assert same(take(local, 30), batches), "what is skipped is skipped alike everywhere"
    assert local.skipped == loader.skipped


# --- what is wrong with samples ---


def spoil(which: str, field: str, data):
    """A change for ``rewritten``: the member of samples whose name ends in ``which`` becomes ``data(bytes)``."""

    def change(key: str, members: dict[str, bytes]) -> None:
        if key.endswith(which):
            changed = data(members[field])
            members.pop(field) if changed is None else members.update({field: changed})

    return change


def nan_pose(data: bytes) -> bytes:
    array = np.ones((8, 7), np.float32)
    array[3, 2] = np.nan
    return encode_npy(array)


def broken_frames(data: bytes) -> bytes:
    """The same video with the second half of every coded picture overwritten; its index stays."""
    broken = bytearray(data)
    with av.open(io.BytesIO(data)) as video:
        for packet in video.demux(video=0):
            if packet.size:
                middle, end = packet.pos + packet.size // 2, packet.pos + packet.size
                broken[middle:end] = b"\x5a" * (end - middle)
    return bytes(broken)


SPOILED = {
    "labels": spoil("-5", "pose.npy", nan_pose),
    "missing": spoil("-5", "motion.npy", lambda _: None),
    "json": spoil("-5", "json", lambda data: data.replace(b'"clip_id":"real-5"', b'"clip_id":"real-6"')),
    "video": spoil("-5", "mp4", lambda data: data[: len(data) // 3]),
    "decode": spoil("-5", "mp4", broken_frames),
    "faces": spoil("-5", "valid.npy", lambda _: encode_npy(np.arange(8) == 2)),
}


@pytest.mark.parametrize("kind", SPOILED)
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_spoiled_sample_is_skipped_counted_and_named_once(release, tmp_path, caplog, kind, num_workers):
    paths = rewritten(release, tmp_path / "shards", SPOILED[kind])
    loader = pairs(paths, PairsConfig(**QUICK, num_workers=num_workers, max_skipped_ratio=0.5))
    batches = take(loader, 40)
    assert "real-5" not in {clip for batch in batches for clip in batch.clip_ids}
    assert {len(batch) for batch in batches} == {5}
    assert set(loader.skipped) == {kind}
    assert loader.skipped[kind] > 1
    [line] = [record.getMessage() for record in caplog.records if record.name == "training.data.loader"]
    assert line.startswith(f"skipped ({kind}): real-5")
    later = pairs(paths, loader._plan.config)
    later.load_state_dict(loader.state_dict())
    assert later.skipped == loader.skipped
    assert same(take(later, 3), take(loader, 3))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_too_many_spoiled_samples_end_the_run_in_one_sentence(release, tmp_path, num_workers):
    paths = rewritten(release, tmp_path / "shards", spoil("", "pose.npy", nan_pose))
    loader = pairs(paths, PairsConfig(**QUICK, num_workers=num_workers))
    with pytest.raises(DataError) as caught:
        take(loader, 1)
    assert str(caught.value).startswith("16 of 16 opened clips had to be skipped, more than max_skipped_ratio 0.1")
    assert "holds NaN or infinity" in str(caught.value)
    assert "\n" not in str(caught.value)


# --- what is refused before the first batch ---


def edit_json(**changes):
    def change(key: str, members: dict[str, bytes]) -> None:
        raw = json.loads(members["json"])
        for name, value in changes.items():
            raw.pop(name) if value is None else raw.update({name: value})
        members["json"] = json.dumps(raw).encode()

    return change


def refused(where, **settings) -> tuple[type[AnitalkError], str]:
    with pytest.raises(AnitalkError) as caught:
        pairs(where, PairsConfig(**(QUICK | {"num_attempts": 2} | settings)))
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 300
    return type(caught.value), text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pose_convention": None}, "has no pose_convention, so its angles could mean anything; expected 'anitalk-1'"),
        ({"pose_convention": "hopenet"}, "has the pose_convention 'hopenet'"),
        ({"schema_version": 2}, "has schema version 2 and this version reads 1"),
    ],
)
def test_another_convention_or_version(release, tmp_path, changes, said):
    paths = rewritten(release, tmp_path / "shards", edit_json(**changes))
    kind, text = refused(paths)
    assert kind is DataError
    assert said in text
    assert "train-mesh-visual-000000.tar: sample mesh-" in text


def test_a_convention_that_changes_in_the_middle_ends_the_run(release, tmp_path):
    paths = rewritten(
        release, tmp_path / "s", lambda key, members: key != "real-7" or edit_json(pose_convention=None)(key, members)
    )
    with pytest.raises(DataError, match="sample real-7 has no pose_convention"):
        take(pairs(paths, PairsConfig(**QUICK)), 50)


def test_domains_splits_and_weights_that_are_not_there(release):
    assert refused(release, domains=("toon",)) == (
        UsageError,
        "there is no domain 'toon' in the split 'train' of these shards: mesh, real",
    )
    assert "no domain 'toon'" in refused(release, weights={"toon": 2.0})[1]
    assert "every domain has weight 0" in refused(release, weights={"mesh": 0.0, "real": 0.0})[1]
    assert refused(release, split="val") == (UsageError, f"{release} has no split 'val': choose from train")


def test_an_empty_domain(release, tmp_path):
    shutil.copytree(release, tmp_path / "r")
    record = json.loads((tmp_path / "r" / RELEASE_FILE).read_text())
    for shard in record["shards"]:
        shard["num_samples"] *= shard["domain"] != "mesh"
    (tmp_path / "r" / RELEASE_FILE).write_text(json.dumps(record))
    assert "the domain 'mesh' is empty: its 4 shards hold no clip" in refused(tmp_path / "r")[1]


def test_fewer_shards_than_readers(release):
    kind, text = refused(release, num_workers=5)
    assert kind is UsageError
    assert text.startswith("the domain 'mesh' has 4 shards for 5 readers (ranks × workers)")
    with pytest.raises(UsageError, match="4 shards for 6 readers"):
        pairs(release, PairsConfig(**QUICK, num_workers=3), rank=0, world_size=2)


def test_a_truncated_tar_with_and_without_its_release(release, tmp_path):
    shutil.copytree(release, tmp_path / "r")
    shard = shards_of(tmp_path / "r")[0]
    shard.write_bytes(shard.read_bytes()[:9000])
    assert f"{shard} has 9000 bytes where its release says" in refused(tmp_path / "r")[1]
    loose = tmp_path / "loose.tar"
    shutil.copy(shard, loose)
    assert "the tar is damaged or cut off" in refused(str(loose))[1]
    loose.write_bytes(b"")
    assert f"{loose}: the tar is damaged or cut off" in refused(str(loose))[1]
    with tarfile.open(loose, "w"):
        pass
    assert "holds no samples" in refused(str(loose))[1]
    shard.unlink()
    assert "cannot be read (No such file or directory)" in refused(tmp_path / "r")[1]


def test_addresses_that_lead_nowhere(release, tmp_path):
    assert "no finished release at" in refused(tmp_path / "nothing")[1]
    assert "does not exist: check the address" in refused(str(tmp_path / "nothing.tar"))[1]
    assert "is named twice" in refused([str(shards_of(release)[0])] * 2)[1]
    assert "is a speech shard" in refused(f"{release}/train/real/train-real-speech-000000.tar")[1]
    assert "no shards are named" in refused([])[1]
    assert "cannot read from" in refused("nowhere://host/a.tar")[1]
    with serving() as server:
        assert "no finished release at" in refused(server.url("/v1"))[1]
        assert "does not exist" in refused(server.url("/v1/a.tar"))[1]
        server.answers["/closed.tar"] = lambda exchange: exchange.answer(403, b"no")
        assert "the server refuses (status 403)" in refused(server.url("/closed.tar"))[1]
        gone = server.url("/v1")
    assert "cannot be read after 2 attempts" in refused(gone)[1]


def test_a_damaged_record(release, tmp_path):
    shutil.copytree(release, tmp_path / "r")
    (tmp_path / "r" / RELEASE_FILE).write_text("{}")
    assert "is damaged or of another version" in refused(tmp_path / "r")[1]


def test_domains_that_cannot_be_stacked(tmp_path):
    numbered_release(tmp_path, {"mesh": 2, "real": 2})
    paths = rewritten(tmp_path, tmp_path / "s", edit_json(size_px=32))
    mixed = [*(str(path) for path in shards_of(tmp_path) if "mesh" in path.name), *(p for p in paths if "real" in p)]
    assert "frames of different size (mesh 64, real 32 px): set size_px" in refused(mixed)[1]
    paths = rewritten(tmp_path, tmp_path / "p", edit_json(landmark_scheme="points98"))
    mixed = [*(str(path) for path in shards_of(tmp_path) if "mesh" in path.name), *(p for p in paths if "real" in p)]
    assert "different numbers of landmarks (mesh 68, real 98)" in refused(mixed)[1]


def test_ranks_that_make_no_sense(release):
    with pytest.raises(UsageError, match="rank 2 is not among"):
        pairs(release, rank=2, world_size=2)
    with pytest.raises(UsageError, match="belong together"):
        pairs(release, rank=0)


def test_a_cache_that_cannot_be_made_is_one_sentence(release, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with serving() as server:
        url, _ = serve(server, release)
        loader = pairs(url, PairsConfig(**QUICK, cache_dir=str(tmp_path / "file")))
        with pytest.raises(DataError, match=r"the cache folder .* cannot be used"):
            take(loader, 1)
