"""A release: the same clips give the same bytes, no broken sample gets in, and plain readers can read it."""

import hashlib
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.media.tars import tar_size
from pipeline.release.shards import write_release
from pipeline.store.storage import Storage
from schemas.config import PackConfig
from schemas.errors import UsageError, WorkspaceError
from schemas.release import CARD_FILE, RELEASE_FILE, ClipListRow, Release, index_file
from schemas.sample import SampleInfo, fields_of
from tests.helpers.release_items import (
    SETUP,
    Shelf,
    encode_flac,
    encode_mp4,
    encode_npy,
    make_files,
    make_source,
    small_shelf,
)

PACK = PackConfig(min_shards=2)


def write(folder, shelf, *, pack=PACK, setup=SETUP, name="v1", **more):
    return write_release(Storage(folder), name, shelf.items, shelf.read, setup=setup, pack=pack, **more)


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


def tar_names(path):
    with tarfile.open(path) as tar:
        return tar.getnames()


def test_same_clips_same_bytes_in_any_order(tmp_path):
    shelf = small_shelf()
    write(tmp_path / "a", shelf)
    for seed in range(3):
        shelf.items = [shelf.items[index] for index in np.random.default_rng(seed).permutation(len(shelf.items))]
        write(tmp_path / f"b{seed}", shelf)
        assert digests(tmp_path / "a") == digests(tmp_path / f"b{seed}")


def test_both_series_hold_the_same_keys_shard_by_shard(tmp_path):
    release = write(tmp_path, small_shelf(5), pack=PackConfig(min_shards=3))
    visual = [shard for shard in release.shards if shard.series == "visual"]
    assert sum(shard.num_samples for shard in visual) == release.num_clips == 15
    for shard in visual:
        keys = [name.partition(".")[0] for name in tar_names(tmp_path / shard.path)]
        twin = [name.partition(".")[0] for name in tar_names(tmp_path / shard.path.replace("visual", "speech"))]
        assert list(dict.fromkeys(keys)) == list(dict.fromkeys(twin))


def test_shard_names_are_unique_without_their_folders(tmp_path):
    release = write(tmp_path, small_shelf())
    names = [shard.path.rsplit("/", 1)[-1] for shard in release.shards]
    assert len(set(names)) == len(names), "wids caches shards by the last part of their name"


def test_tars_carry_nothing_of_their_maker(tmp_path):
    release = write(tmp_path, small_shelf())
    for shard in release.shards:
        data = (tmp_path / shard.path).read_bytes()
        assert len(data) == shard.num_bytes
        assert hashlib.sha256(data).hexdigest() == shard.sha256
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                assert (member.uid, member.gid, member.mtime, member.mode) == (0, 0, 0, 0o644)
                assert (member.uname, member.gname, member.pax_headers) == ("", "", {})
                assert member.name.partition(".")[2] in fields_of(shard.series)


@pytest.mark.parametrize("num_clips", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("min_shards", [1, 2, 3, 4])
def test_at_least_the_asked_shards_as_far_as_clips_go(tmp_path, num_clips, min_shards):
    shelf = Shelf()
    for number in range(num_clips):
        shelf.add(f"clip-{number}")
    release = write(tmp_path, shelf, pack=PackConfig(min_shards=min_shards))
    sizes = [shard.num_samples for shard in release.shards if shard.series == "visual"]
    assert len(sizes) == min(num_clips, min_shards)
    assert sum(sizes) == num_clips
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("slack", "num_shards"), [(-1, 2), (0, 1), (1, 1)])
def test_a_shard_ends_before_it_outgrows_its_target(tmp_path, slack, num_shards):
    shelf = Shelf().add("a", files=make_files(seed=0)).add("b", files=make_files(seed=0))
    write(tmp_path / "probe", shelf)
    row = pq.read_table(tmp_path / "probe" / "manifest.parquet").to_pylist()[0]
    target = 2 * row["visual_bytes"] + slack
    release = write(tmp_path / "r", shelf, pack=PackConfig(target_bytes=target))
    assert len([shard for shard in release.shards if shard.series == "visual"]) == num_shards


def test_a_clip_larger_than_the_target_gets_a_shard_of_its_own(tmp_path):
    release = write(tmp_path, small_shelf(), pack=PackConfig(target_bytes=1))
    assert {shard.num_samples for shard in release.shards} == {1}


