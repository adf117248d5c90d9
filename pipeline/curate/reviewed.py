"""The clips of a build as people left them: in the domain they named, as long as they trimmed them.

What was made stays what it is, and its key stays the version that reviews name. Only the part that a trim asks for is
made, once, when a release wants it; everything else is looked up.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.build.results import Results
from pipeline.build.survey import FinishedClip, Survey, survey
from pipeline.store.reviews import ReviewLog, Standing, standing
from schemas.base import FrameSpan
from schemas.clip import Clip
from schemas.errors import UsageError, WorkspaceError
from schemas.progress import Report
from schemas.review import Review
from schemas.source import Source

if TYPE_CHECKING:
    from pipeline.models.registry import ModelSet


def survey_reviewed(results: Results, sources: tuple[Source, ...]) -> Survey:
    """``survey`` with the reviews in it; a trim that no release has made yet is not seen. Nothing is computed."""
    return reviewed(results, survey(results, sources))


def in_listed_domains(results: Results, survey: Survey) -> Survey:
    """A survey whose clips are in the domains that a rebuilt clip list names for them; nobody's words are looked at.

    Raises:
        UsageError: when the list names a domain that the configuration lacks.
    """
    return replace(survey, clips=[_in_domain(results, finished, Standing()) for finished in survey.clips])


def reviewed(results: Results, survey: Survey, *, make_trims: bool = False, report: Report | None = None) -> Survey:
    """A survey whose clips are as people left them, with what stands of their reviews.

    Args:
        results: of the build.
        survey: what ``pipeline.build.survey.survey`` gave.
        make_trims: cut what is not cut yet, in a workspace that is open for writing.
        report: told how many trims are done.

    Raises:
        UsageError: when a review names a domain that the configuration lacks, or frames that the clip lacks.
    """
    versions = {finished.clip.clip_id: finished.key for finished in survey.clips}
    reviews = standing(ReviewLog(results.workspace).read(), versions)
    num_trims = sum(review.trim is not None for review in reviews.values()) if make_trims else 0
    standings = [reviews.get(finished.clip.clip_id, Standing()) for finished in survey.clips]
    # All of them first: where one cannot be, nothing is to be cut.
    relabelled = [_in_domain(results, *pair) for pair in zip(survey.clips, standings, strict=True)]
    models = _models(results) if num_trims else None
    clips: list[FinishedClip] = []
    num_done = 0
    for clip, review in zip(relabelled, standings, strict=True):
        if review.trim is not None and (span := _span(review.trim, clip)) is not None:
            clip = _trimmed(results, clip, span, models)  # noqa: PLW2901 - the same clip, shorter
        if review.trim is not None and num_trims and report:
            num_done += 1
            report("trim", num_done, num_trims)
        clips.append(clip)
    return replace(survey, clips=clips, reviews=reviews)


def _in_domain(results: Results, finished: FinishedClip, review: Standing) -> FinishedClip:
    listed = results.listed_clips.get(finished.clip.clip_id)
    domain = review.domain.domain if review.domain else listed.domain if listed else None
    if domain is None or domain == finished.clip.domain:
        return finished
    if domain not in results.config.domains:
        who = f"{review.domain.who} on {review.domain.at[:10]}" if review.domain else "its clip list"
        raise UsageError(
            f"clip {finished.clip.clip_id} was put into the domain {domain!r} by {who}, and this configuration knows "
            f"{', '.join(sorted(results.config.domains))}: add the domain with --config, or name another one in review"
        )
    return replace(finished, clip=finished.clip.model_copy(update={"domain": domain}))


def _span(review: Review, finished: FinishedClip) -> FrameSpan | None:
    """The frames that a trim keeps; None for all of them."""
    span, num_frames = review.trim, finished.clip.plan.num_frames
    if span is None or len(span) == num_frames:
        return None
    if span.stop > num_frames:
        raise UsageError(
            f"clip {finished.clip.clip_id} was trimmed to frames {span.start} to {span.stop} by {review.who} on "
            f"{review.at[:10]}, and it has {num_frames}: undo that review, or trim it anew"
        )
    return span


def _trimmed(results: Results, finished: FinishedClip, span: FrameSpan, models: "ModelSet | None") -> FinishedClip:
    """The part that is wanted; the whole clip where the part is not there and no models are given to make it."""
    workspace, key = results.workspace, results.trim_key(finished.key, span)
    clip = workspace.result("trim", key, Clip)
    if clip is None and models is not None:
        clip = _make(results, finished, span, key, models)
    if clip is None:
        return finished
    return replace(finished, trim_key=key, clip=clip.model_copy(update={"domain": finished.clip.domain}))


def _models(results: Results) -> "ModelSet":
    from pipeline.models.registry import (
        ModelSet,  # brings what runs networks, which a look at results must not wait for
    )

    return ModelSet(results.model_files)


def _make(results: Results, finished: FinishedClip, span: FrameSpan, key: str, models: "ModelSet") -> Clip:
    from pipeline.clip.trim import trim_clip  # as above

    workspace, domain = results.workspace, finished.source.domain
    # What is stored does not depend on the domain that the clip is put in.
    whole = finished.clip.model_copy(update={"domain": domain})
    try:
        with workspace.scratch() as scratch:
            clip, files = trim_clip(whole, span, lambda name: finished.read(workspace, name), domain, models, scratch)
    except FileNotFoundError as error:
        raise WorkspaceError(
            f"clip {finished.clip.clip_id} cannot be trimmed, since one of its files is missing from the workspace: "
            f"delete the folder results/clip/{finished.key} and run 'anitalk build' again"
        ) from error
    workspace.publish("trim", key, clip, files)
    return clip
