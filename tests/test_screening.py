"""Between the clips and the release there is room for a person, who is told every command."""

import json
import re
import shlex
from pathlib import Path

from flows import cli
from flows.screening import screening_lines
from tests import films as films_module
from tests.films import QUICK, Built, copied

films, built = films_module.films, films_module.built  # fixtures


def printed_commands(text: str) -> list[list[str]]:
    return [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("anitalk ")]


def build_to_screen(made: Built, capsys) -> str:
    capsys.readouterr()
    arguments = ["build", str(made.manifest), "--workspace", str(made.workspace), "--inline", *QUICK]
    assert cli.run([*arguments, "--release", "screened", "--screen"]) == cli.EXIT_SCREENING == 3
    return capsys.readouterr().out


def test_the_printed_commands_work_as_printed_and_a_rejected_clip_stays_out(built, tmp_path, capsys, monkeypatch):
    made = copied(built, tmp_path / "a folder")
    text = build_to_screen(made, capsys)
    assert not (made.workspace / "releases" / "screened").exists()
    clips, show, release = printed_commands(text)
    assert cli.run([*clips, "--format", "json"]) == 0
    first, second = (row["clip_id"] for row in json.loads(capsys.readouterr().out))
    monkeypatch.chdir(tmp_path)
    assert cli.run([part.replace("CLIP", first) for part in show]) == 0
    assert (tmp_path / f"{first}.png").read_bytes().startswith(b"\x89PNG")

    target, decision = re.search(r"write this to (.*)\n#   (\{.*\})$", text, flags=re.MULTILINE).groups()
    (made.workspace / "decisions").mkdir()
    Path(target.replace("CLIP", first)).write_text(decision.replace("CLIP", first), encoding="utf-8")
    assert cli.run(release) == 0
    listed = (made.workspace / "releases" / "screened" / "clips.jsonl").read_text()
    assert second in listed
    assert first not in listed


def test_without_a_name_the_release_command_shows_a_placeholder():
    *_, release = screening_lines("s3://bucket/my work", "")
    assert release == "anitalk release NAME --workspace 's3://bucket/my work'"
