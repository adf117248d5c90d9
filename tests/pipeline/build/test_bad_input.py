"""Each kind of bad input gets one clear sentence in the right place, and costs no other source anything."""

import json
import shutil
import signal
import struct
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from flows.cli import application as cli
from pipeline.build.results import Results, load_build
from pipeline.store.workspace import Workspace
from schemas.ledger import LedgerRow
from tests.helpers import films as films_module
from tests.helpers.films import Built, build, digests, start, write_manifest
from tests.helpers.media import Coding, Sound, clicks, iter_numbered, write_video
from tests.helpers.stores import small_disk

films, built = films_module.films, films_module.built  # fixtures


@pytest.fixture
def refused(capsys) -> Callable[..., str]:
    """Build what must be refused as a user's mistake; returns the message."""

    def call(manifest: Path, workspace: Path | str, *more: str) -> str:
        capsys.readouterr()
        assert build(manifest, workspace, *more) == 2
        text = capsys.readouterr().err
        assert "Traceback" not in text
        [start] = [line for line in text.splitlines() if line.startswith("anitalk: ")]
        return text[text.index(start) + len("anitalk: ") :].rstrip("\n")

    return call


# --- manifests ---


@pytest.mark.parametrize("name", ["m.yaml", "m.csv", "m.jsonl"])
def test_an_empty_manifest(tmp_path, refused, name):
    (tmp_path / name).write_text("")
    text = refused(tmp_path / name, tmp_path / "ws")
    assert str(tmp_path / name) in text
    assert "is empty" in text or "lists no sources" in text
    assert not (tmp_path / "ws").exists()


def test_a_manifest_that_is_not_there_or_is_a_folder(tmp_path, refused):
    assert f"{tmp_path / 'm.yaml'}: does not exist" in refused(tmp_path / "m.yaml", tmp_path / "ws")
    (tmp_path / "folder.yaml").mkdir()
    assert "is a folder; expected a manifest file" in refused(tmp_path / "folder.yaml", tmp_path / "ws")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"domain": "reel"}, "domain: 'reel' is no domain; did you mean 'real'?"),
        ({"id": "good"}, "id: 'good' is used twice: on line 1 and on line 2"),
        ({"uri": "ftp://example.org/a.mp4"}, "uri: scheme 'ftp:' is not allowed; allowed: file, gs, http, https, s3"),
        ({"id": "../../etc/passwd"}, "id: '../../etc/passwd' is not a usable id: 1 to 96 letters, digits"),
        ({"id": "a.b"}, "id: 'a.b' is not a usable id"),
        ({"licence": "CC0"}, "licence: is no field of a source; did you mean 'license'?"),
    ],
)
def test_every_mistake_of_a_manifest_is_named_before_any_work(tmp_path, refused, entry, said):
    usual = {"domain": "real", "license": "CC0-1.0", "title": "A film"}
    good = {"id": "good", "uri": "good.mp4", **usual}
    bad = {"id": "bad", "uri": "bad.mp4", **usual, **entry}
    worse = {"id": "worse", "uri": "worse.mp4", **usual, "title": ""}
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(json.dumps(source) for source in (good, bad, worse)))
    text = refused(path, tmp_path / "ws")
    assert text.startswith("2 problems in the manifest:\n")
    assert f"{path}:2: {said}" in text
    assert f"{path}:3: title: is empty" in text
    assert not (tmp_path / "ws").exists()


# --- media: one manifest, one build ---


def claim_ten_hours(path: Path) -> None:
    """Rewrite the duration in the header of a Matroska file (element 44 89, a float of 8 bytes, in ms)."""
    data = bytearray(path.read_bytes())
    start = data.index(b"\x44\x89\x88")
    data[start + 3 : start + 11] = struct.pack(">d", 36_000_000.0)
    path.write_bytes(bytes(data))


def without_sound(film: Path, path: Path) -> None:
    with av.open(str(film)) as read, av.open(str(path), "w") as written:
        stream = written.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                written.mux(packet)


