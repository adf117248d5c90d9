"""The README is part of the product: its examples run, and no command or setting goes unmentioned."""

import re
from pathlib import Path

import pytest
import yaml

from flows.cli.application import app
from schemas.config import EMBEDDED_DOMAINS
from schemas.sample import FIELDS
from schemas.source import read_manifest
from tests.helpers.animation import stand_in_run
from tests.helpers.films import Built, built  # noqa: F401 - a fixture

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_every_command_is_documented():
    names = [command.name or command.callback.__name__ for command in app.registered_commands]
    missing = [name for name in names if f"anitalk {name}" not in README]
    assert missing == []


def test_every_shard_field_is_in_the_table_with_its_meaning():
    for field in FIELDS:
        shape = "×".join(field.axes) or "–"
        row = rf"^\| `{re.escape(field.suffix)}` \| {field.series} \| {re.escape(shape)} \|"
        assert re.search(row, README, re.MULTILINE), field


def test_the_first_manifest_is_a_manifest(tmp_path: Path):
    manifest = next(block for block in blocks("yaml") if "sources:" in block)
    path = tmp_path / "manifest.yaml"
    path.write_text(manifest)
    assert len(read_manifest(path, EMBEDDED_DOMAINS).sources) == len(yaml.safe_load(manifest)["sources"])


def test_pictures_and_files_it_points_to_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_examples_run(
    number: int,
    built: Built,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    example = blocks("python")[number].replace("out/demo/releases/demo", str(built.release))
    if "runs/finetune" in example:
        example = example.replace("runs/finetune", str(stand_in_run(tmp_path / "run")))  # of random weights
    monkeypatch.chdir(tmp_path)
    exec(compile(example, f"README.md example {number}", "exec"), {})  # noqa: S102 - our own README
