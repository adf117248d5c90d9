"""What people said of clips takes effect in the release, and nothing of it makes anybody analyse a film again."""

import json
import shutil
import signal
import subprocess
import sys
import tarfile
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows.cli import application as cli
from flows.cli import listings
from pipeline.build.results import load_build, results_of
from pipeline.curate import reviewed as applied
from pipeline.curate.choice import ReleaseOptions, choose
from pipeline.release.verify import verify_release
from pipeline.store.workspace import Workspace
from schemas.base import FrameSpan
from schemas.decision import Decision, RejectReason
from tests.helpers import films as films_module
from tests.helpers.films import ROOT, build, copied, digests, environment
from tests.helpers.reviewing import as_reviewed, say, surveyed

films, built = films_module.films, films_module.built  # fixtures
TRIM = FrameSpan(start=8, stop=80)


def clips_of(workspace: Path):
    """The clips as made, by source."""
    return {made.source.id: made for made in surveyed(workspace)}


def samples_of(release: Path) -> dict[str, dict]:
    """The visual json of every sample by source, with the shard it lies in."""
    found = {}
    for path in sorted(release.rglob("*-visual-*.tar")):
        with tarfile.open(path) as tar:
            for member in tar.getmembers():
                if member.name.endswith(".json"):
                    info = json.loads(tar.extractfile(member).read())
                    found[info["source_id"]] = info | {"shard": path.relative_to(release).as_posix()}
    return found


def decided(workspace: Path, *settings: str) -> dict[str, Decision]:
    """Decisions by source, as a release under these settings would take them but for duplicates."""
    from flows.settings import overlaid

    place = Workspace(workspace)
    made = load_build(place)
    results = results_of(place, made, overlaid(made.config, made.weights, None, settings).build)
    found = applied.survey_reviewed(results, made.sources)
    decisions = choose(results, made, found, ReleaseOptions()).decisions
    return {one.source.id: decision for one, decision in zip(found.clips, decisions, strict=True)}


@dataclass(frozen=True)
class Screened:
    workspace: Path
    before: dict[str, str]  # of the results, from before anybody said anything

    @property
    def release(self) -> Path:
        return self.workspace / "releases" / "screened"


@pytest.fixture(scope="module")
def screened(built, tmp_path_factory) -> Screened:
    """The talker trimmed, put into another domain and named; the head given the same name; released. Read only."""
    made = copied(built, tmp_path_factory.mktemp("screened"))
    before = digests(made.workspace / "results")
    clips = clips_of(made.workspace)
    say(made.workspace, clips["talker"], "trim", trim=TRIM)
    say(made.workspace, clips["talker"], "domain", domain="disney_human")
    for name in ("talker", "head"):
        say(made.workspace, clips[name], "identity", identity_id="ada")
    assert cli.run(["release", "screened", "-w", str(made.workspace)]) == 0
    return Screened(made.workspace, before)


# ---- domains, identities, trims --------------------------------------------------------------------


def test_the_release_is_sound_and_says_what_people_said(screened):
    assert verify_release(str(screened.release)) == []
    samples = samples_of(screened.release)
    talker, head = samples["talker"], samples["head"]
    assert (talker["domain"], talker["identity_id"], talker["num_frames"]) == ("disney_human", "ada", 72)
    assert (head["domain"], head["identity_id"], head["num_frames"]) == ("mesh", "ada", 72)
    assert talker["split"] == head["split"], "one person is in one split"
    assert talker["shard"].split("/")[1] == "disney_human"
    assert talker["clip_id"] == clips_of(screened.workspace)["talker"].clip.clip_id
    assert talker["plan"]["span"]["start_s"] == pytest.approx(8 / 25)


def test_nothing_was_analysed_or_made_again(screened):
    after = digests(screened.workspace / "results")
    assert {name: after[name] for name in screened.before} == screened.before
    assert {name.split("/")[0] for name in after.keys() - screened.before.keys()} == {"trim", "collection"}


def test_a_second_release_cuts_nothing(screened, tmp_path, monkeypatch):
    shutil.copytree(screened.workspace, tmp_path / "ws")
    monkeypatch.setattr(applied, "trim_clip", None)
    assert cli.run(["release", "again", "-w", str(tmp_path / "ws")]) == 0
    again, first = (samples_of(tmp_path / "ws" / "releases" / name) for name in ("again", "screened"))
    assert again == first


def test_models_and_lists_tell_who_made_the_clip(screened):
    about = json.loads((screened.release / "about.json").read_text())
    place = Workspace(screened.workspace)
    made = load_build(place)
    raw = results_of(place, made).model_files.cards({"real", "mesh"})
    assert {card["name"] for card in about["models"]} == {card.name for card in raw}
    rows = [json.loads(line) for line in (screened.release / "clips.jsonl").read_text().splitlines()]
    domains = {row["plan"]["source_id"]: (row["domain"], row.get("reviewed_domain")) for row in rows}
    assert domains == {"talker": ("real", "disney_human"), "head": ("mesh", None)}


