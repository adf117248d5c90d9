"""Say things of clips, as a reviewer does."""

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipeline.build.results import load_build, results_of
from pipeline.build.survey import FinishedClip, Survey, survey
from pipeline.curate.reviewed import survey_reviewed
from pipeline.store.reviews import ReviewLog
from pipeline.store.workspace import Workspace
from schemas.review import Review

_BEGIN = datetime(2026, 1, 2, 9, tzinfo=UTC)
_turns = itertools.count()


def at(seconds: float) -> str:
    """A time of reviewing, that many seconds after the work began."""
    return (_BEGIN + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def review_of(finished: FinishedClip, action: str, *, who: str = "eva", **more) -> Review:
    """A review of a clip as it is; without ``at``, the later the call the later the review."""
    more = {"version": finished.key, "at": at(10.0 * next(_turns)), **more}
    return Review.of(clip_id=finished.clip.clip_id, who=who, action=action, **more)


def say(workspace: Path | str, finished: FinishedClip, action: str, **more) -> Review:
    """Write a review into a workspace."""
    review = review_of(finished, action, **more)
    assert ReviewLog(Workspace(workspace)).append(review)
    return review


def surveyed(workspace: Path | str) -> list[FinishedClip]:
    """The clips as they were made."""
    opened = Workspace(workspace)
    build = load_build(opened)
    return survey(results_of(opened, build), build.sources).clips


def as_reviewed(workspace: Path | str) -> Survey:
    """The clips as people left them."""
    opened = Workspace(workspace)
    build = load_build(opened)
    return survey_reviewed(results_of(opened, build), build.sources)
