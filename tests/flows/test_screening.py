"""Between the clips and the release there is room for a person, who is told every command."""

import shlex

from flows.cli import application as cli
from flows.screening import screening_lines
from schemas.decision import RejectReason
from schemas.errors import EXIT_SCREENING
from tests.helpers import films as films_module
from tests.helpers.films import QUICK, Built, copied
from tests.helpers.reviewing import say, surveyed

films, built = films_module.films, films_module.built  # fixtures


def printed_commands(text: str) -> list[list[str]]:
    return [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("anitalk ")]


def build_to_screen(copy: Built, capsys) -> str:
    capsys.readouterr()
    arguments = ["build", str(copy.manifest), "--workspace", str(copy.workspace), "--inline", *QUICK]
    assert cli.run([*arguments, "--release", "screened", "--screen"]) == EXIT_SCREENING == 3
    return capsys.readouterr().out


def test_the_release_works_as_printed_and_a_rejected_clip_stays_out(built, tmp_path, capsys, monkeypatch):
    copy = copied(built, tmp_path / "a folder")
    text = build_to_screen(copy, capsys)
    assert not (copy.workspace / "releases" / "screened").exists()
    review, import_, release = printed_commands(text)
    workspace = ["--workspace", str(copy.workspace)]
    assert (review, import_) == (["review", *workspace], ["review", "import", "FILE", *workspace])
    first, second = surveyed(copy.workspace)
    say(copy.workspace, first, "reject", reason=RejectReason.OCCLUDED)
    monkeypatch.chdir(tmp_path)
    assert cli.run(release) == 0
    listed = (copy.workspace / "releases" / "screened" / "clips.jsonl").read_text()
    assert second.clip.clip_id in listed
    assert first.clip.clip_id not in listed


def test_without_a_name_the_release_command_shows_a_placeholder():
    *_, release = screening_lines("s3://bucket/my work", "")
    assert release == "anitalk release NAME --workspace 's3://bucket/my work'"
