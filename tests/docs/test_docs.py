"""The documents are part of the product: their examples run, and what they name is there."""

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
import yaml

from flows.cli import reference
from flows.cli.application import app
from flows.settings import read_settings
from schemas.config import EMBEDDED_DOMAINS, BuildConfig, EngineConfig, WeightsConfig
from schemas.sample import FIELDS
from schemas.source import read_manifest
from tests.helpers.animation import stand_in_run
from tests.helpers.films import Built, built  # noqa: F401 - a fixture
from training.engine.settings import read_settings as read_training

ROOT = Path(__file__).resolve().parents[2]
TOP = ("README.md", "CONTRIBUTING.md", "DECISIONS.md", "CHANGELOG.md")
FILES = [*(ROOT / name for name in TOP), *sorted((ROOT / "docs").glob("*.md"))]
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in FILES}
REFERENCE_CONFIGURATION = "training/recipes/anytalk/small64.yaml"


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    number: int
    text: str


def fences(text: str) -> list[tuple[str, str]]:
    """Language and text of every fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[Block]:
    return [
        Block(page, number, text)
        for page, content in PAGES.items()
        for number, (its_language, text) in enumerate(fences(content))
        if its_language == language
    ]


def named(block: Block) -> str:
    return f"{block.page}-{block.number}"


# --- examples ---


@pytest.mark.parametrize("block", blocks("python"), ids=named)
def test_python_examples_run(
    block: Block,
    built: Built,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    example = block.text.replace("out/demo/releases/demo", str(built.release))
    if "runs/finetune" in example:
        example = example.replace("runs/finetune", str(stand_in_run(tmp_path / "run")))  # of random weights
    monkeypatch.chdir(tmp_path)
    exec(compile(example, f"{block.page}, example {block.number}", "exec"), {})  # noqa: S102 - our own pages


@pytest.mark.parametrize("block", blocks("yaml"), ids=named)
def test_yaml_examples_are_read_as_what_they_are(block: Block, tmp_path: Path):
    path = tmp_path / "example.yaml"
    path.write_text(block.text)
    given = yaml.safe_load(block.text)
    if "sources" in given:
        assert len(read_manifest(path, EMBEDDED_DOMAINS).sources) == len(given["sources"])
    elif block.page == "docs/training.md":
        assert read_training(path, (), "pretrain") != read_training(None, (), "pretrain")
    else:
        assert read_settings(path) != read_settings(None)


def test_the_reference_configuration_is_valid_and_named_where_its_results_are():
    path = ROOT / REFERENCE_CONFIGURATION
    for stage, num_pairs in (("pretrain", 5600), ("finetune", 7200)):
        config = read_training(path, (), stage)
        assert config.length.num_pairs == num_pairs
        assert config.loading.size_px == 64
    assert REFERENCE_CONFIGURATION in PAGES["docs/training.md"]
    assert "docs/training.md" in path.read_text()


# --- links and names ---


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to headings."""
    heads = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", sorted(PAGES))
def test_links_and_pictures_are_there(page: str):
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text("utf-8")), target


def test_the_readme_is_short_and_leads_to_every_page():
    readme = PAGES["README.md"]
    assert readme.count("\n") < 200
    assert readme.count("```mermaid") == 1
    linked = set(re.findall(r"\]\(([^)#\s]+)", readme))
    assert {page for page in PAGES if page != "README.md"} <= linked


def test_a_picture_of_the_documents_is_shown_somewhere():
    shown = {Path(target).name for text in PAGES.values() for target in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)}
    assert {path.name for path in (ROOT / "docs").glob("*.png")} == shown


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/training.md", "docs/ray-and-prefect.md", "docs/building.md"])
def test_files_that_pages_name_are_there(page: str):
    paths = re.findall(r"`((?:schemas|pipeline|training|flows|manifests|tests|docs|benchmarks)/[\w./-]*)`", PAGES[page])
    installed_elsewhere = {"flows/prefect.yaml"}  # the wheel has it there, a checkout at its top
    assert [path for path in paths if not (ROOT / path).exists() and path not in installed_elsewhere] == []


def test_the_map_names_every_folder():
    shown = PAGES["CONTRIBUTING.md"].split("## Map")[1].split("```")[1]
    for package in ("pipeline", "training", "flows"):
        folders = [path.parent.name for path in (ROOT / package).glob("*/__init__.py")]
        assert [folder for folder in folders if f"{folder}/" not in shown] == []


# --- tables ---


def test_the_field_table_is_that_of_the_program():
    page = PAGES["docs/release-format.md"]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| `")
    ]
    shown = {(row[0].strip("`"), row[1]): row[2:4] for row in rows}
    assert len(rows) == len(FIELDS)
    for field in FIELDS:
        shape = "×".join(field.axes) or "–"
        assert shown[field.suffix, field.series][0] == shape
        optional = next(row[5] for row in rows if (row[0].strip("`"), row[1]) == (field.suffix, field.series))
        assert ("(optional)" in optional) == field.optional, field.suffix


def test_decisions_are_numbered_once_and_each_is_in_the_index():
    text = PAGES["DECISIONS.md"]
    entries = [int(number) for number in re.findall(r"^## (\d+)\. ", text, re.MULTILINE)]
    assert entries == list(range(1, len(entries) + 1))
    index = re.findall(r"^\| (\d+) \| \[.*?\]\(#(\d+)-.*?\) \| (.+) \|$", text, re.MULTILINE)
    assert sorted(int(number) for number, _, _ in index) == entries
    for number, linked, status in index:
        assert number == linked
        assert re.match(r"(standing|measured constant|replaced by \d+)\b", status), (number, status)


