"""Selection: limits are inclusive, the first missed one is named, and people overrule numbers but not rights."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.curate.select import (
    BINDING,
    RULES,
    apply_license,
    apply_reviews,
    decide,
    funnel,
    license_problem,
    paper_limits,
)
from schemas.config import SelectLimits
from schemas.decision import Decision, RejectReason
from schemas.ledger import LedgerRow
from schemas.scores import SyncScore
from tests.helpers.release_items import make_clip, make_source

LIMITS = SelectLimits(min_sharpness=10.0, min_stability=0.5, max_overlay=3.0)
UNKNOWN = SyncScore(status="unknown", why="shorter than 3.2 s")


def clip_with(**scores):
    return make_clip(num_frames=64, scores=scores)


def with_sync(z):
    return clip_with(sync=SyncScore(status="known", score=0.5, lag_frames=0, z=z, p=0.01))


# limit's name, reason, one step of the measure, a clip with the given measure
TABLE = [
    ("min_native_crop_px", "low_resolution", 1.0, lambda value: clip_with(native_crop_px=value)),
    ("max_padding", "padding", 0.01, lambda value: clip_with(padding=value)),
    ("min_clip_s", "track_too_short", 1 / 25, lambda value: make_clip(num_frames=round(value * 25))),
    ("max_neighbours", "several_faces", 1, lambda value: clip_with(num_neighbours=max(0, round(value)))),
    ("min_face_ratio", "face_missing", 0.01, lambda value: clip_with(face_ratio=value)),
    ("max_internal_cut", "internal_cut", 0.01, lambda value: clip_with(internal_cut=value)),
    ("max_abs_yaw_deg", "extreme_pose", 1.0, lambda value: clip_with(yaw_abs_median_deg=value)),
    ("min_speech_ratio", "not_speaking", 0.01, lambda value: clip_with(speech_ratio=value)),
    ("min_sync_z", "out_of_sync", 0.1, with_sync),
    ("min_motion", "still", 0.0001, lambda value: clip_with(motion=value)),
    ("min_sharpness", "blurred", 0.1, lambda value: clip_with(sharpness=value)),
    ("min_exposure", "exposure", 0.01, lambda value: clip_with(exposure=value)),
    ("max_exposure", "exposure", 0.01, lambda value: clip_with(exposure=value)),
    ("min_stability", "unsteady", 0.01, lambda value: clip_with(stability=value)),
    ("max_overlay", "overlay", 0.5, lambda value: clip_with(overlay=value)),
]


def test_the_table_covers_every_rule_in_order():
    assert [(name, reason) for name, reason, _, _ in TABLE] == [(rule.limit, rule.reason.value) for rule in RULES]
    numbers = {name for name, value in LIMITS if isinstance(value, float | int) and not isinstance(value, bool)}
    assert {rule.limit for rule in RULES} == numbers


@pytest.mark.parametrize(("name", "reason", "step", "make"), TABLE, ids=[row[0] for row in TABLE])
@pytest.mark.parametrize("side", [-1, 0, 1])
def test_limits_are_inclusive(name, reason, step, make, side):
    limit = getattr(LIMITS, name)
    clip = make(limit + side * step)
    decision = decide(clip, LIMITS)
    wrong_side = -1 if name.startswith("min_") else 1
    assert decision.keep == (side != wrong_side)
    if side == wrong_side:
        assert decision.reason == reason
        assert decision.limit == limit
        assert decision.measured == pytest.approx(limit + side * step)


def test_the_first_missed_limit_is_named():
    bad = clip_with(native_crop_px=1.0, padding=0.9, speech_ratio=0.0, motion=0.0)
    assert decide(bad, LIMITS).reason is RejectReason.LOW_RESOLUTION
    assert decide(bad, LIMITS.model_copy(update={"min_native_crop_px": 0.0})).reason is RejectReason.PADDING


def test_no_audio_is_its_own_reason():
    decision = decide(clip_with(speech_ratio=None), LIMITS)
    assert (decision.reason, decision.measured) == (RejectReason.NO_AUDIO, 0.0)


@pytest.mark.parametrize(("require", "keep"), [(False, True), (True, False)])
def test_unknown_sync_passes_unless_required(require, keep):
    decision = decide(clip_with(sync=UNKNOWN), LIMITS.model_copy(update={"require_sync": require}))
    assert decision.keep is keep
    if not keep:
        assert (decision.reason, decision.note) == (RejectReason.OUT_OF_SYNC, "shorter than 3.2 s")


@pytest.mark.parametrize(("score", "value"), [("stability", 0.0), ("overlay", 99.0)])
def test_limits_that_are_off_and_scores_that_are_not_there_pass(score, value):
    assert decide(clip_with(**{score: value}), SelectLimits()).keep
    assert decide(clip_with(**{score: None}), LIMITS).keep


def test_unknown_pose_passes():
    assert decide(clip_with(yaw_abs_median_deg=None), LIMITS).keep


@pytest.mark.parametrize(("size", "keep"), [(255.0, False), (256.0, True), (257.0, True)])
def test_the_paper_preset_leaves_low_res_out(size, keep):
    assert decide(clip_with(native_crop_px=size), paper_limits(LIMITS)).keep is keep
    assert paper_limits(SelectLimits(min_native_crop_px=400.0)).min_native_crop_px == 400.0


# ---- licences --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "allow", "commercial", "models", "ok"),
    [
        ("CC-BY-4.0", (), False, {}, True),
        ("CC-BY-4.0", ("cc-by-4.0",), False, {}, True),
        ("CC-BY-4.0", ("CC0-1.0",), False, {}, False),
        ("CC-BY-4.0", (), True, {"a": True}, True),
        ("CC-BY-4.0", (), True, {"a": True, "b": False}, False),
        ("CC-BY-4.0", (), True, {"a": None}, False),
        ("CC-BY-NC-4.0", (), False, {"a": False}, True),
        ("CC-BY-NC-4.0", (), True, {}, False),
        ("studio agreement 12", ("Studio agreement 12",), False, {}, True),
        ("studio agreement 12", (), True, {}, False),
    ],
)
def test_licences(text, allow, commercial, models, ok):
    source = make_source(license=text)
    options = {"allow_license": allow, "commercial_only": commercial}
    assert (license_problem(source, models, **options) == "") is ok
    decision = apply_license(Decision(clip_id="a", keep=True), source, models, **options)
    assert decision.keep is ok
    assert ok or decision.reason is RejectReason.LICENSE


# ---- reviews ---------------------------------------------------------------------------------------


def verdict(clip_id, keep, reason=RejectReason.OCCLUDED):
    return {
        clip_id: Decision(
            clip_id=clip_id, keep=keep, by="reviewer", reason=None if keep else reason, at="2026-01-02", who="eva"
        )
    }


FILTERED = st.sampled_from([None, *RejectReason])


@given(st.lists(FILTERED, max_size=8), st.dictionaries(st.integers(0, 9), st.booleans()))
def test_people_have_the_last_word_but_on_what_binds(filtered, said):
    made = [
        Decision(clip_id=f"c{k}", keep=reason is None, reason=reason, measured=0.1, limit=0.2)
        for k, reason in enumerate(filtered)
    ]
    verdicts = {}
    for k, keep in said.items():
        verdicts |= verdict(f"c{k}", keep)
    decided = apply_reviews(made, verdicts)
    assert [one.clip_id for one in decided] == [one.clip_id for one in made]
    for before, after in zip(made, decided, strict=True):
        if before.reason in BINDING or before.clip_id not in verdicts:
            assert after == before
        else:
            assert (after.keep, after.by) == (verdicts[before.clip_id].keep, "reviewer")
        overruled = after.keep and not before.keep
        assert after.overrules == (before.reason if overruled else None)
        if overruled:
            assert (after.measured, after.limit) == (before.measured, before.limit)


@pytest.mark.parametrize("reason", sorted(BINDING))
def test_nobody_overrules_rights_or_a_missing_field(reason):
    made = [Decision(clip_id="a", keep=False, reason=reason)]
    assert apply_reviews(made, verdict("a", True)) == made


def test_a_review_cannot_lift_a_licence_hidden_behind_another_reason():
    filtered = Decision(clip_id="a", keep=False, reason=RejectReason.STILL)
    forbidden = apply_license(filtered, make_source(license="CC-BY-NC-4.0"), {}, commercial_only=True)
    assert not apply_reviews([forbidden], verdict("a", True))[0].keep


# ---- funnel ----------------------------------------------------------------------------------------


def row(stage, item, outcome, attempt=1, **more):
    source_id = item.partition("/")[0]
    return LedgerRow(stage=stage, source_id=source_id, item=item, attempt=attempt, outcome=outcome, **more)


ROWS = [
    row("acquire", "a", "failed", 1, reason="timeout"),
    row("acquire", "a", "done", 2),
    row("acquire", "b", "failed", reason="404"),
    row("acquire", "c", "done"),
    row("acquire", "x", "done"),  # of an older manifest
    row("probe", "a", "done"),
    row("probe", "b", "done"),  # from before b vanished
    row("probe", "c", "rejected", reason_class="decode"),
    row("analyse", "a", "done"),
    row("plan", "a/shot00000", "rejected", reason="shot_too_short", measured=0.5, limit=2.56),
    row("plan", "a/shot00001", "rejected", reason="shot_too_short", measured=1.5, limit=2.56),
    row("plan", "a/shot00002/track000", "rejected", reason="track_too_short"),
    row("clip", "a/shot00003/track000", "failed", reason_class="crash"),
]
DECISIONS = [
    Decision(clip_id="k1", keep=True),
    Decision(clip_id="k2", keep=True),
    Decision(clip_id="r1", keep=False, reason=RejectReason.STILL, measured=0.001, limit=0.002),
    Decision(clip_id="r2", keep=False, by="reviewer"),
    Decision(clip_id="r3", keep=False, by="reviewer", reason=RejectReason.STILL),
    Decision(clip_id="k3", keep=True, by="reviewer", overrules=RejectReason.BLURRED, measured=8.0, limit=10.0),
]


def test_the_funnel_counts_every_loss_once():
    made = funnel(["a", "b", "c", "d"], ROWS, DECISIONS, num_shots=5, num_tracks=4, left_out=["k2"])
    counted = {
        step.stage: (step.entered, step.passed, step.pending, {drop.label: drop.count for drop in step.drops})
        for step in made.steps
    }
    assert counted == {
        "fetch": (4, 2, 1, {"404": 1}),
        "probe": (2, 1, 0, {"decode": 1}),
        "analyse": (1, 1, 0, {}),
        "shots": (5, 3, 0, {"shot_too_short": 2}),
        "tracks": (4, 3, 0, {"track_too_short": 1}),
        "make": (7, 6, 0, {"crash": 1}),
        "select": (6, 3, 0, {"still": 1, "reviewer": 1, "still (reviewer)": 1}),
        "split": (3, 2, 0, {"not_requested": 1}),
    }
    assert [step.stage for step in made.steps if step.overruled] == ["select"]
    assert made.steps[6].overruled == 1
    shots = made.steps[3].drops[0]
    assert (shots.median_measured, shots.limit) == (1.0, 2.56)


@given(
    st.lists(
        st.builds(
            row,
            st.sampled_from(["acquire", "probe", "analyse"]),
            st.sampled_from(["a", "b", "c", "d"]),
            st.sampled_from(["done", "failed", "rejected"]),
            st.integers(1, 4),
        )
    ),
    st.lists(st.sampled_from(["a", "b", "c"]), unique=True),
)
def test_nothing_vanishes_without_a_reason(rows, sources):
    made = funnel(sources, rows, [], num_shots=0, num_tracks=0)
    assert made.steps[0].entered == len(sources)  # the records themselves refuse sums that do not add up
