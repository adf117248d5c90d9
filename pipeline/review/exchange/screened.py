"""What lies before the reviewers of a workspace: its finished clips, what the filters make of them, what was said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.build.results import load_build, results_of
from pipeline.build.survey import FinishedClip
from pipeline.curate.unreviewed import read_unreviewed
from pipeline.store.reviews import ReviewLog, Standing, standing
from pipeline.store.workspace import Workspace
from schemas.collection import Collection
from schemas.config import SelectLimits
from schemas.decision import Decision
from schemas.review import Review


@dataclass(frozen=True, slots=True)
class Screened:
    """The clips of a workspace by id, in order, and everything that people said of any clip, in order of time.

    ``limits`` are those of each domain, by name in order; ``filtered`` is what a release would do without people's
    words, as the screening page shows it. Clips are as they were made, since that is the version that reviews name.
    """

    workspace: Workspace
    clips: Mapping[str, FinishedClip]
    limits: Mapping[str, SelectLimits]
    reviews: Sequence[Review]
    standing: Mapping[str, Standing]
    filtered: Mapping[str, Decision]
    collection: Collection | None


def read_screened(workspace: Workspace) -> Screened:
    """Read what a workspace has to be screened.

    Raises:
        UsageError: when nothing has been built there.
        WorkspaceError: when a review is damaged.
    """
    build = load_build(workspace)
    unreviewed = read_unreviewed(results_of(workspace, build), build)
    clips = {finished.clip.clip_id: finished for finished in unreviewed.clips}
    reviews = ReviewLog(workspace).read()
    return Screened(
        workspace=workspace,
        clips=dict(sorted(clips.items())),
        limits=unreviewed.limits,
        reviews=reviews,
        standing=standing(reviews, {clip_id: finished.key for clip_id, finished in clips.items()}),
        filtered={decision.clip_id: decision for decision in unreviewed.decisions},
        collection=unreviewed.collection,
    )
