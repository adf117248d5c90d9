"""From all clips of a workspace to a release: select, split, pack, describe.

Everything here looks at the collection as a whole and is cheap to repeat: scores are stored, so a
changed limit or licence filter touches no frame.
"""

import io
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

import numpy as np

from pipeline.build import BuildRecord, Results, tool_version
from pipeline.card import FUNNEL_FILE, OVERVIEW_FILE, draw_funnel, write_card
from pipeline.errors import UsageError
from pipeline.media.audio import read_flac
from pipeline.models.speech import SileroVad
from pipeline.select import apply_license, apply_reviews, decide, funnel, paper_limits
from pipeline.shards import write_release
from pipeline.sheet import NUM_TILES, OVERVIEW_FRAMES, OverviewRow, draw_clip, draw_overview, evenly_spaced, frames_of
from pipeline.speech import speech_envelope, voice_activity
from pipeline.split import Member, SplitResult, split
from pipeline.storage import Storage
from pipeline.tables import ReleaseItem, ReleaseSetup
from pipeline.workspace import Workspace
from schemas.base import check_id, content_hash
from schemas.clip import Clip
from schemas.config import BuildConfig
from schemas.decision import Decision
from schemas.funnel import Funnel
from schemas.ledger import LedgerRow
from schemas.release import Release
from schemas.sample import SAMPLE_RATE_HZ
from schemas.source import Source

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReleaseOptions:
    """What a release is limited to. ``allow_license`` empty: any licence."""

    allow_license: tuple[str, ...] = ()
    commercial_only: bool = False
    with_identity: bool = False


@dataclass(frozen=True, slots=True)
class MadeClip:
    """A finished clip with its source and its key in the workspace."""

    key: str
    clip: Clip
    source: Source
    source_sha256: str


@dataclass(slots=True)
class Survey:
    """Where every source of a build stands. ``left`` lists the ids of sources that are not finished."""

    rows: list[LedgerRow] = field(default_factory=list)
    clips: list[MadeClip] = field(default_factory=list)
    num_shots: int = 0
    num_tracks: int = 0
    left: list[str] = field(default_factory=list)


def survey(results: Results, sources: Sequence[Source]) -> Survey:
    """Look at every stage result of a build; nothing is computed."""
    found = Survey()
    for source in sources:
        rows = results.workspace.ledger(source.id)
        tries = [row for row in rows if row.key == results.acquire_key(source)]
        if _was_lost(tries) and results.plan(source) is None:
            _stopped(source, found, [row for row in tries if row.outcome == "failed"])
            continue
        _survey_source(results, source, [row for row in rows if row.outcome == "failed"], found)
    return found


def _was_lost(tries: Sequence[LedgerRow]) -> bool:
    """Whether a source that may have been there before could not be fetched when it was last wanted."""
    return bool(tries) and max(tries, key=lambda row: row.attempt).outcome == "failed"


