"""Films small enough to build in seconds, and a workspace that was built from them once."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import pytest
import yaml

from flows.cli import application as cli
from pipeline.demo.films import ADA, DemoFilm, DemoShot
from pipeline.demo.portrait import Camera
from pipeline.demo.scenes import Actor, HeadTake, PhotoTake, PortraitTake
from pipeline.demo.sources import render_demo
from pipeline.demo.speech import Voice

SIZE = (320, 256)
TALKER = DemoFilm(
    id="talker",
    title="The small astronaut",
    domain="real",
    license="CC-PDM-1.0",
    credit="NASA, by way of scikit-image; synthetic voice",
    fps=Fraction(25),
    size=SIZE,
    voice=Voice(pitch_hz=195.0, formant_scale=1.15),
    seed=3,
    shots=(DemoShot(PortraitTake(Camera((226.0, 140.0), 1.25)), 3.6),),
)
HEAD = DemoFilm(
    id="head",
    title="The small head",
    domain="mesh",
    license="CC0-1.0",
    credit="Rendered by AniTalk builder; synthetic voice",
    fps=Fraction(24),
    size=SIZE,
    voice=Voice(pitch_hz=215.0, formant_scale=1.17),
    seed=5,
    shots=(
        DemoShot(HeadTake((Actor("ada", ADA, (0.5, 0.46), 8.5, turn_deg=10.0),), (150, 160, 176)), 3.4),
        DemoShot(PhotoTake("coffee", Camera((290, 200), 0.8), Camera((310, 190), 0.9)), 1.2, "silence"),
    ),
)
CAT = DemoFilm(
    id="cat",
    title="The small cat",
    domain="real",
    license="CC0-1.0",
    credit="Chelsea by Stefan van der Walt (CC0), by way of scikit-image",
    fps=Fraction(30),
    size=SIZE,
    voice=Voice(),
    seed=7,
    shots=(DemoShot(PhotoTake("chelsea", Camera((215, 145), 1.0), Camera((235, 150), 1.1)), 2.8, "chords"),),
)
FILMS = (TALKER, HEAD, CAT)

ROOT = Path(__file__).resolve().parents[2]
# Small crops encode fast; nothing here depends on their size.
QUICK = ("--set", "crop.size_px=128", "--inline")


@dataclass(frozen=True)
class Built:
    """A finished workspace: its manifest, and what it was built with."""

    manifest: Path
    workspace: Path

    @property
    def release(self) -> Path:
        return self.workspace / "releases" / "first"


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the rendered films; read only."""
    return _films(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A workspace in which the films, and a file that is none, were built and released once; read only."""
    return _built(tmp_path_factory.getbasetemp())


# Cached here and not only by pytest, for which the fixtures of every importing module are others.
@cache
def _films(base: Path) -> Path:
    folder = base / "films"
    render_demo(folder, FILMS)
    (folder / "broken.mp4").write_text("no film at all\n" * 100)
    return folder


@cache
def _built(base: Path) -> Built:
    folder = base / "built"
    folder.mkdir()
    built = Built(manifest_of(_films(base), folder / "manifest.yaml"), folder / "ws")
    assert build(built.manifest, built.workspace, "--release", "first") == 0
    return built


def manifest_of(films: Path, path: Path, **changes: str) -> Path:
    """A manifest of all films and the broken file; ``changes`` gives other addresses by id."""
    entries = [{"id": film.id, "domain": film.domain, "license": film.license, "title": film.title} for film in FILMS]
    entries.append({"id": "broken"})
    uris = {str(entry["id"]): str(films / f"{entry['id']}.mp4") for entry in entries} | changes
    return write_manifest(path, [{**entry, "uri": uris[str(entry["id"])]} for entry in entries])


def copied(built: Built, folder: Path) -> Built:
    """A workspace of one's own to change."""
    shutil.copytree(built.workspace, folder / "ws")
    return Built(built.manifest, folder / "ws")


def build(manifest: Path, workspace: Path | str, *more: str) -> int:
    """``anitalk build`` in this process."""
    return cli.run(["build", str(manifest), "--workspace", str(workspace), *QUICK, *more])


def program(*arguments: str) -> list[str]:
    """The same command line as a process of its own, wherever it is started."""
    return [sys.executable, "-c", "from flows.cli import main; main()", *arguments]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def start(*arguments: str, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        program(*arguments), env=environment(**more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def write_manifest(path: Path, entries: Iterable[dict[str, object]]) -> Path:
    """A YAML manifest; fields that every source needs are filled in."""
    filled = [
        {"domain": "real", "license": "CC0-1.0", "title": f"Film {entry.get('id')}", **entry} for entry in entries
    ]
    path.write_text(yaml.safe_dump({"sources": filled}, sort_keys=False), encoding="utf-8")
    return path


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
