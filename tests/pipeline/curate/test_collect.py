"""The collection: a function of the set of clips, computed once, and nothing of it reaches into a clip or a shard."""

import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from flows.cli import application as cli
from flows.cli import listings
from pipeline.build.results import Results, load_build
from pipeline.build.survey import FinishedClip, Survey, survey
from pipeline.clip.prints import PrintTap
from pipeline.clip.prints_file import from_bytes, to_bytes
from pipeline.curate import collect as collect_module
from pipeline.curate.choice import ReleaseOptions, choose
from pipeline.curate.collect import collect, collection_key, copied_sources, ridge_groups, stored_collection
from pipeline.curate.select import drop_duplicates
from pipeline.release import make as release_module
from pipeline.store.workspace import Workspace
from schemas.collection import DuplicateGroup, DuplicateLink
from schemas.decision import Decision, RejectReason
from schemas.errors import WorkspaceError
from schemas.prints import PRINTS_FILE
from schemas.sample import FIELDS
from tests.helpers import films as films_module
from tests.helpers.films import Built, build, copied, digests
from tests.helpers.prints import make_prints
from tests.helpers.release_items import make_clip, make_source

films, built = films_module.films, films_module.built  # fixtures


def opened(workspace: Path) -> tuple[Results, Survey]:
    place = Workspace(workspace)
    made = load_build(place)
    results = Results(place, made.config)
    return results, survey(results, made.sources)


def backwards(found: Survey) -> Survey:
    return Survey(rows=found.rows, clips=found.clips[::-1], num_shots=found.num_shots, num_tracks=found.num_tracks)


def twin_manifest(made: Built, folder: Path) -> Path:
    """The films, and one of them a second time under another name and title."""
    content = yaml.safe_load(made.manifest.read_text())
    talker = next(entry for entry in content["sources"] if entry["id"] == "talker")
    content["sources"].append({**talker, "id": "upload", "title": "Something else"})
    path = folder / "twins.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def twins(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A workspace with one film listed twice, released."""
    folder = tmp_path_factory.mktemp("twins")
    shutil.copytree(built.workspace, folder / "ws")
    shutil.rmtree(folder / "ws" / "releases")
    made = Built(twin_manifest(built, folder), folder / "ws")
    assert build(made.manifest, made.workspace, "--release", "first") == 0
    return made


# --- laws of the stage ---


def test_the_order_of_clips_does_not_matter(twins, tmp_path):
    results, found = opened(twins.workspace)
    assert collection_key(results, backwards(found)) == collection_key(results, found)
    known = stored_collection(results, found)
    mine = copied(twins, tmp_path)
    shutil.rmtree(mine.workspace / "results" / "collection")
    again, other = opened(mine.workspace)
    assert stored_collection(again, other) is None
    assert collect(again, backwards(other)) == known


def test_it_is_computed_once(twins, tmp_path, monkeypatch):
    mine = copied(twins, tmp_path)
    results, found = opened(mine.workspace)
    monkeypatch.setattr(collect_module, "find_duplicates", None)
    assert collect(results, found) == stored_collection(results, found)


def test_another_source_changes_the_collection_and_no_clip(built, twins):
    before, after = digests(built.workspace / "results"), digests(twins.workspace / "results")
    assert {name for name in before if before[name] != after.get(name)} == set()
    new = {name.split("/")[0] for name in after.keys() - before.keys()}
    assert new == {"acquire", "probe", "analyse", "plan", "clip", "collection"}
    kept = [name for name in after if name.startswith("collection/")]
    assert len(kept) == 2


def test_clips_of_a_subset_do_not_know_of_the_rest(built, twins):
    small, large = opened(built.workspace), opened(twins.workspace)
    assert collection_key(*small) != collection_key(*large)
    assert stored_collection(*small).duplicates == ()


def test_a_limit_changes_no_collection(twins):
    results, found = opened(twins.workspace)
    other = results.config.model_copy(deep=True)
    for domain in other.domains.values():
        object.__setattr__(domain, "limits", domain.limits.model_copy(update={"min_sync_z": 9.0}))
    assert collection_key(Results(results.workspace, other), found) == collection_key(results, found)


# --- duplicates in a release ---


def decisions_of(workspace: Path) -> dict[str, Decision]:
    results, found = opened(workspace)
    made = load_build(results.workspace)
    choice = choose(results, made, found, ReleaseOptions(), stored_collection(results, found))
    return {found_.source.id: one for found_, one in zip(found.clips, choice.decisions, strict=True)}


