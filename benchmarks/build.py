"""What a build costs, beside what it cannot do without and what others pay.

All ratios are of runs within one call, taken in turns and as medians, so that a machine that slows down for a while
slows both sides. Wall time says what a user waits for, CPU time what the work costs where other programs run as well.

    python benchmarks/build.py --assets DIR [--seconds 300] [--what stages,ratio,memory,workers,engine]
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import imageio_ffmpeg
from films import FPS, REEL, REEL_S, SIZE, TALK_S, make_film, write_manifest

HERE = Path(__file__).resolve().parent
_PACKAGES = ("av", "opencv-python-headless", "numpy", "scenedetect", "ray")


@dataclass(frozen=True)
class Run:
    """One finished child: wall and CPU seconds, largest resident memory of one of its processes, what it printed."""

    wall_s: float
    cpu_s: float
    peak_mib: float
    output: str


def run(*command: str) -> Run:
    """Run a child of this checkout and wait for it.

    Raises:
        SystemExit: with the end of what it said, when it fails.
    """
    # Bytecode may be kept, as on any user's machine: else every process compiles what it imports again.
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "PYTHONDONTWRITEBYTECODE": ""}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    with subprocess.Popen(
        command, cwd=HERE.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        peak = _Peak(child.pid)
        output, errors = child.communicate()
        peak.stop()
    wall_s = time.monotonic() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}:\n{errors[-2000:]}")
    cpu_s = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    return Run(wall_s, cpu_s, peak.mib, output)


class _Peak:
    """Largest resident memory (VmHWM) of a process, read while it lives; afterwards only the largest child is known."""

    def __init__(self, pid: int) -> None:
        self.mib = 0.0
        self._status = Path(f"/proc/{pid}/status")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            try:
                lines = self._status.read_text().splitlines()
            except OSError:  # it has just ended
                return
            peak = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
            self.mib = max(self.mib, *(kib / 1024 for kib in peak), 0.0)


def build(folder: Path, films: list[Path], *arguments: str) -> Run:
    """Build films in a fresh workspace inside ``folder``."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        manifest = write_manifest(Path(place) / "manifest.jsonl", films)
        command = [sys.executable, "-m", "flows.cli", "build", str(manifest), "--workspace", f"{place}/ws", *arguments]
        return run(*command)


