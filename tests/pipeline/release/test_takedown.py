"""A take-down leaves nothing of a source, keeps everything of the others, and can be cut off anywhere."""

import hashlib
import io
import json
import os
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flows.cli import application as cli
from pipeline.build import jobs
from pipeline.card.gallery import draw_gallery
from pipeline.release.finished import read_release
from pipeline.release.takedown import forget
from pipeline.release.verify import verify_release
from pipeline.store.storage import Storage
from pipeline.store.tombstones import read_tombstones
from pipeline.store.workspace import Workspace
from schemas.base import canonical_json
from schemas.errors import UsageError, WorkspaceError
from schemas.release import About, Coverage, LostRow, Release, next_name, next_shard_file
from schemas.source import Source
from schemas.tombstone import Tombstone, covering, uri_hash
from tests.helpers import films as films_module
from tests.helpers.films import build, copied, manifest_of, write_manifest
from tests.helpers.release_items import make_source
from tests.helpers.stocked import ABOUT, FILMS, everything, sha256_of, stock, stock_release, stock_shelf
from tests.helpers.stores import bucket, object_store

films, built = films_module.films, films_module.built  # fixtures


@pytest.fixture(scope="module")
def shelf():
    return stock_shelf()


@pytest.fixture(scope="module")
def stocked(shelf, tmp_path_factory):
    """A workspace to copy, never to change."""
    return stock(tmp_path_factory.mktemp("stock") / "ws", shelf).storage.root


@pytest.fixture
def workspace(stocked, tmp_path):
    shutil.copytree(stocked, tmp_path / "ws")
    return Workspace(tmp_path / "ws")


def release_at(workspace: Workspace, name: str) -> tuple[Storage, Release]:
    storage = workspace.storage.below(f"releases/{name}")
    return storage, read_release(storage)


def keys(storage: Storage, path: str) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(storage.read(path))) as tar:
        return list(dict.fromkeys(name.partition(".")[0] for name in tar.getnames()))


def clip_ids(storage: Storage) -> set[str]:
    return set(pq.read_table(io.BytesIO(storage.read("manifest.parquet"))).column("clip_id").to_pylist())


def members_of(shelf, source_id):
    """All bytes that only a source's clips have; the sound of the shelf's clips is one and the same."""
    files = [shelf.files[item.key] for item in shelf.items if item.source.id == source_id]
    return [data for members in files for suffix, data in members.items() if suffix not in {"flac", "valid.npy"}]


# ---- the new release -------------------------------------------------------------------------------


def test_the_new_release_holds_the_others_and_verifies(workspace, shelf):
    done = forget(workspace, "guest", reason="asked by letter")
    new, record = release_at(workspace, "v1-r2")
    assert verify_release(new.uri) == []
    assert clip_ids(new) == {item.clip.clip_id for item in shelf.items if item.source.id != "guest"}
    assert [rewritten.successor for rewritten in done.rewritten] == [new.uri]
    old = release_at(workspace, "v1")[1]
    assert (record.name, record.replaces.name, record.replaces.inputs_hash) == ("v1-r2", "v1", old.inputs_hash)
    assert record.num_clips == old.num_clips - 2
    assert record.counts == {"train": {"real": 5, "mesh": 2}, "test": {"real": 2}}
    assert record.duration_s == pytest.approx(old.duration_s * 9 / 11)
    assert {source.source_id for source in record.sources} == {"film", "toon", "other"}
    assert record.models == old.models


@pytest.mark.parametrize("source_id", [film for film, *_ in FILMS])
def test_nothing_of_a_forgotten_source_is_left_in_the_new_release(workspace, shelf, source_id):
    forget(workspace, source_id)
    new, _ = release_at(workspace, "v1-r2")
    named = [source_id.encode() + b"-", b"The " + source_id.encode(), f"{source_id}.mp4".encode()]
    for name, data in everything(new).items():
        assert not any(member in data for member in members_of(shelf, source_id)), name
        if not name.endswith((".png", ".jpg", ".parquet")):
            assert not any(word in data for word in named), name
    table = pq.read_table(io.BytesIO(new.read("manifest.parquet")))
    assert source_id not in table.column("source_id").to_pylist()
    assert source_id not in str(table.schema.metadata)


