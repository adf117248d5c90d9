"""From all clips of a workspace to a release: select, split, pack, describe.

Everything here looks at the collection as a whole and is cheap to repeat: scores are stored, so a
changed limit or licence filter touches no frame.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pipeline.collect import Report, collect, copied_sources, member_of
from pipeline.coverage import coverage_of
from pipeline.describe import describe_release
from pipeline.errors import UsageError
from pipeline.models.weights import WeightsStore
from pipeline.results import BuildRecord, Results, results_of, tool_version
from pipeline.review.applied import reviewed
from pipeline.review.decisions import Standing
from pipeline.select import apply_license, apply_reviews, decide, drop_duplicates, funnel, limits_of
from pipeline.shards import write_release
from pipeline.speaker import keep_speakers
from pipeline.split import Member, SplitResult, split
from pipeline.storage import Storage
from pipeline.survey import MadeClip, Survey, survey
from pipeline.tables import ReleaseItem, ReleaseSetup
from pipeline.workspace import Workspace
from schemas.base import check_id, content_hash
from schemas.collection import Collection
from schemas.config import BuildConfig
from schemas.decision import Decision
from schemas.funnel import Funnel
from schemas.models import ModelCard
from schemas.release import About, Release, Split
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
class Choice:
    """What a release would hold: one decision per finished clip, the split, and the funnel."""

    decisions: list[Decision]
    split: SplitResult
    funnel: Funnel


def choose(
    results: Results,
    build: BuildRecord,
    found: Survey,
    options: ReleaseOptions,
    collection: Collection | None = None,
) -> Choice:
    """Apply limits and licences to all finished clips, and divide what is kept.

    Args:
        results: of the build, with the settings that apply.
        build: its sources.
        found: its finished clips; with the reviews, where these are to count (``pipeline.review.applied``).
        options: what the release is limited to.
        collection: what is known of these clips together. Without it no clip counts as a duplicate, people are not
            told apart and ``min_ridge_z`` holds nobody back: a cheap look, which a release never is.
    """
    decisions = _decisions(results, found, options, collection)
    kept = {decision.clip_id for decision in decisions if decision.keep}
    copies = copied_sources(found.clips, collection.duplicates if collection else ())
    people = (collection.people if collection else None) or {}
    members = [
        member_of(made, identity_of(made, build, collection, found.said), copies, people)
        for made in found.clips
        if made.clip.clip_id in kept
    ]
    divided = as_listed(members, build) or split(members, results.config.split)
    steps = funnel(
        [source.id for source in build.sources],
        found.rows,
        decisions,
        num_shots=found.num_shots,
        num_tracks=found.num_tracks,
        left_out=divided.left_out,
    )
    return Choice(decisions, divided, steps)


def _decisions(
    results: Results, found: Survey, options: ReleaseOptions, collection: Collection | None
) -> list[Decision]:
    """Limits, then who speaks, licences, duplicates among what these leave, and last the people who looked."""
    limits = limits_of(results.config)
    commercial = {card.name: card.commercial_use for card in _model_cards(results, found)}
    clips = {made.clip.clip_id: made.clip for made in found.clips}
    ridge = collection.ridge if collection else {}
    measured = [decide(clip, limits[clip.domain], ridge.get(clip_id)) for clip_id, clip in clips.items()]
    decisions = []
    for made, decision in zip(found.clips, keep_speakers(measured, clips, limits), strict=True):
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
    verdicts = {clip_id: verdict for clip_id, one in found.said.items() if (verdict := one.decision())}
    if collection:
        decisions = drop_duplicates(decisions, collection.duplicates, clips, verdicts)
    return apply_reviews(decisions, verdicts)


def identity_of(
    made: MadeClip,
    build: BuildRecord,
    collection: Collection | None,
    said: Mapping[str, Standing] = MappingProxyType({}),
) -> str:
    """Whose face a clip shows: as people say, else as its list says, else one of its source's people.

    Where nobody has looked it is the source. A name that people give twice is one person, whatever the sources.
    """
    review = said[made.clip.clip_id].identity if made.clip.clip_id in said else None
    if review and review.identity_id:
        return review.identity_id
    listed = build.listed_clips.get(made.clip.clip_id)
    if listed and listed.identity_id:
        return listed.identity_id
    return collection.identities[made.clip.clip_id] if collection else made.source.id


def as_listed(members: Sequence[Member], build: BuildRecord) -> SplitResult | None:
    """The splits that a rebuilt clip list asks for; None where it does not name one for every clip."""
    listed = build.listed_clips
    assignment: dict[str, Split] = {}
    for member in sorted(members, key=lambda member: member.clip_id):
        name = listed[member.clip_id].split if member.clip_id in listed else None
        if name is not None:
            assignment[member.clip_id] = name
    if not members or len(assignment) < len(members):
        return None
    return SplitResult(assignment=assignment, left_out=frozenset(), shortfalls=(), requested={})


def _about(results: Results, build: BuildRecord, found: Survey, choice: Choice) -> About:
    """What the cards tell beside the record."""
    return About(
        funnel=choice.funnel,
        models=tuple(_model_cards(results, found)),
        domains={name: one.description for name, one in sorted(results.config.domains.items())},
        limits=limits_of(results.config),
        coverage=coverage_of(build.listed, found),
    )


def _model_cards(results: Results, found: Survey) -> list[ModelCard]:
    """The models that made the clips; a clip that people put elsewhere was made by those of its source's domain."""
    return results.models.cards({made.source.domain for made in found.clips})


