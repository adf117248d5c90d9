"""A Prefect server of one's own on loopback, with a work pool, our deployment and a worker; ended by their pids."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import tenacity

from tests.helpers.films import ROOT

POOL = "anitalk"
DEPLOYMENT = "build-anitalk/build-anitalk"
_PATIENCE_S = 500  # of a machine that does other things too


def _means_later(error: BaseException) -> bool:
    return isinstance(error, urllib.error.HTTPError) and error.code in {429, 502, 503}


@dataclass(frozen=True)
class Prefect:
    """A running server, its worker's process, and the environment by which commands find it."""

    url: str
    environment: dict[str, str]
    worker: psutil.Process

    def command(self, *arguments: str) -> str:
        """What a ``prefect`` command prints."""
        return _command(self.environment, *arguments)

    @tenacity.retry(
        retry=tenacity.retry_if_exception(_means_later),
        stop=tenacity.stop_after_delay(_PATIENCE_S),
        wait=tenacity.wait_exponential(0.25, max=5),
        reraise=True,
    )
    def api(self, method: str, path: str, content: object = None) -> Any:
        """One request to the server's API, asked again as Prefect's own client does while its database is busy."""
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(  # noqa: S310 - our own server
            f"{self.url}{path}", data=data, method=method, headers={"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return json.loads(answer.read() or b"null")

    def start_by_command(self, deployment: str = DEPLOYMENT, **parameters: object) -> str:
        """``prefect deployment run`` with these parameters; the run's id."""
        given = [f"{name}={json.dumps(value)}" for name, value in parameters.items()]
        asked = [part for parameter in given for part in ("--param", parameter)]
        said = self.command("deployment", "run", deployment, *asked)
        return said.split("UUID: ")[1].split()[0]

    def start(self, deployment: str = DEPLOYMENT, **parameters: object) -> str:
        """The same without the seconds that the command needs to start."""
        answer = self.api("GET", f"/deployments/name/{deployment}")
        asked = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        return self.api("POST", f"/deployments/{answer['id']}/create_flow_run", asked)["id"]

    def run(self, run_id: str) -> dict[str, Any]:
        return self.api("GET", f"/flow_runs/{run_id}")

    def wait_for(self, run_id: str, *states: str) -> dict[str, Any]:
        """The run, once it is in one of these states; fails when it ends in another."""
        final = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
        run = wait(lambda: self._in(run_id, {*states, *final}), f"run {run_id} to be {' or '.join(states)}")
        assert run["state"]["type"] in states, run["state"]
        return run

    def _in(self, run_id: str, states: set[str]) -> dict[str, Any] | None:
        run = self.run(run_id)
        return run if run["state"]["type"] in states else None

    def task_runs(self, run_id: str) -> list[dict[str, Any]]:
        """The run's task runs; the server writes them down a little later than their run's end."""
        wanted = {"flow_runs": {"id": {"any_": [run_id]}}, "limit": 200}
        return self.api("POST", "/task_runs/filter", wanted)

    def artifacts(self, run_id: str) -> dict[str, dict[str, Any]]:
        artifacts = self.api("POST", "/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run_id]}}})
        return {artifact["key"]: artifact for artifact in artifacts}

    def logs(self, run_id: str) -> list[str]:
        entries = self.api("POST", "/logs/filter", {"logs": {"flow_run_id": {"any_": [run_id]}}, "limit": 200})
        return [entry["message"] for entry in entries]


@contextmanager
def prefect_server(folder: Path) -> Iterator[Prefect]:
    """Start all of it in ``folder``, as the README says; end it by the ids of its processes."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
    }
    with _process(environment, folder, "server", "start", "--host", "127.0.0.1", "--port", str(port)):
        wait(lambda: _answers(f"{url}/health"), "the server")
        _command(environment, "work-pool", "create", POOL, "--type", "process")
        _command(environment, "deploy", "--all")
        with _process(environment, folder, "worker", "start", "--pool", POOL) as worker:
            yield Prefect(url, environment, worker)


def wait(for_what: Callable[[], Any], name: str) -> Any:
    """What a question answers, once it answers at all."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        answer = for_what()
        if answer:
            return answer
        time.sleep(0.25)
    raise AssertionError(f"waited {_PATIENCE_S} s for {name}")


def is_over(process: psutil.Process) -> bool:
    """Whether a process has ended; one whose parent died may wait as a zombie for ever."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _command(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
        env={**environment, "COLUMNS": "400"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def _process(environment: dict[str, str], folder: Path, *arguments: str) -> Iterator[psutil.Process]:
    with (folder / f"{arguments[0]}.log").open("wb") as log:
        started = subprocess.Popen(
            [sys.executable, "-m", "prefect", *arguments], env=environment, cwd=folder, stdout=log, stderr=log
        )
    process = psutil.Process(started.pid)
    try:
        yield process
    finally:
        with suppress(psutil.NoSuchProcess):
            for member in [process, *process.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    member.kill()
        started.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False