def test_shards_without_it_are_the_same_and_the_others_have_new_names(workspace):
    forget(workspace, "guest")
    old, before = release_at(workspace, "v1")
    new, after = release_at(workspace, "v1-r2")
    touched = {shard.path for shard in before.shards if any(key.startswith("guest") for key in keys(old, shard.path))}
    assert touched, "the test needs a shard that holds it"
    assert touched < {shard.path for shard in before.shards}, "and one that does not"
    kept = [shard for shard in before.shards if shard.path not in touched]
    assert [shard for shard in after.shards if shard in before.shards] == kept
    names = {shard.path for shard in before.shards}
    assert all(shard.path not in names for shard in after.shards if shard not in kept), "wids caches by name"
    for shard in kept:
        assert Path(new.path(shard.path)).samefile(old.path(shard.path)), "no byte was copied"


def test_what_remains_of_a_shard_is_in_the_same_order_with_the_same_bytes(workspace):
    forget(workspace, "guest")
    old, before = release_at(workspace, "v1")
    new, after = release_at(workspace, "v1-r2")
    there = {shard.path for shard in after.shards}
    for shard in before.shards:
        remaining = [key for key in keys(old, shard.path) if not key.startswith("guest")]
        successor = shard.path if shard.path in there else next_shard_file(shard.path)
        if not remaining:
            assert successor not in there, "an empty shard is dropped"
            continue
        assert keys(new, successor) == remaining
        with tarfile.open(old.path(shard.path)) as before_tar, tarfile.open(new.path(successor)) as after_tar:
            for member in after_tar:
                assert after_tar.extractfile(member).read() == before_tar.extractfile(member.name).read()


def test_the_manifest_keeps_its_order_and_the_clip_list_its_lines(workspace):
    forget(workspace, "guest")
    (old, _), (new, _) = release_at(workspace, "v1"), release_at(workspace, "v1-r2")
    ids = [pq.read_table(io.BytesIO(at.read("manifest.parquet"))).column("clip_id").to_pylist() for at in (old, new)]
    assert ids[1] == [clip_id for clip_id in ids[0] if not clip_id.startswith("guest")]
    lines = [at.read("clips.jsonl").splitlines() for at in (old, new)]
    assert lines[1] == [line for line in lines[0] if b'"source_id":"guest"' not in line]


def test_pictures_are_those_of_a_release_that_never_had_it(workspace, tmp_path):
    forget(workspace, "guest")
    new, record = release_at(workspace, "v1-r2")
    never = stock_shelf()
    never.items = [item for item in never.items if item.source.id != "guest"]
    stock_release(Storage(tmp_path / "never"), "v1", never)
    pictures = [name for name in record.files if name.endswith((".png", ".jpg"))]
    assert {"overview.png", "sheets/real.jpg"} <= set(pictures)
    for name in pictures:
        assert new.read(name) == (tmp_path / "never" / name).read_bytes(), name


def test_the_cards_say_how_many_left_and_not_which(workspace):
    forget(workspace, "guest")
    forget(workspace, "film")
    new, _ = release_at(workspace, "v1-r3")
    assert About.model_validate_json(new.read("about.json")).forgotten == 2
    assert b"2 sources were taken down" in new.read("README.md")


def test_a_split_that_empties_leaves_with_its_index(workspace):
    forget(workspace, "other")
    _, record = release_at(workspace, "v1-r2")
    assert set(record.counts) == {"train"}
    assert not [name for name in record.files if "test" in name]
    assert not [shard for shard in record.shards if shard.split == "test"]


def test_models_that_only_it_needed_leave_with_it(tmp_path):
    shelf = stock_shelf((("film", "train", "real", 2), ("toon", "train", "mesh", 1)))
    clip = shelf.items[-1].clip
    models = {"facemesh": "bb", "toonmesh": "cc"}
    shelf.items[-1] = replace(
        shelf.items[-1],
        clip=clip.model_copy(update={"provenance": clip.provenance.model_copy(update={"models": models})}),
    )
    workspace = stock(tmp_path / "ws", shelf, about=None)
    assert release_at(workspace, "v1")[1].models == {"facemesh": "aa, bb", "toonmesh": "cc"}
    forget(workspace, "toon")
    assert release_at(workspace, "v1-r2")[1].models == {"facemesh": "aa"}