def make_release(
    workspace: Workspace,
    build: BuildRecord,
    config: BuildConfig,
    name: str,
    options: ReleaseOptions,
    *,
    store: WeightsStore | None = None,
    to: str | None = None,
    report: Report | None = None,
) -> tuple[Release, Choice, str]:
    """Write a release of all finished clips.

    Args:
        workspace: where the clips are.
        build: the build they belong to.
        config: its settings, with other limits, splits or shard sizes if wanted.
        name: the release's name.
        options: licences and identity.
        store: where weights files lie; where the build found them by default.
        to: folder or URI that holds releases; the workspace's own ``releases`` by default.
        report: told how far the comparison of all clips is.

    Returns:
        The record, the choice behind it, and where it lies.

    Raises:
        UsageError: when the name is unusable or no clip is left to release.
    """
    try:
        check_id(name)
    except ValueError as error:
        raise UsageError(f"the release's name {error}") from error
    results = results_of(workspace, build, config, store)
    found = reviewed(results, survey(results, build.sources), make_trims=True, report=report)
    collection = collect(results, found, report)
    choice = choose(results, build, found, options, collection)
    made = {one.clip.clip_id: one for one in found.clips}
    items = _items(made, choice, build, collection, found.said)
    _check_releasable(items, results, found, options)
    location = _location(workspace, to, name)
    storage = Storage(location)
    about = _about(results, build, found, choice)
    with workspace.scratch() as scratch:
        release = write_release(
            storage,
            name,
            items,
            lambda item, suffix: made[item.clip.clip_id].read(workspace, suffix),
            setup=ReleaseSetup(
                tool_version=tool_version(),
                config_hash=content_hash(config),
                requested=choice.split.requested,
                mel=mel_setup(config),
                hubert=hubert_setup(config),
                with_identity=options.with_identity,
                expression=config.expression.input if config.expression else None,
            ),
            pack=config.pack,
            describe=lambda record, rows: describe_release(storage, record, about, rows),
            scratch=scratch,
        )
    return release, choice, location


def _location(workspace: Workspace, to: str | None, name: str) -> str:
    if to is not None:
        return f"{to.rstrip('/')}/{name}"
    storage = workspace.storage
    return storage.path(f"releases/{name}") if storage.is_local else f"{storage.uri.rstrip('/')}/releases/{name}"


def _items(
    made: Mapping[str, MadeClip],
    choice: Choice,
    build: BuildRecord,
    collection: Collection,
    said: Mapping[str, Standing],
) -> list[ReleaseItem]:
    return [
        ReleaseItem(
            clip=made[clip_id].clip,
            source=_published(made[clip_id].source),
            identity_id=identity_of(made[clip_id], build, collection, said),
            split=name_of_split,
            sha256=made[clip_id].source_sha256,
            key=made[clip_id].key,
        )
        for clip_id, name_of_split in sorted(choice.split.assignment.items())
    ]


def _check_releasable(items: Sequence[ReleaseItem], results: Results, found: Survey, options: ReleaseOptions) -> None:
    if not items and options.commercial_only:
        closed = [card for card in _model_cards(results, found) if not card.commercial_use]
        if closed:
            named = ", ".join(f"{card.name} ({card.licence})" for card in closed)
            raise UsageError(
                f"no clip is left to release with --commercial-only ({len(found.clips)} were made), and these weights "
                f"are not known to allow commercial use: {named}; build with others, or leave --commercial-only out"
            )
    if not items:
        raise UsageError(
            f"no clip is left to release ({len(found.clips)} were made): "
            "'anitalk status' and 'anitalk decisions' say why"
        )
    if options.with_identity and not any("identity.npy" in item.clip.files for item in items):
        why = (
            "no face could be read in the domains that its setting identity.domains names"
            if results.config.identity
            else "the build had no identity model: build again with --set identity.weights=arcface_r50 or a file's path"
        )
        raise UsageError(f"no clip has a face embedding ({why}); or leave --with-identity out")


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


def hubert_setup(config: BuildConfig) -> dict[str, str]:
    """How ``hubert.npy`` was made; the folder's name alone, since paths of a machine leave with no release."""
    if not config.speech.hubert:
        return {}
    return {
        "model": Path(config.speech.hubert).name,
        "layers": " ".join(str(layer) for layer in config.speech.hubert_layers),
        "rate_conversion": config.speech.hubert_rate_conversion,
        **({"computed_in": "float16"} if config.speech.hubert_half else {}),
    }
