"""On a cluster a build ends in the same bytes as in one process, whatever its workers and nodes go through."""

import asyncio
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from anitalk import PACKAGES
from flows.cli import application as cli
from pipeline.build.compose import Builder, record_build
from pipeline.build.results import tool_version
from pipeline.models.files.weights import WeightsStore
from pipeline.store.ledger import STRIKES
from pipeline.store.workspace import Workspace
from schemas.config import BuildConfig, EngineConfig
from schemas.errors import UsageError
from schemas.source import Source
from tests.helpers import films as films_module
from tests.helpers.faulty_jobs import AbortJob, FaultyJob, HangJob, HogJob, SegmentationFaultJob
from tests.helpers.films import ROOT, Built, digests, environment, program, write_manifest

ray = pytest.importorskip("ray")
cluster = pytest.importorskip("flows.ray.cluster")
connection = pytest.importorskip("flows.ray.connection")
pytestmark = pytest.mark.ray

films, built = films_module.films, films_module.built  # fixtures
SIZE = ("--set", "crop.size_px=128")
SOURCE = Source(id="film", uri="/nowhere/film.mp4", domain="real", license="CC0-1.0", title="A film")


@pytest.fixture(scope="module")
def local() -> Iterator[None]:
    """One cluster for the tests that do not kill theirs."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def on_ray(copy: Built, *more: str) -> int:
    return cli.run(["build", str(copy.manifest), "-w", str(copy.workspace), *SIZE, *more])


# --- the same bytes ---


@pytest.mark.parametrize("workers", [1, 4])
def test_any_number_of_workers_gives_the_release_of_one_process(built, tmp_path, monkeypatch, workers):
    copy = Built(built.manifest, tmp_path / "ws")
    assert on_ray(copy, "--set", f"engine.workers={workers}", "--release", "first") == 0
    assert not ray.is_initialized(), "what the build started, it ended"
    assert digests(copy.release) == digests(built.release)
    before = {path: path.stat().st_mtime_ns for path in copy.workspace.rglob("results/**/*")}
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("nothing to do needs no cluster"))
    assert on_ray(copy) == 0
    assert {path: path.stat().st_mtime_ns for path in copy.workspace.rglob("results/**/*")} == before


@pytest.mark.assets
def test_profile_standard_gives_the_same_release_on_workers(assets, tmp_path):
    """Networks of three runtimes (ONNX Runtime, LiteRT, torch) in a process that they were not loaded in."""
    film = {"id": "talker", "uri": str(assets / "video" / "tps_driving.mp4")}
    manifest = write_manifest(tmp_path / "manifest.yaml", [film])
    settings = ("--profile", "standard", "--set", f"weights.dir={assets / 'weights'}", "--release", "first")
    alone, workers = Built(manifest, tmp_path / "alone"), Built(manifest, tmp_path / "workers")
    assert on_ray(alone, "--inline", *settings) == 0
    assert on_ray(workers, "--set", "engine.workers=1", *settings) == 0
    assert not ray.is_initialized()
    expected = digests(alone.release)
    assert any(name.endswith(".tar") for name in expected)
    assert digests(workers.release) == expected
    assert len(Workspace(workers.workspace).ledger()) == len(Workspace(alone.workspace).ledger())


# --- faults of one item ---


def steps(tmp_path: Path, jobs: list[FaultyJob], **engine: float) -> list[object]:
    """What a builder makes of jobs; the engine joins the module's cluster."""
    workspace = Workspace(tmp_path / "ws", create=True)
    config = BuildConfig()
    record_build(workspace, [SOURCE], config)
    with cluster.ray_engine(str(tmp_path / "ws"), config, EngineConfig(**engine), tool_version()) as performing:
        builder = Builder(workspace, config, performing)

        async def all_of_them() -> list[object]:
            from pipeline.build.compose import _Tries

            return list(await asyncio.gather(*(builder._step(job, _Tries(workspace, SOURCE)) for job in jobs)))

        return asyncio.run(all_of_them())