def test_a_film_listed_twice_is_released_once(twins):
    decisions = decisions_of(twins.workspace)
    lost = [name for name in ("talker", "upload") if decisions[name].reason is RejectReason.DUPLICATE]
    assert len(lost) == 1
    [winner] = {"talker", "upload"} - set(lost)
    assert decisions[winner].keep
    assert decisions[lost[0]].note == f"the same take as {decisions[winner].clip_id}, by file"
    assert (decisions[lost[0]].measured, decisions[lost[0]].limit) == (0.0, 0.5)
    keys = {member.name.split(".")[0] for member in members(twins.release)}
    assert decisions[winner].clip_id in keys
    assert decisions[lost[0]].clip_id not in keys


def test_status_and_decisions_tell_of_duplicates_once_they_are_known(twins, tmp_path, capsys):
    assert cli.run(["status", "-w", str(twins.workspace)]) == 0
    assert "1 duplicate" in capsys.readouterr().out
    mine = copied(twins, tmp_path)
    shutil.rmtree(mine.workspace / "results" / "collection")
    before = digests(mine.workspace)
    assert cli.run(["status", "-w", str(mine.workspace)]) == 0
    told = capsys.readouterr().out
    assert "duplicate" not in told.replace("looks for duplicates", "")
    assert "have not been compared" in told
    assert digests(mine.workspace) == before, "looking writes nothing"


def test_the_listing_names_people_and_twins(twins):
    results, _ = opened(twins.workspace)
    rows, columns = listings.clip_rows(results, load_build(results.workspace))
    assert set(rows[0]) == set(columns)
    by_source = {row["source_id"]: row for row in rows}
    assert by_source["talker"]["twins"] == by_source["upload"]["clip_id"]
    assert by_source["head"]["twins"] == ""
    assert {name: row["identity_id"] for name, row in by_source.items()} == {name: name for name in by_source}


def test_sources_that_share_a_take_are_one_group(twins):
    """Also for clips of which no copy was found, and for the model that judges sync."""
    results, found = opened(twins.workspace)
    collection = stored_collection(results, found)
    assert copied_sources(found.clips, collection.duplicates) == {"talker": "talker", "upload": "talker"}
    groups = ridge_groups(found.clips, collection.duplicates)
    [shared] = [clips for clips in groups.values() if len(clips) == 2]
    assert {clip_id.rsplit("-", 1)[0] for clip_id in shared} == {"talker", "upload"}
    assert len(ridge_groups(found.clips, ())) == 2, "the file ties them anyway"


def test_reuploads_of_other_files_are_tied_by_their_copies():
    clips = [
        FinishedClip("k", make_clip(f"{source}-{number}", source), make_source(source), f"sha-{source}")
        for source in ("a", "b", "c")
        for number in range(2)
    ]
    link = DuplicateLink(clip_id="a-0", twin_id="b-0", kind="picture", distance=0.1, limit=0.35)
    groups = ridge_groups(clips, [DuplicateGroup(clip_ids=("a-0", "b-0"), links=(link,))])
    assert sorted(sorted(clips) for clips in groups.values()) == [["a-0", "a-1", "b-0", "b-1"], ["c-0", "c-1"]]


# --- who stays ---


def chosen(crops, links, *, rejected=(), verdicts=None, frames=None):
    """Ids that stay, of clips with these native crops."""
    clips = {
        name: make_clip(name, num_frames=(frames or {}).get(name, 64), scores={"native_crop_px": float(crop)})
        for name, crop in crops.items()
    }
    decisions = [Decision(clip_id=name, keep=name not in rejected) for name in clips]
    pairs = [DuplicateLink(clip_id=a, twin_id=b, kind="picture", distance=0.1, limit=0.35) for a, b in links]
    ids = tuple(sorted({name for pair in links for name in pair}))
    found = drop_duplicates(decisions, [DuplicateGroup(clip_ids=ids, links=tuple(pairs))], clips, verdicts or {})
    assert [one.clip_id for one in found] == list(clips)
    return {one.clip_id for one in found if one.keep}


ALL = [("a", "b"), ("a", "c"), ("b", "c")]


def test_the_largest_stays():
    assert chosen({"a": 300, "b": 400, "c": 200}, ALL) == {"b"}


