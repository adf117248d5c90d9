"""The clips of a build as people left them: in the domain they named, as long as they trimmed them.

What was made stays what it is, and its key stays the version that reviews name. Only the part that a trim asks for is
made, once, when a release wants it; everything else is looked up.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.build.results import Results
from pipeline.build.survey import FinishedClip, Survey, survey
from pipeline.store.reviews import ReviewLog, Standing, standing
from schemas.base import FrameSpan
from schemas.clip import Clip
from schemas.errors import UsageError, WorkspaceError
from schemas.review import Review
from schemas.source import Source

if TYPE_CHECKING:
    from pipeline.models.registry import ModelSet

Report = Callable[[str, float | None, float | None], None]


def survey_reviewed(results: Results, sources: tuple[Source, ...]) -> Survey:
    """``survey`` with the reviews in it; a trim that no release has made yet is not seen. Nothing is computed."""
    return reviewed(results, survey(results, sources))


def reviewed(results: Results, found: Survey, *, make_trims: bool = False, report: Report | None = None) -> Survey:
    """A survey whose clips are as people left them, with what stands of their reviews.

    Args:
        results: of the build.
        found: what ``survey`` gave.
        make_trims: cut what is not cut yet, in a workspace that is open for writing.
        report: told how many trims are done.

    Raises:
        UsageError: when a review names a domain that the configuration lacks, or frames that the clip lacks.
    """
    said = standing(ReviewLog(results.workspace).read(), {made.clip.clip_id: made.key for made in found.clips})
    relabelled = [_in_domain(results, made, said.get(made.clip.clip_id, Standing())) for made in found.clips]
    waiting = sum(one.trim is not None for one in said.values()) if make_trims else 0
    models = _models(results) if waiting else None
    clips, num_done = [], 0
    for made in relabelled:
        review = said.get(made.clip.clip_id, Standing()).trim
        if review is not None and (span := _span(review, made)) is not None:
            made = _trimmed(results, made, span, models)  # noqa: PLW2901 - the same clip, shorter
        if review is not None and waiting and report:
            num_done += 1
            report("trim", num_done, waiting)
        clips.append(made)
    return replace(found, clips=clips, said=said)


def _in_domain(results: Results, made: FinishedClip, said: Standing) -> FinishedClip:
    listed = results.listed_clips.get(made.clip.clip_id)
    named = said.domain.domain if said.domain else listed.domain if listed else None
    if named is None or named == made.clip.domain:
        return made
    if named not in results.config.domains:
        who = f"{said.domain.who} on {said.domain.at[:10]}" if said.domain else "its clip list"
        raise UsageError(
            f"clip {made.clip.clip_id} was put into the domain {named!r} by {who}, and this configuration knows "
            f"{', '.join(sorted(results.config.domains))}: add the domain with --config, or name another one in review"
        )
    return replace(made, clip=made.clip.model_copy(update={"domain": named}))


def _span(review: Review, made: FinishedClip) -> FrameSpan | None:
    """The frames that a trim keeps; None for all of them."""
    span, num_frames = review.trim, made.clip.plan.num_frames
    if span is None or len(span) == num_frames:
        return None
    if span.stop > num_frames:
        raise UsageError(
            f"clip {made.clip.clip_id} was trimmed to frames {span.start} to {span.stop} by {review.who} on "
            f"{review.at[:10]}, and it has {num_frames}: undo that review, or trim it anew"
        )
    return span


def _trimmed(results: Results, made: FinishedClip, span: FrameSpan, models: "ModelSet | None") -> FinishedClip:
    """The part that is wanted; the whole clip where the part is not there and no models are given to make it."""
    workspace, key = results.workspace, results.trim_key(made.key, span)
    clip = workspace.result("trim", key, Clip)
    if clip is None and models is not None:
        clip = _make(results, made, span, key, models)
    if clip is None:
        return made
    return replace(made, trim_key=key, clip=clip.model_copy(update={"domain": made.clip.domain}))


def _models(results: Results) -> "ModelSet":
    from pipeline.models.registry import (
        ModelSet,  # brings what runs networks, which a look at results must not wait for
    )

    return ModelSet(results.model_files)


def _make(results: Results, made: FinishedClip, span: FrameSpan, key: str, models: "ModelSet") -> Clip:
    from pipeline.clip.trim import trim_clip  # as above

    workspace, domain = results.workspace, made.source.domain
    whole = made.clip.model_copy(update={"domain": domain})  # what is stored does not depend on the domain it is put in
    try:
        with workspace.scratch() as scratch:
            clip, files = trim_clip(whole, span, lambda name: made.read(workspace, name), domain, models, scratch)
    except FileNotFoundError as error:
        raise WorkspaceError(
            f"clip {made.clip.clip_id} cannot be trimmed, since one of its files is missing from the workspace: "
            f"delete the folder results/clip/{made.key} and run 'anitalk build' again"
        ) from error
    workspace.publish("trim", key, clip, files)
    return clip