def test_a_release_of_an_earlier_version_gets_cards_without_a_funnel(stocked, tmp_path, shelf):
    workspace = stock(tmp_path / "ws", shelf, about=None)
    assert not workspace.storage.exists("releases/v1/about.json")
    forget(workspace, "guest")
    new, record = release_at(workspace, "v1-r2")
    assert verify_release(new.uri) == []
    assert "funnel.png" not in record.files
    assert b"1 source was taken down" in new.read("README.md")


def test_a_coverage_report_forgets_it_too(tmp_path, shelf):
    lost = tuple(LostRow(source_id=name, num_clips=2, reason="gone") for name in ("guest", "vanished"))
    about = ABOUT.model_copy(update={"coverage": Coverage(num_listed=15, num_same=11, num_other=0, lost=lost)})
    workspace = stock(tmp_path / "ws", shelf, about=about)
    forget(workspace, "guest")
    new, _ = release_at(workspace, "v1-r2")
    left = About.model_validate_json(new.read("about.json")).coverage
    assert (left.num_listed, left.num_lost, left.lost) == (13, 2, lost[1:])


def test_webdataset_reads_what_is_left(workspace, shelf):
    wds = pytest.importorskip("webdataset")
    forget(workspace, "guest")
    new, record = release_at(workspace, "v1-r2")
    for series in ("visual", "speech"):
        urls = [new.path(shard.path) for shard in record.shards if shard.series == series]
        samples = list(wds.WebDataset(urls, shardshuffle=False).decode())
        assert sorted(sample["__key__"] for sample in samples) == sorted(clip_ids(new))


def test_wids_never_serves_what_was_taken_down_from_its_cache(workspace, tmp_path, shelf):
    wids = pytest.importorskip("wids")

    def read(name: str) -> dict[str, bytes]:
        films_by_key = {}
        for split in ("train", "test"):
            index = workspace.storage.path(f"releases/{name}/index-{split}-visual.json")
            data = wids.ShardListDataset(index, cache_dir=str(tmp_path / "cache"))
            for position in range(len(data)):
                films_by_key[data[position]["__key__"]] = data[position][".mp4"].read()
            data.close()
        return films_by_key

    (tmp_path / "cache").mkdir()
    forget(workspace, "guest")
    before = read("v1")
    assert before.keys() == shelf.files.keys()
    after = read("v1-r2")
    assert after == {key: data for key, data in before.items() if not key.startswith("guest")}


# ---- which releases --------------------------------------------------------------------------------


def test_two_sources_one_after_the_other_make_one_line_of_releases(workspace):
    forget(workspace, "guest")
    done = forget(workspace, "film")
    assert workspace.storage.folders("releases") == ["v1", "v1-r2", "v1-r3"]
    assert [rewritten.old.folder for rewritten in done.rewritten] == ["v1-r2"], "v1 has a successor already"
    assert sorted(Path(uri).name for uri in done.holding) == ["v1", "v1-r2"]
    new, record = release_at(workspace, "v1-r3")
    assert clip_ids(new) == {"toon-0", "toon-1", "other-0", "other-1"}
    assert record.replaces.name == "v1-r2"
    assert verify_release(new.uri) == []


def test_dropping_the_old_leaves_one_release(workspace):
    forget(workspace, "guest", drop_old=True)
    assert workspace.storage.folders("releases") == ["v1-r2"]
    assert verify_release(workspace.storage.path("releases/v1-r2")) == []
    done = forget(workspace, "film", drop_old=True)
    assert workspace.storage.folders("releases") == ["v1-r3"]
    assert [Path(uri).name for uri in done.dropped] == ["v1-r2"]


def test_a_release_of_nothing_else_gets_no_successor(workspace, shelf, capsys):
    alone = stock_shelf()
    alone.items = [item for item in alone.items if item.source.id == "guest"]
    stock_release(workspace.storage.below("releases/alone"), "alone", alone)
    assert cli.run(["forget", "guest", "-w", workspace.storage.root]) == 0
    out = capsys.readouterr().out
    assert f"{workspace.storage.path('releases/alone')} held nothing else: no release takes its place" in out
    assert "still holding the material: " in out
    assert workspace.storage.folders("releases") == ["alone", "v1", "v1-r2"]
    assert cli.run(["forget", "guest", "-w", workspace.storage.root, "--drop-old"]) == 0
    assert workspace.storage.folders("releases") == ["v1-r2"]


