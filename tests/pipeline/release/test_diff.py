"""What changed between two releases: every change is a row, no change is none, and the exit code tells which."""

import csv
import hashlib
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.cli import application as cli
from pipeline.release.compare import COLUMNS, compare
from pipeline.release.shards import write_release
from pipeline.release.takedown import forget
from pipeline.store.storage import Storage
from schemas.config import PackConfig
from schemas.errors import UsageError
from tests.helpers.release_items import SETUP, Shelf, make_source
from tests.helpers.stocked import stock, stock_shelf
from tests.pipeline.release.test_verify import reseal


def write(folder: Path, shelf: Shelf, name: str = "v1", *, setup=SETUP, pack=None) -> str:
    pack = pack or PackConfig(min_shards=1)
    write_release(Storage(folder), name, shelf.items, shelf.read, setup=setup, pack=pack)
    return str(folder)


def small(*, num: int = 3) -> Shelf:
    shelf = Shelf()
    for number in range(num):
        shelf.add(f"film-{number}", "film")
    return shelf.add("toon-0", "toon", domain="mesh").add("other-0", "other", split="test")


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> str:
    return write(tmp_path_factory.mktemp("diff") / "a", small())


def changes_of(rows: list[dict], *subjects: str) -> list[tuple]:
    """Subject, name and change of the rows of some subjects, of all by default."""
    return [(row["subject"], row["name"], row["change"]) for row in rows if not subjects or row["subject"] in subjects]


def rescored(shelf: Shelf, clip_id: str, **scores) -> Shelf:
    index = next(i for i, item in enumerate(shelf.items) if item.clip.clip_id == clip_id)
    clip = shelf.items[index].clip
    changed = clip.model_copy(update={"scores": clip.scores.model_copy(update=scores)})
    shelf.items[index] = replace(shelf.items[index], clip=changed)
    return shelf


def test_a_release_does_not_differ_from_itself_wherever_it_lies_and_whatever_its_name(before, tmp_path):
    shutil.copytree(before, tmp_path / "moved")
    for other in (before, str(tmp_path / "moved"), write(tmp_path / "named", small(), "v2")):
        assert compare(before, other) == []


def test_what_one_side_gained_the_other_lost(before, tmp_path):
    after = write(tmp_path / "b", small(num=4))
    there, back = compare(before, after), compare(after, before)
    assert ("clip", "film-3", "added") in changes_of(there)
    assert ("clip", "film-3", "removed") in changes_of(back)
    opposite = {"added": "removed", "removed": "added", "changed": "changed"}
    assert [(subject, name, opposite[change]) for subject, name, change in changes_of(back)] == changes_of(there)
    for gained, lost in zip(there, back, strict=True):
        assert (gained["before"], gained["after"]) == (lost["after"], lost["before"])
        assert gained["difference"] == (lost["difference"] and -lost["difference"])


def test_added_clips_are_counted_by_split_and_domain_with_their_length(before, tmp_path):
    rows = compare(before, write(tmp_path / "b", small(num=5)))
    [count] = [row for row in rows if row["subject"] == "clips"]
    assert (count["name"], count["before"], count["after"], count["difference"]) == ("train/real", "3", "5", 2.0)
    named = {row["name"]: row for row in rows if row["subject"] == "release"}
    assert named.keys() == {"num_clips", "duration_s"}
    assert named["num_clips"]["difference"] == 2
    assert named["duration_s"]["difference"] == pytest.approx(0.4)


def test_a_clip_that_went_to_another_split_has_moved(before, tmp_path):
    shelf = small()
    shelf.items = [replace(item, split="val") if item.source.id == "toon" else item for item in shelf.items]
    rows = compare(before, write(tmp_path / "b", shelf))
    assert changes_of(rows, "clip") == [("clip", "toon-0", "moved")]
    [row] = [row for row in rows if row["subject"] == "clip"]
    assert (row["before"], row["after"]) == ("train", "val")
    assert changes_of(rows, "clips") == [("clips", "train/mesh", "changed"), ("clips", "val/mesh", "changed")]