def decode(film: Path, threads: int) -> Run:
    """Decode a film to nothing."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-threads", str(threads), "-i", str(film)]
    return run(*command, "-map", "0:v:0", "-f", "null", "-")


def in_turns(repetitions: int, runs: dict[str, Callable[[], Run]]) -> dict[str, Run]:
    """Take every run once, then all of them again; the medians."""
    taken: dict[str, list[Run]] = {name: [] for name in runs}
    for number in range(repetitions):
        for name, one in runs.items():
            print(f"  ... {name}, {number + 1} of {repetitions}", file=sys.stderr)
            taken[name].append(one())
    return {
        name: Run(
            statistics.median(one.wall_s for one in some),
            statistics.median(one.cpu_s for one in some),
            max(one.peak_mib for one in some),
            some[-1].output,
        )
        for name, some in taken.items()
    }


def table(title: str, columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    """Print one Markdown table."""
    print(f"\n### {title}\n\n| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for row in rows:
        print("| " + " | ".join(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row) + " |")


# ---- what can be asked ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """Where films and workspaces go, how long a film is, how often runs are repeated."""

    assets: Path
    folder: Path
    seconds: float
    repetitions: int
    long_s: float

    def film(self, seconds: float | None = None) -> Path:
        """The film of that length, the usual one by default; made at its first use."""
        return make_film(self.assets, self.folder, seconds or self.seconds)


def stages(bench: Bench) -> None:
    """(a) CPU seconds of every part of one inline build, and the share of the film that was accepted."""
    with tempfile.TemporaryDirectory(dir=bench.folder) as place:
        manifest = write_manifest(Path(place) / "manifest.jsonl", [bench.film()])
        made = run(sys.executable, str(HERE / "stages.py"), str(manifest), f"{place}/ws")
    told = json.loads(made.output.strip().splitlines()[-1])
    num_frames = bench.seconds * FPS
    rows: list[tuple[object, ...]] = [
        (part, seconds, told["calls"][part], 1000 * seconds / told["calls"][part], 1000 * seconds / num_frames)
        for part, seconds in sorted(told["seconds"].items())
    ]
    rest_s = told["cpu_s"] - sum(told["seconds"].values())
    rows += [("imports, engine, ledger", rest_s, 1, 1000 * rest_s, 1000 * rest_s / num_frames)]
    table("Parts of an inline build", ("part", "CPU s", "calls", "ms per call", "ms per source frame"), rows)
    print(
        f"\nwall {told['wall_s']:.1f} s, CPU {told['cpu_s']:.1f} s, {num_frames / told['wall_s']:.1f} source frames/s"
    )
    print(
        f"accepted: {100 * told['accepted_s'] / bench.seconds:.0f} % of the film, in {told['accepted']} clips;", end=" "
    )
    print(f"made: {100 * told['made_s'] / bench.seconds:.0f} %")


def ratio(bench: Bench) -> None:
    """(b) and (c): a build against bare decoding and against the usual chain."""
    film, cores = bench.film(), os.cpu_count() or 1

    def chain() -> Run:
        with tempfile.TemporaryDirectory(dir=bench.folder) as place:
            return run(sys.executable, str(HERE / "chain.py"), str(film), place)

    taken = in_turns(
        bench.repetitions,
        {
            f"decode, {cores} threads": lambda: decode(film, cores),
            "decode, 1 thread": lambda: decode(film, 1),
            "build, one process": lambda: build(bench.folder, [film], "--inline"),
            f"build, {cores} workers": lambda: build(
                bench.folder, [film], "--set", f"engine.workers={cores}", "--set", "domains.real.shots.run_s=60"
            ),
            "usual chain": chain,
        },
    )
    wall, cpu = taken[f"decode, {cores} threads"].wall_s, taken["decode, 1 thread"].cpu_s
    rows: list[tuple[object, ...]] = [
        (name, one.wall_s, one.cpu_s, bench.seconds * FPS / one.wall_s, one.wall_s / wall, one.cpu_s / cpu)
        for name, one in taken.items()
    ]
    columns = ("run", "wall s", "CPU s", "source frames/s", f"wall ÷ decode ({cores} threads)", "CPU ÷ decode")
    table(f"Against decoding and the usual chain ({bench.repetitions} repetitions, medians)", columns, rows)
    told = json.loads(taken["usual chain"].output)
    table(
        "Steps of the usual chain", ("step", "wall s", "CPU s"), [(name, *two) for name, two in told["steps"].items()]
    )
    print(
        f"\nthe chain made {told['num_crops']} crops of {told['num_scenes']} scenes; it measured no sound and no score"
    )


def memory(bench: Bench) -> None:
    """(d) Peak memory of one process for a short and a long film."""
    films = {seconds: bench.film(seconds) for seconds in (60.0, bench.long_s)}
    peaks = {seconds: build(bench.folder, [film], "--inline").peak_mib for seconds, film in films.items()}
    rows: list[tuple[object, ...]] = [
        (f"{seconds / 60:g} min", peak, peak / peaks[60.0]) for seconds, peak in peaks.items()
    ]
    table("Peak memory of an inline build (VmHWM)", ("film", "MiB", "÷ 1 min"), rows)


def workers(bench: Bench) -> None:
    """(e) Two workers against one; a ten-minute run would leave one of them idle, so runs are a minute long."""
    film, runs = bench.film(), ("--set", "domains.real.shots.run_s=60")
    taken = in_turns(
        bench.repetitions,
        {
            f"{num} worker(s)": lambda num=num: build(bench.folder, [film], *runs, "--set", f"engine.workers={num}")
            for num in (1, 2)
        },
    )
    one = taken["1 worker(s)"].wall_s
    rows: list[tuple[object, ...]] = [(name, it.wall_s, it.cpu_s, one / it.wall_s) for name, it in taken.items()]
    table("Workers", ("run", "wall s", "CPU s", "× one worker"), rows)


def engine(bench: Bench) -> None:
    """(e) What the engine adds: one worker against the same jobs in one process, the engine's start apart."""
    film = bench.film()
    taken = in_turns(
        bench.repetitions,
        {
            "inline": lambda: build(bench.folder, [film], "--inline"),
            "one worker": lambda: build(bench.folder, [film], "--set", "engine.workers=1"),
            "one worker, nothing to do": lambda: build(bench.folder, [HERE / "build.py"], "--set", "engine.workers=1"),
            "inline, nothing to do": lambda: build(bench.folder, [HERE / "build.py"], "--inline"),
        },
    )
    start_s = taken["one worker, nothing to do"].wall_s - taken["inline, nothing to do"].wall_s
    work_s = taken["one worker"].wall_s - start_s
    rows: list[tuple[object, ...]] = [(name, one.wall_s, one.cpu_s) for name, one in taken.items()]
    table("Engine", ("run", "wall s", "CPU s"), rows)
    print(f"\nstart {start_s:.1f} s once per build; beyond it {100 * (work_s / taken['inline'].wall_s - 1):.1f} % wall")


WHAT = {"stages": stages, "ratio": ratio, "memory": memory, "workers": workers, "engine": engine}


def machine() -> str:
    """Processor, cores and versions, in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    ffmpeg = imageio_ffmpeg.get_ffmpeg_version()
    return f"{model}, {os.cpu_count()} cores; Python {platform.python_version()}, ffmpeg {ffmpeg}, {packages}"


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, required=True, help="folder with video/ (see the tests)")
    parser.add_argument("--seconds", type=float, default=300.0, help="length of the film")
    parser.add_argument("--long", type=float, default=1800.0, help="length of the long film for memory, in seconds")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--what", default=",".join(WHAT), help="comma-separated: " + ", ".join(WHAT))
    parser.add_argument("--folder", type=Path, help="keeps the films for the next time; a temporary one by default")
    given = parser.parse_args()
    unknown = set(given.what.split(",")) - set(WHAT)
    if unknown:
        parser.error(f"--what knows {', '.join(WHAT)}, not {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        bench = Bench(given.assets, folder, given.seconds, given.repetitions, given.long)
        film = bench.film()
        print(f"Machine: {machine()}; load {os.getloadavg()[0]:.1f} before the first run")
        print(
            f"Film: {given.seconds:g} s, {SIZE[0]}x{SIZE[1]}, {FPS} fps, H.264,"
            f" {film.stat().st_size * 8 / given.seconds / 1e6:.1f} Mbit/s; made by scaling up {len(REEL)} parts of"
            f" short films and repeating them, {TALK_S:g} of each {REEL_S:g} s with a talker"
        )
        for name in given.what.split(","):
            WHAT[name](bench)


if __name__ == "__main__":
    main()
