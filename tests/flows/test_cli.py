"""What a person at the command line meets: exit codes, one sentence per mistake, rows in every format."""

import contextlib
import csv
import io
import json
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import typer

from flows.cli import application as cli
from flows.cli import listings
from pipeline.build.results import load_build
from pipeline.store.workspace import Workspace
from tests.helpers import films as films_module
from tests.helpers.films import QUICK, ROOT, Built, build, copied, digests, start, write_manifest
from training.engine.events import FailedEvent, read_events

films, built = films_module.films, films_module.built  # fixtures
SHOT_FIELDS = ["source_id", "start_frame", "stop_frame", "start_s", "stop_s", "boundary"]
PNG = b"\x89PNG\r\n"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsysbinary) -> Run:
    """Run a command in this process: its exit code, standard output and errors."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsysbinary.readouterr()
        code = cli.run([str(argument) for argument in arguments])
        output = capsysbinary.readouterr()
        return code, output.out.decode(), output.err.decode()

    return call


@pytest.fixture
def refused(run) -> Callable[..., str]:
    """Run a command that must end as a user's mistake, in one sentence; returns it."""

    def call(*arguments: object) -> str:
        code, _, text = run(*arguments)
        assert code == 2, text
        assert "Traceback" not in text
        [sentence] = [line for line in text.splitlines() if line.startswith("anitalk: ")]
        return sentence.removeprefix("anitalk: ")

    return call


def commands() -> dict[str, Any]:
    return typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]


# --- help and documentation ---


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_explains_itself_and_is_in_the_readme(name, run):
    code, text, _ = run(name, "--help")
    assert code == 0
    assert commands()[name].help
    for option in re.findall(r"--[a-z][a-z-]+", text):
        assert option == "--help" or any(option in parameter.opts for parameter in commands()[name].params), option
    assert f"anitalk {name}" in (ROOT / "README.md").read_text(), f"README.md never shows 'anitalk {name}'"


def test_no_arguments_shows_the_commands(run):
    _, out, err = run()
    assert "Usage" in out + err
    assert all(name in out + err for name in commands())


@pytest.mark.parametrize("arguments", [["nonsense"], ["build"], ["build", "--nonsense"], ["status"]])
def test_a_wrong_command_line_is_two(run, arguments):
    code, out, err = run(*arguments)
    assert code == 2
    assert "Traceback" not in out + err


# --- exit codes ---


def test_a_finished_build_and_a_sound_release_are_zero(built, run):
    code, out, err = run("build", built.manifest, "-w", built.workspace, *QUICK)
    assert code == 0
    assert "make          2 of 2      clips" in out
    assert [line.split("source ", 1)[1] for line in err.splitlines()] == [
        "1 of 4: talker", "2 of 4: head", "3 of 4: cat", "4 of 4: broken"
    ]  # fmt: skip
    for more in ([], ["--fast"]):
        assert run("verify", built.release, *more) == (0, f"{built.release}: verified, no faults\n", "")