def test_changed_scores_are_named_with_the_largest_change(before, tmp_path):
    shelf = rescored(rescored(small(), "film-0", sharpness=103.0), "film-2", sharpness=91.0, motion=0.03)
    rows = compare(before, write(tmp_path / "b", shelf))
    scores = {row["name"]: row for row in rows if row["subject"] == "score"}
    assert scores.keys() == {"scores_sharpness", "scores_motion"}
    assert scores["scores_sharpness"]["difference"] == -9.0
    assert scores["scores_sharpness"]["detail"] == "in 2 clips; the largest change: film-2"
    assert {row["name"]: row["detail"] for row in rows if row["subject"] == "clip"} == {
        "film-0": "scores_sharpness",
        "film-2": "scores_sharpness, scores_motion",
    }


def test_a_score_that_is_no_longer_known_is_a_change_without_a_number(before, tmp_path):
    rows = compare(before, write(tmp_path / "b", rescored(small(), "film-1", yaw_range_deg=None)))
    [row] = [row for row in rows if row["subject"] == "score"]
    assert (row["name"], row["before"], row["after"], row["difference"]) == ("scores_yaw_range_deg", "10", "", None)
    assert row["change"] == "changed"


def test_sources_come_go_and_change_their_terms(before, tmp_path):
    shelf = small()
    closed = make_source("toon", domain="mesh", license="CC-BY-NC-4.0")
    shelf.items = [
        replace(item, source=closed) if item.source.id == "toon" else item
        for item in shelf.items
        if item.source.id != "other"
    ]
    shelf.add("new-0", "new")
    rows = [row for row in compare(before, write(tmp_path / "b", shelf)) if row["subject"] == "source"]
    assert [(row["name"], row["change"], row["detail"]) for row in rows] == [
        ("new", "added", "CC-BY-4.0"),
        ("other", "removed", "CC-BY-4.0"),
        ("toon", "changed", "license"),
    ]
    assert (rows[2]["before"], rows[2]["after"]) == ("CC-BY-4.0", "CC-BY-NC-4.0")


def test_models_version_and_configuration_are_compared(before, tmp_path):
    shelf = small()
    clip = shelf.items[0].clip
    provenance = clip.provenance.model_copy(update={"models": {"facemesh": "bb", "hubert": "cc"}})
    shelf.items[0] = replace(shelf.items[0], clip=clip.model_copy(update={"provenance": provenance}))
    setup = replace(SETUP, tool_version="0.2.0", config_hash="decaf", requested={"train": {"real": 9}})
    rows = compare(before, write(tmp_path / "b", shelf, setup=setup))
    assert changes_of(rows, "model") == [("model", "facemesh", "changed"), ("model", "hubert", "added")]
    assert changes_of(rows, "release") == [
        ("release", "tool_version", "changed"),
        ("release", "config_hash", "changed"),
    ]
    assert changes_of(rows, "requested") == [("requested", "train/real", "changed")]


def test_other_bytes_of_the_same_rows_are_told_of_as_a_shard(before, tmp_path):
    shelf = small()
    pose = bytearray(shelf.files["toon-0"]["pose.npy"])
    pose[-1] ^= 1  # the lowest bits of a confidence
    shelf.files["toon-0"] = shelf.files["toon-0"] | {"pose.npy": bytes(pose)}
    index = next(i for i, item in enumerate(shelf.items) if item.clip.clip_id == "toon-0")
    clip = shelf.items[index].clip
    digest = hashlib.sha256(bytes(pose)).hexdigest()
    changed = clip.model_copy(update={"files": clip.files | {"pose.npy": digest}})
    shelf.items[index] = replace(shelf.items[index], clip=changed)
    rows = compare(before, write(tmp_path / "b", shelf))
    assert changes_of(rows) == [("shard", "train/mesh/train-mesh-visual-000000.tar", "changed")]
    assert rows[0]["detail"] == "clips; other bytes"


