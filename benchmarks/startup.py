"""What the small commands cost before they say anything: seconds of processor time, and modules that they load.

python benchmarks/startup.py out/demo [--rounds 5]
"""

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# In the command's own process, after it has ended: user and system time of all threads, modules, and the heavy ones.
_PROGRAM = """
import sys, time
from flows.cli import run
code = run(sys.argv[1:])
sys.stderr.write(f"\\n@@ {code} {time.process_time():.3f} {len(sys.modules)} {','.join(sorted(sys.modules))}\\n")
"""
HEAVY = (
    "torch",
    "scipy",
    "cv2",
    "av",
    "matplotlib",
    "scenedetect",
    "onnxruntime",
    "mediapipe",
    "pyarrow",
    "ray",
    "rich",
)


@dataclass(frozen=True, slots=True)
class Cost:
    """The least of several runs of one command."""

    command: str
    cpu_s: float
    num_modules: int
    heavy: tuple[str, ...]


def measure(arguments: list[str], rounds: int) -> Cost:
    """Run a command some times, each in a process of its own.

    Raises:
        RuntimeError: when it ends in a mistake.
    """
    runs = [_once(arguments) for _ in range(rounds)]
    cpu_s, num_modules, names = min(runs, key=lambda run: run[0])
    heavy = tuple(name for name in HEAVY if name in names)
    return Cost(" ".join(arguments), cpu_s, num_modules, heavy)


def _once(arguments: list[str]) -> tuple[float, int, frozenset[str]]:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    _, code, cpu_s, num_modules, names = done.stderr.splitlines()[-1].split(" ")
    if code not in {"0", "1"}:
        raise RuntimeError(f"anitalk {' '.join(arguments)} ended with exit code {code}: {done.stderr[-500:]}")
    return float(cpu_s), int(num_modules), frozenset(names.split(","))


def main() -> None:
    """Print a table: command, processor time, modules, and which of the heavy packages were loaded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", help="workspace that 'anitalk demo' has made")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each command; the least time counts")
    options = parser.parse_args()
    release = str(Path(options.demo) / "releases" / "demo")
    commands = (
        ["--help"],
        ["status", "-w", options.demo],
        ["clips", "-w", options.demo, "-f", "csv"],
        ["verify", release, "--fast"],
        ["diff", release, release],
    )
    print(f"{'command':<60} {'CPU s':>6} {'modules':>8}  heavy packages")
    for arguments in commands:
        cost = measure(arguments, options.rounds)
        print(f"{cost.command:<60} {cost.cpu_s:>6.2f} {cost.num_modules:>8}  {', '.join(cost.heavy) or 'none'}")


if __name__ == "__main__":
    main()