def test_faults_are_one_and_named(built, tmp_path, run):
    shutil.copytree(built.release, tmp_path / "bad")
    shard = next((tmp_path / "bad").rglob("*speech*.tar"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 1
    shard.write_bytes(data)
    code, out, _ = run("verify", tmp_path / "bad")
    assert code == 1
    assert shard.name in out
    assert re.search(r"bad: \d+ faults\n$", out)


def test_a_place_that_holds_no_release_is_said(tmp_path, run):
    code, out, err = run("verify", tmp_path / "nowhere")
    assert code in {1, 2}
    assert "Traceback" not in out + err
    assert str(tmp_path / "nowhere") in out + err


def test_an_interrupted_build_is_130_and_goes_on_later(built, tmp_path):
    workspace = tmp_path / "ws"
    process = start("build", str(built.manifest), "-w", str(workspace), *QUICK)
    deadline = time.monotonic() + 120
    while not list(workspace.rglob("analyse_*.json")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == "anitalk: interrupted: run the same command again to go on"
    assert "Traceback" not in errors
    assert not (workspace / "lock.json").exists()
    assert build(built.manifest, workspace, "--release", "first") == 0
    assert digests(workspace / "releases" / "first") == digests(built.release)


def test_an_interrupt_that_a_library_swallows_is_raised_at_the_next_step():
    from flows.cli.interrupts import kept_interrupts
    from flows.cli.progress import BuildDisplay

    before = signal.getsignal(signal.SIGINT)
    with kept_interrupts(), BuildDisplay() as progress:
        progress.stage("film", "analyse", 1, 2)
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            progress.stage("film", "analyse", 2, 2)
    assert signal.getsignal(signal.SIGINT) is before
    with BuildDisplay() as progress:
        progress.stage("film", "analyse", 1, 2)


def test_two_builds_at_once_are_one_too_many(built, tmp_path, refused):
    workspace = Workspace(tmp_path / "ws", create=True)
    for command in (["build", built.manifest], ["release", "x"], ["gc"]):
        if command[0] != "build":
            workspace.storage.write("build.json", (built.workspace / "build.json").read_bytes())
        with workspace.lock():
            sentence = refused(*command, "-w", tmp_path / "ws")
        assert "is in use by process " in sentence
        assert "wait for it or end it, then run again" in sentence


@pytest.mark.parametrize("command", ["status", "shots", "gc"])
def test_a_folder_that_is_no_workspace_is_said(tmp_path, refused, command):
    assert "is not a workspace: 'anitalk build MANIFEST" in refused(command, "-w", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_build_record_of_another_version_is_said(built, tmp_path, refused):
    copy = copied(built, tmp_path)
    record = json.loads((copy.workspace / "build.json").read_bytes())
    record["config"]["a_later_setting"] = 1
    (copy.workspace / "build.json").write_text(json.dumps(record))
    sentence = refused("status", "-w", copy.workspace)
    assert "build.json is damaged, or another version of anitalk wrote it: run 'anitalk build' again" in sentence
    assert build(copy.manifest, copy.workspace) == 0


# --- listings ---


@pytest.mark.parametrize("name", sorted(listings.LISTINGS))
def test_every_listing_says_the_same_in_every_format(built, tmp_path, run, name):
    def listed(form: str) -> str:
        code, out, err = run(name, "-w", built.workspace, "--format", form)
        assert (code, err) == (0, "")
        return out

    rows = json.loads(listed("json"))
    assert rows
    cells = list(csv.DictReader(io.StringIO(listed("csv"))))
    assert [list(row) for row in cells] == [list(rows[0])] * len(rows)
    assert [[cell or "" for cell in row.values()] for row in cells] == [
        ["" if value is None else str(value) for value in row.values()] for row in rows
    ]
    file = tmp_path / "rows.parquet"
    assert run(name, "-w", built.workspace, "-f", "parquet", "-o", file)[0] == 0
    assert pq.read_table(file).to_pylist() == rows
    table = listed("table")
    assert table.splitlines()[0].split() == list(rows[0])
    assert table.endswith(f"\n{len(rows)} row{'' if len(rows) == 1 else 's'}\n")
    assert run(name, "-w", built.workspace, "-o", tmp_path / "rows.txt")[0] == 0
    assert (tmp_path / "rows.txt").read_text() == table


@pytest.mark.parametrize("name", sorted(listings.LISTINGS))
def test_every_listing_of_nothing_still_has_its_columns(films, built, tmp_path, run, name, monkeypatch):
    _, text, _ = run(name, "-w", built.workspace, "-f", "json")
    columns = list(json.loads(text)[0])
    workspace = Workspace(tmp_path / "ws", create=True)
    record = load_build(Workspace(built.workspace)).model_copy(update={"sources": ()})
    workspace.storage.write("build.json", record.model_dump_json().encode())
    assert json.loads(run(name, "-w", tmp_path / "ws", "-f", "json")[1]) == []
    assert run(name, "-w", tmp_path / "ws", "-f", "csv")[1] == ",".join(columns) + "\n"
    assert run(name, "-w", tmp_path / "ws")[1].endswith("\n0 rows\n")
    assert run(name, "-w", tmp_path / "ws", "-f", "parquet", "-o", tmp_path / "none.parquet")[0] == 0
    empty = pq.read_table(tmp_path / "none.parquet")
    assert (empty.num_rows, empty.column_names) == (0, columns)


def test_shots_are_a_list_of_objects_with_exact_fields(built, run):
    shots = json.loads(run("shots", "-w", built.workspace, "--format", "json")[1])
    assert all(list(shot) == SHOT_FIELDS for shot in shots)
    head = [shot for shot in shots if shot["source_id"] == "head"]
    assert [(shot["start_frame"], shot["boundary"]) for shot in head] == [(0, "start"), (82, "cut")]
    assert head[0]["stop_frame"] == 82
    assert head[0]["stop_s"] == pytest.approx(82 / 24, abs=1e-3)


def test_sources_say_how_far_each_got(built, run):
    rows = {row["source_id"]: row for row in json.loads(run("sources", "-w", built.workspace, "-f", "json")[1])}
    assert [(row["state"], row["num_clips"]) for row in rows.values()] == [
        ("done", 1), ("done", 1), ("done", 0), ("failed", 0)
    ]  # fmt: skip
    assert rows["broken"]["reason"] == "decode"
    assert rows["talker"]["fps"] == 25.0


def test_a_listing_that_cannot_be_written_is_said(built, tmp_path, refused):
    (tmp_path / "file").write_text("")
    sentence = refused("clips", "-w", built.workspace, "-o", tmp_path / "file" / "rows.json")
    assert f"cannot write {tmp_path / 'file' / 'rows.json'}" in sentence


# --- build's options ---


def test_a_limit_takes_the_first_sources(built, tmp_path, run):
    code, _, err = run("build", built.manifest, "-w", tmp_path / "ws", "--limit", "1", "--set", "crop.min_clip_s=9")
    assert code == 0
    assert "source 1 of 1: talker" in err
    assert "head" not in err
    assert run("build", built.manifest, "-w", tmp_path / "ws", "--limit", "0")[0] == 2


def test_a_dry_run_writes_nothing(built, tmp_path, run):
    code, out, _ = run("build", built.manifest, "-w", tmp_path / "ws", "--dry-run")
    assert code == 0
    assert not (tmp_path / "ws").exists()
    assert "4 sources in mesh, real would be built in" in out
    assert all(name in out for name in ("talker", "head", "cat", "broken", "CC-PDM-1.0", "silero_vad"))


def test_wrong_settings_are_all_listed(built, tmp_path, run):
    code, _, err = run(
        "build", built.manifest, "-w", tmp_path / "ws",
        "--set", "crop.sise_px=1", "--set", "domains.real.limits.min_speech_ratio=much", "--set", "split.val_ratio=0.9",
    )  # fmt: skip
    assert code == 2
    for name in ("crop.sise_px", "domains.real.limits.min_speech_ratio", "split.val_ratio"):
        [line] = [line for line in err.splitlines() if name in line]
        assert "--set: " in line
        assert "found " in line or line.endswith("did you mean size_px?")
    assert "Traceback" not in err
    assert not (tmp_path / "ws").exists()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("crop.size_px", "--set takes key=value"),
        ("=1", "--set takes key=value"),
        ("crop.size_px={", "is not a YAML value"),
        ("crop=3", "crop"),
        ("domains.reel.limits.max_padding=1", "domains.reel.description"),
    ],
)
def test_a_setting_that_cannot_be_read_is_said(built, tmp_path, run, setting, said):
    code, _, err = run("build", built.manifest, "-w", tmp_path / "ws", "--set", setting)
    assert code == 2
    assert said in err
    assert max(map(len, err.splitlines())) < 400


@pytest.mark.parametrize(
    ("content", "said"),
    [("crop: [", "is not YAML"), ("- a", "must be a mapping of settings"), ("crop: {sise_px: 1}", "crop.sise_px")],
)
def test_a_configuration_that_cannot_be_read_is_said(built, tmp_path, run, content, said):
    path = tmp_path / "config.yaml"
    path.write_text(content)
    code, _, err = run("build", built.manifest, "-w", tmp_path / "ws", "--config", path)
    assert code == 2
    assert said in err
    assert str(path) in err
    assert run("build", built.manifest, "-w", tmp_path / "ws", "--config", tmp_path / "absent.yaml")[0] == 2


def test_settings_come_from_the_file_then_from_the_line(built, tmp_path, run):
    path = tmp_path / "config.yaml"
    path.write_text("split: {seed: 3, val_ratio: 0.1}\n")
    copy = copied(built, tmp_path)
    assert run("build", built.manifest, "-w", copy.workspace, "-c", path, "--set", "split.seed=4", *QUICK)[0] == 0
    config = load_build(Workspace(copy.workspace)).config
    assert (config.split.seed, config.split.val_ratio, config.crop.size_px) == (4, 0.1, 128)


# --- show ---


def test_show_draws_a_clip_by_a_part_of_its_name(built, tmp_path, run):
    code, out, _ = run("show", "talker", "-w", built.workspace, "-o", tmp_path / "new" / "sheet.png")
    assert code == 0
    assert out == f"{tmp_path / 'new' / 'sheet.png'}\n"
    assert (tmp_path / "new" / "sheet.png").read_bytes().startswith(PNG)


def test_an_unknown_or_unclear_clip_is_said(built, tmp_path, refused):
    sheet = tmp_path / "sheet.png"
    assert "no finished clip is called 'nobody'" in refused("show", "nobody", "-w", built.workspace, "-o", sheet)
    assert "fits 2 clips" in refused("show", "e", "-w", built.workspace, "-o", sheet)
    assert not sheet.exists()
    (tmp_path / "file").write_text("")
    assert "cannot write" in refused("show", "talker", "-w", built.workspace, "-o", tmp_path / "file" / "a.png")


# --- release ---


def released(folder: Path) -> list[str]:
    record = json.loads((folder / "release.json").read_bytes())
    return sorted(source["source_id"] for source in record["sources"])


def test_the_same_release_again_is_fine_and_another_of_its_name_is_not(built, tmp_path, run, refused):
    copy = copied(built, tmp_path)
    before = digests(copy.release)
    code, out, _ = run("release", "first", "-w", copy.workspace)
    assert code == 0
    assert f"release  {copy.release}\n" in out
    sentence = refused("release", "first", "-w", copy.workspace, "--set", "split.seed=9")
    assert "releases are never changed: choose another name than 'first'" in sentence
    assert digests(copy.release) == before
    assert run("release", "second", "-w", copy.workspace, "--set", "split.seed=9")[0] == 0


def test_a_release_goes_where_it_is_asked_to_go(built, tmp_path, run, refused):
    copy = copied(built, tmp_path)
    assert run("release", "first", "-w", copy.workspace, "--to", tmp_path / "shelf")[0] == 0
    assert digests(tmp_path / "shelf" / "first") == digests(built.release)
    (tmp_path / "shelf" / "taken").mkdir()
    (tmp_path / "shelf" / "taken" / "letter.txt").write_text("not ours")
    assert "is not empty" in refused("release", "taken", "-w", copy.workspace, "--to", tmp_path / "shelf")
    assert (tmp_path / "shelf" / "taken" / "letter.txt").read_text() == "not ours"


@pytest.mark.parametrize("name", ["v1.0", "../up", "", "a b", "-x"])
def test_a_release_name_that_no_key_can_hold_is_refused(built, run, name):
    code, _, err = run("release", "-w", built.workspace, "--", name)
    assert code == 2
    assert "is not a usable id" in err
    assert sorted(path.name for path in (built.workspace / "releases").iterdir()) == ["first"]


def test_a_name_that_no_release_can_have_is_refused_before_a_build(built, tmp_path, refused):
    error = refused("build", built.manifest, "-w", tmp_path / "ws", "--inline", "--release", "a/b")
    assert "the release's name" in error
    assert "is not a usable id" in error
    assert not (tmp_path / "ws").exists()


def test_a_release_can_be_limited_by_licence(built, films, tmp_path, run, refused):
    copy = copied(built, tmp_path)
    assert run("release", "free", "-w", copy.workspace, "--allow-license", "cc0-1.0")[0] == 0
    assert released(copy.workspace / "releases" / "free") == ["head"]
    both = ["--allow-license", "CC0-1.0", "--allow-license", "CC-PDM-1.0"]
    assert run("release", "both", "-w", copy.workspace, *both)[0] == 0
    assert released(copy.workspace / "releases" / "both") == ["head", "talker"]
    sentence = refused("release", "none", "-w", copy.workspace, "--allow-license", "MIT")
    assert "no clip is left to release (2 were made)" in sentence
    assert not (copy.workspace / "releases" / "none").exists()


def test_a_release_for_commerce_leaves_out_what_may_not_be_sold(built, films, tmp_path, run):
    copy = copied(built, tmp_path)
    text = built.manifest.read_text()
    (tmp_path / "nc.yaml").write_text(text.replace("CC-PDM-1.0", "CC-BY-NC-4.0"))
    assert run("build", tmp_path / "nc.yaml", "-w", copy.workspace, *QUICK)[0] == 0
    assert run("release", "shop", "-w", copy.workspace, "--commercial-only")[0] == 0
    assert released(copy.workspace / "releases" / "shop") == ["head"]


# --- small commands ---


def test_doctor_says_what_is_there_and_what_to_mend(tmp_path, run):
    code, out, _ = run("doctor", "-w", tmp_path / "not" / "yet")
    lines = out.splitlines()
    assert all(line.startswith(("ok  ", "MEND")) for line in lines)
    assert code == (1 if any(line.startswith("MEND") for line in lines) else 0)
    for subject in ("python", "opencv", "ffmpeg", "model", "disk"):
        assert any(line.split()[1] == subject for line in lines), subject
    assert not (tmp_path / "not").exists()


def test_schema_prints_one_or_all(run, refused):
    schemas = json.loads(run("schema")[1])
    for name, schema in schemas.items():
        assert json.loads(run("schema", name)[1]) == schema
    assert "there is no record 'nothing': choose from " in refused("schema", "nothing")


def test_a_training_that_cannot_begin_says_so_in_its_events(tmp_path, refused):
    places = ("--shards", tmp_path, "-o", tmp_path / "run", "--events", tmp_path / "events.jsonl")
    sentence = refused("train", "nothing", *places)
    assert "there is no recipe 'nothing': choose from anytalk" in sentence
    assert read_events(tmp_path / "events.jsonl")[0] == [FailedEvent(sentence=sentence, exit_code=2)]


@pytest.mark.parametrize("command", ["build", "shots", "schema", "status"])
def test_a_reader_that_leaves_early_is_no_error(built, command):
    """As in ``anitalk shots … | head -1``."""
    manifest = [str(built.manifest), *QUICK] if command == "build" else []
    workspace = [] if command == "schema" else ["-w", str(built.workspace)]
    process = start(command, *manifest, *workspace)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 0, errors
    assert "Traceback" not in errors
    assert "Exception" not in errors


def test_a_message_of_a_manifest_warns_without_stopping(films, tmp_path, run):
    entries = [{"id": name, "uri": str(films / "cat.mp4")} for name in ("one", "two")]
    code, _, err = run("build", write_manifest(tmp_path / "m.yaml", entries), "-w", tmp_path / "ws", "--dry-run")
    assert code == 0
    assert "warning: " in err
    assert "the film will be used twice" in err


def test_nothing_of_this_was_written_to_the_shared_workspace(built: Built):
    names = sorted(path.name for path in built.workspace.iterdir())
    assert [name for name in names if name not in {".lock", "scratch"}] == [
        "build.json", "ledger", "releases", "results"
    ]  # fmt: skip


def test_embeddings_that_nobody_made_are_not_promised(built, tmp_path, refused):
    copy = copied(built, tmp_path)
    arguments = ("release", "faces", "--workspace", copy.workspace, "--to", tmp_path / "shelf", "--with-identity")
    assert "no clip has a face embedding" in refused(*arguments)
    assert not (tmp_path / "shelf").exists()
