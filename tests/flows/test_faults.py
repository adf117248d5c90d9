"""What fails around a build ends it with one sentence, and the next run ends in the bytes of an undisturbed one."""

import contextlib
import hashlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from s3fs import S3FileSystem

from flows.cli import application as cli
from pipeline.store.storage import Storage
from tests.helpers import films as films_module
from tests.helpers.films import QUICK, digests
from tests.helpers.stores import bucket, small_disk

films, built = films_module.films, films_module.built  # fixtures


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def moto(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """An object store in a process of its own, ended by its pid; what it held is gone with it."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.1)
        yield server
    finally:
        server.kill()
        server.wait()


def kill_after(server: subprocess.Popen[bytes], ledger: str, num_rows: int) -> None:
    """End the server once that many rows are in the ledger: then a build is under way, however fast the machine."""
    store = S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(store.find(ledger)) < num_rows:
        time.sleep(0.02)
    server.kill()


def test_a_store_that_dies_in_mid_build_costs_a_sentence_and_no_byte(built, tmp_path, monkeypatch, capsys):
    port = free_port()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    S3FileSystem.clear_instance_cache()
    with moto(port) as server:
        uri = f"{bucket()}/ws"
        killer = threading.Thread(target=kill_after, args=(server, f"{uri}/ledger", 3))
        killer.start()
        assert cli.run(["build", str(built.manifest), "-w", uri, *QUICK, "--release", "first"]) == 1
        err = capsys.readouterr().err
        assert "cannot reach" in err
        assert "Traceback" not in err
        killer.join()
    S3FileSystem.clear_instance_cache()
    with moto(port):
        S3FileSystem().mkdir(uri.split("/")[2])
        assert cli.run(["build", str(built.manifest), "-w", uri, *QUICK, "--release", "first"]) == 0
        storage = Storage(f"{uri}/releases/first")
        published = {name: hashlib.sha256(storage.read(name)).hexdigest() for name in storage.names("")}
    S3FileSystem.clear_instance_cache()
    assert published == digests(built.release)


@pytest.mark.ray
def test_a_disk_that_fills_up_under_workers_ends_the_build_with_its_remedy(built, tmp_path, capsys):
    size = ("--set", "crop.size_px=128", "--set", "engine.workers=2")
    with small_disk(tmp_path / "disk", "160k") as disk:
        workspace = disk / "ws"
        assert cli.run(["build", str(built.manifest), "-w", str(workspace), *size]) == 1
        err = capsys.readouterr().err
        assert "the disk is full: free some space and run the same command again" in err
        assert "Traceback" not in err
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        assert cli.run(["build", str(built.manifest), "-w", str(workspace), *QUICK, "--release", "first"]) == 0
        assert digests(workspace / "releases" / "first") == digests(built.release)


@pytest.mark.ray
def test_a_second_build_of_a_workspace_is_refused_while_the_first_is_at_work(built, tmp_path, capsys):
    from tests.helpers.films import environment, program

    workspace = tmp_path / "ws"
    command = program("build", str(built.manifest), "-w", str(workspace), "--set", "crop.size_px=128")
    first = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (workspace / "lock.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert cli.run(["build", str(built.manifest), "-w", str(workspace), *QUICK]) == 2
        assert f"in use by process {first.pid}" in capsys.readouterr().err
    finally:
        first.send_signal(signal.SIGINT)
        assert first.wait(timeout=90) == 130
    assert cli.run(["build", str(built.manifest), "-w", str(workspace), *QUICK, "--release", "first"]) == 0
    assert digests(workspace / "releases" / "first") == digests(built.release)
