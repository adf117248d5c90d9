"""From the choice of clips to a release: pack, describe, publish."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.build.results import BuildRecord, Results, results_of, tool_version
from pipeline.build.survey import FinishedClip, Survey, survey
from pipeline.card.describe import describe_release
from pipeline.curate.choice import Choice, ReleaseOptions, choose, identity_of, model_cards
from pipeline.curate.collect import collect
from pipeline.curate.coverage import coverage_of
from pipeline.curate.reviewed import reviewed
from pipeline.curate.select import limits_of
from pipeline.models.files.weights import WeightsStore
from pipeline.release.shards import write_release
from pipeline.release.tables import ReleaseItem, ReleaseSetup
from pipeline.store.reviews import Standing
from pipeline.store.storage import Storage
from pipeline.store.workspace import Workspace
from schemas.base import check_id, content_hash
from schemas.collection import Collection
from schemas.config import BuildConfig
from schemas.errors import UsageError
from schemas.progress import Report
from schemas.release import About, Release
from schemas.sample import SAMPLE_RATE_HZ
from schemas.source import Source

log = logging.getLogger(__name__)


def _about(results: Results, build: BuildRecord, survey: Survey, choice: Choice) -> About:
    """What the cards tell beside the record."""
    return About(
        funnel=choice.funnel,
        models=tuple(model_cards(results, survey)),
        domains={name: domain.description for name, domain in sorted(results.config.domains.items())},
        limits=limits_of(results.config),
        coverage=coverage_of(build.listed, survey),
    )


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
    check_release_name(name)
    results = results_of(workspace, build, config, store)
    surveyed = reviewed(results, survey(results, build.sources), make_trims=True, report=report)
    collection = collect(results, surveyed, report)
    choice = choose(results, build, surveyed, options, collection)
    clips = {finished.clip.clip_id: finished for finished in surveyed.clips}
    items = _items(clips, choice, build, collection, surveyed.reviews)
    _check_releasable(items, results, surveyed, options)
    location = _location(workspace, to, name)
    storage = Storage(location)
    about = _about(results, build, surveyed, choice)
    with workspace.scratch() as scratch:
        release = write_release(
            storage,
            name,
            items,
            lambda item, suffix: clips[item.clip.clip_id].read(workspace, suffix),
            setup=_setup(config, options, choice),
            pack=config.pack,
            describe=lambda record, rows: describe_release(storage, record, about, rows),
            scratch=scratch,
        )
    return release, choice, location


def check_release_name(name: str) -> None:
    """Refuse a name that no release can have, before any work is spent on it.

    Raises:
        UsageError: saying what is wrong with it.
    """
    try:
        check_id(name)
    except ValueError as error:
        raise UsageError(f"the release's name {error}") from error


def _setup(config: BuildConfig, options: ReleaseOptions, choice: Choice) -> ReleaseSetup:
    """What the record says of how the release was made."""
    return ReleaseSetup(
        tool_version=tool_version(),
        config_hash=content_hash(config),
        requested=choice.split.requested,
        mel=mel_setup(config),
        hubert=hubert_setup(config),
        with_identity=options.with_identity,
        expression=config.expression.input if config.expression else None,
    )


def _location(workspace: Workspace, to: str | None, name: str) -> str:
    if to is not None:
        return f"{to.rstrip('/')}/{name}"
    storage = workspace.storage
    return storage.path(f"releases/{name}") if storage.is_local else f"{storage.uri.rstrip('/')}/releases/{name}"


def _items(
    clips: Mapping[str, FinishedClip],
    choice: Choice,
    build: BuildRecord,
    collection: Collection,
    reviews: Mapping[str, Standing],
) -> list[ReleaseItem]:
    return [
        ReleaseItem(
            clip=clips[clip_id].clip,
            source=_published(clips[clip_id].source),
            identity_id=identity_of(clips[clip_id], build, collection, reviews),
            split=name_of_split,
            sha256=clips[clip_id].source_sha256,
            key=clips[clip_id].key,
        )
        for clip_id, name_of_split in sorted(choice.split.assignment.items())
    ]


def _check_releasable(items: Sequence[ReleaseItem], results: Results, survey: Survey, options: ReleaseOptions) -> None:
    if not items and options.commercial_only:
        closed = [card for card in model_cards(results, survey) if not card.commercial_use]
        if closed:
            named = ", ".join(f"{card.name} ({card.licence})" for card in closed)
            raise UsageError(
                f"no clip is left to release with --commercial-only ({len(survey.clips)} were made), and these weights "
                f"are not known to allow commercial use: {named}; build with others, or leave --commercial-only out"
            )
    if not items and not survey.clips:
        raise UsageError(
            "there are no finished clips with these settings: 'anitalk build' with the same --config and --set comes "
            "first, and 'anitalk status' says what became of the sources"
        )
    if not items:
        raise UsageError(
            f"no clip is left to release ({len(survey.clips)} were made): "
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