def faulty(kind: type[FaultyJob], tmp_path: Path, key: str, **more: int) -> FaultyJob:
    notes = tmp_path / f"notes-{key}"
    notes.mkdir(exist_ok=True)
    return kind(source=SOURCE, key=key, notes=str(notes), **more)


def failures(tmp_path: Path, key: str) -> list[tuple[str, str]]:
    rows = [row for row in Workspace(tmp_path / "ws").ledger() if row.key == key and row.outcome == "failed"]
    assert all(row.message for row in rows)
    return [(str(row.reason_class), row.reason) for row in rows]


@pytest.mark.parametrize("kind", [AbortJob, SegmentationFaultJob])
def test_a_worker_that_dies_costs_its_item_and_the_third_time_ends_it(local, tmp_path, kind):
    poison = faulty(kind, tmp_path, "poison")
    others = [faulty(FaultyJob, tmp_path, f"sound{k}") for k in range(4)]
    done = steps(tmp_path, [poison, *others])
    assert done[0] is None
    assert all(done[1:])
    assert poison.tries() == STRIKES
    assert failures(tmp_path, "poison") == [("crash", "abort")] * STRIKES
    assert steps(tmp_path, [poison]) == [None]
    assert poison.tries() == STRIKES, "later builds leave it alone"


def test_an_item_that_fails_once_is_done_in_the_same_build(local, tmp_path):
    shaky = faulty(AbortJob, tmp_path, "shaky", num_faults=1)
    assert all(steps(tmp_path, [shaky]))
    assert (shaky.tries(), failures(tmp_path, "shaky")) == (2, [("crash", "abort")])


def test_a_hang_is_ended_when_its_time_is_up(local, tmp_path):
    stuck, sound = faulty(HangJob, tmp_path, "stuck", num_faults=2), faulty(FaultyJob, tmp_path, "sound")
    assert all(steps(tmp_path, [stuck, sound], timeout_s=8.0))
    assert failures(tmp_path, "stuck") == [("timeout", "timeout")] * 2


def test_a_worker_that_takes_too_much_memory_says_so_and_ends(local, tmp_path):
    hog, sound = faulty(HogJob, tmp_path, "hog", num_faults=1), faulty(FaultyJob, tmp_path, "sound")
    assert all(steps(tmp_path, [hog, sound], memory_cap_bytes=768 * 1024**2))
    assert failures(tmp_path, "hog") == [("crash", "memory")]
    [row] = [row for row in Workspace(tmp_path / "ws").ledger() if row.key == "hog" and row.outcome == "failed"]
    assert "GiB are allowed" in row.message


def test_asking_again_forgives_the_strikes(local, tmp_path):
    poison = faulty(AbortJob, tmp_path, "poison", num_faults=STRIKES)
    assert steps(tmp_path, [poison]) == [None]
    workspace = Workspace(tmp_path / "ws")
    last = workspace.ledger()[-1]
    workspace.log(last.model_copy(update={"outcome": "retry", "reason_class": None, "reason": "", "message": ""}))
    assert all(steps(tmp_path, [poison]))


# --- clusters that cannot be used ---


def test_a_job_that_fits_no_node_is_one_sentence(local, tmp_path):
    with pytest.raises(UsageError, match=r"no node has 64 CPUs for a job \(engine.cpus_per_job\), at most 2"):
        steps(tmp_path, [faulty(FaultyJob, tmp_path, "large")], cpus_per_job=64.0)


def test_a_cluster_that_is_not_there_is_one_sentence(tmp_path, built, capsys):
    ray.shutdown()  # or a build would use the module's
    copy = Built(built.manifest, tmp_path / "ws")
    assert on_ray(copy, "--ray", "127.0.0.1:1") == 2
    err = capsys.readouterr().err
    assert "no Ray cluster answers at 127.0.0.1:1" in err
    assert "Traceback" not in err