def test_decisions_that_the_code_points_to_exist():
    entries = set(re.findall(r"^## (\d+)\. ", PAGES["DECISIONS.md"], re.MULTILINE))
    for folder in ("schemas", "pipeline", "training", "flows"):
        for path in (ROOT / folder).rglob("*.py"):
            assert set(re.findall(r"DECISIONS (\d+)", path.read_text("utf-8"))) <= entries, path


# --- pages that the program prints ---


def test_printed_pages_are_what_the_program_prints():
    outdated = ["\n".join(page.difference()[:20]) for page in reference.pages() if page.difference()]
    assert outdated == [], "run 'make docs'"


def test_a_page_that_is_out_of_date_is_noticed_and_can_be_written(tmp_path, monkeypatch, capsys):
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(PAGES["README.md"])
    (tmp_path / "docs/commands.md").write_text(PAGES["docs/commands.md"].replace("--dry-run", "--dry"))
    (tmp_path / "docs/settings.md").write_text(PAGES["docs/settings.md"])
    monkeypatch.setattr(reference, "ROOT", tmp_path)
    assert reference.main(["--check"]) == 1
    complaint = capsys.readouterr().err
    assert "docs/commands.md" in complaint
    assert "docs/settings.md" not in complaint
    assert "make docs" in complaint
    assert reference.main(["--write"]) == 0
    assert (tmp_path / "docs/commands.md").read_text() == PAGES["docs/commands.md"]
    assert reference.main(["--check"]) == 0


def commands() -> dict[str, Any]:
    """Every command and group by its words, as the command line has them."""

    def below(group: Any, words: str) -> Iterator[tuple[str, Any]]:
        yield words, group
        for name, command in getattr(group, "commands", {}).items():
            yield from below(command, f"{words} {name}")

    return dict(below(typer.main.get_command(app), "anitalk"))


COMMANDS = commands()


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_and_each_of_its_options_is_documented(name: str):
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGES["docs/commands.md"], re.MULTILINE | re.DOTALL))
    rows = re.findall(r"^\| (`.+?`) \| .* \| (.+) \|$", sections[name], re.MULTILINE)
    documented = {word: meaning for names, meaning in rows for word in re.findall(r"`(.+?)`", names)}
    for parameter in COMMANDS[name].params:
        if parameter.name == "help":
            continue
        names = parameter.opts if parameter.opts[0].startswith("-") else [(parameter.metavar or parameter.name).upper()]
        for option in names:
            assert documented[option] not in {"", "–"}, option


def dotted(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict) and value and name != "domains":
            yield from dotted(value, f"{prefix}{name}.")
        else:
            yield prefix + name


@pytest.mark.parametrize(
    ("record", "prefix"), [(BuildConfig, ""), (EngineConfig, "engine."), (WeightsConfig, "weights.")]
)
def test_every_setting_is_documented(record: Any, prefix: str):
    page = PAGES["docs/settings.md"]
    names = list(dotted(record().model_dump(), prefix))
    assert names
    assert [name for name in names if f"| `{name}` |" not in page] == []


def test_settings_of_a_domain_are_documented():
    names = dotted(EMBEDDED_DOMAINS["real"].model_dump(exclude={"detectors"}), "domains.DOMAIN.")
    assert [name for name in names if f"| `{name}` |" not in PAGES["docs/settings.md"]] == []


# --- command lines ---


def command_lines() -> list[tuple[str, str]]:
    """Each ``anitalk …`` of a block in the pages that people write, on one line, without its comment."""
    lines = []
    for page, text in PAGES.items():
        if page in {"docs/commands.md", "CHANGELOG.md"}:
            continue
        fenced = [block for language, block in fences(text) if not language]
        indented = re.findall(r"^    (anitalk .*)$", text, re.MULTILINE)
        for line in itertools.chain(*(block.replace("\\\n", " ").splitlines() for block in fenced), indented):
            if not re.match(r"anitalk |torchrun ", line):
                continue
            words = shlex.split(line.partition(" #")[0])
            lines.append((page, " ".join(words[words.index("anitalk") :])))
    return lines


def test_command_lines_are_looked_at():
    assert {"README.md", "docs/building.md", "docs/training.md", "docs/screening.md"} <= {
        page for page, _ in command_lines()
    }


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_command_lines_name_commands_and_options_that_exist(page: str, line: str):
    words = line.split()
    depth = max(count for count in range(1, len(words) + 1) if " ".join(words[:count]) in COMMANDS)
    command = COMMANDS[" ".join(words[:depth])]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    options = {word for word in words[depth:] if word.startswith("-") and not re.match(r"-\d", word)}
    assert options <= known
    if "…" not in line:
        required = [parameter.opts for parameter in command.params if parameter.required]
        arguments = [names for names in required if not names[0].startswith("-")]
        assert [names for names in required if names not in arguments and not options & set(names)] == []


def test_parameters_of_deployments_that_pages_name_exist():
    import inspect

    from flows.prefect.build import build_anitalk
    from flows.prefect.train import train_anytalk

    known = {**inspect.signature(build_anitalk.fn).parameters, **inspect.signature(train_anytalk.fn).parameters}
    used = re.findall(r"--param '?(\w+)=", PAGES["docs/ray-and-prefect.md"])
    assert used
    assert [name for name in used if name not in known] == []
