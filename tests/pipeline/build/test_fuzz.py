"""Whatever a file holds, its build ends well: it is done or has a class and one sentence, in bounded memory.

Every mutant goes through ``anitalk build``, in a process that it may ruin (see ``helpers.fuzz``). What a run finds is
made again by its name: ``FILM:NUMBER`` names a mutant for good.
"""

import os
import shutil
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.fuzz import Outcome, outcomes
from tests.helpers.hostile import CORPUS, SEEDS, boxes
from tests.helpers.mutations import Film, mutant

# Two seconds of real films, as different as containers get; what is longer is only read that far.
REAL = ("delayed_start.mp4", "bbaf2n.mpg", "no_duration.webm", "carphone_pristine.mp4", "test_case_1185230.mp4")
MOST_MB = 400.0
MEMORY_MB = 2500  # of address space beside what the models need; whoever asks for more gets an error
KNOWN = {"decode", "permanent"}


def faults(results: list[Outcome]) -> list[tuple[object, ...]]:
    """Outcomes that no file may come to."""
    return [
        (outcome.name, outcome.treatment, outcome.kinds, outcome.sentences, outcome.code, outcome.printed)
        for outcome in results
        if is_fault(outcome)
    ]


def is_fault(outcome: Outcome) -> bool:
    file = outcome.name.rsplit("/", 1)[-1].replace(":", "-").removesuffix("-real").removesuffix("-mesh")
    clear = all(file in said and "\n" not in said and said[0] != "<" for said in outcome.sentences)
    return outcome.code != 0 or not set(outcome.kinds) <= KNOWN or not clear


def greedy(results: list[Outcome]) -> list[tuple[object, ...]]:
    return [(outcome.name, outcome.treatment, outcome.grown_mb) for outcome in results if outcome.grown_mb > MOST_MB]


def jobs_of(films: list[str], numbers: range) -> list[str]:
    """Every seventh mutant is built as a filmed person, with landmarks; the others without, which is quicker."""
    return [f"{film}:{n}:{'real' if n % 7 == 0 else 'mesh'}" for n in numbers for film in films]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The films of the corpus, whose bytes are the same everywhere, and so are their mutants."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "seeds").mkdir()
    for name in SEEDS:
        shutil.copy(CORPUS / name, folder / "seeds" / name)
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> list[Outcome]:
    return list(outcomes(jobs_of([Path(name).stem for name in sorted(SEEDS)], range(20)), folder, memory_mb=MEMORY_MB))


def test_every_mutant_is_done_or_has_a_class_and_one_sentence(results):
    assert faults(results) == []


def test_no_mutant_takes_much_memory(results):
    assert greedy(results) == []


def test_mutants_are_neither_all_sound_nor_all_dead(results):
    """Else nothing would be tried: a third goes to the end, a fifth fails, and clips come out of damaged films."""
    came_to = Counter(outcome.kinds[0] if outcome.kinds else "done" for outcome in results)
    assert came_to["done"] > len(results) / 3
    assert came_to["decode"] + came_to["permanent"] > len(results) / 5
    assert came_to["decode"] > came_to["permanent"] > 0
    assert sum(outcome.num_clips for outcome in results) > len(results) / 5


def test_the_same_mutant_comes_to_the_same_twice(results, folder):
    again = outcomes([outcome.name for outcome in results[::-9]], folder / "again", films=folder, memory_mb=MEMORY_MB)
    assert [outcome.same for outcome in again] == [outcome.same for outcome in results[::-9]]


def test_whoever_ruins_the_process_is_named_and_the_rest_goes_on(folder, tmp_path):
    """The harness itself: an abort, a file that nobody ever writes to, and a file that takes for ever."""
    jobs = ["plain:0:mesh", "abort:0", "plain:1:mesh", "spin:0", "vp9:0:mesh"]
    kinds = {outcome.name: outcome.kinds for outcome in outcomes(jobs, tmp_path, films=folder, cpu_s=12)}
    assert kinds["abort:0"] == ("killed",)
    assert kinds["spin:0"] == ("timeout",)
    assert list(kinds) == jobs
    assert not {"killed", "timeout"} & {kind for name in jobs[::2] for kind in kinds[name]}