def test_the_manifest_says_where_each_sample_lies(tmp_path):
    shelf = small_shelf()
    write(tmp_path, shelf)
    rows = pq.read_table(tmp_path / "manifest.parquet").to_pylist()
    assert {row["clip_id"] for row in rows} == set(shelf.files)
    for row in rows:
        for series in ("visual", "speech"):
            data = (tmp_path / row[f"{series}_shard"]).read_bytes()
            part = data[row[f"{series}_offset"] :][: row[f"{series}_bytes"]]
            with tarfile.open(fileobj=io.BytesIO(part + bytes(1024))) as tar:
                members = {name.partition(".")[2]: tar.extractfile(name).read() for name in tar.getnames()}
                assert {name.partition(".")[0] for name in tar.getnames()} == {row["clip_id"]}
            assert tar_size(members) == len(part)
            info = SampleInfo.model_validate_json(members["json"])
            assert (info.split, info.domain, info.scores.sync.z) == (row["split"], row["domain"], row["scores_sync_z"])


def test_the_clip_list_is_enough_to_cut_again(tmp_path):
    shelf = small_shelf()
    write(tmp_path, shelf)
    rows = [ClipListRow.model_validate_json(line) for line in (tmp_path / "clips.jsonl").read_bytes().splitlines()]
    by_id = {row.plan.clip_id: row for row in rows}
    for item in shelf.items:
        row = by_id[item.clip.clip_id]
        assert (row.uri, row.sha256, row.plan) == (item.source.uri, item.sha256, item.clip.plan)


def test_no_secret_and_no_folder_of_this_machine_gets_out(tmp_path):
    shelf = Shelf()
    shelf.add("a", make_source("web", uri="https://user:pass@example.org/a.mp4?X-Amz-Signature=topsecret"))
    shelf.add("b", make_source("disk", uri="file:///home/alice/films/b.mp4"))
    write(tmp_path, shelf)
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    table = str(pq.read_table(tmp_path / "manifest.parquet").to_pylist()).encode()
    for secret in (b"pass@", b"topsecret", b"/home/alice"):
        assert secret not in everything
        assert secret not in table


def test_identities_leave_only_on_request(tmp_path):
    shelf = Shelf().add("a", files=make_files(with_options=True))
    write(tmp_path / "without", shelf)
    release = write(tmp_path / "with", shelf, setup=replace(SETUP, with_identity=True))
    assert release.with_identity
    assert "a.identity.npy" not in tar_names(tmp_path / "without/train/real/train-real-visual-000000.tar")
    assert "a.identity.npy" in tar_names(tmp_path / "with/train/real/train-real-visual-000000.tar")


# ---- what may not enter ----------------------------------------------------------------------------


def lower_landmarks(files):
    array = np.load(io.BytesIO(files["landmarks.npy"]))
    return encode_npy(array[:-1])