def test_a_folder_that_workers_would_import_instead_of_ours_is_one_sentence(tmp_path, built, capsys, monkeypatch):
    ray.shutdown()
    hide_training(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert on_ray(Built(built.manifest, tmp_path / "ws")) == 2
    err = capsys.readouterr().err
    assert f"{tmp_path}/training hides the installed package 'training': run anitalk from another folder" in err
    assert "Traceback" not in err
    assert not ray.is_initialized()


def hide_training(folder: Path) -> None:
    (folder / "training").mkdir()
    (folder / "training" / "__init__.py").write_text("raise SystemExit('this is another project')")


def test_nodes_run_the_code_and_read_the_files_of_this_installation(tmp_path, monkeypatch):
    """Whatever is installed there, and whatever lies in its path."""
    from ray.cluster_utils import Cluster

    ray.shutdown()
    hide_training(tmp_path)
    (tmp_path / "driver").mkdir()
    monkeypatch.chdir(tmp_path / "driver")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        ray.init(address=nodes.address, runtime_env=connection.own_code(), log_to_driver=False, logging_level="ERROR")
        folders, names = ray.get(ray.remote(look_around).remote())
    finally:
        ray.shutdown()
        nodes.shutdown()
    assert folders.keys() == {"anitalk", *PACKAGES}
    assert all("py_modules_files" in folder for folder in folders.values()), folders
    assert names == sorted(WeightsStore().registry)


def look_around() -> tuple[dict[str, str], list[str]]:
    """On a node: where each of our modules lies, and the names in the weights registry, which is a file of ours."""
    import importlib

    importlib.import_module("flows.ray.worker")
    names = ("anitalk", "schemas", "pipeline", "training", "flows", "manifests")
    files = {name: str(importlib.import_module(name).__file__) for name in names}
    weights = importlib.import_module("pipeline.models.files.weights")
    return files, sorted(weights.WeightsStore().registry)


# --- killed ---


def ray_children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def start_on_ray(copy: Built) -> subprocess.Popen[str]:
    command = program("build", str(copy.manifest), "-w", str(copy.workspace), *SIZE, "--set", "engine.workers=2")
    return subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_for_rows(copy: Built, num_rows: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 180
    while process.poll() is None and time.monotonic() < deadline:
        if sum(1 for _ in (copy.workspace / "ledger").rglob("*.json")) >= num_rows:
            return
        time.sleep(0.02)


def gone_within(processes: list[psutil.Process], seconds: float) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return not [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_build_that_is_ended_leaves_no_process_and_resumes(built, tmp_path, how):
    copy = Built(built.manifest, tmp_path / "ws")
    process = start_on_ray(copy)
    wait_for_rows(copy, 5, process)
    children = ray_children(process)
    assert children, "it was at work"
    process.send_signal(how)
    process.communicate(timeout=180)
    assert gone_within(children, 120)
    assert (
        cli.run(["build", str(copy.manifest), "-w", str(copy.workspace), *SIZE, "--inline", "--release", "first"]) == 0
    )
    assert digests(copy.release) == digests(built.release)


def test_a_node_that_goes_away_in_mid_build_changes_nothing(built, tmp_path):
    from ray.cluster_utils import Cluster

    copy = Built(built.manifest, tmp_path / "ws")
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        extra = nodes.add_node(num_cpus=2)
        nodes.wait_for_nodes()
        ended: list[int] = []

        def build() -> None:
            ended.append(on_ray(copy, "--ray", nodes.address, "--release", "first"))

        building = threading.Thread(target=build)
        building.start()
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and not list((copy.workspace / "results").rglob("probe/*/record.json")):
            time.sleep(0.05)
        nodes.remove_node(extra, allow_graceful=False)
        building.join(timeout=300)
        assert ended == [0]
    finally:
        ray.shutdown()
        nodes.shutdown()
    assert digests(copy.release) == digests(built.release)
    rows = Workspace(copy.workspace).ledger()
    assert not [row for row in rows if row.reason_class in {"crash", "timeout"}], "a node's end is no item's fault"
