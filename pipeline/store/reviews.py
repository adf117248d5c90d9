"""Keep what people said of clips, and tell what stands.

One small object per review under ``decisions/CLIP/REVIEW.json``, written once and never changed: two reviewers, a
killed server and an import that is repeated cannot take anything from one another, on a disk or in an object store.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from pipeline.store.workspace import Workspace
from schemas.base import canonical_json
from schemas.decision import Decision
from schemas.errors import WorkspaceError
from schemas.review import Review, ReviewAction

log = logging.getLogger(__name__)

FOLDER = "decisions"
_VERDICTS = frozenset({ReviewAction.ACCEPT, ReviewAction.REJECT})


@dataclass(frozen=True, slots=True)
class Standing:
    """What holds for one clip now: of each kind the latest review that nobody undid.

    ``stale`` are reviews of an earlier version of the clip: they are shown, and decide nothing.
    """

    verdict: Review | None = None
    domain: Review | None = None
    identity: Review | None = None
    trim: Review | None = None
    stale: tuple[Review, ...] = ()

    def decision(self) -> Decision | None:
        """The verdict as selection knows decisions."""
        review = self.verdict
        if review is None:
            return None
        return Decision(
            clip_id=review.clip_id,
            keep=review.action is ReviewAction.ACCEPT,
            by="reviewer",
            reason=review.reason,
            note=review.note,
            who=review.who,
            at=review.at,
        )


class ReviewLog:
    """All reviews of a workspace; each object is read once, so a second look costs one listing."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._known: dict[str, Review] = {}

    def append(self, review: Review) -> bool:
        """Store a review; says whether it is new. It is on the disk, or in the store, when this returns."""
        name = f"{FOLDER}/{review.clip_id}/{review.review_id}.json"
        return self._workspace.storage.write_new(name, canonical_json(review))

    def read(self) -> list[Review]:
        """Every review there is now, in order of time.

        Raises:
            WorkspaceError: when one is damaged, naming it.
        """
        storage = self._workspace.storage
        names = storage.names(FOLDER)
        self._known = {name: self._known[name] for name in names if name in self._known}
        for name in names:
            if name not in self._known:
                self._known[name] = _parsed(storage.path(name), storage.read(name))
        return sorted(self._known.values(), key=_order)

    def forget(self, clip_ids: Iterable[str]) -> int:
        """Delete all that was said of some clips; returns how many reviews. The one way in which any is ever lost."""
        storage, num_reviews = self._workspace.storage, 0
        for clip_id in sorted(set(clip_ids)):
            if names := storage.names(f"{FOLDER}/{clip_id}"):
                storage.delete(f"{FOLDER}/{clip_id}")
                num_reviews += len(names)
        return num_reviews


def _parsed(path: str, data: bytes) -> Review:
    try:
        return Review.model_validate_json(data)
    except ValidationError as error:
        raise WorkspaceError(
            f"{path} is damaged ({error.errors()[0]['msg']}): mend or delete that file, then run again"
        ) from error


def _order(review: Review) -> tuple[str, str]:
    return review.at, review.review_id


def standing(reviews: Iterable[Review], versions: Mapping[str, str]) -> dict[str, Standing]:
    """What holds for each clip of which anything was said.

    Args:
        reviews: in any order.
        versions: the key of each clip's present result; reviews of clips that are not there are left out.
    """
    by_clip: defaultdict[str, list[Review]] = defaultdict(list)
    for review in sorted(reviews, key=_order):
        if review.clip_id in versions:
            by_clip[review.clip_id].append(review)
    return {clip_id: _stand(said, versions[clip_id]) for clip_id, said in by_clip.items()}


def in_force(reviews: Iterable[Review]) -> list[Review]:
    """The reviews of one clip that nobody undid, in order of time; undoing an undo brings the first back."""
    said = sorted(reviews, key=_order)
    undone: set[str] = set()
    for review in reversed(said):
        if review.action is ReviewAction.UNDO and review.review_id not in undone and review.undoes:
            undone.add(review.undoes)
    return [review for review in said if review.review_id not in undone and review.action is not ReviewAction.UNDO]


def _stand(said: list[Review], version: str) -> Standing:
    valid = in_force(said)
    current = [review for review in valid if review.version == version]
    latest: dict[str, Review] = {}
    for review in current:
        latest["verdict" if review.action in _VERDICTS else review.action.value] = review
    stale = tuple(review for review in valid if review.version != version)
    return Standing(**latest, stale=stale)