def test_a_release_without_it_is_left_alone(workspace):
    alone = stock_shelf()
    alone.items = [item for item in alone.items if item.source.id == "film"]
    stock_release(workspace.storage.below("releases/alone"), "alone", alone)
    before = everything(workspace.storage.below("releases/alone"))
    forget(workspace, "guest", drop_old=True)
    assert workspace.storage.folders("releases") == ["alone", "v1-r2"]
    assert everything(workspace.storage.below("releases/alone")) == before


def test_a_name_that_is_used_again_is_another_release(workspace, shelf):
    forget(workspace, "guest", drop_old=True)
    later = stock_shelf()
    later.items = [item for item in later.items if item.source.id in {"film", "toon"}]
    stock_release(workspace.storage.below("releases/v1"), "v1", later)
    forget(workspace, "toon", drop_old=True)
    assert workspace.storage.folders("releases") == ["v1-r3", "v1-r4"]
    left = [clip_ids(release_at(workspace, name)[0]) for name in ("v1-r3", "v1-r4")]
    assert all(not any(clip_id.startswith("toon") for clip_id in ids) for ids in left)


def test_a_release_elsewhere_is_rewritten_where_it_lies(workspace, shelf, tmp_path):
    stock_release(Storage(tmp_path / "shared" / "out"), "out", shelf)
    forget(workspace, "guest", more_releases=[str(tmp_path / "shared")])
    assert sorted(path.name for path in (tmp_path / "shared").iterdir()) == ["out", "out-r2"]
    assert verify_release(str(tmp_path / "shared" / "out-r2")) == []
    with pytest.raises(UsageError, match="holds no release: name a folder or URI in which releases lie"):
        forget(workspace, "guest", more_releases=[str(tmp_path / "shared" / "out")])


def test_the_new_name_can_be_chosen(workspace, capsys):
    assert cli.run(["forget", "guest", "-w", workspace.storage.root, "--as", "clean"]) == 0
    assert workspace.storage.folders("releases") == ["clean", "v1"]
    assert cli.run(["forget", "film", "-w", workspace.storage.root, "--as", "v1"]) == 2
    assert "is taken: choose another name than 'v1'" in capsys.readouterr().err
    assert cli.run(["forget", "film", "-w", workspace.storage.root, "--as", "v1.2"]) == 2
    assert not [stone for stone in read_tombstones(workspace) if stone.source_id == "film"], "nothing was begun"


def test_one_name_for_two_releases_is_refused(workspace, shelf):
    stock_release(workspace.storage.below("releases/second"), "second", shelf)
    with pytest.raises(UsageError, match="2 releases hold the source"):
        forget(workspace, "guest", name="clean")


@pytest.mark.parametrize(
    ("name", "following"), [("v1", "v1-r2"), ("v1-r2", "v1-r3"), ("v1-r9", "v1-r10"), ("a-r", "a-r-r2")]
)
def test_names_count_on(name, following):
    assert next_name(name) == following


def test_a_damaged_shard_is_named_and_stops_the_rewriting(workspace):
    _, record = release_at(workspace, "v1")
    paths = [shard.path for shard in record.shards if shard.domain == "real" and shard.split == "train"]
    for path in paths:
        data = bytearray(workspace.storage.read(f"releases/v1/{path}"))
        data[700] ^= 1
        workspace.storage.write(f"releases/v1/{path}", bytes(data))
    with pytest.raises(WorkspaceError, match=r"train-real-.*\.tar .*: restore the release or delete it"):
        forget(workspace, "guest")
    assert not workspace.storage.exists("releases/v1-r2/release.json")


def test_a_release_that_names_places_outside_itself_is_refused(workspace):
    storage, record = release_at(workspace, "v1")
    shards = (record.shards[0].model_copy(update={"path": "../../build.json"}), *record.shards[1:])
    storage.write("release.json", canonical_json(record.model_copy(update={"shards": shards})))
    with pytest.raises(UsageError, match="unusable path"):
        forget(workspace, "guest")


# ---- the workspace ---------------------------------------------------------------------------------