def test_clips_that_are_packed_otherwise_are_the_same_clips(before, tmp_path):
    rows = compare(before, write(tmp_path / "b", small(), pack=PackConfig(min_shards=3)))
    assert {row["subject"] for row in rows} == {"shard"}


def test_after_a_take_down_only_its_clips_are_gone(tmp_path):
    workspace = stock(tmp_path / "ws", stock_shelf())
    forget(workspace, "guest")
    rows = compare(workspace.storage.path("releases/v1"), workspace.storage.path("releases/v1-r2"))
    assert changes_of(rows, "clip") == [("clip", "guest-0", "removed"), ("clip", "guest-1", "removed")]
    assert changes_of(rows, "source") == [("source", "guest", "removed")]
    assert changes_of(rows, "score", "field", "model") == []
    [count] = [row for row in rows if row["subject"] == "clips"]
    assert (count["name"], count["difference"]) == ("train/real", -2.0)


def test_a_column_that_one_version_lacks_is_named(before, tmp_path):
    shutil.copytree(before, tmp_path / "b")
    table = pq.read_table(tmp_path / "b" / "manifest.parquet").drop_columns(["scores_motion"])
    pq.write_table(
        table.append_column("mood", pa.array(["fine"] * table.num_rows)), tmp_path / "b" / "manifest.parquet"
    )
    reseal(tmp_path / "b", "manifest.parquet")
    rows = compare(before, str(tmp_path / "b"))
    assert changes_of(rows) == [("column", "mood", "added"), ("column", "scores_motion", "removed")]


# ---- on the command line ---------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["table", "json", "csv", "parquet"])
def test_every_format_has_all_rows_and_columns(before, tmp_path, form):
    after = write(tmp_path / "b", small(num=4))
    expected = compare(before, after)
    assert cli.run(["diff", before, after, "--format", form, "-o", str(tmp_path / "out")]) == 1
    data = (tmp_path / "out").read_bytes()
    if form == "json":
        assert json.loads(data) == expected
    elif form == "csv":
        table = list(csv.DictReader(io.StringIO(data.decode())))
        assert [row["name"] for row in table] == [row["name"] for row in expected]
        assert tuple(table[0]) == COLUMNS
    elif form == "parquet":
        assert pq.read_table(io.BytesIO(data)).to_pylist() == expected
    else:
        assert data.decode().splitlines()[-1] == f"{len(expected)} rows"


def test_exit_codes_are_those_of_diff(before, tmp_path, capsys):
    assert cli.run(["diff", before, before]) == 0
    assert "0 rows" in capsys.readouterr().out
    assert cli.run(["diff", before, write(tmp_path / "b", small(num=4))]) == 1
    assert "film-3" in capsys.readouterr().out
    assert cli.run(["diff", before, str(tmp_path / "nowhere")]) == 2
    assert "no finished release at" in capsys.readouterr().err
    assert cli.run(["diff", before]) == 2


def test_a_store_is_compared_with_a_disk(before):
    store = Storage("memory://test-diff/v1")
    for path in Path(before).rglob("*"):
        if path.is_file():
            store.write(str(path.relative_to(before)), path.read_bytes())
    assert compare(before, "memory://test-diff/v1") == []


@pytest.mark.parametrize("change", ["other bytes", "gone"])
def test_a_manifest_that_is_not_the_records_is_refused(before, tmp_path, change):
    shutil.copytree(before, tmp_path / "b")
    if change == "gone":
        (tmp_path / "b" / "manifest.parquet").unlink()
    else:
        (tmp_path / "b" / "manifest.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match=r"manifest\.parquet is .*'anitalk verify .*' says more"):
        compare(before, str(tmp_path / "b"))
