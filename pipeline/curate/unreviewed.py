"""The clips of a build as they were made, and what the filters of a release would decide of each.

That is what lies before whoever screens: the screening page, bundles and Label Studio's tasks all read it here.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.build.results import BuildRecord, Results
from pipeline.build.survey import FinishedClip, Survey, survey
from pipeline.curate.choice import filtered, verdicts_of
from pipeline.curate.collect import stored_collection
from pipeline.curate.reviewed import in_listed_domains, reviewed
from pipeline.curate.select import limits_of
from pipeline.store.reviews import ReviewLog, standing
from schemas.collection import Collection
from schemas.config import SelectLimits
from schemas.decision import Decision
from schemas.errors import UsageError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class UnreviewedClips:
    """Finished clips in order of sources and time, each as it was made, which is the version that reviews name.

    ``decisions`` are the filters', one per clip. ``limits`` are those of each domain, by name in order.
    ``collection`` is None where clips have not been compared since the set of them last changed.
    """

    clips: tuple[FinishedClip, ...]
    decisions: tuple[Decision, ...]
    limits: Mapping[str, SelectLimits]
    collection: Collection | None


def read_unreviewed(results: Results, build: BuildRecord) -> UnreviewedClips:
    """Read all finished clips of a build, and what its filters decide of them; nothing is computed from media.

    What people said changes one thing, as in a release: a clip that they reject makes no other a duplicate.

    Raises:
        UsageError: when a rebuilt clip list names a domain that the configuration lacks.
    """
    surveyed = in_listed_domains(results, survey(results, build.sources))
    collection = _latest_collection(results, surveyed)
    versions = {finished.clip.clip_id: finished.key for finished in surveyed.clips}
    verdicts = verdicts_of(standing(ReviewLog(results.workspace).read(), versions))
    return UnreviewedClips(
        clips=tuple(surveyed.clips),
        decisions=tuple(filtered(results, surveyed, collection, verdicts=verdicts)),
        limits=limits_of(results.config),
        collection=collection,
    )


def _latest_collection(results: Results, surveyed: Survey) -> Collection | None:
    """What the latest release learned of these clips together, as people had left them by then."""
    try:
        return stored_collection(results, reviewed(results, surveyed))
    except UsageError as error:  # a review that no release can follow: screening is where it is mended
        log.warning("copies and people are not shown: %s", error)
        return None
