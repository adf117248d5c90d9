"""Start a Ray cluster on this machine, or join one, with this installation's code for its workers."""

import importlib
import logging
import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ray
import tenacity

from anitalk import PACKAGES, SHIPPED, shadowed
from schemas.config import EngineConfig
from schemas.errors import UsageError

_CONNECT_TIMEOUT_S = 10.0
_LOCAL_STORE_BYTES = 100 * 1024**2  # only records travel; Ray's default would take a third of the machine's memory


def connect(settings: EngineConfig, address: str | None, *, verbose: bool) -> bool:
    """Start or join a cluster; says whether the connection is ours to close.

    Raises:
        UsageError: when the cluster cannot be reached, no node has room for a job, or workers would run other code.
    """
    problem = shadowed(Path.cwd())  # Ray puts the driver's folder first on its workers' path
    if problem is not None:
        raise UsageError(problem)
    owns = not ray.is_initialized()  # a notebook's or a test's own is used as it is
    if owns:
        _start_or_join(settings, address, verbose=verbose)
    most = max((node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]), default=0.0)
    if most < settings.cpus_per_job:
        if owns:
            ray.shutdown()
        raise UsageError(
            f"no node has {settings.cpus_per_job:g} CPUs for a job (engine.cpus_per_job), at most {most:g}"
        )
    return owns


def _start_or_join(settings: EngineConfig, address: str | None, *, verbose: bool) -> None:
    # Ray reports usage over the network unless told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"log_to_driver": verbose, "logging_level": logging.ERROR, "configure_logging": verbose}
    try:
        if address is None:
            _start_here(settings.workers or os.cpu_count() or 1, quiet)
        else:
            _check_reachable(address)
            ray.init(address=address, runtime_env=own_code(), **quiet)
    except Exception as error:  # Ray raises plain Exception among others
        ray.shutdown()
        where = "a local Ray cluster cannot be started" if address is None else f"no Ray cluster answers at {address}"
        raise UsageError(
            f"{where} ({' '.join(str(error).split())[:300]}): 'anitalk build --inline' needs none"
        ) from error


def _check_reachable(address: str) -> None:
    """See whether anybody listens there: Ray itself would try for minutes.

    Raises:
        OSError: when nobody does.
    """
    target = urlsplit(address if "://" in address else f"ray://{address}")
    if target.hostname and target.port:
        socket.create_connection((target.hostname, target.port), timeout=_CONNECT_TIMEOUT_S).close()


@tenacity.retry(stop=tenacity.stop_after_attempt(3), reraise=True)
def _start_here(num_cpus: int, quiet: dict[str, Any]) -> None:
    """Start a local cluster; on a busy machine its parts sometimes miss one another's deadlines."""
    ray.shutdown()
    ray.init(
        address="local",
        num_cpus=num_cpus,
        include_dashboard=False,
        object_store_memory=_LOCAL_STORE_BYTES,
        _node_ip_address="127.0.0.1",
        **quiet,
    )


def own_code() -> dict[str, Any]:
    """The part of a runtime environment that has workers run this installation's code, and read its files."""
    modules = [importlib.import_module(name) for name in ("anitalk", *PACKAGES)]
    return {"py_modules": modules, "env_vars": {SHIPPED: "1"}}
