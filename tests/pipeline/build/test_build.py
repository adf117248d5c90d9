"""A build computes what is missing and nothing else, and ends in the same bytes however often it was cut off."""

import json
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.cli import application as cli
from pipeline.build import jobs as jobs_module
from pipeline.build.results import Results, load_build
from pipeline.store.workspace import Workspace
from schemas.errors import DecodeError, UsageError
from schemas.ledger import LedgerRow
from schemas.source import Source
from tests.helpers import films as films_module
from tests.helpers.films import QUICK, Built, build, copied, digests, manifest_of, start, write_manifest
from tests.helpers.web import serving

films, built = films_module.films, films_module.built  # fixtures
STAGES = ("fetch", "probe", "analyse_run", "plan_clips", "make_clip")
RUNS_LOCALLY = ("--set", "acquire.allow_private_addresses=true", "--set", "acquire.file_interval_s=0")


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


def rows(workspace: Path, **wanted: str) -> list[LedgerRow]:
    found = Workspace(workspace).ledger()
    return [row for row in found if all(getattr(row, name) == value for name, value in wanted.items())]


def status(workspace: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert cli.run(["status", "-w", str(workspace), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def calls(monkeypatch) -> Counter[str]:
    """How often each stage was really run."""
    counted: Counter[str] = Counter()

    def counting(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def stage(*args: Any, **kwargs: Any) -> Any:
            counted[name] += 1
            return real(*args, **kwargs)

        return stage

    for name in STAGES:
        monkeypatch.setattr(jobs_module, name, counting(name, getattr(jobs_module, name)))
    return counted


# --- the same again ---


def test_running_again_runs_no_stage_and_touches_no_result(built, calls):
    before = stamps(built.workspace / "results"), stamps(built.workspace / "ledger")
    assert build(built.manifest, built.workspace) == 0
    assert calls == Counter()
    assert (stamps(built.workspace / "results"), stamps(built.workspace / "ledger")) == before


def test_every_stage_ran_once_and_said_so(built):
    done = Counter(row.stage for row in rows(built.workspace, outcome="done"))
    assert done == {"acquire": 4, "probe": 3, "analyse": 3, "plan": 3, "clip": 2}
    [failed] = rows(built.workspace, outcome="failed")
    assert (failed.stage, failed.source_id, failed.reason_class) == ("probe", "broken", "decode")
    assert all(row.attempt == 1 and row.key and row.took_s >= 0 for row in rows(built.workspace))


def test_films_and_workspace_elsewhere_give_the_same_release(built, films, tmp_path):
    shutil.copytree(films, tmp_path / "moved films")
    manifest = manifest_of(tmp_path / "moved films", tmp_path / "other.yaml")
    assert build(manifest, tmp_path / "other ws", "--release", "first") == 0
    assert digests(tmp_path / "other ws" / "releases" / "first") == digests(built.release)


def test_no_record_of_a_release_names_a_folder_of_this_machine(built, films):
    for path in built.release.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert str(films).encode() not in content, path
            assert str(built.workspace).encode() not in content, path


# --- cut off ---


def kill_after(num_rows: int, made: Built) -> None:
    """Start the build as a process of its own and kill it once it has written that many rows."""
    process = start("build", str(made.manifest), "-w", str(made.workspace), *QUICK)
    ledger = made.workspace / "ledger"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if ledger.is_dir() and sum(1 for path in ledger.rglob("*.json")) >= num_rows:
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was killed, and had not ended before"


def finish_and_compare(made: Built, undisturbed: Built) -> None:
    assert build(made.manifest, made.workspace, "--release", "first") == 0
    assert digests(made.release) == digests(undisturbed.release)
    assert not list((made.workspace / "releases").rglob(".tmp-*"))


def test_killed_twice_the_build_ends_in_the_same_bytes(built, tmp_path):
    made = Built(built.manifest, tmp_path / "ws")
    kill_after(3, made)
    assert len(rows(made.workspace)) < len(rows(built.workspace))
    kill_after(7, made)
    finish_and_compare(made, built)


@pytest.mark.slow
@pytest.mark.parametrize("num_rows", [1, 2, 4, 5, 6, 8, 9, 10, 12])
def test_killed_anywhere_the_build_ends_in_the_same_bytes(built, tmp_path, num_rows):
    made = Built(built.manifest, tmp_path / "ws")
    kill_after(num_rows, made)
    finish_and_compare(made, built)


@pytest.mark.parametrize("name", ["record.json", "mp4"])
def test_a_crash_between_a_clips_files_costs_only_that_clip(built, tmp_path, name, calls, monkeypatch):
    """A power cut at the worst moment: some files of a result are there, its record is not."""
    made = copied(built, tmp_path)
    folder = next((made.workspace / "results" / "clip").iterdir())
    for path in [folder / "record.json", folder / name]:
        path.unlink(missing_ok=True)
    finish_and_compare_without_release(made, built)
    assert calls == {"make_clip": 1}


def finish_and_compare_without_release(made: Built, undisturbed: Built) -> None:
    assert build(made.manifest, made.workspace) == 0
    assert digests(made.workspace / "results") == digests(undisturbed.workspace / "results")


def test_a_release_that_was_cut_off_is_written_again(built, tmp_path):
    made = copied(built, tmp_path)
    for name in ("release.json", "README.md"):
        (made.release / name).unlink()
    shard = next(made.release.rglob("*.tar"))
    (made.release / ".tmp-visual.tar").write_bytes(shard.read_bytes()[:1000])
    shard.write_bytes(b"half")
    finish_and_compare(made, built)


# --- what a change recomputes ---


def test_a_changed_limit_recomputes_nothing_and_changes_the_decision(built, tmp_path, calls, capsys):
    made = copied(built, tmp_path)
    before = stamps(made.workspace / "results"), stamps(made.workspace / "ledger")
    limit = ("--set", "domains.real.limits.min_speech_ratio=0.999")
    assert build(made.manifest, made.workspace, *limit, "--release", "strict") == 0
    assert calls == Counter()
    assert (stamps(made.workspace / "results"), stamps(made.workspace / "ledger")) == before
    capsys.readouterr()
    assert cli.run(["decisions", "-w", str(made.workspace), "-f", "json"]) == 0
    by_source = {row["clip_id"].rpartition("-")[0]: row for row in json.loads(capsys.readouterr().out)}
    assert by_source["head"]["keep"]
    assert (by_source["talker"]["reason"], by_source["talker"]["limit"]) == ("not_speaking", 0.999)
    release = json.loads((made.workspace / "releases" / "strict" / "release.json").read_bytes())
    assert release["num_clips"] == 1


def test_a_changed_crop_recomputes_plans_and_clips_only(built, tmp_path, calls):
    made = copied(built, tmp_path)
    kept = {stage: stamps(made.workspace / "results" / stage) for stage in ("acquire", "probe", "analyse")}
    assert build(made.manifest, made.workspace, "--set", "crop.crf=30") == 0
    assert calls == {"plan_clips": 3, "make_clip": 2}
    assert {stage: stamps(made.workspace / "results" / stage) for stage in kept} == kept
    assert build(made.manifest, made.workspace) == 0
    assert calls == {"plan_clips": 3, "make_clip": 2}, "the earlier clips are still there"


def test_a_setting_of_one_domain_leaves_the_others_alone(built, tmp_path, calls):
    made = copied(built, tmp_path)
    assert build(made.manifest, made.workspace, "--set", "domains.mesh.faces.stride=4") == 0
    assert (calls["analyse_run"], calls["plan_clips"], calls["make_clip"]) == (1, 1, 1)


def test_a_film_that_changed_on_disk_is_built_again(films, tmp_path, calls, capsys):
    film = tmp_path / "film.mp4"
    shutil.copy(films / "cat.mp4", film)
    manifest = write_manifest(tmp_path / "m.yaml", [{"id": "film", "uri": str(film), "domain": "mesh"}])
    assert build(manifest, tmp_path / "ws") == 0
    assert calls == {name: 1 for name in STAGES if name != "make_clip"}
    film.touch()
    assert build(manifest, tmp_path / "ws") == 0
    assert calls["fetch"] == 1, "content decides, not the date"
    data = bytearray(film.read_bytes())
    data[-1] ^= 1
    film.write_bytes(data)
    assert build(manifest, tmp_path / "ws") == 0
    assert (calls["fetch"], calls["probe"], calls["analyse_run"]) == (2, 2, 2), "nor does the size"
    shutil.copy(films / "head.mp4", film)
    assert build(manifest, tmp_path / "ws") == 0
    assert calls == {"fetch": 3, "probe": 3, "analyse_run": 3, "plan_clips": 3, "make_clip": 1}
    assert [step["passed"] for step in status(tmp_path / "ws", capsys)["funnel"] if step["stage"] == "make"] == [1]


# --- failures ---


def crash_talker(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[str]:
    asked: list[str] = []
    real = jobs_module.make_clip

    def make(path: Path, *args: Any) -> Any:
        asked.append(path.stem)
        if path.stem == "talker":
            raise error
        return real(path, *args)

    monkeypatch.setattr(jobs_module, "make_clip", make)
    return asked


def test_a_crash_costs_its_item_alone_and_three_end_it(built, tmp_path, monkeypatch, capsys):
    made = copied(built, tmp_path)
    shutil.rmtree(made.workspace / "results" / "clip")
    asked = crash_talker(monkeypatch, RuntimeError("a bug"))
    for _ in range(3):
        assert build(made.manifest, made.workspace) == 0
    assert Counter(asked) == {"talker": 3, "head": 1}
    assert build(made.manifest, made.workspace, "--release", "rest") == 0
    assert Counter(asked) == {"talker": 3, "head": 1}, "the fourth run leaves it alone"
    assert "Traceback" not in capsys.readouterr().err
    crashes = rows(made.workspace, outcome="failed", stage="clip")
    said = [(row.reason_class, row.reason, row.source_id) for row in crashes]
    assert said == [("crash", "RuntimeError", "talker")] * 3
    assert sorted(row.attempt for row in crashes) == [2, 3, 4], "the first attempt was the one that worked"
    assert all("RuntimeError: a bug (in " in row.message for row in crashes)
    told = status(made.workspace, capsys)
    assert told["failures_by_class"] == {"crash": 1, "decode": 1}
    make = next(step for step in told["funnel"] if step["stage"] == "make")
    assert (make["entered"], make["passed"]) == (2, 1)
    release = json.loads((made.workspace / "releases" / "rest" / "release.json").read_bytes())
    assert [source["source_id"] for source in release["sources"]] == ["head"]


def test_two_crashes_and_a_repair_leave_no_trace_in_the_results(built, tmp_path, monkeypatch):
    made = copied(built, tmp_path)
    shutil.rmtree(made.workspace / "results" / "clip")
    with monkeypatch.context() as broken:
        crash_talker(broken, MemoryError())
        for _ in range(2):
            assert build(made.manifest, made.workspace) == 0
    finish_and_compare_without_release(made, built)


def test_what_does_not_decode_is_not_tried_again(built, tmp_path, monkeypatch):
    made = copied(built, tmp_path)
    shutil.rmtree(made.workspace / "results" / "clip")
    asked = crash_talker(monkeypatch, DecodeError("talker.mp4 is damaged at 2.0 s"))
    for _ in range(2):
        assert build(made.manifest, made.workspace) == 0
    assert Counter(asked) == {"talker": 1, "head": 1}


def test_a_failed_fetch_is_tried_again_and_a_failed_decode_is_not(films, tmp_path, calls, capsys):
    broken, late = tmp_path / "broken.mp4", tmp_path / "late.mp4"
    broken.write_bytes(b"no film")
    manifest = write_manifest(
        tmp_path / "m.yaml", [{"id": "broken", "uri": str(broken)}, {"id": "late", "uri": str(late)}]
    )
    for run in (1, 2):
        assert build(manifest, tmp_path / "ws") == 0
        assert (calls["fetch"], calls["probe"]) == (1 + run, 1)
    told = status(tmp_path / "ws", capsys)
    assert told["failures_by_class"] == {"decode": 1, "permanent": 1}
    assert [row["attempt"] for row in told["failures"] if row["source_id"] == "late"] == [2]
    shutil.copy(films / "cat.mp4", late)
    assert build(manifest, tmp_path / "ws") == 0
    assert (calls["fetch"], calls["probe"]) == (4, 2)
    assert status(tmp_path / "ws", capsys)["failures_by_class"] == {"decode": 1}


def test_a_film_that_vanished_before_it_was_looked_at_is_a_failure_and_not_forgotten(films, tmp_path, capsys):
    film = tmp_path / "film.mp4"
    shutil.copy(films / "cat.mp4", film)
    manifest = write_manifest(tmp_path / "m.yaml", [{"id": "film", "uri": str(film)}])
    assert build(manifest, tmp_path / "ws") == 0
    film.unlink()
    assert build(manifest, tmp_path / "ws") == 0
    assert status(tmp_path / "ws", capsys)["failures"] == [], "nothing of it is needed any more"
    shutil.rmtree(tmp_path / "ws" / "results" / "analyse")
    shutil.rmtree(tmp_path / "ws" / "results" / "plan")
    assert build(manifest, tmp_path / "ws") == 0
    told = status(tmp_path / "ws", capsys)
    assert (told["failures_by_class"], told["left"]) == ({"permanent": 1}, [])
    assert "film.mp4 does not exist" in told["failures"][0]["message"]
    shutil.copy(films / "cat.mp4", film)
    assert build(manifest, tmp_path / "ws") == 0
    assert status(tmp_path / "ws", capsys)["failures"] == []


def test_a_login_that_one_source_lacks_costs_that_source(films, tmp_path, monkeypatch, capsys):
    real = jobs_module.fetch

    def fetch(source: Source, *args: Any, **kwargs: Any) -> Any:
        if source.id == "closed":
            raise UsageError("s3://closed/a.mp4 needs credentials: set AWS_PROFILE")
        return real(source, *args, **kwargs)

    monkeypatch.setattr(jobs_module, "fetch", fetch)
    entries = [{"id": "closed", "uri": "s3://closed/a.mp4"}, {"id": "open", "uri": str(films / "cat.mp4")}]
    assert build(write_manifest(tmp_path / "m.yaml", entries), tmp_path / "ws") == 0
    told = status(tmp_path / "ws", capsys)
    assert [(row["source_id"], row["message"]) for row in told["failures"]] == [
        ("closed", "s3://closed/a.mp4 needs credentials: set AWS_PROFILE")
    ]
    assert rows(tmp_path / "ws", source_id="open", stage="plan", outcome="done")


def test_the_funnel_adds_up_with_failures_by_class(built, capsys):
    told = status(built.workspace, capsys)
    steps = {step["stage"]: step for step in told["funnel"]}
    for step in told["funnel"]:
        assert step["entered"] == step["passed"] + sum(drop["count"] for drop in step["drops"]) + step["pending"]
    assert [steps[name]["passed"] for name in ("fetch", "probe", "analyse", "make", "select")] == [4, 3, 3, 2, 2]
    assert steps["probe"]["drops"][0]["reason"] == "DecodeError"
    assert told["failures_by_class"] == {"decode": 1}
    assert told["left"] == []
    assert cli.run(["status", "-w", str(built.workspace)]) == 0
    text = capsys.readouterr().out
    assert "failed, decode: 1\n  broken: broken.mp4" in text


def test_what_was_interrupted_is_listed_as_left(built, tmp_path, capsys):
    made = copied(built, tmp_path)
    shutil.rmtree(made.workspace / "results" / "clip")
    results = Results(Workspace(made.workspace), load_build(Workspace(made.workspace)).config)
    assert not results.complete(load_build(results.workspace).sources[0])
    assert status(made.workspace, capsys)["left"] == ["talker", "head"]
    shutil.rmtree(made.workspace / "results" / "analyse")
    assert status(made.workspace, capsys)["left"] == ["talker", "head"], "nobody needs the runs of a finished plan"
    shutil.rmtree(made.workspace / "results" / "plan")
    assert status(made.workspace, capsys)["left"] == ["talker", "head", "cat"]


# --- fetched media ---


def test_media_that_were_fetched_are_dropped_and_not_fetched_again(films, tmp_path, calls, capsys):
    with serving() as server:
        server.file("/head.mp4", (films / "head.mp4").read_bytes())
        local = tmp_path / "cat.mp4"
        shutil.copy(films / "cat.mp4", local)
        entries = [
            {"id": "web", "uri": server.url("/head.mp4"), "domain": "mesh"},
            {"id": "here", "uri": str(local)},
        ]
        manifest = write_manifest(tmp_path / "m.yaml", entries)
        workspace = tmp_path / "ws"
        assert build(manifest, workspace, *RUNS_LOCALLY) == 0
        assert len(server.asked("/head.mp4")) == 1
        size = (films / "head.mp4").stat().st_size
        capsys.readouterr()
        assert cli.run(["gc", "-w", str(workspace)]) == 0
        assert capsys.readouterr().out == f"dropped 1 fetched files, {size / 1e6:.1f} MB\n"
        assert not [path for path in (workspace / "media").rglob("*") if path.is_file()]
        assert local.read_bytes() == (films / "cat.mp4").read_bytes(), "local sources are never touched"
        before = Counter(calls)
        assert build(manifest, workspace, *RUNS_LOCALLY) == 0
        assert calls == before
        assert len(server.asked("/head.mp4")) == 1
        # Where something must be decoded again, the media come back.
        assert build(manifest, workspace, *RUNS_LOCALLY, "--set", "crop.crf=30") == 0
        assert len(server.asked("/head.mp4")) == 2
        assert calls["make_clip"] == before["make_clip"] + 1


def test_what_killed_runs_left_half_written_is_dropped(built, tmp_path, capsys):
    made = copied(built, tmp_path)
    before = digests(made.workspace)
    clip = next((made.workspace / "results" / "clip").iterdir())
    (clip / ".tmp-abc").write_bytes(b"half")
    (made.workspace / "scratch" / "tmpx").mkdir(parents=True)
    (made.workspace / "scratch" / "tmpx" / "half.tar").write_bytes(b"half")
    capsys.readouterr()
    assert cli.run(["gc", "-w", str(made.workspace)]) == 0
    assert "dropped 2 files that interrupted runs left half-written\n" in capsys.readouterr().out
    assert digests(made.workspace) == before


def test_media_that_are_still_needed_stay(films, tmp_path, monkeypatch, capsys):
    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(jobs_module, "make_clip", fail)
    with serving() as server:
        server.file("/head.mp4", (films / "head.mp4").read_bytes())
        manifest = write_manifest(
            tmp_path / "m.yaml", [{"id": "web", "uri": server.url("/head.mp4"), "domain": "mesh"}]
        )
        assert build(manifest, tmp_path / "ws", *RUNS_LOCALLY) == 0
        capsys.readouterr()
        assert cli.run(["gc", "-w", str(tmp_path / "ws")]) == 0
        assert capsys.readouterr().out == "dropped 0 fetched files, 0.0 MB\n"
        assert build(manifest, tmp_path / "ws", *RUNS_LOCALLY) == 0
        assert len(server.asked("/head.mp4")) == 1
