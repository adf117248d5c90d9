"""A clip's scores beside the limits of its domain, as the screening page and bundles show them alike."""

from dataclasses import dataclass
from typing import Literal

from pipeline.curate.select import RULES
from schemas.clip import Clip
from schemas.collection import Collection
from schemas.config import SelectLimits
from schemas.decision import RejectReason

_UNLIMITED = (
    "landmark_confidence", "yaw_range_deg", "track_purity", "duplicate_frame_ratio", "audio_rms", "face_px",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One score: None where it is unknown (``why`` says why), and its limit, None where it is off."""

    name: str
    value: float | None
    limit: float | None
    bound: Literal["min", "max"]
    reason: RejectReason | None
    missed: bool
    why: str = ""


def limited_scores(clip: Clip, limits: SelectLimits, collection: Collection | None) -> list[ScoreRow]:
    """Every score that has a limit, in the order in which limits are applied.

    What neither was measured nor is asked for is left out.
    """
    rows = []
    for rule in RULES:
        limit, measured = rule.of(limits), rule.measure(clip)
        if limit is None and measured is None:
            continue
        silent = measured is None and rule.reason is RejectReason.NOT_SPEAKING
        missed = silent or (measured is not None and limit is not None and rule.missed_by(measured, limit))
        why = clip.scores.sync.why if rule.reason is RejectReason.OUT_OF_SYNC else ""
        name = rule.limit.removeprefix("min_").removeprefix("max_")
        rows.append(ScoreRow(name, measured, limit, rule.bound, rule.reason, missed, why))
    speaker = clip.scores.speaker
    if speaker is not None:
        rows.append(_optional("speaker_z", speaker.z, limits.min_speaker_z, RejectReason.NOT_THE_SPEAKER, speaker.why))
    ridge = collection.ridge.get(clip.clip_id) if collection else None
    if ridge is not None:
        rows.append(_optional("fitted_sync_z", ridge.z, limits.min_ridge_z, RejectReason.OUT_OF_SYNC, ridge.why))
    return rows


def unlimited_scores(clip: Clip) -> list[ScoreRow]:
    """Scores that tell something to whoever looks, and that no limit asks about."""
    return [_optional(name, getattr(clip.scores, name), None, None, "") for name in _UNLIMITED]


def _optional(
    name: str, measured: float | None, limit: float | None, reason: RejectReason | None, why: str
) -> ScoreRow:
    """A score that may have no limit, and passes where it is unknown."""
    missed = measured is not None and limit is not None and measured < limit
    return ScoreRow(name, measured, limit, "min", reason, missed, why)
