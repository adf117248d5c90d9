"""Whatever is wrong with a release is found, and named by file, clip and field."""

import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.release.shards import write_release
from pipeline.release.verify import verify_release
from pipeline.store.storage import Storage
from schemas.base import canonical_json
from schemas.config import PackConfig
from schemas.errors import UsageError
from schemas.release import CLIP_LIST_FILE, MANIFEST_FILE, RELEASE_FILE
from schemas.scores import SpeakerScore
from tests.helpers.release_items import SETUP, Shelf, encode_flac, encode_mp4, encode_npy, make_source, small_shelf

VISUAL = "train/real/train-real-visual-000000.tar"
SPEECH = "train/real/train-real-speech-000000.tar"


@pytest.fixture
def folder(tmp_path):
    shelf = small_shelf(2)
    write_release(
        Storage(tmp_path),
        "v1",
        shelf.items,
        shelf.read,
        setup=SETUP,
        pack=PackConfig(),
        describe=lambda _record, _rows: {"a.png": b"1"},
    )
    return tmp_path


def faults_of(folder, **options):
    return [str(fault) for fault in verify_release(str(folder), **options)]


def reseal(folder, *paths):
    """Make the record agree with changed files, as a careless or hostile maker would."""
    release = json.loads((folder / RELEASE_FILE).read_bytes())
    for path in paths:
        data = (folder / path).read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        if path in release["files"]:
            release["files"][path] = digest
        for shard in release["shards"]:
            if shard["path"] == path:
                shard.update(sha256=digest, num_bytes=len(data))
    (folder / RELEASE_FILE).write_bytes(canonical_json(release))


