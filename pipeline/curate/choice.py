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
    found: Survey,
    options: ReleaseOptions,
    collection: Collection | None = None,
) -> Choice:
    """Apply limits and licences to all finished clips, and divide what is kept.

    Args:
        results: of the build, with the settings that apply.
        build: its sources.
        found: its finished clips; with the reviews, where these are to count (``pipeline.curate.reviewed``).
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
    commercial = {card.name: card.commercial_use for card in model_cards(results, found)}
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
    made: FinishedClip,
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


def model_cards(results: Results, found: Survey) -> list[ModelCard]:
    """The models that made the clips; a clip that people put elsewhere was made by those of its source's domain."""
    return results.model_files.cards({made.source.domain for made in found.clips})
