"""How many kills a build survives: drivers, workers and a whole node are ended at random moments, then bytes compared.

    python benchmarks/faults.py --folder out/faults [--kills 10] [--seed 1]

Films are rendered here. Every figure is a count: kills that hit a build at work, and releases that then equalled the
undisturbed one byte for byte.
"""

import argparse
import hashlib
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from pipeline.demo.sources import MANIFEST, render_demo

RELEASE = "faults"
QUICK = ("--set", "crop.size_px=128")


def main() -> int:
    """Run every kind of fault and print the table; 1 when any release differs."""
    parser = argparse.ArgumentParser(description="Count the kills that a build survives.")
    parser.add_argument("--folder", type=Path, default=Path("out/faults"))
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    chance = random.Random(asked.seed)  # noqa: S311 - moments, not secrets
    films = asked.folder / "films"
    render_demo(films)
    manifest = films / MANIFEST
    truth = asked.folder / "undisturbed"
    shutil.rmtree(truth, ignore_errors=True)
    took_s = timed(lambda: finish(manifest, truth, "--inline"))
    wanted = digests(truth)
    rows = []
    for name, kill in (("driver", kill_drivers), ("worker", kill_workers)):
        workspace = asked.folder / name
        shutil.rmtree(workspace, ignore_errors=True)
        hits = kill(manifest, workspace, chance, asked.kills, took_s)
        finish(manifest, workspace)
        rows.append((name, asked.kills, hits, digests(workspace) == wanted))
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; undisturbed inline {took_s:.0f} s")
    print(f"{'ended by SIGKILL':<18}{'tried':>7}{'hit at work':>13}{'same release':>14}")
    for name, tried, hits, same in rows:
        print(f"{name:<18}{tried:>7}{hits:>13}{'yes' if same else 'NO':>14}")
    return 0 if all(row[3] for row in rows) else 1


def timed(work: Callable[[], object]) -> float:
    """Seconds that something took."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def command(manifest: Path, workspace: Path, *more: str) -> list[str]:
    """A build as a process of its own."""
    build = ["build", str(manifest), "-w", str(workspace), *QUICK, "--set", "engine.workers=2", *more]
    return [sys.executable, "-m", "anitalk", *build]


def finish(manifest: Path, workspace: Path, *more: str) -> None:
    """Build to the end and release."""
    subprocess.run(command(manifest, workspace, "--release", RELEASE, *more), check=True, capture_output=True)


def started(manifest: Path, workspace: Path) -> subprocess.Popen[bytes]:
    """A build that is under way."""
    return subprocess.Popen(command(manifest, workspace), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_drivers(manifest: Path, workspace: Path, chance: random.Random, kills: int, took_s: float) -> int:
    """End whole builds at random moments, one after the other; how many were still at work."""
    hits = 0
    for _ in range(kills):
        build = started(manifest, workspace)
        # Long enough for Ray to begin, short enough that something is left for the next kill.
        time.sleep(chance.uniform(0.1, 0.6) * took_s)
        hits += build.poll() is None
        build.send_signal(signal.SIGKILL)
        build.wait()
        time.sleep(2)  # its workers notice
    return hits


def kill_workers(manifest: Path, workspace: Path, chance: random.Random, kills: int, took_s: float) -> int:
    """End workers in the middle of their jobs, no job twice, during one build; how many were hit."""
    build = started(manifest, workspace)
    hit: set[str] = set()
    while build.poll() is None and len(hit) < kills:
        busy = [(process, title) for process, title in _busy(build.pid) if title not in hit]
        if busy:
            victim, title = chance.choice(busy)
            victim.kill()
            hit.add(title)
            time.sleep(chance.uniform(0.5, 1.5) * took_s / kills)
        time.sleep(0.05)
    build.wait()
    return len(hit)


def _busy(pid: int) -> list[tuple[psutil.Process, str]]:
    """Ray workers below a process that are performing a job, with its name, which Ray makes their title."""
    busy = []
    for process in psutil.Process(pid).children(recursive=True):
        try:
            title = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if title.startswith("ray::") and any(stage in title for stage in ("probe ", "analyse ", "plan ", "clip ")):
            busy.append((process, title))
    return busy


def digests(workspace: Path) -> dict[str, str]:
    """SHA-256 of every file of the release."""
    folder = workspace / "releases" / RELEASE
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


if __name__ == "__main__":
    sys.exit(main())
