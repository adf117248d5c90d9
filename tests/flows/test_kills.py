"""Killed at random moments, a build of real media on Ray ends in the bytes of an undisturbed one."""

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from flows.cli import application as cli
from tests.helpers.films import digests, environment, program
from tests.pipeline.build import test_assets

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.assets]

built = test_assets.built  # a fixture
NUM_KILLS = 10


def num_rows(workspace: Path) -> int:
    return sum(1 for _ in (workspace / "ledger").rglob("*.json"))


@pytest.mark.timeout(1800)
def test_ten_kills_at_random_moments_end_in_the_same_bytes(built, tmp_path):
    undisturbed = built.release.parents[1]
    manifest, workspace = str(undisturbed.parent / "manifest.yaml"), tmp_path / "ws"
    total, chance = num_rows(undisturbed), random.Random(3)  # noqa: S311 - moments, not secrets
    command = ["build", manifest, "-w", str(workspace), "--set", "engine.workers=2"]
    num_hits = 0
    for kill in range(NUM_KILLS):
        process = subprocess.Popen(
            program(*command), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        target = total * (kill + chance.random()) / (NUM_KILLS + 1)
        while process.poll() is None and num_rows(workspace) < target:
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 1))
        process.send_signal(signal.SIGKILL)
        num_hits += process.wait() == -signal.SIGKILL  # a quick machine may have finished within that second
        time.sleep(2)  # its workers notice
    assert num_hits > NUM_KILLS / 2, "it was at work"
    assert cli.run([*command, "--release", "all"]) == 0
    assert digests(workspace / "releases" / "all") == digests(built.release)
    assert num_rows(workspace) >= total
