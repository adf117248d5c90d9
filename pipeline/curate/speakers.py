"""Of faces that share a shot, the one that speaks."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from schemas.clip import Clip
from schemas.config import SelectLimits
from schemas.decision import Decision, RejectReason

_MIN_COMMON = 0.5  # of the shorter of two clips: less, and what one of them does says little about the other (mine)


def keep_speakers(
    decisions: Sequence[Decision], clips: Mapping[str, Clip], limits: Mapping[str, SelectLimits]
) -> list[Decision]:
    """Of faces that share time in a shot keep the one that speaks; the others are rejected as NOT_THE_SPEAKER.

    Two clips are compared when they show two tracks of one shot, share at least half of the shorter one's time, and
    have a score of one kind: of the network if both have it, else the untrained sync z. A clip with an unknown score
    neither loses nor wins. Every clip takes part in the comparison, kept or not: who speaks does not depend on what
    else is wrong with a clip. Pure, over stored scores.

    Args:
        decisions: one per clip; those that are rejections already stay as they are.
        clips: by id.
        limits: by domain; ``one_speaker`` says whether its clips may lose.
    """
    shots: defaultdict[tuple[str, int], list[Clip]] = defaultdict(list)
    for clip in clips.values():
        shots[clip.plan.source_id, clip.plan.shot_index].append(clip)
    decided: list[Decision] = []
    for decision in decisions:
        clip = clips[decision.clip_id]
        lost = None
        if decision.keep and limits[clip.domain].one_speaker:
            lost = _lost(clip, shots[clip.plan.source_id, clip.plan.shot_index])
        decided.append(lost or decision)
    return decided


def _lost(clip: Clip, shot: Sequence[Clip]) -> Decision | None:
    """The rejection of a clip by the best of those that beat it; None when none does."""
    beaten: list[tuple[bool, float, str, float, str]] = []
    for other in shot:
        if other.plan.track_index != clip.plan.track_index and _share_time(clip, other):
            own, others, kind = _comparable(clip, other)
            if own is not None and others is not None and own < others:
                beaten.append((kind == "speaker score", others, other.clip_id, own, kind))
    if not beaten:
        return None
    _, limit, winner, measured, kind = max(beaten)
    return Decision(
        clip_id=clip.clip_id,
        keep=False,
        reason=RejectReason.NOT_THE_SPEAKER,
        measured=measured,
        limit=limit,
        note=f"{winner} speaks, by {kind}",
    )


def _share_time(clip: Clip, other: Clip) -> bool:
    a, b = clip.plan.span, other.plan.span
    common_s = min(a.stop_s, b.stop_s) - max(a.start_s, b.start_s)
    return common_s >= _MIN_COMMON * min(a.duration_s, b.duration_s)


def _comparable(clip: Clip, other: Clip) -> tuple[float | None, float | None, str]:
    a, b = clip.scores.speaker, other.scores.speaker
    if a and b and a.score is not None and b.score is not None:
        return a.score, b.score, "speaker score"
    return clip.scores.sync.z, other.scores.sync.z, "sync z"
