"""Builds hostile files one by one in a process of its own, and says what became of each.

A decoder may crash the process, hang or eat all memory. So the builds run in a child that announces every file before
it touches it: whatever ends the child is the fault of the file announced last, and the rest goes on in a new child.
"""

import contextlib
import io
import json
import os
import queue
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from flows.cli import application as cli
from pipeline.store.workspace import Workspace
from tests.helpers.films import ROOT, digests, write_manifest
from tests.helpers.mutations import Film, mutant

# Short films yield clips, small pictures are quick; nothing that is tested here depends on either.
QUICK = (
    "crop.size_px=64", "crop.min_clip_s=0.4", "crop.max_clip_s=2.0", "domains.real.faces.analysis_side_px=256",
    "domains.mesh.faces.analysis_side_px=128", "domains.mesh.landmarker=none", "domains.mesh.presence_gate=false",
)  # fmt: skip
# A machine may be busy with other things, so only time that a file itself used tells that it hangs. Every file takes a
# few seconds at most; the limit is for what would never end, and says nothing of speed.
CPU_S = 120
SILENCE_S = 600.0  # of wall time, for a file that waits for something


@dataclass(frozen=True)
class Case:
    """One hostile file: its name, how to write it, and how to build it."""

    path: Path
    treatment: str  # what was done to it
    domain: str = "mesh"
    stop_s: float | None = None  # only so much of it is wanted


@dataclass(frozen=True)
class Outcome:
    """What became of a file. ``kinds`` are the classes of its failures, empty where everything went well."""

    name: str
    treatment: str
    kinds: tuple[str, ...]
    sentences: tuple[str, ...]
    stages: tuple[str, ...] = ()
    results: dict[str, str] = field(default_factory=dict)  # digest of every result
    num_clips: int = 0
    code: int = 0
    grown_mb: float = 0.0  # of resident memory, at its peak
    printed: str = ""

    @property
    def same(self) -> object:
        """What must be the same whenever and wherever the file is built."""
        return self.name, self.kinds, self.sentences, self.stages, self.results, self.num_clips, self.code


def outcomes(
    jobs: Sequence[str],
    folder: Path,
    *,
    films: Path | None = None,
    memory_mb: int | None = None,
    cpu_s: int = CPU_S,
    silence_s: float = SILENCE_S,
) -> Iterator[Outcome]:
    """Build every job in children, in order.

    Args:
        jobs: see ``_case`` for how they are written.
        folder: to work in.
        films: the folder whose ``seeds`` are damaged; ``folder`` by default.
        memory_mb: of address space that a child may use beside what it needs for its models.
        cpu_s: of processor time that one file may use.
        silence_s: of any time.
    """
    limits = (films or folder, memory_mb or 0, cpu_s)
    waiting = list(jobs)
    while waiting:
        begun: str | None = None
        with _child(waiting, folder, limits) as (process, lines):
            while True:
                try:
                    line = lines.get(timeout=silence_s)
                except queue.Empty:
                    process.kill()
                    process.wait()
                    yield Outcome(waiting.pop(0), begun or "", ("timeout",), (f"nothing for {silence_s} s",))
                    break
                if line is None:
                    code = process.wait()
                    kind = "timeout" if code == -signal.SIGXCPU else "killed"
                    if begun is not None:
                        yield Outcome(waiting.pop(0), begun, (kind,), (f"the process ended with {code}",))
                    elif waiting:
                        raise RuntimeError(f"the child ended with {code} before it began: {_tail(folder)}")
                    break
                word, value = line.split(" ", 1)
                if word == "begin":
                    begun = json.loads(value)
                elif word == "end":
                    fields = json.loads(value)
                    fields |= {key: tuple(fields[key]) for key in ("kinds", "sentences", "stages")}
                    yield Outcome(**fields)
                    waiting.pop(0)
                    begun = None


def _tail(folder: Path) -> str:
    return (folder / "stderr.txt").read_text(errors="replace")[-2000:]


