"""Build the demo and train ten steps with two commits, and say where their results differ.

Checksums of releases and losses of training steps depend on the processor in their last bits, so none is committed:
both commits run on this machine, one after the other, each from a worktree of its own. A name that only one commit uses
(a loss that was renamed) is reported and compared by its values.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Settings of the ten steps. A commit may bring its own, because names of settings change.
SETTINGS = Path("tests/golden/ten_steps.yaml")
_COMMAND = "from flows.cli import main; main()"
_STEPS = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one commit gave.

    Attributes:
        files: SHA-256 by name of every file of the demo's release.
        series: ten values by name of every loss and figure that a step logs, as float32 in hexadecimal.
        tensors: SHA-256 of every tensor of the last checkpoint, sorted: names may change, values may not.
    """

    files: dict[str, str]
    series: dict[str, list[str]]
    tensors: list[str]


def run_commit(commit: str, work: Path) -> Outcome:
    """Build and train with a commit.

    Args:
        commit: anything git understands; ``.`` is the working tree as it is.
        work: an empty folder for what is made.

    Raises:
        subprocess.CalledProcessError: when the commit does not exist, or its demo or training fails.
    """
    with _checkout(commit, work / "tree") as tree:
        _anitalk(tree, "demo", "--workspace", str(work / "demo"))
        release = work / "demo" / "releases" / "demo"
        own = tree / SETTINGS
        settings = own if own.is_file() else ROOT / SETTINGS
        run = work / "run"
        arguments = ("--shards", str(release), "--output", str(run), "--config", str(settings), "--device", "cpu")
        _anitalk(tree, "train", "anytalk", *arguments)
    return Outcome(_release_files(release), _series(run / "board"), _tensors(run / "checkpoints"))


def differences(before: Outcome, after: Outcome) -> list[str]:
    """Every difference between two commits, a sentence each."""
    lines = [
        f"release: {name} differs" if name in before.files and name in after.files else f"release: only one has {name}"
        for name in sorted(before.files.keys() | after.files.keys())
        if before.files.get(name) != after.files.get(name)
    ]
    shared = before.series.keys() & after.series.keys()
    lines += [f"training: {name} differs" for name in sorted(shared) if before.series[name] != after.series[name]]
    old = sorted(values for name, values in before.series.items() if name not in shared)
    new = sorted(values for name, values in after.series.items() if name not in shared)
    if old != new:
        names = sorted((before.series.keys() | after.series.keys()) - shared)
        lines.append(f"training: values under changed names differ: {', '.join(names)}")
    if before.tensors != after.tensors:
        lines.append("training: the weights after ten steps differ")
    return lines


def renamed(before: Outcome, after: Outcome) -> list[str]:
    """Names of series that only one of two commits uses."""
    return sorted(before.series.keys() ^ after.series.keys())


@contextmanager
def _checkout(commit: str, tree: Path) -> Iterator[Path]:
    if commit == ".":
        yield ROOT
        return
    subprocess.run(["git", "worktree", "add", "--detach", "--quiet", str(tree), commit], cwd=ROOT, check=True)
    try:
        yield tree
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)


def _anitalk(tree: Path, *arguments: str) -> None:
    # The tree comes first on the path, before the checkout that the environment was installed from.
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-c", _COMMAND, *arguments], cwd=tree, env=environment, stdout=sys.stderr.fileno(), check=True
    )


def _release_files(release: Path) -> dict[str, str]:
    return {
        path.relative_to(release).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(release.rglob("*"))
        if path.is_file()
    }


def _series(board: Path) -> dict[str, list[str]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(board), size_guidance={"scalars": 0})
    events.Reload()
    series = {
        name: [float(event.value).hex() for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
        if not name.startswith("data/")  # times
    }
    assert all(len(values) == _STEPS for name, values in series.items() if "/" not in name), series
    return series


def _tensors(checkpoints: Path) -> list[str]:
    from safetensors.numpy import load_file

    newest = max(checkpoints.glob("step-*"))
    return sorted(
        hashlib.sha256(f"{tensor.dtype}{tensor.shape}".encode() + tensor.tobytes()).hexdigest()
        for file in sorted(newest.glob("*.safetensors"))
        for tensor in load_file(file).values()
    )


def main(arguments: list[str]) -> int:
    """Compare a commit with the working tree, or with a second commit; returns 1 where results differ."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    parser.add_argument("commit", help="the commit to compare with")
    parser.add_argument("other", nargs="?", default=".", help="another commit; the working tree by default")
    parser.add_argument("--assert-equal", action="store_true", help="exit code 1 when anything differs")
    options = parser.parse_args(arguments)
    outcomes = []
    for commit in (options.commit, options.other):
        with tempfile.TemporaryDirectory(prefix="golden-") as work:
            outcomes.append(run_commit(commit, Path(work)))
    before, after = outcomes
    unequal = differences(before, after)
    summary = {
        "release files": len(after.files),
        "series": len(after.series),
        "tensors": len(after.tensors),
        "renamed": renamed(before, after),
        "differences": unequal,
    }
    print(json.dumps(summary, indent=1))
    return 1 if unequal and options.assert_equal else 0