def test_of_equals_the_longer_and_then_the_first_stays():
    assert chosen({"a": 300, "b": 300, "c": 300}, ALL, frames={"c": 80}) == {"c"}
    assert chosen({"b": 300, "a": 300, "c": 300}, ALL) == {"a"}


def test_what_the_limits_reject_makes_nobody_a_duplicate():
    assert chosen({"a": 300, "b": 400, "c": 200}, ALL, rejected={"b"}) == {"a"}


def test_what_a_reviewer_rejects_makes_nobody_a_duplicate():
    verdict = Decision(clip_id="b", keep=False, by="reviewer", who="x", at="2026-01-01T00:00:00")
    assert "a" in chosen({"a": 300, "b": 400, "c": 200}, ALL, verdicts={"b": verdict})


def test_a_reviewer_who_keeps_a_duplicate_costs_its_twin_nothing():
    verdict = Decision(clip_id="a", keep=True, by="reviewer", who="x", at="2026-01-01T00:00:00")
    assert chosen({"a": 300, "b": 400}, [("a", "b")], verdicts={"a": verdict}) == {"b"}


def test_halves_stay_where_the_whole_goes():
    halves = [("half1", "whole"), ("half2", "whole")]
    assert chosen({"half1": 301, "half2": 300, "whole": 300}, halves, frames={"whole": 128}) == {"half1", "half2"}
    assert chosen({"half1": 300, "half2": 300, "whole": 301}, halves) == {"whole"}


# --- prints ---


def members(release: Path) -> list[tarfile.TarInfo]:
    found = []
    for path in sorted(release.rglob("*.tar")):
        with tarfile.open(path) as tar:
            found += tar.getmembers()
    return found


def test_prints_lie_beside_a_clip_and_never_leave_with_a_release(twins):
    results, found = opened(twins.workspace)
    for made in found.clips:
        assert PRINTS_FILE not in made.clip.files
        prints = from_bytes(results.workspace.result_file("clip", made.key, PRINTS_FILE))
        assert len(prints.seen) == made.clip.plan.num_frames
        assert len(prints.hashes) == 8
    suffixes = {member.name.split(".", 1)[1] for member in members(twins.release)}
    assert suffixes <= {field.suffix for field in FIELDS}
    assert not [path for path in twins.release.rglob("*") if path.is_file() and b"prints" in path.read_bytes()]


def test_prints_survive_storage_and_damage_is_told():
    prints = make_prints(40, seed=3)
    data = to_bytes(prints)
    assert to_bytes(from_bytes(data)) == data
    for name in ("grid", "chords", "face"):
        np.testing.assert_array_equal(getattr(from_bytes(data), name), getattr(prints, name))
    for damaged in (b"", b"no zip", data[:-50], data[:2000] + b"x" + data[2001:]):
        with pytest.raises(ValueError, match="prints"):
            from_bytes(damaged)
    other = io.BytesIO()
    np.savez(other, hashes=prints.hashes)
    with pytest.raises(ValueError, match="prints"):
        from_bytes(other.getvalue())


def test_missing_prints_end_a_release_with_a_remedy(twins, tmp_path):
    mine = copied(twins, tmp_path)
    shutil.rmtree(mine.workspace / "results" / "collection")
    results, found = opened(mine.workspace)
    path = mine.workspace / "results" / "clip" / found.clips[0].key / PRINTS_FILE
    path.unlink()
    with pytest.raises(WorkspaceError, match=r"prints.npz is missing .* delete the folder results/clip/.* run 'anitalk build'"):  # fmt: skip  # noqa: E501
        collect(results, found)


def test_a_clip_that_is_shorter_than_the_frames_to_remember_has_prints():
    meter = PrintTap(3, 25)
    for level in (0, 100, 200):
        meter.add(np.full((32, 32, 3), level, np.uint8), (4.0, 4.0, 28.0, 28.0))
    prints = meter.finish(np.zeros((3, 468, 3), np.float32), np.zeros(3, np.float32), np.zeros(3, np.float32), None)
    assert (len(prints.hashes), prints.grid.shape, bool(prints.heard.any())) == (3, (3, 16), False)
    assert np.linalg.norm(prints.face.astype(np.float64)) == pytest.approx(1.0, abs=1e-2) or not prints.face.any()


def test_a_release_compares_and_a_look_does_not(built, monkeypatch):
    called = []
    monkeypatch.setattr(release_module, "collect", lambda *_: called.append(1))
    results, _ = opened(built.workspace)
    listings.decision_rows(results, load_build(results.workspace))
    assert called == []