BROKEN = {
    "a frame short": ("mp4", lambda _: encode_mp4(4), "5 frames, found 4"),
    "a long group of pictures": ("mp4", lambda _: encode_mp4(5, gop=5), "only key frames, found 1 of 5"),
    "the wrong rate": ("mp4", lambda _: encode_mp4(5, fps=24), "exactly 1/25 s apart"),
    "no video": ("mp4", lambda _: b"not a video", "expected an H.264 video"),
    "a sample short": ("flac", lambda _: encode_flac(3199), "3200 samples, found 3199"),
    "a sample long": ("flac", lambda _: encode_flac(3201), "3200 samples, found more than 3200"),
    "another sound rate": ("flac", lambda _: encode_flac(rate_hz=22050), "found flac, 22050 Hz"),
    "no sound": ("flac", lambda _: b"", "16000 Hz, 1 ch, s16"),
    "a row short": ("landmarks.npy", lower_landmarks, "shape (5, 68, 3), found (4, 68, 3)"),
    "doubles": ("pose.npy", lambda _: encode_npy(np.zeros((5, 7))), "dtype <f4, found <f8"),
    "NaN": ("motion.npy", lambda _: encode_npy(np.full((5, 6), np.nan, np.float32)), "finite numbers"),
    "confidence above 1": (
        "pose.npy",
        lambda _: encode_npy(np.full((5, 7), 1.5, np.float32)),
        "confidence from 0 to 1",
    ),
    "a pickle": ("valid.npy", lambda _: encode_npy(np.array([{}] * 5, dtype=object)), "refused unread"),
    "a claim": ("valid.npy", lambda files: files["valid.npy"][:-1], "bytes of data for shape (5,)"),
    "mel of another length": ("mel.npy", lambda _: encode_npy(np.zeros((21, 80), np.float32)), "shape (20, 80)"),
    "HuBERT of another length": (
        "hubert.npy",
        lambda _: encode_npy(np.zeros((1, 6, 4), np.float16)),
        "shape (L, 5, C)",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_sample_stops_the_release_and_is_named(tmp_path, name):
    suffix, breakage, words = BROKEN[name]
    files = make_files(with_options=True)
    shelf = Shelf().add("good").add("bad-one", files=files | {suffix: breakage(files)})
    with pytest.raises(WorkspaceError) as error:
        write(tmp_path, shelf)
    assert f"clip bad-one: {suffix}: " in str(error.value)
    assert words in str(error.value)
    assert not (tmp_path / RELEASE_FILE).exists()


@pytest.mark.parametrize("suffix", ["mp4", "flac", "valid.npy", "mel.npy"])
def test_a_missing_field_stops_the_release(tmp_path, suffix):
    files = make_files()
    del files[suffix]
    with pytest.raises(WorkspaceError, match=f"clip a: {suffix}: expected"):
        write(tmp_path, Shelf().add("a", files=files))


def test_a_domain_without_landmarker_has_confidence_zero(tmp_path):
    shelf = Shelf().add("a")
    bare = shelf.items[0].clip.model_copy(update={"landmark_scheme": "none"})
    shelf.items[0] = replace(shelf.items[0], clip=bare)
    with pytest.raises(WorkspaceError, match=r"landmarks.npy: expected confidence 0"):
        write(tmp_path, shelf)


def test_files_that_rotted_in_the_workspace_are_noticed(tmp_path):
    shelf = Shelf().add("a")
    shelf.files["a"] = make_files(seed=7)
    with pytest.raises(WorkspaceError, match=r"clip a: .* is damaged in the workspace"):
        write(tmp_path, shelf)


def test_a_clip_may_come_once(tmp_path):
    with pytest.raises(UsageError, match="clip a is given twice"):
        write(tmp_path, Shelf().add("a").add("a", "other"))


@pytest.mark.parametrize(("length", "fits"), [(79, True), (80, False)])
def test_ids_fit_the_first_name_field_of_a_tar(tmp_path, length, fits):
    shelf = Shelf().add("x" * length, files=make_files(with_options=True))
    if fits:
        write(tmp_path, shelf)
    else:
        with pytest.raises(UsageError, match="too long for a tar: at most 79"):
            write(tmp_path, shelf)


def test_no_clips_no_release(tmp_path):
    with pytest.raises(UsageError, match="no clips"):
        write(tmp_path, Shelf())


# ---- places and interruptions ----------------------------------------------------------------------


def test_a_finished_release_is_not_written_again(tmp_path):
    shelf = small_shelf()
    first = write(tmp_path, shelf)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    shelf.items.reverse()
    assert write(tmp_path, shelf) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_another_release_of_the_same_name_is_refused(tmp_path):
    write(tmp_path, small_shelf())
    before = digests(tmp_path)
    with pytest.raises(UsageError, match="choose another name than 'v1'"):
        write(tmp_path, small_shelf(4))
    with pytest.raises(UsageError, match="choose another name"):
        write(tmp_path, small_shelf(), pack=PackConfig(seed=1))
    assert digests(tmp_path) == before


def describe(release, rows):
    return {"overview.png": b"png", CARD_FILE: f"{release.num_clips} clips, {len(rows)} rows".encode()}


def test_what_an_interrupted_write_left_is_replaced(tmp_path):
    more = {"sheets/gone.jpg": b"jpg", "README.md": b"# old", "about.json": b"{}", "card.html": b"<p>"}
    write(tmp_path / "whole", small_shelf(), describe=describe)
    write(
        tmp_path / "cut", small_shelf(4), pack=PackConfig(min_shards=4), describe=lambda *of: {**describe(*of), **more}
    )
    (tmp_path / "cut" / RELEASE_FILE).unlink()
    (tmp_path / "cut" / ".tmp-visual.tar").write_bytes(b"half")
    write(tmp_path / "cut", small_shelf(), describe=describe)
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("three years")
    with pytest.raises(UsageError, match=r"is not empty \(thesis.txt"):
        write(tmp_path, small_shelf())
    assert digests(tmp_path).keys() == {"thesis.txt"}


@pytest.mark.parametrize("name", ["README.md", "card.html", "sheets/cat.jpg", "about.json", "manifest.parquet"])
def test_files_with_common_names_are_somebody_elses_where_no_shard_lies(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("three years")
    with pytest.raises(UsageError, match="is not empty"):
        write(tmp_path, small_shelf())
    assert (tmp_path / name).read_text() == "three years"


def test_cards_and_pictures_join_the_record(tmp_path):
    release = write(tmp_path, small_shelf(), describe=describe)
    assert (tmp_path / CARD_FILE).read_text() == "9 clips, 9 rows"
    assert {CARD_FILE, "overview.png"} <= release.files.keys()
    assert Release.model_validate_json((tmp_path / RELEASE_FILE).read_bytes()) == release
    assert digests(tmp_path).keys() == {RELEASE_FILE, *release.files, *(shard.path for shard in release.shards)}


def test_what_describes_a_release_replaces_nothing_of_it(tmp_path):
    for path in (RELEASE_FILE, "manifest.parquet", "train/real/train-real-visual-000000.tar"):
        with pytest.raises(ValueError, match=f"may not replace {path}"):
            write(tmp_path / path.replace("/", "-"), small_shelf(), describe=lambda *_, path=path: {path: b""})


def test_an_object_store_gets_the_same_bytes(tmp_path):
    shelf = small_shelf()
    write(tmp_path, shelf)
    store = Storage("memory://test-shards/v1")
    write_release(store, "v1", shelf.items, shelf.read, setup=SETUP, pack=PACK)
    there = {name: hashlib.sha256(store.read(name)).hexdigest() for name in store.names("")}
    assert there == digests(tmp_path)


KILLED = """
import pathlib, sys, time
sys.path[:0] = [{root!r}]
from tests.helpers.release_items import SETUP, small_shelf
from pipeline.release.shards import write_release
from pipeline.store.storage import Storage
from schemas.config import PackConfig
shelf = small_shelf()
def until_a_shard_is_there(item, suffix):
    if any(pathlib.Path({folder!r}).rglob("train-*.tar")):
        print("a shard is there", flush=True)
        time.sleep(600)
    return shelf.read(item, suffix)
write_release(
    Storage({folder!r}), "v1", shelf.items, until_a_shard_is_there, setup=SETUP, pack=PackConfig(min_shards=2)
)
"""


def test_killed_and_run_again_gives_the_same_release(tmp_path):
    write(tmp_path / "whole", small_shelf())
    script = KILLED.format(root=str(Path(__file__).resolve().parents[3]), folder=str(tmp_path / "cut"))
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"a shard is there\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert not (tmp_path / "cut" / RELEASE_FILE).exists()
    write(tmp_path / "cut", small_shelf())
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")


# ---- plain readers ---------------------------------------------------------------------------------


def test_webdataset_reads_a_release(tmp_path):
    wds = pytest.importorskip("webdataset")
    shelf = small_shelf()
    release = write(tmp_path, shelf)
    for series in ("visual", "speech"):
        urls = [str(tmp_path / shard.path) for shard in release.shards if shard.series == series]
        samples = list(wds.WebDataset(urls, shardshuffle=False).decode())
        assert {sample["__key__"] for sample in samples} == set(shelf.files)
        for sample in samples:
            files = shelf.files[sample["__key__"]]
            assert sample["json"]["clip_id"] == sample["__key__"]
            for suffix in files.keys() & fields_of(series).keys() - {"mp4", "flac"}:
                np.testing.assert_array_equal(sample[suffix], np.load(io.BytesIO(files[suffix])))


def test_wids_reads_a_release_by_its_index(tmp_path):
    wids = pytest.importorskip("wids")
    shelf = small_shelf()
    write(tmp_path / "release", shelf)
    (tmp_path / "cache").mkdir()
    seen = []
    for split, series in itertools.product(("train", "test"), ("visual", "speech")):
        index = tmp_path / "release" / index_file(split, series)
        data = wids.ShardListDataset(str(index), cache_dir=str(tmp_path / "cache"))
        for position in range(len(data)):
            sample = data[position]
            assert sample["__dataset__"] == sample[".json"]["domain"]
            if series == "visual":
                files = shelf.files[sample["__key__"]]
                assert sample[".mp4"].read() == files["mp4"]
                np.testing.assert_array_equal(sample[".pose.npy"], np.load(io.BytesIO(files["pose.npy"])))
                seen.append(sample["__key__"])
        data.close()
        assert json.loads(index.read_bytes())["wids_version"] == 1
    assert sorted(seen) == sorted(shelf.files)
