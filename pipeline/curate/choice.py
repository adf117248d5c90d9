"""From all clips of a workspace to a choice: limits, who speaks, licences, duplicates, reviews, and the split.

Everything here looks at the collection as a whole and is cheap to repeat: scores are stored, so a changed limit or
licence filter touches no frame.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from pipeline.build.results import BuildRecord, Results
from pipeline.build.survey import FinishedClip, Survey
from pipeline.curate.collect import copied_sources, member_of
from pipeline.curate.select import apply_license, apply_reviews, decide, drop_duplicates, funnel, limits_of
from pipeline.curate.speakers import keep_speakers
from pipeline.curate.split import Member, SplitResult, split
from pipeline.store.reviews import Standing
from schemas.collection import Collection
from schemas.decision import Decision
from schemas.funnel import Funnel
from schemas.models import ModelCard
from schemas.release import Split


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
    survey: Survey,
    options: ReleaseOptions,
    collection: Collection | None = None,
) -> Choice:
    """Apply limits and licences to all finished clips, and divide what is kept.

    Args:
        results: of the build, with the settings that apply.
        build: its sources.
        survey: its finished clips; with the reviews, where these are to count (``pipeline.curate.reviewed``).
        options: what the release is limited to.
        collection: what is known of these clips together. Without it no clip counts as a duplicate, people are not
            told apart and ``min_ridge_z`` holds nobody back: a cheap look, which a release never is.
    """
    verdicts = verdicts_of(survey.reviews)
    decisions = apply_reviews(filtered(results, survey, collection, options, verdicts), verdicts)
    kept = {decision.clip_id for decision in decisions if decision.keep}
    copies = copied_sources(survey.clips, collection.duplicates if collection else ())
    people = (collection.people if collection else None) or {}
    members = [
        member_of(finished, identity_of(finished, build, collection, survey.reviews), copies, people)
        for finished in survey.clips
        if finished.clip.clip_id in kept
    ]
    divided = as_listed(members, build) or split(members, results.config.split)
    steps = funnel(
        [source.id for source in build.sources],
        survey.rows,
        decisions,
        num_shots=survey.num_shots,
        num_tracks=survey.num_tracks,
        left_out=divided.left_out,
    )
    return Choice(decisions, divided, steps)


def filtered(
    results: Results,
    survey: Survey,
    collection: Collection | None,
    options: ReleaseOptions | None = None,
    verdicts: Mapping[str, Decision] = MappingProxyType({}),
) -> list[Decision]:
    """What the filters decide of every finished clip: limits, who speaks, licences, then duplicates among the rest.

    The one answer for releases, the screening page, bundles and Label Studio.

    Args:
        results: of the build, with the limits that apply.
        survey: its finished clips.
        collection: what is known of these clips together; without it nothing is a duplicate, and ``min_ridge_z`` holds
            nobody back.
        options: licences that are allowed; all by default.
        verdicts: of reviewers, by clip id. They change no decision here but one: what people reject makes no other
            clip a duplicate.

    Returns:
        One decision per clip, in the survey's order.
    """
    limits = limits_of(results.config)
    clips = {finished.clip.clip_id: finished.clip for finished in survey.clips}
    ridge = collection.ridge if collection else {}
    measured = [decide(clip, limits[clip.domain], ridge.get(clip_id)) for clip_id, clip in clips.items()]
    decisions = keep_speakers(measured, clips, limits)
    if options and (options.allow_license or options.commercial_only):
        decisions = _licensed(results, survey, options, decisions)
    return drop_duplicates(decisions, collection.duplicates, clips, verdicts) if collection else decisions


def verdicts_of(reviews: Mapping[str, Standing]) -> dict[str, Decision]:
    """By clip id, what reviewers decided, where what they said still stands."""
    return {clip_id: verdict for clip_id, review in reviews.items() if (verdict := review.decision())}


def _licensed(
    results: Results, survey: Survey, options: ReleaseOptions, decisions: Sequence[Decision]
) -> list[Decision]:
    commercial = {card.name: card.commercial_use for card in model_cards(results, survey)}
    return [
        apply_license(
            decision,
            finished.source,
            {name: commercial.get(name) for name in finished.clip.provenance.models},
            allow_license=options.allow_license,
            commercial_only=options.commercial_only,
        )
        for finished, decision in zip(survey.clips, decisions, strict=True)
    ]


def identity_of(
    finished: FinishedClip,
    build: BuildRecord,
    collection: Collection | None,
    reviews: Mapping[str, Standing] = MappingProxyType({}),
) -> str:
    """Whose face a clip shows: as people say, else as its list says, else one of its source's people.

    Where nobody has looked it is the source. A name that people give twice is one person, whatever the sources.
    """
    clip_id = finished.clip.clip_id
    review = reviews[clip_id].identity if clip_id in reviews else None
    if review and review.identity_id:
        return review.identity_id
    listed = build.listed_clips.get(clip_id)
    if listed and listed.identity_id:
        return listed.identity_id
    return collection.identities[clip_id] if collection else finished.source.id


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


def model_cards(results: Results, survey: Survey) -> list[ModelCard]:
    """The models that made the clips; a clip that people put elsewhere was made by those of its source's domain."""
    return results.model_files.cards({finished.source.domain for finished in survey.clips})
