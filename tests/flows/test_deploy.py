"""A deployment builds or trains what the command line does; it can be cancelled, resumed, screened and refused."""

import json
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.prefect.build import MAX_BATCHES, batches
from flows.prefect.train import TrainingEvents, command
from pipeline.release.verify import verify_release
from pipeline.store.workspace import Workspace
from tests.helpers import films as films_module
from tests.helpers.films import ROOT, digests, write_manifest
from tests.helpers.pair_shards import numbered_release
from tests.helpers.prefect_server import Prefect, is_over, prefect_server, wait
from training.engine.events import EventLog, FailedEvent, FinishedEvent, StoppedEvent

films, built = films_module.films, films_module.built  # fixtures
pytestmark = pytest.mark.prefect
QUICK = ["crop.size_px=128"]
TRAIN = "train-anytalk/train-anytalk"
NUM_PAIRS = 300  # so many that a training is cancelled long before its end
SMALL = [
    *("model.preset=tiny64", "model.image_px=32", "model.network_px=32", "model.base_channels=4"),
    *("model.max_channels=16", "model.generator_blocks=1", "model.spade_channels=4", "model.discriminator_blocks=2"),
    *("data.batch_size=2", "data.shuffle_pairs=4", "losses.perceptual.weight=0", "losses.expression.weight=0"),
    *("losses.pixel=100", f"pretrain.num_pairs={NUM_PAIRS}", "num_validation_pairs=4", "log_every=1"),
    *("images_every=25", "validate_every=25"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    with prefect_server(tmp_path_factory.mktemp("prefect")) as started:
        yield started


# --- without a server ---


@given(num_sources=st.integers(1, 5000), most=st.integers(1, 200))
def test_batches_are_all_sources_in_order_and_never_too_many(num_sources, most):
    sources = list(range(num_sources))
    cut = batches(sources, most)
    assert [source for batch in cut for source in batch] == sources
    assert len(cut) <= most
    assert {len(batch) for batch in cut[:-1]} <= {len(cut[0])}


def test_a_thousand_sources_are_at_most_a_hundred_task_runs():
    assert len(batches(list(range(1000)))) == MAX_BATCHES == 100


def test_what_rays_workers_import_knows_no_prefect():
    """Otherwise every worker would look for a server, and start one of its own where it finds none."""
    code = "import sys, flows.ray.worker, flows.ray.cluster; sys.exit('prefect' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


FINISHED = FinishedEvent(step=3, sentence="finished after step 3")
STOPPED = StoppedEvent(step=3, sentence="stopped after step 3")
MISTAKE = FailedEvent(sentence="there is no such thing", exit_code=2)
DAMAGE = FailedEvent(sentence="a shard is damaged", exit_code=1)


@pytest.mark.parametrize(
    ("events", "code", "name", "message"),
    [
        ([FINISHED], 0, "Completed", "finished after step 3"),
        ([STOPPED], 143, "Cancelled", "stopped after step 3"),
        ([STOPPED], 1, "Cancelled", "stopped after step 3"),  # under torchrun, which always ends with 1
        ([MISTAKE], 2, "Refused", "there is no such thing"),
        ([MISTAKE, MISTAKE], 1, "Refused", "there is no such thing"),  # each of two processes
        ([DAMAGE], 1, "Failed", "a shard is damaged"),
        ([DAMAGE, STOPPED], 1, "Failed", "a shard is damaged"),  # torchrun ends the other one
        ([], -9, "Failed", "the training ended with exit code -9: see the run's log"),
        ([FINISHED], -11, "Failed", "the training ended with exit code -11: see the run's log"),
    ],
)
def test_how_a_training_ends_is_how_its_run_ends(tmp_path, events, code, name, message):
    log, read = EventLog(tmp_path / "events.jsonl"), TrainingEvents(tmp_path / "events.jsonl")
    assert read.read() == []
    for event in events:
        log.write(event)
        assert read.read() == [event]
    log.close()
    state = read.state(code)
    assert (state.name, state.message) == (name, message)


def test_a_deployment_starts_the_command_that_people_type():
    alone, four = (command("anytalk", ["--device", "cpu"], number) for number in (1, 4))
    for line in (alone, four):
        assert line[-6:] == ["-m", "anitalk", "train", "anytalk", "--device", "cpu"]
    assert "--nproc-per-node=4" in four
    assert "torch.distributed.run" not in alone


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has died")
def test_a_training_ends_with_a_worker_that_is_killed():
    sleeps = [
        sys.executable,
        "-m",
        "flows.prefect.bound",
        sys.executable,
        "-c",
        "print('up', flush=True); import time; time.sleep(99)",
    ]
    worker = f"import subprocess; print(subprocess.Popen({sleeps}).pid, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", worker], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        said = [parent.stdout.readline().strip() for _ in range(2)]
        child = psutil.Process(int(next(line for line in said if line != "up")))
        assert not is_over(child)
        parent.kill()
    psutil.wait_procs([child], timeout=30)
    assert is_over(child)


# --- through a worker ---


def test_a_run_waits_for_screening_and_then_releases_the_command_lines_bytes(server, built, tmp_path):
    workspace = tmp_path / "ws"
    run_id = server.start(
        manifest=str(built.manifest),
        workspace=str(workspace),
        release="first",
        settings=QUICK,
        inline=True,
        screen=True,
    )
    assert server.wait_for(run_id, "PAUSED")["state"]["name"] == "Suspended"
    assert not (workspace / "releases").exists()
    with Workspace(workspace).lock():  # nobody holds it meanwhile
        pass
    note = server.artifacts(run_id)["anitalk-screening"]["data"]
    assert f"anitalk release first --workspace {workspace}" in note
    server.api("POST", f"/flow_runs/{run_id}/resume", {})
    run = server.wait_for(run_id, "COMPLETED")
    assert run["state"]["message"] == f"2 clips released and verified: {workspace}/releases/first"
    assert digests(workspace / "releases" / "first") == digests(built.release)
    shows_what_it_did(server, run_id, workspace, num_sources=4)


def shows_what_it_did(server: Prefect, run_id: str, workspace: Path, num_sources: int) -> None:
    """Artifacts and task runs of a finished run; resuming has opened no second build."""
    shown = server.artifacts(run_id)
    assert shown["anitalk-progress"]["data"] == 100.0
    funnel = {row["step"]: row for row in json.loads(shown["anitalk-funnel"]["data"])}
    assert (funnel["fetch"]["entered"], funnel["split"]["passed"]) == (num_sources, 2)
    assert "DecodeError 1" in funnel["probe"]["reasons"]
    for key in ("anitalk-funnel-picture", "anitalk-release"):
        assert "(data:image/png;base64," in shown[key]["data"]
    assert f"file://{workspace}/releases/first/README.md" in shown["anitalk-card"]["data"]
    names = Counter(task["name"] for task in wait(lambda: all_ended(server, run_id), "the task runs"))
    assert names == Counter(["open", "talker", "head", "cat", "broken", "release first", "verify"])


def all_ended(server: Prefect, run_id: str) -> list[dict[str, Any]]:
    tasks = server.task_runs(run_id)
    return tasks if all(task["state_type"] == "COMPLETED" for task in tasks) else []


def test_a_cancelled_run_leaves_no_process_and_another_one_goes_on(server, built, tmp_path):
    asked = {"manifest": str(built.manifest), "workspace": str(tmp_path / "ws"), "release": "first", "settings": QUICK}
    run_id = server.start_by_command(**asked)
    wait(lambda: list((tmp_path / "ws" / "ledger").rglob("*.json")), "the first step to be done")
    processes = server.worker.children(recursive=True)
    names = [process.name() for process in processes if not is_over(process)]
    assert "raylet" in names
    assert any(name.startswith("ray::") for name in names)
    commands = [process.cmdline() for process in processes if not is_over(process)]
    assert not any("server" in command for command in commands), "one server is enough"
    server.command("flow-run", "cancel", run_id)
    server.wait_for(run_id, "CANCELLED")
    wait(lambda: all(is_over(process) for process in processes), "its processes to end")
    assert not (tmp_path / "ws" / "releases").exists()

    server.wait_for(server.start(**asked), "COMPLETED")
    assert verify_release(str(tmp_path / "ws" / "releases" / "first")) == []
    assert digests(tmp_path / "ws" / "releases" / "first") == digests(built.release)
    done = Counter((row.stage, row.item) for row in Workspace(tmp_path / "ws").ledger() if row.outcome == "done")
    assert set(done.values()) == {1}, "nothing that was done before is done again"


def test_a_cancelled_training_saves_and_another_run_goes_on_to_its_end(server, release, tmp_path):
    asked = {"shards": str(release), "output": str(tmp_path / "run"), "settings": SMALL, "device": "cpu"}
    run_id = server.start_by_command(TRAIN, **asked)
    wait(lambda: [line for line in server.logs(run_id) if " step 3: 6 of " in line], "some steps")
    server.api("POST", f"/flow_runs/{run_id}/set_state", {"state": {"type": "CANCELLING"}})  # sooner than the command
    server.wait_for(run_id, "CANCELLED")
    saved = wait(lambda: sorted((tmp_path / "run" / "checkpoints").glob("step-*")), "what it saved")
    wait(lambda: all(is_over(process) for process in server.worker.children(recursive=True)), "its processes to end")

    run_id = server.start(TRAIN, **asked, resume=True)
    run = server.wait_for(run_id, "COMPLETED")
    assert re.fullmatch(rf"finished after step {NUM_PAIRS // 2}; held out: made .* gain .* dB", run["state"]["message"])
    assert any(f"begins where {saved[-1].name} ended" in line for line in server.logs(run_id))
    shown = server.artifacts(run_id)
    assert shown["anitalk-training"]["data"] == 100.0
    assert run["state"]["message"] in shown["anitalk-trained"]["data"]
    assert f"![held-out-{NUM_PAIRS // 2:09d}](data:image/png;base64," in shown["anitalk-trained"]["data"]


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return numbered_release(tmp_path_factory.mktemp("release"), {"mesh": 2, "real": 4}, test={"real": 2})


# --- in this process, on the same server ---


@pytest.fixture
def run_here(server: Prefect) -> Iterator[Any]:
    """Run the flow in this process; returns the run as the server knows it."""
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    from flows.prefect.build import build_anitalk

    def run(wanted: Any = build_anitalk, **parameters: Any) -> dict[str, Any]:
        state = wanted(**parameters, return_state=True)
        return server.run(str(state.state_details.flow_run_id))

    with temporary_settings({PREFECT_API_URL: server.url, PREFECT_HOME: server.environment["PREFECT_HOME"]}):
        yield run


def is_refused(server: Prefect, run: dict[str, Any], sentence: str) -> None:
    """One sentence as the state's message and in the log; no traceback, and no second try."""
    state = run["state"]
    assert (state["type"], state["name"], run["run_count"]) == ("FAILED", "Refused", 1)
    assert sentence in state["message"]
    logs = wait(lambda: [line for line in server.logs(run["id"]) if sentence in line], "the sentence in the log")
    assert logs
    assert not any("Traceback" in line for line in server.logs(run["id"]))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"manifest": "/no/such/manifest.yaml"}, "/no/such/manifest.yaml: does not exist"),
        ({"manifest": "films.yaml"}, "manifest 'films.yaml' is a relative path: name the full path on the worker's"),
        ({"settings": ["crop.sise_px=128"]}, "crop.sise_px"),
        ({"config": "/no/such/config.yaml"}, "cannot read the configuration /no/such/config.yaml"),
        ({"release": "a/b"}, "the release's name"),
    ],
)
def test_a_mistake_ends_the_run_with_its_sentence(server, run_here, built, tmp_path, change, sentence):
    asked = {"manifest": str(built.manifest), "workspace": str(tmp_path / "ws"), "limit": 1, "inline": True, **change}
    is_refused(server, run_here(**asked), sentence)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"output": "run"}, "output 'run' is a relative path: name the full path on the worker's machine"),
        ({"output": "s3://bucket/run"}, "output 's3://bucket/run' is a URI: name a folder of the worker's machine"),
        ({"settings": ["model.prset=256"]}, "model.prset"),
        ({"num_processes": 2, "resume": True}, "there is no run in"),
    ],
)
def test_a_trainings_mistake_ends_the_run_with_its_sentence(server, run_here, release, tmp_path, change, sentence):
    from flows.prefect.train import train_anytalk

    asked = {"shards": str(release), "output": str(tmp_path / "run"), "device": "cpu", **change}
    is_refused(server, run_here(train_anytalk, **asked), sentence)