def test_results_of_every_configuration_media_and_reviews_go_and_no_others(workspace, shelf):
    before = everything(workspace.storage)
    done = forget(workspace, "guest")
    after = everything(workspace.storage)
    assert (done.num_results, done.num_media, done.num_reviews) == (6, 1, 2)
    for name, data in after.items():
        if not name.startswith("releases/v1/"):
            assert not any(member in data for member in members_of(shelf, "guest")), name
    gone = before.keys() - after.keys()
    mine = {name for name, data in before.items() if name.startswith(("results/", "decisions/")) and b"guest" in data}
    folders = {name.rsplit("/", 1)[0] for name in mine if name.startswith("results/")}
    assert gone == mine | {name for name in before if name.rsplit("/", 1)[0] in folders} | {"media/guest/guest.mp4"}
    assert {name: after[name] for name in before.keys() - gone} == {name: before[name] for name in before.keys() - gone}


def test_the_tombstone_keeps_hashes_and_no_address(workspace):
    forget(workspace, "guest", reason="asked by letter")
    data = workspace.storage.read("tombstones/guest.json")
    stone = Tombstone.model_validate_json(data)
    assert stone.sha256s == (sha256_of("guest"),)
    assert stone.uri_hashes == (uri_hash("https://example.org/guest.mp4"),)
    assert stone.clip_ids == ("guest-0", "guest-1")
    assert (stone.reason, bool(stone.at)) == ("asked by letter", True)
    assert b"example.org" not in data
    forget(workspace, "guest")
    assert workspace.storage.read("tombstones/guest.json") == data, "again changes nothing"


def test_what_killed_builds_left_unfinished_goes_too(workspace, shelf):
    workspace.storage.write("results/clip/half/mp4", shelf.files["guest-0"]["mp4"])
    shutil.copytree(workspace.storage.path("releases/v1"), workspace.storage.path("releases/half"))
    workspace.storage.delete("releases/half/release.json")
    workspace.storage.write("releases/notes/thesis.txt", b"three years")
    forget(workspace, "guest")
    assert not workspace.storage.names("results/clip/half")
    assert not workspace.storage.names("releases/half")
    assert workspace.storage.read("releases/notes/thesis.txt") == b"three years"


def test_a_result_of_many_clips_that_names_one_of_its_clips_goes(workspace):
    workspace.storage.write("results/identity/mine/record.json", b'{"clusters": {"film-0": 0, "guest-1": 1}}')
    workspace.storage.write("results/identity/others/record.json", b'{"clusters": {"film-0": 0, "toon-1": 1}}')
    forget(workspace, "guest")
    assert workspace.storage.folders("results/identity") == ["others"]


def test_the_same_file_under_another_id_goes_with_it(tmp_path):
    shelf = stock_shelf((("film", "train", "real", 2), ("guest", "train", "real", 1), ("twin", "train", "real", 1)))
    twin = sha256_of("guest")
    shelf.items[-1] = replace(shelf.items[-1], sha256=twin)
    workspace = stock(tmp_path / "ws", shelf)
    path = next(
        name for name in workspace.storage.names("results/acquire") if b"twin.mp4" in workspace.storage.read(name)
    )
    workspace.storage.write(path, workspace.storage.read(path).replace(sha256_of("twin").encode(), twin.encode()))
    done = forget(workspace, "guest")
    assert done.source_ids == ("guest", "twin")
    assert clip_ids(release_at(workspace, "v1-r2")[0]) == {"film-0", "film-1"}
    assert not workspace.media_path("twin").exists()
    assert not [name for name in workspace.storage.names("results") if b"twin" in workspace.storage.read(name)]
    [stone] = read_tombstones(workspace)
    assert covering([stone], make_source("twin"))
    assert not covering([stone], make_source("film"))


def test_a_stranger_is_refused_in_one_sentence(workspace, capsys):
    before = everything(workspace.storage)
    for name, said in (("nobody", "no source is called 'nobody'"), ("../film", "is not a usable id")):
        assert cli.run(["forget", name, "-w", workspace.storage.root]) == 2
        assert said in capsys.readouterr().err
    assert everything(workspace.storage) == before


