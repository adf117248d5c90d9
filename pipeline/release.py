"""From all clips of a workspace to a release: select, split, pack, describe.

Everything here looks at the collection as a whole and is cheap to repeat: scores are stored, so a
changed limit or licence filter touches no frame.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.card import FUNNEL_FILE, OVERVIEW_FILE, draw_funnel, write_card
from pipeline.errors import UsageError
from pipeline.pictures import overview
from pipeline.results import BuildRecord, Results, tool_version
from pipeline.select import apply_license, apply_reviews, decide, funnel, paper_limits
from pipeline.shards import write_release
from pipeline.split import Member, SplitResult, split
from pipeline.storage import Storage
from pipeline.survey import MadeClip, Survey, survey
from pipeline.tables import ReleaseItem, ReleaseSetup
from pipeline.workspace import Workspace
from schemas.base import check_id, content_hash
from schemas.config import BuildConfig
from schemas.decision import Decision
from schemas.funnel import Funnel
from schemas.models import ModelCard
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


def _model_cards(results: Results, found: Survey) -> list[ModelCard]:
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
    made = {one.clip.clip_id: one for one in found.clips}
    items = _items(made, choice)
    _check_releasable(items, found, config, options)
    location = _location(workspace, to, name)
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
                hubert=hubert_setup(config),
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


def _location(workspace: Workspace, to: str | None, name: str) -> str:
    if to is not None:
        return f"{to.rstrip('/')}/{name}"
    storage = workspace.storage
    return storage.path(f"releases/{name}") if storage.is_local else f"{storage.uri.rstrip('/')}/releases/{name}"


def _items(made: Mapping[str, MadeClip], choice: Choice) -> list[ReleaseItem]:
    return [
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


def _check_releasable(
    items: Sequence[ReleaseItem], found: Survey, config: BuildConfig, options: ReleaseOptions
) -> None:
    if not items:
        raise UsageError(
            f"no clip is left to release ({len(found.clips)} were made): "
            "'anitalk status' and 'anitalk decisions' say why"
        )
    if options.with_identity and not any("identity.npy" in item.clip.files for item in items):
        raise UsageError(
            f"no clip has a face embedding, since the profile {config.profile!r} has no identity model: "
            "leave --with-identity out"
        )


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
    }


def _seconds(items: Sequence[ReleaseItem]) -> dict[str, dict[str, float]]:
    lengths: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for item in items:
        domain = item.clip.domain
        lengths[item.split][domain] = lengths[item.split].get(domain, 0.0) + item.clip.duration_s
    return dict(lengths)