def test_a_workspace_in_use_is_refused_with_its_owner(server, run_here, built, tmp_path):
    with Workspace(tmp_path / "ws", create=True).lock():
        run = run_here(manifest=str(built.manifest), workspace=str(tmp_path / "ws"), inline=True)
    is_refused(server, run, "is in use")


def test_a_fault_that_passes_is_tried_again(server, run_here, films, tmp_path, monkeypatch):
    from flows.prefect import build as deploy

    manifest = write_manifest(tmp_path / "m.yaml", [{"id": "broken", "uri": str(films / "broken.mp4")}])
    monkeypatch.setattr(deploy, "run_batch", deploy.run_batch.with_options(retry_delay_seconds=1))
    in_the_way = tmp_path / "ws" / "ledger"
    in_the_way.parent.mkdir()
    in_the_way.write_text("a file where a folder is needed")
    mend = threading.Timer(0.5, in_the_way.unlink)
    mended = threading.Event()

    def once_refused(*_: object) -> bool:
        if not mended.is_set():
            mended.set()
            mend.start()
        return True

    monkeypatch.setattr(deploy.run_batch, "retry_condition_fn", once_refused)
    run = run_here(manifest=str(manifest), workspace=str(tmp_path / "ws"), inline=True)
    assert mended.is_set(), "it was refused at first"
    assert run["state"]["type"] == "COMPLETED"
    [row] = [row for row in Workspace(tmp_path / "ws").ledger() if row.outcome == "failed"]
    assert row.source_id == "broken"


def test_a_lasting_fault_fails_the_run_with_its_sentence(server, run_here, films, tmp_path, monkeypatch):
    from flows.prefect import build as deploy

    manifest = write_manifest(tmp_path / "m.yaml", [{"id": "broken", "uri": str(films / "broken.mp4")}])
    monkeypatch.setattr(deploy, "run_batch", deploy.run_batch.with_options(retry_delay_seconds=0))
    monkeypatch.setattr(deploy.build_anitalk, "retries", 0)
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws" / "ledger").write_text("a file where a folder is needed")
    run = run_here(manifest=str(manifest), workspace=str(tmp_path / "ws"), inline=True)
    assert (run["state"]["type"], run["state"]["name"]) == ("FAILED", "Failed")
    assert "a file is in the way where a folder is needed" in run["state"]["message"]