def test_a_rebuilt_list_keeps_the_part_the_domain_and_the_person(screened, films, tmp_path):
    shutil.copy(screened.release / "clips.jsonl", tmp_path / "clips.jsonl")
    place = tmp_path / "rebuilt"
    code = build(tmp_path / "clips.jsonl", place, "--media", str(films), "--release", "again")
    assert code == 0
    ours, theirs = samples_of(place / "releases" / "again"), samples_of(screened.release)
    for name in ("clip_id", "domain", "identity_id", "num_frames", "split", "plan", "shard"):
        assert {key: one[name] for key, one in ours.items()} == {key: one[name] for key, one in theirs.items()}, name


def test_listings_show_the_clip_as_people_left_it(screened, built, tmp_path, capsys):
    place = Workspace(screened.workspace)
    made = load_build(place)
    rows, columns = listings.clip_rows(results_of(place, made), made)
    assert set(rows[0]) == set(columns)
    talker = next(row for row in rows if row["source_id"] == "talker")
    assert (talker["domain"], talker["num_frames"], talker["trim"], talker["named"]) == (
        "disney_human", 72, "8-80", "ada",
    )  # fmt: skip
    assert cli.run(["show", "talker", "-w", str(screened.workspace), "-o", str(tmp_path / "sheet.png")]) == 0
    waiting = copied(built, tmp_path)
    say(waiting.workspace, clips_of(waiting.workspace)["talker"], "trim", trim=TRIM)
    capsys.readouterr()
    assert cli.run(["clips", "-w", str(waiting.workspace), "--format", "json"]) == 0
    rows = {row["source_id"]: row for row in json.loads(capsys.readouterr().out)}
    assert (rows["talker"]["num_frames"], rows["talker"]["trim"]) == (90, "8-80 (waiting)")


def test_limits_follow_the_domain(built, tmp_path):
    made = copied(built, tmp_path)
    stricter = "domains.disney_human.limits.min_face_ratio=2"
    assert decided(made.workspace, stricter)["talker"].keep
    say(made.workspace, clips_of(made.workspace)["talker"], "domain", domain="disney_human")
    decision = decided(made.workspace, stricter)["talker"]
    assert (decision.keep, decision.reason, decision.limit) == (False, RejectReason.FACE_MISSING, 2.0)


@pytest.mark.parametrize(("num_frames", "keep"), [(63, False), (64, True), (65, True)])
def test_a_part_is_as_long_as_any_clip_must_be(built, tmp_path, num_frames, keep):
    made = copied(built, tmp_path)
    say(made.workspace, clips_of(made.workspace)["talker"], "trim", trim=FrameSpan(start=5, stop=5 + num_frames))
    place = Workspace(made.workspace)
    results = results_of(place, load_build(place))
    found = applied.survey_reviewed(results, load_build(place).sources)
    applied.reviewed(results, found, make_trims=True)
    decision = decided(made.workspace)["talker"]
    assert decision.keep is keep
    if not keep:
        assert (decision.reason, decision.measured, decision.limit) == ("track_too_short", num_frames / 25, 2.56)


def test_an_undone_trim_leaves_the_whole_clip(screened, tmp_path):
    shutil.copytree(screened.workspace, tmp_path / "ws")
    whole = clips_of(tmp_path / "ws")["talker"]
    said = as_reviewed(tmp_path / "ws").said[whole.clip.clip_id]
    say(tmp_path / "ws", whole, "undo", undoes=said.trim.review_id)
    [now] = [made for made in as_reviewed(tmp_path / "ws").clips if made.source.id == "talker"]
    assert (now.clip.plan, now.clip.files, now.trim_key) == (whole.clip.plan, whole.clip.files, "")


# ---- what cannot be followed -----------------------------------------------------------------------


def test_a_domain_that_nobody_knows_is_one_sentence(built, tmp_path, capsys):
    made = copied(built, tmp_path)
    clip = clips_of(made.workspace)["talker"]
    say(made.workspace, clip, "domain", domain="claymation")
    capsys.readouterr()
    assert cli.run(["release", "x", "-w", str(made.workspace)]) == cli.EXIT_USAGE
    told = capsys.readouterr().err
    assert told == (
        f"anitalk: clip {clip.clip.clip_id} was put into the domain 'claymation' by eva on 2026-01-02, and this "
        "configuration knows disney_animal, disney_human, mesh, real: add the domain with --config, or name another "
        "one in review\n"
    )


def test_a_trim_beyond_the_end_is_one_sentence(built, tmp_path, capsys):
    made = copied(built, tmp_path)
    say(made.workspace, clips_of(made.workspace)["talker"], "trim", trim=FrameSpan(start=80, stop=91))
    capsys.readouterr()
    assert cli.run(["release", "x", "-w", str(made.workspace)]) == cli.EXIT_USAGE
    assert "was trimmed to frames 80 to 91 by eva on 2026-01-02, and it has 90: undo" in capsys.readouterr().err