@pytest.mark.parametrize(
    ("source", "sha256", "is_kept_out"),
    [
        (make_source("guest", uri="https://elsewhere.org/x.mp4"), None, True),
        (make_source("new", uri="https://example.org/guest.mp4"), None, True),
        (make_source("new", uri="https://ann:pw@example.org/guest.mp4?X-Amz-Signature=1"), None, True),
        (make_source("new", uri="https://elsewhere.org/x.mp4", sha256=sha256_of("guest")), None, True),
        (make_source("new", uri="https://elsewhere.org/x.mp4"), sha256_of("guest"), True),
        (make_source("new", uri="https://example.org/guest.mp4?v=2"), sha256_of("film"), False),
        (make_source("guests"), None, False),
    ],
)
def test_id_address_and_content_keep_a_source_out(source: Source, sha256, is_kept_out):
    stone = Tombstone(
        source_id="guest", sha256s=(sha256_of("guest"),), uri_hashes=(uri_hash("https://example.org/guest.mp4"),)
    )
    assert bool(covering([stone], source, sha256)) is is_kept_out


def test_files_of_one_name_in_two_folders_are_two_addresses():
    assert uri_hash("file:///a/film.mp4") != uri_hash("file:///b/film.mp4")
    assert uri_hash("file:///a/film.mp4") == uri_hash("/a/film.mp4")


# ---- cut off ---------------------------------------------------------------------------------------


class Killed(BaseException):
    """What no code of ours catches, as a kill is."""


STEPS = ("write", "delete", "put_file", "copy_from")


