"""A clip list gives its clips again: to the byte from the same file, and honestly counted from any other."""

import json
from pathlib import Path

import pytest

from flows.cli import application as cli
from schemas.cliplist import is_clip_list, read_clip_list
from schemas.source import ManifestError
from tests.helpers import films as films_module
from tests.helpers.films import QUICK, digests, write_manifest

films, built = films_module.films, films_module.built  # fixtures
PLAIN = "uri,domain,license,title,start_s,stop_s,x0,y0,x1,y1"


def rebuild(clip_list: Path, workspace: Path, *more: str) -> int:
    return cli.run(["build", str(clip_list), "-w", str(workspace), *QUICK, *more])


def clips_of(workspace: Path, capsys: pytest.CaptureFixture[str]) -> list[dict]:
    capsys.readouterr()
    assert cli.run(["clips", "-w", str(workspace), "-f", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_same_files_give_the_same_shards_without_detection(built, films, tmp_path):
    clip_list = built.release / "clips.jsonl"
    assert is_clip_list(clip_list)
    assert rebuild(clip_list, tmp_path / "ws", "--media", str(films), "--release", "first") == 0
    shards = {name: sha for name, sha in digests(built.release).items() if name.endswith((".tar", ".jsonl"))}
    again = digests(tmp_path / "ws" / "releases" / "first")
    assert {name: again[name] for name in shards} == shards
    assert not (tmp_path / "ws" / "results" / "analyse").exists()
    assert cli.run(["verify", str(tmp_path / "ws" / "releases" / "first")]) == 0


def test_what_is_lost_is_counted_and_the_rest_is_made(built, films, tmp_path, capsys):
    media = tmp_path / "media"
    media.mkdir()
    (media / "head.mp4").write_bytes((films / "head.mp4").read_bytes())
    assert rebuild(built.release / "clips.jsonl", tmp_path / "ws", "--media", str(media)) == 0
    assert [clip["source_id"] for clip in clips_of(tmp_path / "ws", capsys)] == ["head"]
    capsys.readouterr()
    assert cli.run(["status", "-w", str(tmp_path / "ws"), "--json"]) == 0
    assert "talker.mp4 does not exist" in capsys.readouterr().out


def test_a_plain_list_is_cut_at_its_boxes(films, tmp_path, capsys):
    rows = [
        f"{films / 'talker.mp4'},real,CC0-1.0,A talk,0.2,3.2,60,10,260,210",
        f"{films / 'talker.mp4'},real,CC0-1.0,A talk,0.2,3.2,0.2,0.05,0.8,0.85",
        f"{films / 'talker.mp4'},real,CC0-1.0,A talk,2.0,30.0,60,10,260,210",
    ]
    clip_list = tmp_path / "list.csv"
    clip_list.write_text("\n".join([PLAIN, *rows]))
    assert is_clip_list(clip_list)
    assert rebuild(clip_list, tmp_path / "ws", "--media", str(films)) == 0
    clips = clips_of(tmp_path / "ws", capsys)
    # Both start together, so which comes first is decided by their ids, and those hold the file's path.
    assert sorted((clip["start_s"], clip["num_frames"], clip["native_crop_px"]) for clip in clips) == [
        (0.2, 75, 200.0),
        (0.2, 75, 205.0),
    ]
    assert all(clip["landmark_ratio"] > 0.9 for clip in clips)
    assert cli.run(["status", "-w", str(tmp_path / "ws")]) == 0
    assert "1 not_in_file" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a.mp4,real,CC0-1.0,T,3,2,0,0,1,1", "0 <= start_s < stop_s"),
        ("a.mp4,nowhere,CC0-1.0,T,0,3,0,0,1,1", "'nowhere' is no domain"),
        ("a.mp4,real,CC0-1.0,T,zero,3,0,0,1,1", "start_s"),
        ("a.mp4,real,CC0-1.0,T,0,3,5,0,1,1", "a box needs x0 < x1"),
        ("ftp://x/a.mp4,real,CC0-1.0,T,0,3,0,0,1,1", "scheme 'ftp:' is not allowed"),
        ("a.mp4,,CC0-1.0,T,0,3,0,0,1,1", "domain"),
    ],
)
def test_every_mistake_is_told_with_its_line(tmp_path, row, said):
    clip_list = tmp_path / "list.csv"
    clip_list.write_text(f"{PLAIN}\nb.mp4,real,CC0-1.0,T,0,3,0,0,1,1\n{row}\n")
    with pytest.raises(ManifestError) as caught:
        read_clip_list(clip_list, {"real"})
    [problem] = caught.value.problems
    assert problem.line == 3
    assert said in str(problem)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_whatever_separates_the_columns_of_a_plain_list(tmp_path, separator):
    clip_list = tmp_path / "list.csv"
    row = "a.mp4,real,CC0-1.0,T,0.2,3.2,60,10,260,210"
    clip_list.write_text(f"{PLAIN}\n{row}".replace(",", separator))
    assert is_clip_list(clip_list)
    (clip,) = read_clip_list(clip_list, ["real"]).clips
    assert (clip.span.start_s, clip.span.stop_s, clip.box.y1) == (0.2, 3.2, 210)


def test_a_list_chooses_no_folder_of_this_machine(built, tmp_path):
    row = json.loads((built.release / "clips.jsonl").read_text().splitlines()[0])
    clip_list = tmp_path / "clips.jsonl"
    for uri in ("file:/etc/passwd", "file:../../etc/passwd", "/etc/passwd"):
        clip_list.write_text(json.dumps({**row, "uri": uri}))
        [source] = read_clip_list(clip_list, {"real", "mesh"}).sources
        assert source.uri == (tmp_path / "passwd").as_uri()


def test_a_manifest_is_no_clip_list(tmp_path):
    manifest = write_manifest(tmp_path / "m.yaml", [{"id": "a", "uri": "a.mp4"}])
    jsonl = tmp_path / "m.jsonl"
    jsonl.write_text('{"id": "a", "uri": "a.mp4", "domain": "real", "license": "CC0-1.0", "title": "T"}\n')
    assert not is_clip_list(manifest)
    assert not is_clip_list(jsonl)
    assert not is_clip_list(tmp_path / "none.csv")