@pytest.mark.assets
def test_mutants_of_real_films(assets, tmp_path):
    (tmp_path / "seeds").mkdir()
    for name in REAL:
        shutil.copy(assets / "video" / name, tmp_path / "seeds" / name)
    results = list(outcomes(jobs_of([Path(name).stem for name in REAL], range(8)), tmp_path, memory_mb=MEMORY_MB))
    assert faults(results) == []
    assert greedy(results) == []
    assert {outcome.kinds for outcome in results} >= {(), ("decode",)}


@pytest.mark.slow
@pytest.mark.skipif("ANITALK_FUZZ" not in os.environ, reason="hours: set ANITALK_FUZZ to a number of mutants per film")
def test_thousands_of_mutants(folder, tmp_path):
    numbers = range(1000, 1000 + int(os.environ["ANITALK_FUZZ"]))
    jobs = jobs_of([Path(name).stem for name in sorted(SEEDS)], numbers)
    bad = [
        outcome
        for outcome in outcomes(jobs, tmp_path, films=folder, memory_mb=MEMORY_MB)
        if is_fault(outcome) or greedy([outcome])
    ]
    assert faults(bad) + greedy(bad) == []


def test_a_mutant_is_the_same_bytes_for_the_same_number():
    films = [Film("a", ".mp4", bytes(range(256)) * 9), Film("b", ".mpg", b"\0\0\1\xba" * 300)]
    mutants = [mutant(films, films[0], number) for number in range(60)]
    assert mutants == [mutant(films, films[0], number) for number in range(60)]
    assert len({data for data, _, _ in mutants}) > 40


# --- at the limits ---


def sized(sparse: Path, head: bytes, size: int) -> Path:
    """A file of ``size`` bytes that takes no room on disk: ``head``, then zeros."""
    with sparse.open("wb") as file:
        file.write(head)
        file.truncate(size)
    return sparse


def with_samples(data: bytes, num: int) -> bytes:
    """A film whose picture claims ``num`` samples of one byte each, without a table that would have to hold them."""
    changed = bytearray(data)
    for kind, words in ((b"stsz", (1, num)), (b"stts", (1, num)), (b"stsc", (1, 1, num, 1))):
        start = boxes(data, kind)[0].content + 4
        changed[start : start + 4 * len(words)] = struct.pack(f">{len(words)}I", *words)
    return bytes(changed)


def with_tracks(data: bytes, num: int) -> bytes:
    moov, track = boxes(data, b"moov")[0], boxes(data, b"trak")[0]
    more = data[track.start : track.stop] * num
    size = struct.pack(">I", moov.stop - moov.start + len(more))
    return data[: moov.start] + size + data[moov.start + 4 : moov.stop] + more + data[moov.stop :]


LIMITS: dict[str, Callable[[Path, bytes], object]] = {
    "sparse.mp4": lambda path, film: sized(path, film, 200 * 1024**2),
    "sparse.mpg": lambda path, _: sized(path, b"\0\0\1\xba", 200 * 1024**2),
    "sparse.ts": lambda path, _: sized(path, b"G", 200 * 1024**2),
    "million.mp4": lambda path, film: path.write_bytes(with_samples(film, 1_000_000)),
    "billion.mp4": lambda path, film: path.write_bytes(with_samples(film, 1_000_000_000)),
    "streams.mp4": lambda path, film: path.write_bytes(with_tracks(film, 3000)),
    "pipe.mp4": lambda path, _: os.mkfifo(path),
    "loop.mp4": lambda path, _: path.symlink_to(path.name),
    "device.mp4": lambda path, _: path.symlink_to("/dev/zero"),
}


def test_files_at_the_limits(folder, tmp_path):
    film = (folder / "seeds" / "plain.mp4").read_bytes()
    for name, make in LIMITS.items():
        make(tmp_path / name, film)
    jobs = [f"file:{tmp_path / name}" for name in LIMITS]
    results = list(outcomes(jobs, tmp_path / "work", films=folder, memory_mb=MEMORY_MB))
    assert faults(results) == []
    assert greedy(results) == []
    kinds = {outcome.name.rsplit("/", 1)[-1]: outcome.kinds for outcome in results}
    assert kinds.pop("sparse.mp4") == ()
    assert {name for name, kind in kinds.items() if kind == ("permanent",)} == {"pipe.mp4", "loop.mp4", "device.mp4"}
    assert {name for name, kind in kinds.items() if kind == ("decode",)} == kinds.keys() - {
        "pipe.mp4", "loop.mp4", "device.mp4",
    }  # fmt: skip