def change_tar(folder, path, change):
    """Rewrite a shard: ``change`` edits the list of (TarInfo, bytes); the record is made to agree."""
    with tarfile.open(folder / path) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar]
    members = change(members) or members
    with tarfile.open(folder / path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    reseal(folder, path)


def replace_member(suffix, data):
    def change(members):
        index = next(i for i, (member, _) in enumerate(members) if member.name.partition(".")[2] == suffix)
        members[index] = (members[index][0], data(members[index][1]) if callable(data) else data)

    return change


def test_a_sound_release_has_no_faults(folder):
    calls = []
    assert faults_of(folder, report=lambda *call: calls.append(call)) == []
    assert [(number, total) for _, number, total in calls] == [(n, 6) for n in range(6)]


def test_a_release_in_an_object_store(folder):
    store = Storage("memory://test-verify/v1")
    for path in folder.rglob("*"):
        if path.is_file():
            store.write(str(path.relative_to(folder)), path.read_bytes())
    assert verify_release("memory://test-verify/v1") == []
    store.write(SPEECH, b"x")
    assert any(fault.path == SPEECH for fault in verify_release("memory://test-verify/v1"))


@pytest.mark.parametrize("folder_name", ["nowhere", "."])
def test_no_finished_release_is_said_in_one_sentence(folder, folder_name):
    (folder / RELEASE_FILE).unlink()
    with pytest.raises(
        UsageError, match=r"no finished release at .*: release.json, which is written last, is not there"
    ):
        verify_release(str(folder / folder_name))


# ---- bytes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [VISUAL, SPEECH, MANIFEST_FILE, CLIP_LIST_FILE, "index-train-visual.json", "a.png"])
def test_one_changed_bit_anywhere_is_found(folder, path):
    data = bytearray((folder / path).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / path).write_bytes(data)
    assert any(line.startswith(f"{path}: expected sha256 ") for line in faults_of(folder))


@pytest.mark.parametrize("path", [VISUAL, SPEECH, MANIFEST_FILE, CLIP_LIST_FILE, "index-train-visual.json", "a.png"])
def test_a_missing_file_is_named(folder, path):
    (folder / path).unlink()
    assert f"{path}: is missing" in faults_of(folder)


@pytest.mark.parametrize("keep", [0, 100, 700, 5000])
def test_a_truncated_shard_is_named(folder, keep):
    (folder / VISUAL).write_bytes((folder / VISUAL).read_bytes()[:keep])
    assert any(line.startswith(f"{VISUAL}: expected ") and f"found {keep}" in line for line in faults_of(folder))


def test_a_file_too_many_is_named(folder):
    (folder / "train/real/notes.txt").write_text("x")
    assert faults_of(folder) == ["train/real/notes.txt: is not part of the release"]


# ---- samples, in shards whose checksums agree ------------------------------------------------------

CHANGES = {
    "a frame short": (VISUAL, replace_member("mp4", encode_mp4(4)), "mp4: expected 5 frames, found 4"),
    "no key frames": (VISUAL, replace_member("mp4", encode_mp4(5, gop=5)), "mp4: expected only key frames"),
    "another size": (VISUAL, replace_member("mp4", encode_mp4(5, size_px=96)), "mp4: expected 64 × 64 px"),
    "rubbish": (VISUAL, replace_member("mp4", b"rubbish"), "mp4: expected an H.264 video"),
    "short sound": (VISUAL, replace_member("flac", encode_flac(640)), "flac: expected 3200 samples, found 640"),
    "a pickle": (
        VISUAL,
        replace_member("valid.npy", encode_npy(np.array([print] * 5, dtype=object))),
        "valid.npy: expected a ? array, found dtype |O, which is refused unread",
    ),
    "a short mel": (
        SPEECH,
        replace_member("mel.npy", encode_npy(np.zeros((3, 80), "f4"))),
        "mel.npy: expected shape (20, 80)",
    ),
    "json is no json": (VISUAL, replace_member("json", b"{"), "json: "),
    "json misses a field": (
        VISUAL,
        replace_member(
            "json", lambda data: canonical_json({k: v for k, v in json.loads(data).items() if k != "license"})
        ),
        "json: license: Field required",
    ),
    "another split": (
        VISUAL,
        replace_member("json", lambda data: data.replace(b'"split":"train"', b'"split":"test"')),
        "json: expected split train, found test",
    ),
    "json differs between series": (
        SPEECH,
        replace_member("json", lambda data: data.replace(b'"license":"CC-BY-4.0"', b'"license":"CC0-1.0"')),
        "json: differs from the visual series'",
    ),
    "json not canonical": (VISUAL, replace_member("json", lambda data: data + b"\n"), "json: is not in canonical form"),
    "a member gone": (VISUAL, lambda members: members[1:], "flac: expected to be there, found nothing"),
    "a sample gone": (SPEECH, lambda members: members[2:], "is in the visual series but not in the speech series"),
    "unsorted": (VISUAL, lambda members: [members[1], members[0], *members[2:]], "members are sorted and single"),
    "twice": (VISUAL, lambda members: [*members, *members[:7]], f"is also in {VISUAL}"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_broken_sample_is_named(folder, name):
    path, change, words = CHANGES[name]
    change_tar(folder, path, change)
    faults = [line for line in faults_of(folder) if words in line]
    assert faults, faults_of(folder)
    assert any(line.startswith((f"{path}: clip film-", f"{VISUAL}: clip film-")) for line in faults), faults


def test_only_decoding_finds_damage_behind_good_headers(folder):
    def damage(data):
        middle = data.index(b"mdat") + 6000
        return data[:middle] + bytes(range(1, 31)) + data[middle + 30 :]

    change_tar(folder, VISUAL, replace_member("mp4", damage))
    assert not [line for line in faults_of(folder, deep=False) if "mp4" in line]
    assert [line for line in faults_of(folder) if "mp4: expected undamaged frames, found 1 of 5" in line]


# ---- tars that no writer of ours made --------------------------------------------------------------


def renamed(name, **fields):
    def change(members):
        member = tarfile.TarInfo(name)
        for field, value in fields.items():
            setattr(member, field, value)
        return [*members, (member, b"" if fields.get("type") else b"x")]

    return change


FOREIGN = {
    "escape": (renamed("../../evil.json"), "is no KEY.suffix"),
    "absolute": (renamed("/etc/passwd"), "is no KEY.suffix"),
    "nested": (renamed("film/x.json"), "is no KEY.suffix"),
    "unknown suffix": (renamed("zz.exe"), "json: expected 1 to"),
    "link": (renamed("zz.json", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "is no plain file"),
    "device": (renamed("zz.json", type=tarfile.CHRTYPE), "is no plain file"),
    "owner": (renamed("zz.json", uid=1000, uname="alice"), "has owner 1000:0 alice"),
    "time": (renamed("zz.json", mtime=5), "time 5"),
    "mode": (renamed("zz.json", mode=0o777), "mode 0777"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_members_are_named(folder, tmp_path, name):
    change, words = FOREIGN[name]
    change_tar(folder, VISUAL, change)
    assert [line for line in faults_of(folder) if line.startswith(VISUAL) and words in line], faults_of(folder)
    assert not (Path(tmp_path).parent / "evil.json").exists()


def test_an_unknown_suffix_of_a_real_sample(folder):
    def change(members):
        key = members[-1][0].name.partition(".")[0]
        return [*members, (tarfile.TarInfo(f"{key}.zip"), b"x")]

    change_tar(folder, VISUAL, change)
    assert any(
        "zip: expected a field of the visual series, found an unknown suffix" in line for line in faults_of(folder)
    )


@pytest.mark.parametrize("path", ["../outside.tar", "/etc/passwd", "a/../b", "train/.hidden", "x y", "a//b", "a\nb"])
def test_paths_that_leave_the_release_are_not_followed(folder, path):
    release = json.loads((folder / RELEASE_FILE).read_bytes())
    release["files"][path] = "0" * 64
    (folder / RELEASE_FILE).write_bytes(canonical_json(release))
    assert faults_of(folder) == [f"release.json: names the unusable path {path!r}"]


def test_identities_without_permission(folder):
    def add(members):
        member = tarfile.TarInfo(members[1][0].name.partition(".")[0] + ".identity.npy")
        index = next(i for i, (m, _) in enumerate(members) if m.name.endswith(".flac")) + 1
        return [*members[:index], (member, encode_npy(np.zeros(512, "f4"))), *members[index:]]

    change_tar(folder, VISUAL, add)
    assert any("identity.npy: is in a release that was made without identities" in line for line in faults_of(folder))


# ---- record and tables -----------------------------------------------------------------------------


def edit_record(folder, **changes):
    release = json.loads((folder / RELEASE_FILE).read_bytes())
    (folder / RELEASE_FILE).write_bytes(canonical_json(release | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_clips": 7}, "release.json: expected 7 clips, found 6"),
        ({"counts": {"train": {"real": 6}}}, "release.json: expected counts"),
        ({"sources": []}, "release.json: source film is missing"),
        ({"format_version": 2}, "release.json: format_version: "),
        ({"with_identity": "perhaps"}, "release.json: with_identity: "),
        ({"files": {}}, "release.json: does not list manifest.parquet"),
    ],
)
def test_a_record_that_disagrees_is_named(folder, changes, words):
    edit_record(folder, **changes)
    assert any(line.startswith(words) for line in faults_of(folder)), faults_of(folder)


def edit_manifest(folder, **changes):
    table = pq.read_table(folder / MANIFEST_FILE)
    rows = table.to_pylist()
    rows[0].update(changes)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), folder / MANIFEST_FILE)
    reseal(folder, MANIFEST_FILE)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"clip_id": "stranger"}, "clip stranger: is listed but in no visual shard"),
        ({"visual_offset": 512}, "visual part: expected"),
        ({"speech_shard": "x.tar"}, "speech part: expected"),
        ({"license": "CC0-1.0"}, "differs from the clip's json in license"),
        ({"scores_sharpness": 1.0}, "differs from the clip's json in scores_sharpness"),
    ],
)
def test_a_manifest_that_disagrees_is_named(folder, changes, words):
    edit_manifest(folder, **changes)
    assert any(line.startswith(MANIFEST_FILE) and words in line for line in faults_of(folder)), faults_of(folder)


