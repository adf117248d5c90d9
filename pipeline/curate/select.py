"""Decide which clips are kept: limits on stored scores, licences, and the people who looked.

Everything here is pure and cheap, so that a changed limit costs seconds: scores were stored with the
clips, and no decision is stored but those of reviewers.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from schemas.clip import Clip
from schemas.collection import DuplicateGroup, DuplicateLink
from schemas.config import PAPER_MIN_NATIVE_CROP_PX, BuildConfig, SelectLimits
from schemas.decision import Decision, RejectReason
from schemas.funnel import Funnel, FunnelDrop, FunnelStep
from schemas.ledger import LedgerRow
from schemas.scores import SyncScore
from schemas.source import Source


@dataclass(frozen=True, slots=True)
class Rule:
    """One limit: ``measure`` must be at least (``min``) or at most (``max``) the limit of that name.

    A measure of None is unknown and passes: a missing landmarker or a clip too short for a sync score
    is no fault of the clip. The two exceptions, audio and required sync, are decided in ``decide``.
    """

    reason: RejectReason
    bound: Literal["min", "max"]
    limit: str
    measure: Callable[[Clip], float | None]

    def of(self, limits: SelectLimits) -> float | None:
        """The limit of a domain; None where it is off."""
        limit: float | None = getattr(limits, self.limit)
        return None if limit is None else float(limit)

    def missed_by(self, measured: float, limit: float) -> bool:
        """Whether a measured value is on the wrong side; exactly at the limit is right."""
        return measured < limit if self.bound == "min" else measured > limit


def _sync_z(clip: Clip) -> float | None:
    return clip.scores.sync.z if clip.scores.sync.status == "known" else None


# The order is part of the interface: a clip that misses several limits is counted under the first. What is
# wrong with the picture's geometry comes before what is wrong with its content, and sound comes before taste.
RULES: tuple[Rule, ...] = (
    Rule(RejectReason.LOW_RESOLUTION, "min", "min_native_crop_px", lambda clip: clip.scores.native_crop_px),
    Rule(RejectReason.PADDING, "max", "max_padding", lambda clip: clip.scores.padding),
    Rule(RejectReason.TRACK_TOO_SHORT, "min", "min_clip_s", lambda clip: clip.duration_s),
    Rule(RejectReason.SEVERAL_FACES, "max", "max_neighbours", lambda clip: clip.scores.num_neighbours),
    Rule(RejectReason.FACE_MISSING, "min", "min_face_ratio", lambda clip: clip.scores.face_ratio),
    Rule(RejectReason.INTERNAL_CUT, "max", "max_internal_cut", lambda clip: clip.scores.internal_cut),
    Rule(RejectReason.EXTREME_POSE, "max", "max_abs_yaw_deg", lambda clip: clip.scores.yaw_abs_median_deg),
    Rule(RejectReason.NOT_SPEAKING, "min", "min_speech_ratio", lambda clip: clip.scores.speech_ratio),
    Rule(RejectReason.OUT_OF_SYNC, "min", "min_sync_z", _sync_z),
    Rule(RejectReason.STILL, "min", "min_motion", lambda clip: clip.scores.motion),
    Rule(RejectReason.BLURRED, "min", "min_sharpness", lambda clip: clip.scores.sharpness),
    Rule(RejectReason.EXPOSURE, "min", "min_exposure", lambda clip: clip.scores.exposure),
    Rule(RejectReason.EXPOSURE, "max", "max_exposure", lambda clip: clip.scores.exposure),
    Rule(RejectReason.UNSTEADY, "min", "min_stability", lambda clip: clip.scores.stability),
    Rule(RejectReason.OVERLAY, "max", "max_overlay", lambda clip: clip.scores.overlay),
)

# A person may overrule a measurement, but not a licence, and not the absence of a field that every sample has.
BINDING = frozenset({RejectReason.LICENSE, RejectReason.NO_AUDIO})


def decide(clip: Clip, limits: SelectLimits, ridge: SyncScore | None = None) -> Decision:
    """Keep the clip, or reject it by the first limit of ``RULES`` that it misses, ``min_speaker_z`` or ``min_ridge_z``.

    A clip without sound is rejected as NO_AUDIO (with 0 speech) where NOT_SPEAKING is asked. Unknown sync passes
    unless ``limits.require_sync``; an unknown or missing speaker or ridge score always passes.
    """
    for rule in RULES:
        limit = rule.of(limits)
        if limit is None:
            continue
        measured = rule.measure(clip)
        if measured is None:
            if rule.reason is RejectReason.NOT_SPEAKING:
                return _reject(clip, RejectReason.NO_AUDIO, 0.0, limit)
            if rule.reason is RejectReason.OUT_OF_SYNC and limits.require_sync:
                return _reject(clip, rule.reason, None, limit, clip.scores.sync.why)
        elif rule.missed_by(measured, limit):
            return _reject(clip, rule.reason, float(measured), limit)
    heard = clip.scores.speaker.z if clip.scores.speaker else None
    if limits.min_speaker_z is not None and heard is not None and heard < limits.min_speaker_z:
        return _reject(clip, RejectReason.NOT_THE_SPEAKER, heard, limits.min_speaker_z, "against shifted sounds")
    fitted = ridge.z if ridge else None
    if limits.min_ridge_z is not None and fitted is not None and fitted < limits.min_ridge_z:
        return _reject(clip, RejectReason.OUT_OF_SYNC, fitted, limits.min_ridge_z, "by the fitted model")
    return Decision(clip_id=clip.clip_id, keep=True)


def paper_limits(limits: SelectLimits) -> SelectLimits:
    """The limits of the paper preset: clips that would be flagged low_res stay out as well."""
    return limits.model_copy(update={"min_native_crop_px": max(limits.min_native_crop_px, PAPER_MIN_NATIVE_CROP_PX)})


def limits_of(config: BuildConfig) -> dict[str, SelectLimits]:
    """What clips of each domain must reach, by name in order."""
    paper = config.split.preset == "paper"
    return {
        name: paper_limits(domain.limits) if paper else domain.limits for name, domain in sorted(config.domains.items())
    }


def license_problem(
    source: Source,
    models: Mapping[str, bool | None],
    *,
    allow_license: Collection[str] = (),
    commercial_only: bool = False,
) -> str:
    """Why a clip may not be part of a release limited by licence; empty when it may.

    Args:
        source: the clip's source.
        models: the clip's models by name: whether the licence of each allows commercial use; None is unknown.
        allow_license: SPDX ids or licence texts, compared without case; empty allows all.
        commercial_only: the source and every model must be known to allow commercial use.
    """
    allowed = {entry.strip().casefold() for entry in allow_license}
    if allowed and not allowed & {str(name).strip().casefold() for name in (source.license, source.license_id) if name}:
        return f"the licence {source.license!r} is not among those allowed"
    if commercial_only and source.commercial_use is not True:
        return f"the licence {source.license!r} is not known to allow commercial use"
    closed = sorted(name for name, commercial in models.items() if not commercial)
    if commercial_only and closed:
        return f"made with models that are not known to allow commercial use: {', '.join(closed)}"
    return ""


def apply_license(
    decision: Decision,
    source: Source,
    models: Mapping[str, bool | None],
    *,
    allow_license: Collection[str] = (),
    commercial_only: bool = False,
) -> Decision:
    """The decision, or a rejection where ``license_problem`` objects.

    That also replaces other rejections: a review may lift those, and must not lift this one with them.
    """
    problem = license_problem(source, models, allow_license=allow_license, commercial_only=commercial_only)
    if not problem:
        return decision
    return Decision(clip_id=decision.clip_id, keep=False, reason=RejectReason.LICENSE, note=problem)


def drop_duplicates(
    decisions: Sequence[Decision],
    groups: Iterable[DuplicateGroup],
    clips: Mapping[str, Clip],
    verdicts: Mapping[str, Decision],
) -> list[Decision]:
    """Of every two kept clips that show the same take, keep the better one, and reject the other as DUPLICATE.

    The better one has the larger native crop, then the greater length, then the smaller id. A clip that goes takes
    nobody with it: of a whole take and its two halves either the whole stays or both halves do. What reviewers
    reject makes no other clip a duplicate. To be applied before the reviews, which may overrule it.
    """
    refused = {decision.clip_id for decision in apply_reviews(decisions, verdicts) if not decision.keep}
    kept = {decision.clip_id for decision in decisions if decision.keep} - refused
    lost: dict[str, Decision] = {}
    for group in groups:
        twins: defaultdict[str, dict[str, DuplicateLink]] = defaultdict(dict)
        for link in group.links:
            twins[link.clip_id][link.twin_id] = twins[link.twin_id][link.clip_id] = link
        staying: list[str] = []
        for clip_id in sorted(kept & set(group.clip_ids), key=lambda clip_id: _worth(clips[clip_id])):
            better = next((other for other in staying if other in twins[clip_id]), None)
            if better is None:
                staying.append(clip_id)
            else:
                lost[clip_id] = _duplicate(clip_id, better, twins[clip_id][better])
    return [lost.get(decision.clip_id, decision) for decision in decisions]


def _worth(clip: Clip) -> tuple[float, float, str]:
    """The best first."""
    return -clip.scores.native_crop_px, -clip.duration_s, clip.clip_id


def _duplicate(clip_id: str, better: str, link: DuplicateLink) -> Decision:
    return Decision(
        clip_id=clip_id,
        keep=False,
        reason=RejectReason.DUPLICATE,
        measured=link.distance,
        limit=link.limit,
        note=f"the same take as {better}, by {link.kind}",
    )


def apply_reviews(decisions: Iterable[Decision], verdicts: Mapping[str, Decision]) -> list[Decision]:
    """The filters' decisions, each replaced by the verdict on its clip where there is one, in the given order.

    Reasons in ``BINDING`` stand against any verdict. Who keeps what a filter rejects is seen to have done so.
    """
    return [_reviewed(decision, verdicts.get(decision.clip_id)) for decision in decisions]


def _reviewed(decision: Decision, verdict: Decision | None) -> Decision:
    if verdict is None or decision.reason in BINDING:
        return decision
    if not verdict.keep or decision.keep:
        return verdict
    numbers = {"overrules": decision.reason, "measured": decision.measured, "limit": decision.limit}
    return verdict.model_copy(update=numbers)


def funnel(
    source_ids: Collection[str],
    rows: Iterable[LedgerRow],
    decisions: Collection[Decision],
    *,
    num_shots: int,
    num_tracks: int,
    left_out: Collection[str] = (),
) -> Funnel:
    """Count what was lost where, from sources to released clips.

    Args:
        source_ids: the manifest's sources; rows of others do not count.
        rows: the ledger; of several attempts at one item the last one counts.
        decisions: one per clip that was made, after reviews and licences.
        num_shots: shots of the analysed sources.
        num_tracks: face tracks in those shots that were not rejected themselves.
        left_out: kept clips that no split asked for.
    """
    last = _last_attempts(rows, frozenset(source_ids))
    fetched, there = _source_step("fetch", set(source_ids), last, "acquire")
    probed, sound = _source_step("probe", there, last, "probe")
    analysed, _ = _source_step("analyse", sound, last, "analyse")
    lost = [row for row in last if row.stage in {"analyse", "plan"} and row.outcome != "done"]
    failed = _drops(row for row in last if row.stage == "clip" and row.outcome != "done")
    num_failed = sum(drop.count for drop in failed)
    accepted = [decision for decision in decisions if decision.keep]
    kept_out = {decision.clip_id for decision in accepted} & set(left_out)
    unasked = [FunnelDrop(reason=RejectReason.NOT_REQUESTED, count=len(kept_out))] if kept_out else []
    return Funnel(
        steps=(
            fetched,
            probed,
            analysed,
            _step("shots", "shots", num_shots, _drops(row for row in lost if _depth(row) == 1)),
            _step("tracks", "tracks", num_tracks, _drops(row for row in lost if _depth(row) > 1)),
            _step("make", "clips", len(decisions) + num_failed, failed),
            _step(
                "select",
                "clips",
                len(decisions),
                _drops(decision for decision in decisions if not decision.keep),
                overruled=sum(decision.overrules is not None for decision in accepted) or None,
            ),
            _step("split", "clips", len(accepted), unasked),
        )
    )


def _depth(row: LedgerRow) -> int:
    """0 for a source, 1 for one of its shots, 2 for a track of that."""
    below = row.item.removeprefix(row.source_id).strip("/")
    return below.count("/") + 1 if below else 0


def _last_attempts(rows: Iterable[LedgerRow], source_ids: frozenset[str]) -> list[LedgerRow]:
    last: dict[tuple[str, str, str], LedgerRow] = {}
    for row in rows:
        item = (row.stage, row.source_id, row.item)
        if row.source_id in source_ids and (item not in last or row.attempt >= last[item].attempt):
            last[item] = row
    return list(last.values())


def _source_step(
    stage: str, entered: set[str], last: Iterable[LedgerRow], ledger_stage: str
) -> tuple[FunnelStep, set[str]]:
    """The step, and the sources that passed it; what an earlier stage has lost since does not count here."""
    own = [row for row in last if row.stage == ledger_stage and row.source_id in entered and _depth(row) == 0]
    drops = _drops(row for row in own if row.outcome != "done")
    passed = {row.source_id for row in own if row.outcome == "done"}
    step = FunnelStep(
        stage=stage,
        unit="sources",
        entered=len(entered),
        passed=len(passed),
        drops=tuple(drops),
        pending=len(entered) - len(own),
    )
    return step, passed


def _step(stage: str, unit: str, entered: int, drops: list[FunnelDrop], *, overruled: int | None = None) -> FunnelStep:
    passed = entered - sum(drop.count for drop in drops)
    return FunnelStep(stage=stage, unit=unit, entered=entered, passed=passed, drops=tuple(drops), overruled=overruled)


def _drops(losses: Iterable[LedgerRow | Decision]) -> list[FunnelDrop]:
    """One drop per reason and whose it was, the most frequent first, with the median of what was measured."""
    by_reason: defaultdict[tuple[str, Literal["reviewer"] | None], list[LedgerRow | Decision]] = defaultdict(list)
    for loss in losses:
        if isinstance(loss, LedgerRow):
            by_reason[str(loss.reason or loss.reason_class or "failed"), None].append(loss)
        else:
            by = None if loss.by == "filter" else loss.by
            by_reason[str(loss.reason or RejectReason.REVIEWER), by].append(loss)
    drops: list[FunnelDrop] = []
    for (reason, by), group in by_reason.items():
        measured = [loss.measured for loss in group if loss.measured is not None]
        limits = {loss.limit for loss in group}
        drops.append(
            FunnelDrop(
                reason=reason,
                count=len(group),
                median_measured=round(median(measured), 4) if measured else None,
                limit=limits.pop() if len(limits) == 1 else None,
                by=by,
            )
        )
    return sorted(drops, key=lambda drop: (-drop.count, drop.label))


def _reject(clip: Clip, reason: RejectReason, measured: float | None, limit: float, note: str = "") -> Decision:
    return Decision(clip_id=clip.clip_id, keep=False, reason=reason, measured=measured, limit=limit, note=note)