def test_what_was_said_of_another_version_is_shown_and_decides_nothing(built, tmp_path, capsys):
    made = copied(built, tmp_path)
    clips = clips_of(made.workspace)
    for action in ({"action": "reject", "reason": "occluded"}, {"action": "trim", "trim": TRIM}):
        say(made.workspace, clips["talker"], **action, version="0" * 64)
    assert decided(made.workspace)["talker"].keep
    assert not (made.workspace / "results" / "trim").exists()
    capsys.readouterr()
    assert cli.run(["status", "-w", str(made.workspace)]) == 0
    assert f"2 reviews are of an earlier version of {clips['talker'].clip.clip_id}" in capsys.readouterr().out
    assert cli.run(["status", "--json", "-w", str(made.workspace)]) == 0
    assert json.loads(capsys.readouterr().out)["stale_reviews"] == 2
    assert cli.run(["decisions", "-w", str(made.workspace), "--format", "json"]) == 0
    rows = {row["clip_id"]: row["stale"] for row in json.loads(capsys.readouterr().out)}
    assert rows == {clips["talker"].clip.clip_id: 2, clips["head"].clip.clip_id: 0}


# ---- verdicts in the card --------------------------------------------------------------------------


def test_the_card_tells_whose_decision_it_was(built, tmp_path):
    made = copied(built, tmp_path)
    clips = clips_of(made.workspace)
    say(made.workspace, clips["head"], "reject", reason="bad_landmarks")
    say(made.workspace, clips["talker"], "accept")
    strict = ["--set", "domains.real.limits.min_sharpness=1e6"]
    assert cli.run(["release", "told", "-w", str(made.workspace), *strict]) == 0
    release = made.workspace / "releases" / "told"
    steps = json.loads((release / "about.json").read_text())["funnel"]["steps"]
    [step] = [one for one in steps if one["stage"] == "select"]
    assert (step["entered"], step["passed"], step["overruled"]) == (2, 1, 1)
    assert [(drop["reason"], drop["by"], drop["count"]) for drop in step["drops"]] == [("bad_landmarks", "reviewer", 1)]
    card = (release / "README.md").read_text()
    assert "| ↳ `bad_landmarks` by a reviewer | | | | 1 |" in card
    assert "| ↳ kept by a reviewer against the filters | | | 1 |" in card
    page = (release / "card.html").read_text()
    assert "bad_landmarks (reviewer) 1" in page
    assert "kept by a reviewer against the filters 1" in page
    assert verify_release(str(release)) == []


def test_without_reviews_the_funnel_is_as_it_always_was(built):
    about = (built.release / "about.json").read_text()
    assert "overruled" not in about
    assert '"by"' not in about


# ---- take-down and kills ---------------------------------------------------------------------------


def test_a_take_down_leaves_no_part_and_no_word(screened, tmp_path):
    shutil.copytree(screened.workspace, tmp_path / "ws")
    clips = clips_of(tmp_path / "ws")
    assert cli.run(["forget", "talker", "-w", str(tmp_path / "ws"), "--drop-old"]) == 0
    left = [path.relative_to(tmp_path / "ws").as_posix() for path in (tmp_path / "ws").rglob("*") if path.is_file()]
    assert not any(name.startswith(("results/trim/", f"decisions/{clips['talker'].clip.clip_id}/")) for name in left)
    assert any(name.startswith(f"decisions/{clips['head'].clip.clip_id}/") for name in left)


KILLED = textwrap.dedent("""
    import os, signal, sys
    from flows.cli import application as cli
    from pipeline.store.storage import Storage

    write, left = Storage.write, [int(sys.argv[2])]

    def dying(self, name, data):
        if name.startswith("results/trim/"):
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
        write(self, name, data)

    Storage.write = dying
    cli.run(["release", "screened", "-w", sys.argv[1]])
""")


@pytest.mark.parametrize("num_written", [2, 9])
def test_killed_amid_a_trim_and_run_again_the_bytes_are_the_same(built, screened, tmp_path, num_written):
    """The ninth write of the part would be its record, which alone makes it count."""
    made = copied(built, tmp_path)
    shutil.copytree(screened.workspace / "decisions", made.workspace / "decisions")
    command = [sys.executable, "-c", KILLED, str(made.workspace), str(num_written)]
    done = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    [part] = (made.workspace / "results" / "trim").iterdir()
    assert len(list(part.iterdir())) == num_written
    assert not (part / "record.json").exists()
    assert not (made.workspace / "releases" / "screened").exists()
    assert cli.run(["release", "screened", "-w", str(made.workspace)]) == 0
    for folder in ("results/trim", "releases/screened"):
        assert digests(made.workspace / folder) == digests(screened.workspace / folder)