def test_a_score_that_some_clips_have_is_a_column_and_one_that_none_has_is_not(folder, tmp_path_factory):
    assert "scores_speaker" not in pq.read_table(folder / MANIFEST_FILE).column_names
    shelf = small_shelf(2)
    speaker = SpeakerScore(status="unknown", why="nobody is heard")
    item = shelf.items[0]
    clip = item.clip.model_copy(update={"scores": item.clip.scores.model_copy(update={"speaker": speaker})})
    items = [replace(item, clip=clip), *shelf.items[1:]]
    spoken = tmp_path_factory.mktemp("spoken")
    write_release(Storage(spoken), "v1", items, shelf.read, setup=SETUP, pack=PackConfig())
    assert faults_of(spoken) == []
    column = pq.read_table(spoken / MANIFEST_FILE).column("scores_speaker").to_pylist()
    assert [score and score["why"] for score in column].count("nobody is heard") == 1
    assert column.count(None) == len(items) - 1
    edit_manifest(spoken, scores_speaker=None if column[0] else speaker.model_dump())
    assert any("differs from the clip's json in scores_speaker" in line for line in faults_of(spoken))


def test_a_manifest_of_other_columns_or_none(folder):
    table = pq.read_table(folder / MANIFEST_FILE)
    pq.write_table(table.drop_columns(["license"]), folder / MANIFEST_FILE)
    reseal(folder, MANIFEST_FILE)
    assert faults_of(folder) == ["manifest.parquet: has other columns than this version writes"]
    (folder / MANIFEST_FILE).write_bytes(b"PAR1 no")
    reseal(folder, MANIFEST_FILE)
    assert faults_of(folder)[0].startswith("manifest.parquet: is no readable Parquet file")


