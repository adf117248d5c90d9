"""What lies before the reviewers of a workspace: its finished clips, what the filters make of them, what was said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.build.results import load_build, results_of
from pipeline.build.survey import FinishedClip, survey
from pipeline.curate.select import decide, limits_of
from pipeline.store.reviews import ReviewLog, Standing, standing
from pipeline.store.workspace import Workspace
from schemas.config import SelectLimits
from schemas.decision import Decision
from schemas.review import Review


@dataclass(frozen=True, slots=True)
class Screened:
    """The clips of a workspace by id, in order, and everything that people said of any clip, in order of time.

    ``limits`` are those of each domain, by name in order; ``filtered`` is what they alone decide from stored scores,
    without comparisons between clips. Clips are as they were made, since that is the version that reviews name.
    """

    workspace: Workspace
    clips: Mapping[str, FinishedClip]
    limits: Mapping[str, SelectLimits]
    reviews: Sequence[Review]
    standing: Mapping[str, Standing]
    filtered: Mapping[str, Decision]


def read_screened(workspace: Workspace) -> Screened:
    """Read what a workspace has to be screened.

    Raises:
        UsageError: when nothing has been built there.
        WorkspaceError: when a review is damaged.
    """
    build = load_build(workspace)
    found = survey(results_of(workspace, build), build.sources).clips
    clips = {made.clip.clip_id: made for made in sorted(found, key=lambda made: made.clip.clip_id)}
    reviews = ReviewLog(workspace).read()
    limits = limits_of(build.config)
    return Screened(
        workspace=workspace,
        clips=clips,
        limits=limits,
        reviews=reviews,
        standing=standing(reviews, {clip_id: made.key for clip_id, made in clips.items()}),
        filtered={clip_id: decide(made.clip, limits[made.clip.domain]) for clip_id, made in clips.items()},
    )
