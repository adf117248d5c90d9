"""What the filters think of a clip is one answer: of the release, the screening page, the bundle and Label Studio."""

import json

import pytest

from pipeline.build.results import load_build, results_of
from pipeline.build.survey import survey
from pipeline.curate.choice import ReleaseOptions
from pipeline.curate.collect import collection_key
from pipeline.release.make import make_release
from pipeline.review.detail import detail_of
from pipeline.review.exchange.bundle import write_bundle
from pipeline.review.exchange.labelstudio import label_studio_tasks
from pipeline.review.exchange.screened import read_screened
from pipeline.review.state import ScreeningState
from pipeline.store.reviews import ReviewLog
from pipeline.store.workspace import Workspace
from schemas.base import TimeSpan
from schemas.clip import Clip
from schemas.collection import Collection, DuplicateGroup, DuplicateLink
from schemas.config import BuildConfig
from schemas.decision import Decision, RejectReason
from schemas.scores import SyncScore
from tests.helpers.exchanged import said, stocked

SPEAKS, SILENT, LISTENS, TWICE, UPLOAD, APART = (f"film-{number}" for number in range(6))
REASONS = {
    SPEAKS: None,
    SILENT: RejectReason.NOT_SPEAKING,  # a limit on the clip's own score
    LISTENS: RejectReason.NOT_THE_SPEAKER,  # shares its shot with SPEAKS
    TWICE: None,
    UPLOAD: RejectReason.DUPLICATE,
    APART: RejectReason.OUT_OF_SYNC,  # by the model that the other sources taught
}


def known_sync(z: float) -> SyncScore:
    return SyncScore(status="known", score=0.5, lag_frames=0, z=z, p=0.01)


def differing(number: int, clip: Clip) -> Clip:
    """The first three in one shot, two of them other faces of it at the same time; the rest each in its own."""
    shot = max(0, number - 2)
    span = TimeSpan(start_s=1.0 + 10 * shot, stop_s=1.0 + 10 * shot + clip.duration_s)
    plan = clip.plan.model_copy(update={"shot_index": shot, "track_index": number, "span": span})
    scores = clip.scores.model_copy(update={"sync": known_sync(4.0 if clip.clip_id == LISTENS else 8.0)})
    return clip.model_copy(update={"plan": plan, "scores": scores})


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    """Six clips that have been compared, each with another fate."""
    config = BuildConfig()
    limits = config.domains["real"].limits.model_copy(update={"min_ridge_z": 3.0, "one_speaker": True})
    domains = config.domains | {"real": config.domains["real"].model_copy(update={"limits": limits})}
    config = config.model_copy(update={"domains": domains})
    workspace = stocked(tmp_path_factory.mktemp("answers") / "ws", 6, config=config, changed=differing)
    link = DuplicateLink(clip_id=TWICE, twin_id=UPLOAD, kind="picture", distance=0.01, limit=0.2)
    collection = Collection(
        identities=dict.fromkeys(REASONS, "film"),
        duplicates=(DuplicateGroup(clip_ids=(TWICE, UPLOAD), links=(link,)),),
        ridge={clip_id: known_sync(1.0 if clip_id == APART else 9.0) for clip_id in REASONS},
        calibration={},
    )
    results = results_of(workspace, load_build(workspace))
    key = collection_key(results, survey(results, load_build(workspace).sources))
    workspace.publish("collection", key, collection)
    return workspace


def released(workspace: Workspace, name: str) -> dict[str, Decision]:
    build = load_build(workspace)
    _, choice, _ = make_release(workspace, build, build.config, name, ReleaseOptions())
    return {decision.clip_id: decision for decision in choice.decisions}


def on_the_page(workspace: Workspace) -> dict[str, Decision]:
    screening = ScreeningState(workspace)
    for entry in screening.catalogue.entries:
        shown = detail_of(screening, entry)["verdict"]
        assert (shown["keep"], shown["reason"]) == (entry.measured.keep, entry.measured.reason)
    return {entry.clip_id: entry.measured for entry in screening.catalogue.entries}


def in_the_bundle(workspace: Workspace, folder) -> dict[str, tuple[str, list[str]]]:
    """What the page of a bundle says of the filters, and which scores it marks."""
    write_bundle(read_screened(workspace), folder)
    page = (folder / "index.html").read_text(encoding="utf-8")
    data = json.loads(page.split('<script id="bundle" type="application/json">')[1].split("</script>")[0])
    return {
        clip["id"]: (clip["filter"], [row["name"] for row in clip["scores"] if row["missed"]]) for clip in data["clips"]
    }


def in_label_studio(workspace: Workspace) -> dict[str, tuple[bool, str, list[str]]]:
    """Of each task: whether the filters keep the clip, their reason, and the verdict that is filled in."""
    tasks = json.loads(label_studio_tasks(read_screened(workspace), "/"))
    answers = {}
    for task in tasks:
        (prediction,) = task["predictions"]
        verdict = next(value["value"]["choices"] for value in prediction["result"] if value["from_name"] == "verdict")
        data = task["data"]
        answers[data["clip_id"]] = data["filter_keeps"], data["filter_reason"], verdict
    return answers


def test_release_page_bundle_and_label_studio_say_the_same(workspace, tmp_path):
    decisions = released(workspace, "first")
    assert {clip_id: decision.reason for clip_id, decision in decisions.items()} == REASONS
    assert on_the_page(workspace) == decisions
    assert dict(read_screened(workspace).filtered) == decisions
    assert in_label_studio(workspace) == {
        clip_id: (reason is None, (reason or ""), ["accept" if reason is None else "reject"])
        for clip_id, reason in REASONS.items()
    }
    assert in_the_bundle(workspace, tmp_path / "bundle") == {
        SPEAKS: ("keep it", []),
        SILENT: ("reject it: not speaking", ["speech_ratio"]),
        LISTENS: ("reject it: not the speaker", []),
        TWICE: ("keep it", []),
        UPLOAD: ("reject it: duplicate", []),
        APART: ("reject it: out of sync", ["fitted_sync_z"]),
    }


def test_what_people_say_changes_the_release_and_of_the_filters_only_what_counts_as_a_duplicate(workspace):
    before = on_the_page(workspace)
    keys = {clip_id: finished.key for clip_id, finished in read_screened(workspace).clips.items()}
    ReviewLog(workspace).append(said(TWICE, keys[TWICE], "reject", reason="blurred"))
    ReviewLog(workspace).append(said(LISTENS, keys[LISTENS]))
    after = released(workspace, "second")
    assert {clip_id for clip_id in REASONS if after[clip_id].keep} == {SPEAKS, LISTENS, UPLOAD}
    shown = on_the_page(workspace)
    assert shown == dict(read_screened(workspace).filtered)
    # The twin of a rejected clip is no duplicate any more, here as in the release: else both would be lost.
    assert {clip_id for clip_id in REASONS if shown[clip_id] != before[clip_id]} == {UPLOAD}
    assert shown[UPLOAD].keep
    assert not shown[LISTENS].keep