@contextlib.contextmanager
def _child(
    jobs: list[str], folder: Path, limits: tuple[Path, int, int]
) -> Iterator[tuple[subprocess.Popen[str], "queue.Queue[str | None]"]]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "jobs.txt").write_text("\n".join(jobs))
    command = [sys.executable, "-m", "tests.helpers.fuzz", str(folder), *map(str, limits)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    lines: queue.Queue[str | None] = queue.Queue()
    with (
        (folder / "stderr.txt").open("ab") as errors,
        subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True) as child,
    ):
        assert child.stdout is not None
        reader = threading.Thread(target=_read, args=(child.stdout, lines), daemon=True)
        reader.start()
        try:
            yield child, lines
        finally:
            child.kill()


def _read(stream: Iterable[str], lines: "queue.Queue[str | None]") -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


# --- in the child ---


def films_in(folder: Path) -> list[Film]:
    """The films that are damaged, in order of name."""
    return [Film(path.stem, path.suffix, path.read_bytes()) for path in sorted((folder / "seeds").iterdir())]


def _spin() -> None:
    while True:
        pass


# What a decoder might do, for a test of this harness.
_RUINS: dict[str, Callable[[], None]] = {"abort": os.abort, "spin": _spin}


def _case(folder: Path, films: list[Film], job: str) -> Case:
    """``FILM:NUMBER[:DOMAIN]`` is a mutant, ``file:PATH[:DOMAIN]`` a file as it is."""
    first, second, *rest = job.split(":")
    domain = rest[0] if rest else "mesh"
    if first in _RUINS:
        return Case(Path(first), "ruins the process")
    if first == "file":
        return Case(Path(second), "as it is", domain)
    film = next(film for film in films if film.name == first)
    data, suffix, treatment = mutant(films, film, int(second))
    path = folder / f"{first}-{second}{suffix}"
    path.write_bytes(data)
    return Case(path, treatment, domain, stop_s=2.0)


def build(case: Case, job: str, workspace: Path) -> Outcome:
    """``anitalk build`` of one file, in this process."""
    entry: dict[str, object] = {"id": "x", "uri": str(case.path), "domain": case.domain}
    if case.stop_s is not None:
        entry["spans"] = [[0, case.stop_s]]
    manifest = write_manifest(workspace.parent / "manifest.yaml", [entry])
    settings = [part for setting in QUICK for part in ("--set", setting)]
    printed = io.StringIO()
    before_mb = _start_peak()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = cli.run(["build", str(manifest), "--workspace", str(workspace), "--inline", *settings])
    rows = [row for row in Workspace(workspace).ledger() if row.outcome == "failed"]
    results = {name: sha for name, sha in digests(workspace).items() if not name.startswith(_UNSTEADY)}
    return Outcome(
        name=job,
        treatment=case.treatment,
        kinds=tuple(str(row.reason_class) for row in rows),
        sentences=tuple(row.message for row in rows),
        stages=tuple(row.stage for row in rows),
        results=results,
        num_clips=sum(name.endswith("/mp4") for name in results),
        code=code,
        grown_mb=round(_peak_mb() - before_mb, 1),
        printed="" if code == 0 else printed.getvalue()[-500:],
    )


# The ledger has times in it, the lock the process, and acquire's record when it was.
_UNSTEADY = ("ledger/", "lock.json", "build.json", "results/acquire/")


def _start_peak() -> float:
    Path("/proc/self/clear_refs").write_text("5")
    return _peak_mb()


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _main(folder: Path, films_folder: Path, memory_mb: int, cpu_s: int) -> None:
    warnings.filterwarnings("error")
    out, sys.stdout = sys.stdout, sys.stderr
    films = films_in(films_folder)
    say: Callable[[str], None] = lambda line: print(line, file=out, flush=True)  # noqa: E731
    workspace = folder / f"ws-{os.getpid()}"
    for number, job in enumerate((folder / "jobs.txt").read_text().splitlines()):
        case = _case(folder, films, job)
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + cpu_s, resource.RLIM_INFINITY))
        say(f"begin {json.dumps(case.treatment)}")
        _RUINS.get(str(case.path), lambda: None)()
        outcome = build(case, job, workspace)
        say(f"end {json.dumps(asdict(outcome))}")
        shutil.rmtree(workspace, ignore_errors=True)
        if not job.startswith("file:") and not set(outcome.kinds) - {"decode", "permanent"}:
            case.path.unlink()
        if number == 0 and memory_mb:  # the models are loaded now
            status = Path("/proc/self/status").read_text()
            limit = int(status.split("VmSize:")[1].split()[0]) * 1024 + memory_mb * 1024**2
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
