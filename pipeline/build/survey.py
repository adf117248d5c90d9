"""Where every source of a build stands, read from its results and its ledger."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from pipeline.build.results import Results
from pipeline.store.ledger import standing
from pipeline.store.reviews import Standing
from pipeline.store.tombstones import read_tombstones
from pipeline.store.workspace import Workspace
from schemas.analysis import Refusal, SourcePlan
from schemas.clip import Clip
from schemas.decision import RejectReason
from schemas.errors import UsageError
from schemas.ledger import LedgerRow
from schemas.media import Video
from schemas.source import Source
from schemas.tombstone import covering


@dataclass(frozen=True, slots=True)
class FinishedClip:
    """A finished clip with its source and its key in the workspace.

    ``key`` is the version that reviews name. Where people have changed the clip (``pipeline.curate.reviewed``),
    ``clip`` is as they left it, and ``trim_key`` names the part that they kept.
    """

    key: str
    clip: Clip
    source: Source
    source_sha256: str
    trim_key: str = ""

    @property
    def folder(self) -> str:
        """Where its files lie in the workspace."""
        return f"results/trim/{self.trim_key}" if self.trim_key else f"results/clip/{self.key}"

    def read(self, workspace: Workspace, name: str) -> bytes:
        """One file of the clip: a member by its suffix, or its prints."""
        return workspace.storage.read(f"{self.folder}/{name}")


@dataclass(slots=True)
class Survey:
    """Where every source of a build stands.

    ``left`` lists the ids of sources that are not finished, ``forgotten`` of those that were taken down. ``said`` is
    what stands of people's words, by clip id; empty where nobody asked for it.
    """

    rows: list[LedgerRow] = field(default_factory=list)
    clips: list[FinishedClip] = field(default_factory=list)
    num_shots: int = 0
    num_tracks: int = 0
    left: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    said: dict[str, Standing] = field(default_factory=dict)

    @property
    def num_stale(self) -> int:
        """Reviews of clips that were made anew since; they decide nothing."""
        return sum(len(standing.stale) for standing in self.said.values())


def survey(results: Results, sources: Sequence[Source]) -> Survey:
    """Look at every stage result of a build; nothing is computed."""
    status = Survey()
    stones = read_tombstones(results.workspace)
    for source in sources:
        if covering(stones, source):
            status.forgotten.append(source.id)
            status.rows.append(_forgotten(source))
            continue
        rows = standing(results.workspace.ledger(source.id))
        tries = [row for row in rows if row.key == results.acquire_key(source)]
        video = results.video(source)
        plan = results.plan(source, video) if video else None
        if _was_lost(tries) and plan is None:
            _stopped(source, status, [row for row in tries if row.outcome == "failed"])
            continue
        failures = [row for row in rows if row.outcome == "failed"]
        _survey_source(results, source, video, plan, failures, status)
    return status


def _was_lost(tries: Sequence[LedgerRow]) -> bool:
    """Whether a source that may have been there before could not be fetched when it was last wanted."""
    return bool(tries) and max(tries, key=lambda row: row.attempt).outcome == "failed"


def _survey_source(
    results: Results,
    source: Source,
    video: Video | None,
    plan: SourcePlan | None,
    failures: list[LedgerRow],
    status: Survey,
) -> None:
    fetched = results.fetched(source)
    if fetched is None:
        status.left.append(source.id)
        return
    status.rows.append(_done(source, "acquire"))
    if video is None:
        key = results.probe_key(source, fetched)
        _stopped(source, status, [row for row in failures if row.key == key])
        return
    status.rows.append(_done(source, "probe"))
    if plan is None:
        keys = [results.analyse_key(source, video, window) for window in results.windows(source, video)]
        keys.append(results.plan_key(source, video))
        _stopped(source, status, [row for row in failures if row.key in keys], stage="analyse")
        return
    status.rows.append(_done(source, "analyse"))
    refused_shots = {refusal.item for refusal in plan.refusals if "/" not in refusal.item}
    if source.id in results.listed:  # each listed clip stands for a shot, and for its track
        status.num_shots += len(plan.clips) + len(plan.refusals)
        status.num_tracks += len(plan.clips)
    else:
        status.num_shots += len(plan.shots)
        status.num_tracks += sum(f"shot{track.shot_index:05d}" not in refused_shots for track in plan.tracks)
    status.rows += [_refused(source, refusal) for refusal in plan.refusals]
    finished = [FinishedClip(key, clip, source, fetched.sha256) for key, clip in results.clips(source, video, plan)]
    status.clips += finished
    missing = {planned.plan.clip_id for planned in plan.clips} - {each.clip.clip_id for each in finished}
    if missing:
        failed = {row.item.rsplit("/", 1)[-1]: row for row in failures if row.stage == "clip"}
        status.rows += [failed[clip_id] for clip_id in sorted(missing) if clip_id in failed]
        if not missing <= failed.keys():
            status.left.append(source.id)


def _refused(source: Source, refusal: Refusal) -> LedgerRow:
    return LedgerRow(
        stage="plan",
        source_id=source.id,
        item=f"{source.id}/{refusal.item}",
        attempt=1,
        outcome="rejected",
        reason_class="rejected",
        reason=refusal.reason,
        measured=refusal.measured,
        limit=refusal.limit,
    )


def _forgotten(source: Source) -> LedgerRow:
    return LedgerRow(
        stage="acquire",
        source_id=source.id,
        item=source.id,
        attempt=1,
        outcome="rejected",
        reason_class="rejected",
        reason=RejectReason.FORGOTTEN,
    )


def _done(source: Source, stage: Literal["acquire", "probe", "analyse"]) -> LedgerRow:
    return LedgerRow(stage=stage, source_id=source.id, item=source.id, attempt=1, outcome="done")


def _stopped(source: Source, status: Survey, failures: list[LedgerRow], stage: str | None = None) -> None:
    """A source that did not get further: by its last failure, or because nobody has tried yet."""
    if failures:
        last = max(failures, key=lambda row: row.attempt)
        # A failed run of a video stops the whole source.
        status.rows.append(last.model_copy(update={"item": source.id}) if stage else last)
        retried = last.reason_class in {"transient", "throttled"}
        if retried:
            status.left.append(source.id)
        return
    status.left.append(source.id)


def find_clip(status: Survey, wanted: str) -> FinishedClip:
    """The clip of that id, or the only one whose id contains the text.

    Raises:
        UsageError: when there is none, or more than one.
    """
    matches = [finished for finished in status.clips if finished.clip.clip_id == wanted]
    matches = matches or [finished for finished in status.clips if wanted in finished.clip.clip_id]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise UsageError(f"no finished clip is called {wanted!r}: 'anitalk clips --workspace …' lists them")
    raise UsageError(f"{wanted!r} fits {len(matches)} clips, such as {matches[0].clip.clip_id}: name one of them")