def kill_at(step: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """End the run before the step of that number; returns the list that steps are entered in."""
    taken: list[str] = []

    def counting(real):
        def stepping(*args, **more):
            if len(taken) == step:  # nor does anything happen afterwards, whatever tidies up
                raise Killed
            taken.append(real.__name__)
            return real(*args, **more)

        return stepping

    for name in STEPS:
        monkeypatch.setattr(Storage, name, counting(getattr(Storage, name)))
    monkeypatch.setattr(os, "unlink", counting(os.unlink))  # a disk deletes a folder file by file
    return taken


def without_time(objects: dict[str, bytes]) -> dict[str, object]:
    return {
        name: json.loads(data) | {"at": ""} if name.startswith("tombstones/") else data
        for name, data in objects.items()
    }


def cut_off_everywhere(stocked, tmp_path, monkeypatch, steps, **how):
    """Kill a take-down before each of the steps and run it again: the end is that of the undisturbed run."""
    # Pictures are drawn once here: what they look like is the subject of other tests.
    drawn = {}

    def remembered(storage, rows):
        if not drawn:
            drawn.update(draw_gallery(storage, rows))
        return dict(drawn)

    monkeypatch.setattr("pipeline.card.describe.draw_gallery", remembered)
    shutil.copytree(stocked, tmp_path / "whole")
    with monkeypatch.context() as counted:
        taken = kill_at(-1, counted)
        forget(Workspace(tmp_path / "whole"), "guest", **how)
    whole = without_time(everything(Storage(tmp_path / "whole")))
    for step in steps(len(taken)):
        folder = tmp_path / f"cut{step}"
        shutil.copytree(stocked, folder)
        with monkeypatch.context() as cut:
            kill_at(step, cut)
            with pytest.raises(Killed):
                forget(Workspace(folder), "guest", **how)
        forget(Workspace(folder), "guest", **how)
        assert without_time(everything(Storage(folder))) == whole, f"killed before step {step}: {taken[step]}"
        shutil.rmtree(folder)


def _some(count: int) -> list[int]:
    return [*range(1, count - 3, 11), *range(count - 3, count)]


@pytest.mark.parametrize("how", [{}, {"drop_old": True}, {"name": "clean"}], ids=["kept", "dropped", "named"])
def test_killed_now_and_then_it_ends_the_same(stocked, tmp_path, monkeypatch, how):
    cut_off_everywhere(stocked, tmp_path, monkeypatch, _some, **how)


def test_the_tombstone_is_the_first_thing_written(workspace, monkeypatch):
    before = everything(workspace.storage)
    with monkeypatch.context() as cut:
        kill_at(1, cut)
        with pytest.raises(Killed):
            forget(workspace, "guest")
    after = everything(workspace.storage)
    assert after.keys() - before.keys() == {"tombstones/guest.json"}
    assert before.items() <= after.items(), "a build that comes in between already leaves it out"


@pytest.mark.slow
@pytest.mark.parametrize("how", [{}, {"drop_old": True}], ids=["kept", "dropped"])
def test_killed_before_any_step_it_ends_the_same(tmp_path, monkeypatch, how):
    few = stock_shelf((("film", "train", "real", 2), ("guest", "train", "real", 2)))
    stocked = stock(tmp_path / "ws", few).storage.root
    cut_off_everywhere(stocked, tmp_path, monkeypatch, range, **how)


# ---- in an object store ----------------------------------------------------------------------------


def test_in_an_object_store_it_ends_in_the_same_bytes(workspace, shelf, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with object_store(monkeypatch):
        away = stock(f"{bucket()}/team/ws", shelf)
        copied_by_us = []
        monkeypatch.setattr(away.storage.fs.__class__, "get_file", lambda *args, **_: copied_by_us.append(args))
        for at in (workspace, away):
            forget(at, "guest", drop_old=True)
        assert copied_by_us == []
        here, there = (without_time(everything(at.storage)) for at in (workspace, away))
        # Ledger rows carry the time of day; local media are no copies in a store.
        assert {name for name in here if not name.startswith("media/")} == {
            name for name in there if not name.startswith("media/")
        }
        assert "media/guest/guest.mp4" not in there
        assert "media/film/film.mp4" in there
        assert not away.media_path("guest").exists()
        for name in here.keys() & there.keys():
            if not name.startswith("ledger/"):
                assert here[name] == there[name], name
        assert verify_release(f"{away.storage.uri}/releases/v1-r2") == []


# ---- builds afterwards -----------------------------------------------------------------------------


@pytest.fixture
def fetched(monkeypatch) -> list[str]:
    """Ids of the sources that are really fetched."""
    ids = []
    real = jobs.fetch

    def fetching(source, *args, **more):
        ids.append(source.id)
        return real(source, *args, **more)

    monkeypatch.setattr(jobs, "fetch", fetching)
    return ids


def status(workspace: Path, capsys) -> dict:
    capsys.readouterr()
    assert cli.run(["status", "-w", str(workspace), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_later_build_leaves_it_out_by_id_address_and_content(built, films, tmp_path, fetched, capsys):
    copy = copied(built, tmp_path)
    assert build(copy.manifest, copy.workspace, "--inline", "--set", "crop.size_px=96") == 0
    fetched.clear()
    clips = Storage(copy.workspace / "results" / "clip")
    assert len(clips.folders("")) == 4, "two configurations"
    local = digest(films / "talker.mp4")
    assert cli.run(["forget", "talker", "-w", str(copy.workspace)]) == 0
    assert len(clips.folders("")) == 2
    assert digest(films / "talker.mp4") == local, "a local film is the user's own"
    capsys.readouterr()
    assert cli.run(["verify", str(copy.workspace / "releases" / "first-r2")]) == 0

    again = manifest_of(films, tmp_path / "again.yaml", head=str(films / "talker.mp4"))
    assert build(again, copy.workspace, "--inline") == 0
    answer = status(copy.workspace, capsys)
    assert answer["forgotten"] == ["talker", "head"], "by its id, and by its address under another"
    assert answer["funnel"][0]["drops"] == [
        {"reason": "forgotten", "count": 2, "median_measured": None, "limit": None}
    ]  # fmt: skip
    assert fetched == []

    shutil.copy(films / "talker.mp4", tmp_path / "copy.mp4")
    other = write_manifest(tmp_path / "other.yaml", [{"id": "stranger", "uri": str(tmp_path / "copy.mp4")}])
    for wanted in (["stranger"], []):
        assert build(other, copy.workspace, "--inline") == 0
        assert status(copy.workspace, capsys)["forgotten"] == ["stranger"], "the same file under another id"
        assert fetched == wanted, "once, to see what it is"
        fetched.clear()
    assert len(clips.folders("")) == 2


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_damaged_tombstone_stops_a_build(workspace, capsys):
    workspace.storage.write("tombstones/guest.json", b"{")
    assert cli.run(["status", "-w", workspace.storage.root]) == 1
    err = capsys.readouterr().err
    assert "tombstones/guest.json is damaged, and without it a forgotten source would come back" in err
