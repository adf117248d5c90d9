"""Files that once broke a build, and one for each kind of bad file: each comes to what the table says, every time."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.cli import application as cli
from tests.helpers.films import Built, digests, write_manifest
from tests.helpers.fuzz import QUICK
from tests.helpers.hostile import CORPUS, KEPT, SEEDS, TABLE, corpus_seeds, remade

SETTINGS = [part for one in QUICK for part in ("--set", one)]
MOST_BYTES = 30_000


def rows() -> Iterator[dict[str, str]]:
    with TABLE.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def built_from(names: list[str], folder: Path) -> Built:
    entries: list[dict[str, object]] = [
        {"id": name.replace(".", "-"), "uri": str(CORPUS / name), "domain": "mesh"} for name in names
    ]
    manifest = write_manifest(folder / "manifest.yaml", entries)
    assert cli.run(["build", str(manifest), "--workspace", str(folder / "ws"), "--inline", *SETTINGS]) == 0
    return Built(manifest, folder / "ws")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """All of the corpus in one manifest."""
    return built_from([row["file"] for row in rows()], tmp_path_factory.mktemp("corpus"))


def status(made: Built, capsys: pytest.CaptureFixture[str]) -> dict:
    capsys.readouterr()
    assert cli.run(["status", "--workspace", str(made.workspace), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_each_file_has_its_class_and_its_sentence(built, capsys):
    found = status(built, capsys)
    failures = {row["source_id"]: row for row in found["failures"]}
    assert len(failures) == len(found["failures"])
    assert found["left"] == []
    came_to = {}
    for row in rows():
        failure = failures.get(row["file"].replace(".", "-"))
        came_to[row["file"]] = (failure["reason_class"], failure["stage"]) if failure else ("done", "")
        if failure:
            assert row["sentence"] in failure["message"], (row["file"], failure["message"])
            assert row["file"] in failure["message"]
            assert "\n" not in failure["message"]
    assert came_to == {row["file"]: (row["class"], row["stage"]) for row in rows()}


def test_every_seed_yields_a_clip(built, capsys):
    capsys.readouterr()
    assert cli.run(["clips", "--workspace", str(built.workspace), "--format", "json"]) == 0
    sources = {row["source_id"] for row in json.loads(capsys.readouterr().out)}
    assert {name.replace(".", "-") for name in SEEDS} <= sources


@pytest.mark.parametrize("name", ["plain.mp4", "vp9.webm"])
def test_a_sound_film_among_bad_ones_comes_out_as_it_does_alone(built, tmp_path, name):
    alone = built_from([name], tmp_path)
    clips = {path: sha for path, sha in digests(alone.workspace).items() if path.startswith("results/clip/")}
    assert clips
    among = digests(built.workspace)
    assert {path: among.get(path) for path in clips} == clips


def test_the_corpus_is_small_and_all_of_it_is_in_the_table():
    names = {path.name: path.stat().st_size for path in CORPUS.iterdir() if path != TABLE}
    assert names.keys() == {row["file"] for row in rows()} == SEEDS.keys() | KEPT.keys()
    assert {name: size for name, size in names.items() if size >= MOST_BYTES} == {}


def test_what_was_made_from_the_seeds_byte_by_byte_is_made_again():
    """An encoder's bytes differ between processors and versions; what is cut and patched from a kept seed does not."""
    encoded = {"small.mp4", "wide.mp4", "stretched.mp4", "fast.mp4"}
    for name, data in remade(corpus_seeds()):
        assert name in encoded or data == (CORPUS / name).read_bytes(), name