def _survey_source(results: Results, source: Source, failures: list[LedgerRow], found: Survey) -> None:
    fetched = results.fetched(source)
    if fetched is None:
        found.left.append(source.id)
        return
    found.rows.append(_done(source, "acquire"))
    video = results.video(source)
    if video is None:
        key = results.probe_key(source, fetched)
        _stopped(source, found, [row for row in failures if row.key == key])
        return
    found.rows.append(_done(source, "probe"))
    analysis, plan = results.analysis(source), results.plan(source)
    if analysis is None or plan is None:
        *_, last = [None, *(run for _, run in results.runs(source, video))]
        place = (0, None) if last is None else (last.stop_frame, last.next_start_s)
        key = results.analyse_key(source, video, *place)
        _stopped(source, found, [row for row in failures if row.key == key], stage="analyse")
        return
    found.rows.append(_done(source, "analyse"))
    refused_shots = {refusal.item for refusal in plan.refusals if "/" not in refusal.item}
    shots_of_tracks = [track.shot_index for run in _numbered(analysis[2]) for track in run]
    found.num_shots += plan.num_shots
    found.num_tracks += sum(f"shot{index:05d}" not in refused_shots for index in shots_of_tracks)
    found.rows += [
        LedgerRow(
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
        for refusal in plan.refusals
    ]
    made = [MadeClip(key, clip, source, fetched.sha256) for key, clip in results.clips(source)]
    found.clips += made
    missing = {one.clip_id for one in plan.clips} - {one.clip.clip_id for one in made}
    if missing:
        failed = {row.item.rsplit("/", 1)[-1]: row for row in failures if row.stage == "clip"}
        found.rows += [failed[clip_id] for clip_id in sorted(missing) if clip_id in failed]
        if not missing <= failed.keys():
            found.left.append(source.id)


def _done(source: Source, stage: Literal["acquire", "probe", "analyse"]) -> LedgerRow:
    return LedgerRow(stage=stage, source_id=source.id, item=source.id, attempt=1, outcome="done")


def _numbered(runs: Sequence) -> Iterator[list]:  # type: ignore[type-arg]
    """Tracks of each run with shots numbered through the video."""
    before = 0
    for run in runs:
        yield [track.model_copy(update={"shot_index": track.shot_index + before}) for track in run.tracks]
        before += len(run.shots)


def _stopped(source: Source, found: Survey, failures: list[LedgerRow], stage: str | None = None) -> None:
    """A source that did not get further: by its last failure, or because nobody has tried yet."""
    if failures:
        last = max(failures, key=lambda row: row.attempt)
        # A failed run of a video stops the whole source.
        found.rows.append(last.model_copy(update={"item": source.id}) if stage else last)
        retried = last.reason_class in {"transient", "throttled"}
        if retried:
            found.left.append(source.id)
        return
    found.left.append(source.id)


@dataclass(frozen=True, slots=True)
class Choice:
    """What a release would hold: one decision per finished clip, the split, and the funnel."""

    decisions: list[Decision]
    split: SplitResult
    funnel: Funnel


def choose(results: Results, build: BuildRecord, found: Survey, options: ReleaseOptions) -> Choice:
    """Apply limits and licences to all finished clips, and divide what is kept."""
    domains = results.config.domains
    commercial = {card.name: card.commercial_use for card in _model_cards(results, found)}
    decisions = []
    for made in found.clips:
        limits = domains[made.clip.domain].limits
        decision = decide(made.clip, paper_limits(limits) if results.config.split.preset == "paper" else limits)
        models = {name: commercial.get(name) for name in made.clip.provenance.models}
        decisions.append(
            apply_license(
                decision,
                made.source,
                models,
                allow_license=options.allow_license,
                commercial_only=options.commercial_only,
            )
        )
    decisions = apply_reviews(decisions, results.workspace.reviews())
    kept = {decision.clip_id for decision in decisions if decision.keep}
    members = [
        Member(
            clip_id=made.clip.clip_id,
            domain=made.clip.domain,
            source_id=made.source.id,
            identity_id=identity_of(made),
            title=made.source.title,
            sha256=made.source_sha256,
        )
        for made in found.clips
        if made.clip.clip_id in kept
    ]
    divided = split(members, results.config.split)
    steps = funnel(
        [source.id for source in build.sources],
        found.rows,
        decisions,
        num_shots=found.num_shots,
        num_tracks=found.num_tracks,
        left_out=divided.left_out,
    )
    return Choice(decisions, divided, steps)


def identity_of(made: MadeClip) -> str:
    """Whose face a clip shows, as far as is known without an identity network: the source's."""
    return made.source.id


def _model_cards(results: Results, found: Survey) -> list:  # type: ignore[type-arg]
    return results.models.cards({made.clip.domain for made in found.clips})


def make_release(
    workspace: Workspace,
    build: BuildRecord,
    config: BuildConfig,
    name: str,
    options: ReleaseOptions,
    *,
    to: str | None = None,
) -> tuple[Release, Choice, str]:
    """Write a release of all finished clips.

    Args:
        workspace: where the clips are.
        build: the build they belong to.
        config: its settings, with other limits, splits or shard sizes if wanted.
        name: the release's name.
        options: licences and identity.
        to: folder or URI that holds releases; the workspace's own ``releases`` by default.

    Returns:
        The record, the choice behind it, and where it lies.

    Raises:
        UsageError: when the name is unusable or no clip is left to release.
    """
    try:
        check_id(name)
    except ValueError as error:
        raise UsageError(f"the release's name {error}") from error
    results = Results(workspace, config)
    found = survey(results, build.sources)
    choice = choose(results, build, found, options)
    location = f"{(to or workspace.storage.path('releases')).rstrip('/')}/{name}"
    if not workspace.storage.is_local and to is None:
        location = f"{workspace.storage.uri.rstrip('/')}/releases/{name}"
    made = {one.clip.clip_id: one for one in found.clips}
    items = [
        ReleaseItem(
            clip=made[clip_id].clip,
            source=_published(made[clip_id].source),
            identity_id=identity_of(made[clip_id]),
            split=name_of_split,
            sha256=made[clip_id].source_sha256,
            key=made[clip_id].key,
        )
        for clip_id, name_of_split in sorted(choice.split.assignment.items())
    ]
    if not items:
        raise UsageError(
            f"no clip is left to release ({len(found.clips)} were made): "
            "'anitalk status' and 'anitalk decisions' say why"
        )
    cards = _model_cards(results, found)
    descriptions = {domain: settings.description for domain, settings in config.domains.items()}
    with workspace.scratch() as scratch:
        release = write_release(
            Storage(location),
            name,
            items,
            lambda item, suffix: workspace.result_file("clip", item.key, suffix),
            setup=ReleaseSetup(
                tool_version=tool_version(),
                config_hash=content_hash(config),
                requested=choice.split.requested,
                mel=mel_setup(config),
                hubert={"model": config.speech.hubert} if config.speech.hubert else {},
                with_identity=options.with_identity,
            ),
            pack=config.pack,
            extras={
                OVERVIEW_FILE: overview(workspace, [made[item.clip.clip_id] for item in items]),
                FUNNEL_FILE: draw_funnel(choice.funnel),
            },
            card=lambda record: write_card(record, choice.funnel, cards, seconds=_seconds(items), domains=descriptions),
            scratch=scratch,
        )
    return release, choice, location


def _published(source: Source) -> Source:
    """The source as a release may know it: the same bytes wherever its file lies and whoever signed its address."""
    return source.model_copy(update={"uri": source.public_uri})


def mel_setup(config: BuildConfig) -> dict[str, float]:
    """How ``mel.npy`` was made, as every sample says it."""
    return {
        "sample_rate_hz": float(SAMPLE_RATE_HZ),
        "num_bins": float(config.speech.mel_bins),
        "window_samples": float(config.speech.mel_window_samples),
        "hop_samples": float(config.speech.mel_hop_samples),
    }


def _seconds(items: Sequence[ReleaseItem]) -> dict[str, dict[str, float]]:
    lengths: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for item in items:
        domain = item.clip.domain
        lengths[item.split][domain] = lengths[item.split].get(domain, 0.0) + item.clip.duration_s
    return dict(lengths)


# ---- pictures ------------------------------------------------------------------------------------------------------


def overview(workspace: Workspace, clips: Sequence[MadeClip]) -> bytes:
    """One row of frames per source (its clip of median length), as PNG."""
    by_source: defaultdict[str, list[MadeClip]] = defaultdict(list)
    for made in clips:
        by_source[made.source.id].append(made)
    rows = []
    for _, mine in sorted(by_source.items()):
        middle = median(one.clip.duration_s for one in mine)
        shown = min(mine, key=lambda one: (abs(one.clip.duration_s - middle), one.clip.clip_id))
        indices = evenly_spaced(shown.clip.plan.num_frames, OVERVIEW_FRAMES)
        frames = frames_of(workspace.result_file("clip", shown.key, "mp4"), indices)
        arrays = clip_arrays(workspace, shown.key)
        rows.append(
            OverviewRow(
                clip=shown.clip,
                title=shown.source.title,
                frames=[frames[index] for index in indices],
                landmarks=arrays["landmarks"][indices],
                pose=arrays["pose"][indices],
            )
        )
    return draw_overview(rows)


def clip_arrays(workspace: Workspace, key: str) -> dict[str, np.ndarray]:
    """The per-frame arrays of a finished clip by name: landmarks, pose, motion, valid."""
    return {
        name: np.load(io.BytesIO(workspace.result_file("clip", key, f"{name}.npy")), allow_pickle=False)
        for name in ("landmarks", "pose", "motion", "valid")
    }


def find_clip(found: Survey, wanted: str) -> MadeClip:
    """The clip of that id, or the only one whose id contains the text.

    Raises:
        UsageError: when there is none, or more than one.
    """
    matches = [made for made in found.clips if made.clip.clip_id == wanted]
    matches = matches or [made for made in found.clips if wanted in made.clip.clip_id]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise UsageError(f"no finished clip is called {wanted!r}: 'anitalk clips --workspace …' lists them")
    raise UsageError(f"{wanted!r} fits {len(matches)} clips, such as {matches[0].clip.clip_id}: name one of them")


def draw_made_clip(workspace: Workspace, made: MadeClip) -> bytes:
    """Contact sheet of one finished clip, as PNG."""
    num_frames = made.clip.plan.num_frames
    samples = read_flac(workspace.result_file("clip", made.key, "flac"))
    envelope, heard = None, None
    if made.clip.scores.speech_ratio is not None:
        envelope = speech_envelope(samples, num_frames, made.clip.plan.fps)
        steps = voice_activity(samples, SileroVad())
        at = np.minimum(np.arange(num_frames) * len(steps) // num_frames, len(steps) - 1)
        heard = steps[at] >= 0.5
    # Only the shown frames are decoded; the sheet reads nothing of the others.
    shown = frames_of(workspace.result_file("clip", made.key, "mp4"), evenly_spaced(num_frames, NUM_TILES))
    blank = np.zeros_like(next(iter(shown.values())))
    return draw_clip(
        made.clip,
        (shown.get(index, blank) for index in range(num_frames)),
        clip_arrays(workspace, made.key),
        envelope,
        heard,
    )
