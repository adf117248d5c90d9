"""What a build costs, beside what it cannot do without and what others pay.

All ratios are of runs within one call, taken in turns and as medians, so that a machine that slows down for a while
slows both sides. Wall time says what a user waits for, CPU time what the work costs where other programs run as well.

    python benchmarks/build.py --assets DIR [--seconds 300] [--what stages,ratio,memory] [--no-chain]
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
    with tempfile.TemporaryDirectory(dir=folder) as work:
        manifest = write_manifest(Path(work) / "manifest.jsonl", films)
        command = [
            sys.executable,
            "-m",
            "anitalk",
            "build",
            str(manifest),
            "--workspace",
            f"{work}/ws",
            *arguments,
        ]
        return run(*command)


def decode(film: Path, threads: int) -> Run:
    """Decode a film to nothing."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-threads", str(threads), "-i", str(film)]
    return run(*command, "-map", "0:v:0", "-f", "null", "-")


def in_turns(repetitions: int, runs: dict[str, Callable[[], Run]]) -> dict[str, Run]:
    """Take every run once, then all of them again; the medians."""
    taken: dict[str, list[Run]] = {name: [] for name in runs}
    for number in range(repetitions):
        for name, take in runs.items():
            print(f"  ... {name}, {number + 1} of {repetitions}", file=sys.stderr)
            taken[name].append(take())
    return {
        name: Run(
            statistics.median(repetition.wall_s for repetition in some),
            statistics.median(repetition.cpu_s for repetition in some),
            max(repetition.peak_mib for repetition in some),
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
class BenchSettings:
    """Where films and workspaces go, how long a film is, how often runs are repeated."""

    assets: Path
    folder: Path
    seconds: float
    repetitions: int
    long_s: float
    with_chain: bool = True

    def film(self, seconds: float | None = None) -> Path:
        """The film of that length, the usual one by default; made at its first use."""
        return make_film(self.assets, self.folder, seconds or self.seconds)

    def halves(self) -> list[Path]:
        """As much film as ``film`` has, as two sources: two workers share them without one waiting for the other."""
        half = self.film(self.seconds / 2)
        twin = half.with_stem(f"{half.stem}-again")
        twin.unlink(missing_ok=True)
        twin.hardlink_to(half)
        return [half, twin]


def stages(bench: BenchSettings) -> None:
    """(a) CPU seconds of every part of one inline build, and the share of the film that was accepted."""
    with tempfile.TemporaryDirectory(dir=bench.folder) as work:
        manifest = write_manifest(Path(work) / "manifest.jsonl", [bench.film()])
        watched = run(sys.executable, str(HERE / "stages.py"), str(manifest), f"{work}/ws")
    figures = json.loads(watched.output.strip().splitlines()[-1])
    num_frames = bench.seconds * FPS
    rows: list[tuple[object, ...]] = [
        (part, seconds, figures["calls"][part], 1000 * seconds / figures["calls"][part], 1000 * seconds / num_frames)
        for part, seconds in sorted(figures["seconds"].items())
    ]
    rest_s = figures["cpu_s"] - sum(figures["seconds"].values())
    rows += [("imports, engine, ledger", rest_s, 1, 1000 * rest_s, 1000 * rest_s / num_frames)]
    table("Parts of an inline build", ("part", "CPU s", "calls", "ms per call", "ms per source frame"), rows)
    print(
        f"\nwall {figures['wall_s']:.1f} s, CPU {figures['cpu_s']:.1f} s, "
        f"{num_frames / figures['wall_s']:.1f} source frames/s"
    )
    print(
        f"accepted: {100 * figures['accepted_s'] / bench.seconds:.0f} % of the film, in {figures['accepted']} clips;",
        end=" ",
    )
    print(f"made: {100 * figures['made_s'] / bench.seconds:.0f} %")


def ratio(bench: BenchSettings) -> None:
    """(b), (c) and (e): builds by one process, one worker and two, against bare decoding and the usual chain."""
    film, halves, cores, none = bench.film(), bench.halves(), os.cpu_count() or 1, [HERE / "build.py"]

    def on(num_workers: int, films: list[Path]) -> Run:
        return build(bench.folder, films, "--set", f"engine.workers={num_workers}")

    def chain() -> Run:
        with tempfile.TemporaryDirectory(dir=bench.folder) as work:
            return run(sys.executable, str(HERE / "chain.py"), str(film), work)

    runs: dict[str, Callable[[], Run]] = {
        "decode, all threads": lambda: decode(film, cores),
        "decode, 1 thread": lambda: decode(film, 1),
        "one process": lambda: build(bench.folder, halves, "--inline"),
        "one process, nothing to do": lambda: build(bench.folder, none, "--inline"),
        "1 worker": lambda: on(1, halves),
        "2 workers": lambda: on(2, halves),
        "workers, nothing to do": lambda: on(2, none),
    }
    taken = in_turns(bench.repetitions, runs | ({"usual chain": chain} if bench.with_chain else {}))
    bare = taken["decode, all threads"]
    start_s = taken["workers, nothing to do"].wall_s - taken["one process, nothing to do"].wall_s
    rows: list[tuple[object, ...]] = []
    for name, median in taken.items():
        by_workers = "worker" in name
        work_s = median.wall_s - start_s if by_workers else median.wall_s
        cpu = "–" if by_workers else median.cpu_s  # Ray's workers are no children of ours
        rows.append((name, median.wall_s, cpu, work_s, bench.seconds * FPS / work_s, work_s / bare.wall_s))
    columns = ("run", "wall s", "CPU s", "less Ray's start", "source frames/s", "÷ decode, all threads")
    table(f"Against decoding and the usual chain ({bench.repetitions} repetitions, medians)", columns, rows)
    one_s, two_s = (taken[name].wall_s - start_s for name in ("1 worker", "2 workers"))
    print(
        f"\nRay starts in {start_s:.1f} s, once per build; without that two workers are {one_s / two_s:.2f} × one,",
        end=" ",
    )
    print(f"one worker takes {100 * (one_s / taken['one process'].wall_s - 1):.1f} % longer than one process")
    print(f"CPU of one process ÷ CPU of decoding: {taken['one process'].cpu_s / taken['decode, 1 thread'].cpu_s:.2f}")
    if bench.with_chain:
        _tell_chain(taken["usual chain"], two_s)


def _tell_chain(taken: Run, two_s: float) -> None:
    figures = json.loads(taken.output)
    steps = [(name, *two) for name, two in figures["steps"].items()]
    table("Steps of the usual chain", ("step", "wall s", "CPU s"), steps)
    print(
        f"\ntwo workers are {taken.wall_s / two_s:.1f} × as fast as the chain, which made "
        f"{figures['num_crops']} crops of {figures['num_scenes']} scenes and measured no sound and no score"
    )


def memory(bench: BenchSettings) -> None:
    """(d) Peak memory of one process for a short and a long film."""
    films = {seconds: bench.film(seconds) for seconds in (60.0, bench.long_s)}
    peaks = {seconds: build(bench.folder, [film], "--inline").peak_mib for seconds, film in films.items()}
    rows: list[tuple[object, ...]] = [
        (f"{seconds / 60:g} min", peak, peak / peaks[60.0]) for seconds, peak in peaks.items()
    ]
    table("Peak memory of an inline build (VmHWM)", ("film", "MiB", "÷ 1 min"), rows)


WHAT = {"stages": stages, "ratio": ratio, "memory": memory}


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
    parser.add_argument("--no-chain", action="store_true", help="leave out the usual chain, which takes longest")
    parser.add_argument("--folder", type=Path, help="keeps the films for the next time; a temporary one by default")
    given = parser.parse_args()
    unknown = set(given.what.split(",")) - set(WHAT)
    if unknown:
        parser.error(f"--what knows {', '.join(WHAT)}, not {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        bench = BenchSettings(given.assets, folder, given.seconds, given.repetitions, given.long, not given.no_chain)
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