def test_a_clip_list_that_disagrees_is_named(folder):
    lines = (folder / CLIP_LIST_FILE).read_bytes().splitlines(keepends=True)
    (folder / CLIP_LIST_FILE).write_bytes(
        lines[0].replace(b'"start_s":1.0', b'"start_s":0.5') + b"".join(lines[2:]) + b"{\n"
    )
    reseal(folder, CLIP_LIST_FILE)
    faults = "\n".join(faults_of(folder))
    assert "clips.jsonl: clip film-0: differs from the clip's json" in faults
    assert "clips.jsonl: clip film-1: is not listed" in faults
    assert "clips.jsonl: line 6: " in faults


@pytest.mark.parametrize("text", [b"{}", b"[]", b"nonsense", b'{"wids_version":1,"shardlist":[]}', b'{"shardlist":3}'])
def test_an_index_that_disagrees_is_named(folder, text):
    (folder / "index-train-visual.json").write_bytes(text)
    reseal(folder, "index-train-visual.json")
    assert [line for line in faults_of(folder) if line.startswith("index-train-visual.json: ")]


# ---- the split law ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("second", "identity", "words"),
    [
        (make_source("film"), None, "the source 'film' is in several splits"),
        (make_source("b", title="THE  Film!"), None, "the title 'thefilm' is in several splits"),
        (make_source("b"), "who-film", "the identity 'who-film' is in several splits"),
    ],
)
def test_who_is_in_two_splits_is_named(tmp_path, second, identity, words):
    shelf = Shelf().add("a", "film").add("b", second, split="test", identity=identity)
    write_release(Storage(tmp_path), "v1", shelf.items, shelf.read, setup=SETUP, pack=PackConfig())
    faults = [line for line in faults_of(tmp_path) if words in line]
    assert faults
    assert "test (clip b), train (clip a)" in faults[0]


def test_one_file_under_two_names_is_a_leak(tmp_path):
    shelf = Shelf().add("a", "film").add("b", "copy", split="test")
    shelf.items[1] = replace(shelf.items[1], sha256=shelf.items[0].sha256)
    write_release(Storage(tmp_path), "v1", shelf.items, shelf.read, setup=SETUP, pack=PackConfig())
    assert any("the file '" in line and "is in several splits" in line for line in faults_of(tmp_path))