def sound_alone(path: Path) -> None:
    with av.open(str(path), "w") as written:
        stream = written.add_stream("aac", rate=48_000, layout="mono")
        for begin in range(0, 48_000, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 48_000, begin, Fraction(1, 48_000)
            written.mux(stream.encode(frame))
        written.mux(stream.encode(None))


def numbered(path: Path, size: tuple[int, int] = (320, 180), num_frames: int = 30, **coding: object) -> None:
    sound = Sound(clicks([0.5], num_frames / 25))
    write_video(path, iter_numbered(num_frames, size), sound=sound, coding=Coding(**coding))  # type: ignore[arg-type]


def plain(path: Path, size: tuple[int, int], codec: str, pix_fmt: str) -> None:
    frames = [np.full((size[1], size[0], 3), 20 * k, np.uint8) for k in range(5)]
    write_video(path, frames, coding=Coding(codec=codec, pix_fmt=pix_fmt))


@pytest.fixture(scope="module")
def zoo(films, tmp_path_factory) -> Built:
    """Every kind of bad medium between sound ones, built once."""
    folder = tmp_path_factory.mktemp("zoo")
    (folder / "folder.mp4").mkdir()
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("To whom it may concern\n" * 200)
    (folder / "noise.mp4").write_bytes(np.random.default_rng(1).bytes(50_000))
    (folder / "head-cut-short.mp4").write_bytes((films / "head.mp4").read_bytes()[:150_000])
    sound_alone(folder / "sound.m4a")
    without_sound(films / "head.mp4", folder / "silent.mp4")
    numbered(folder / "claims.mkv", num_frames=25)
    claim_ten_hours(folder / "claims.mkv")
    plain(folder / "dot.mkv", (1, 1), "ffv1", "yuv444p")
    plain(folder / "wide.mp4", (16_384, 64), "libx264", "yuv420p")
    numbered(folder / "deep.mp4", pix_fmt="yuv420p10le")
    numbered(folder / "laced.mp4", interlaced=True)
    shutil.copy(films / "cat.mp4", folder / "cat.mp4")
    names = sorted(path.name for path in folder.iterdir())
    entries: list[dict[str, object]] = [{"id": Path(name).stem, "uri": name} for name in names]
    entries.insert(0, {"id": "missing", "uri": "missing.mp4"})
    for entry in entries:
        entry["domain"] = "mesh" if entry["id"] == "silent" else "real"
    manifest = write_manifest(folder / "manifest.yaml", entries)
    assert build(manifest, folder / "ws") == 0
    return Built(manifest, folder / "ws")


def failures(built: Built) -> dict[str, list[LedgerRow]]:
    rows_of: dict[str, list[LedgerRow]] = {}
    for row in Workspace(built.workspace).ledger():
        if row.outcome == "failed":
            rows_of.setdefault(row.source_id, []).append(row)
    return rows_of


FAILURES = {
    "missing": ("acquire", "permanent", "SourceError", "missing.mp4 does not exist"),
    "folder": ("acquire", "permanent", "SourceError", "folder.mp4 is no regular file"),
    "empty": ("acquire", "permanent", "SourceError", "empty.mp4 is empty: 0 bytes"),
    "text": ("probe", "decode", "DecodeError", "text.mp4 is not a media file that can be opened"),
    "noise": ("probe", "decode", "DecodeError", "noise.mp4 is not a media file that can be opened"),
    "head-cut-short": ("probe", "decode", "DecodeError", "head-cut-short.mp4 "),
    "sound": (
        "probe", "permanent", "SourceError",
        "sound.m4a has no video stream (audio only): remove the source or name another file",
    ),
    "claims": (
        "probe", "decode", "DecodeError",
        "claims.mkv is cut short: its header claims 36000.0 s, its data end at 1.",
    ),
    "dot": ("probe", "permanent", "SourceError", "dot.mkv is 1×1 px: at least 64 px a side are needed"),
    "wide": ("probe", "permanent", "SourceError", "wide.mp4 is 16384×64 px: at most 8192 px a side are accepted"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_a_bad_medium_is_one_row_with_its_class_and_one_sentence(zoo, name):
    stage, kind, reason, said = FAILURES[name]
    [row] = failures(zoo)[name]
    assert (row.stage, row.reason_class, row.reason) == (stage, kind, reason)
    assert said in row.message
    assert "\n" not in row.message


def test_no_other_source_failed_and_all_of_them_finished(zoo, capsys):
    assert failures(zoo).keys() == FAILURES.keys()
    capsys.readouterr()
    assert cli.run(["sources", "-w", str(zoo.workspace), "-f", "json"]) == 0
    states = {row["source_id"]: row["state"] for row in json.loads(capsys.readouterr().out)}
    assert {name for name, state in states.items() if state == "done"} == {"cat", "deep", "laced", "silent"}
    assert {name for name, state in states.items() if state == "failed"} == FAILURES.keys()
    assert cli.run(["status", "-w", str(zoo.workspace)]) == 0
    text = capsys.readouterr().out
    assert "failed, decode: 4" in text
    assert "failed, permanent: 6" in text
    for name, (*_, said) in FAILURES.items():
        assert f"  {name}: " in text
        assert said in text


def test_odd_but_sound_media_are_taken_for_what_they_are(zoo):
    workspace = Workspace(zoo.workspace)
    recorded = load_build(workspace)
    results = Results(workspace, recorded.config)
    videos = {source.id: results.video(source) for source in recorded.sources}
    deep, laced, silent = videos["deep"], videos["laced"], videos["silent"]
    assert deep is not None
    assert laced is not None
    assert silent is not None
    assert deep.pixel_format == "yuv420p10le"
    assert laced.interlaced
    assert silent.audio is None


def test_a_talker_without_sound_is_a_clip_that_is_turned_down_for_it(zoo, capsys):
    capsys.readouterr()
    assert cli.run(["decisions", "-w", str(zoo.workspace), "-f", "json"]) == 0
    [decision] = json.loads(capsys.readouterr().out)
    assert decision["clip_id"].startswith("silent-")
    assert (decision["keep"], decision["reason"]) == (False, "no_audio")


def test_a_release_of_nothing_says_why_there_is_none(zoo, capsys):
    assert cli.run(["release", "none", "-w", str(zoo.workspace)]) == 2
    assert "no clip is left to release (1 were made): 'anitalk status'" in capsys.readouterr().err


# --- places ---


def test_a_workspace_that_cannot_be_made(built, tmp_path, refused):
    (tmp_path / "file").write_text("")
    assert refused(built.manifest, tmp_path / "file") == f"the workspace {tmp_path / 'file'} is a file: name a folder"
    text = refused(built.manifest, tmp_path / "file" / "ws")
    assert text.endswith("a file is in the way where a folder is needed: choose another place")
    assert refused(built.manifest, "/proc/ws").startswith("cannot write /proc/ws: ")
    assert "cannot use 'nonsense://ws' as a place for files" in refused(built.manifest, "nonsense://ws")


def test_a_file_in_the_way_inside_a_workspace_ends_the_build_and_nothing_hangs(built, tmp_path, capsys):
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws" / "ledger").write_text("in the way")
    assert build(built.manifest, tmp_path / "ws") == 1
    text = capsys.readouterr().err
    assert f"anitalk: cannot write {tmp_path}/ws/ledger/" in text
    assert "a file is in the way where a folder is needed" in text


def test_a_read_only_disk(built, tmp_path, refused):
    with small_disk(tmp_path / "disk", "4m") as disk, small_disk(disk, "4m", remount="ro"):
        text = refused(built.manifest, disk / "ws")
        assert text == f"cannot write {disk / 'ws'}: the file system is read-only: choose another place"
        assert refused(built.manifest, disk).endswith("the file system is read-only: choose another place")


@pytest.mark.parametrize("size", ["60k", "300k"])
def test_a_full_disk_ends_the_build_which_goes_on_where_there_is_room(built, tmp_path, capsys, size):
    with small_disk(tmp_path / "disk", size) as disk:
        assert build(built.manifest, disk / "ws") == 1
        [sentence] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("anitalk: ")]
        assert f"anitalk: cannot write {disk}/ws/" in sentence
        assert "the disk is full: free some space and run the same command again, finished work is kept" in sentence
        with small_disk(disk, "", remount="size=20m"):
            assert build(built.manifest, disk / "ws", "--release", "first") == 0
            assert digests(disk / "ws" / "releases" / "first") == digests(built.release)


def test_a_disk_that_is_full_when_the_release_is_written(built, tmp_path, capsys):
    with small_disk(tmp_path / "disk", "150k") as disk:
        arguments = ["release", "first", "-w", str(built.workspace), "--to", str(disk)]
        assert cli.run(arguments) == 1
        assert "the disk is full: free some space" in capsys.readouterr().err
        assert not (disk / "first" / "release.json").exists(), "what is not whole is no release"
        with small_disk(disk, "", remount="size=20m"):
            assert cli.run(arguments) == 0
            assert digests(disk / "first") == digests(built.release)


def test_a_second_build_is_sent_away_and_the_first_is_not_disturbed(built, tmp_path, refused):
    workspace = tmp_path / "ws"
    first = start("build", str(built.manifest), "-w", str(workspace), *films_module.QUICK, "--release", "first")
    while first.poll() is None and not (workspace / "lock.json").exists():
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)  # so that it cannot end before the second has looked
    try:
        text = refused(built.manifest, workspace)
    finally:
        first.send_signal(signal.SIGCONT)
    assert f"the workspace {workspace} is in use by process {first.pid} on " in text
    _, errors = first.communicate(timeout=120)
    assert first.returncode == 0, errors
    assert digests(workspace / "releases" / "first") == digests(built.release)
