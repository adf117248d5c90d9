"""What the screening server knows between requests: the clips, what was said of them, and what is new.

Reviews are on the disk before anybody is told that they are; what is kept here can be lost at any time. Other
processes add reviews too (an import, another server), so the log is read again now and then.
"""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from pipeline.build.results import load_build, results_of
from pipeline.review.catalogue import Catalogue, Entry, read_catalogue
from pipeline.review.order import Asked
from pipeline.review.progress import spent_s
from pipeline.store.reviews import ReviewLog, Standing, in_force, standing
from pipeline.store.workspace import Workspace
from schemas.base import FrameSpan
from schemas.errors import UsageError
from schemas.review import Review, ReviewAction

log = logging.getLogger(__name__)

_REREAD_S = 5.0
_REREAD_SHARE = 0.05  # of the time at most, for a log so long that reading its names takes seconds
_AHEAD_S = 60.0  # a browser's clock may run ahead of this one by so much
_VERDICTS = (ReviewAction.ACCEPT, ReviewAction.REJECT)
_FIELDS = frozenset({"clip_id", "version", "who", "at", "action", "reason", "domain", "identity_id", "trim", "undoes",
                     "note", "blind"})  # fmt: skip


class Desk:
    """The clips of one workspace and all reviews of them; safe for many threads.

    ``sequence`` grows with everything new, so that a page can ask for what it has not seen.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._log = ReviewLog(workspace)
        self._lock = threading.Lock()
        self._reading = threading.Lock()  # the log is read by one thread at a time
        self._reviews: dict[str, dict[str, Review]] = {}
        self._standings: dict[str, Standing] = {}
        self._changed: dict[str, int] = {}
        self.sequence = 0
        self._next_reading = 0.0
        self.catalogue = self._read_clips()
        self.reread()

    def _read_clips(self) -> Catalogue:
        build = load_build(self.workspace)
        return read_catalogue(results_of(self.workspace, build), build)

    def refresh(self) -> None:
        """Read the clips again, such as after a build."""
        catalogue = self._read_clips()
        with self._lock:
            self.catalogue = catalogue
            self._standings = {}
            for clip_id in self._reviews:
                self._stand(clip_id)

    # ---- what was said -------------------------------------------------------------------------

    def reread(self) -> None:
        """Take in what other processes have said or deleted since."""
        begun = time.monotonic()
        with self._reading:
            sequence = self.sequence
            by_clip: defaultdict[str, dict[str, Review]] = defaultdict(dict)
            for review in self._log.read():
                by_clip[review.clip_id][review.review_id] = review
            with self._lock:
                if sequence == self.sequence:  # else somebody spoke while the names were listed: the next time
                    for clip_id in by_clip.keys() | self._reviews.keys():
                        if by_clip.get(clip_id, {}).keys() != self._reviews.get(clip_id, {}).keys():
                            self._reviews[clip_id] = by_clip[clip_id]
                            self._stand(clip_id)
        taken = time.monotonic() - begun
        self._next_reading = time.monotonic() + max(_REREAD_S, taken / _REREAD_SHARE)

    def reread_if_due(self) -> None:
        """The same, unless that was done a moment ago or is being done."""
        if time.monotonic() >= self._next_reading and not self._reading.locked():
            self.reread()

    def _stand(self, clip_id: str) -> None:
        """Work out anew what holds for a clip; the caller holds the lock."""
        self.sequence += 1
        self._changed[clip_id] = self.sequence
        versions = self.catalogue.versions
        standings = standing(self._reviews.get(clip_id, {}).values(), versions if clip_id in versions else {})
        self._standings.pop(clip_id, None)
        self._standings |= standings

    def say(self, fields: Mapping[str, Any]) -> Review:
        """Store one review; it is on the disk, or in the store, when this returns.

        Saying the very same again, as a page does that was not answered, changes nothing.

        Raises:
            UsageError: when it cannot be taken as it is: what is wrong with it.
        """
        review = self._checked(fields)
        self._log.append(review)
        with self._lock:
            mine = self._reviews.setdefault(review.clip_id, {})
            if review.review_id not in mine:
                mine[review.review_id] = review
                self._stand(review.clip_id)
        return review

    def _checked(self, fields: Mapping[str, Any]) -> Review:
        unknown = sorted(fields.keys() - _FIELDS)
        if unknown:
            raise UsageError(f"a review has no field {unknown[0][:80]!r}")
        entry = self.entry(str(fields.get("clip_id", "")))
        try:
            review = Review.of(**fields)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise UsageError(f"the review cannot be taken: {field} {first['msg']}".replace("  ", " ")) from error
        if not _is_time(review.at):
            raise UsageError(f"the review's time {review.at[:40]!r} is not ISO 8601 in UTC, or in the future")
        # An undo names what it takes back by id, whichever version of the clip that was said of.
        if review.version != entry.made.key and review.action is not ReviewAction.UNDO:
            raise UsageError(f"{review.clip_id} has been made anew since: look at it again")
        self._check_content(review, entry)
        return review

    def _check_content(self, review: Review, entry: Entry) -> None:
        if review.domain is not None and review.domain not in self.catalogue.domains:
            raise UsageError(f"{review.domain[:80]!r} is no domain: choose from {', '.join(self.catalogue.domains)}")
        num_frames = entry.made.clip.plan.num_frames
        if review.trim is not None and review.trim.stop > num_frames:
            raise UsageError(f"{review.clip_id} has {num_frames} frames, and {review.trim.stop} is behind its end")
        if review.undoes is not None and review.undoes not in self._reviews.get(review.clip_id, {}):
            raise UsageError(f"there is no review {review.undoes} of {review.clip_id} to undo")

    # ---- what a page is told -------------------------------------------------------------------

    def entry(self, clip_id: str) -> Entry:
        """The clip of that id.

        Raises:
            UsageError: when there is none.
        """
        entry = self.catalogue.by_id.get(clip_id)
        if entry is None:
            raise UsageError(f"there is no clip {clip_id[:100]!r}")
        return entry

    def queue(self, reviewer: str) -> list[Asked]:
        """The clips to ask a reviewer about."""
        return self.catalogue.order.turns(self._everything(), reviewer)

    def _everything(self) -> list[Review]:
        with self._lock:
            return [review for of_clip in self._reviews.values() for review in of_clip.values()]

    def changes(self, after: int) -> tuple[int, dict[str, dict[str, Any] | None]]:
        """The sequence now, and the state of every clip of which something was said after ``after``."""
        with self._lock:
            states = {
                clip_id: self._state(clip_id)
                for clip_id, changed in self._changed.items()
                if changed > after and clip_id in self.catalogue.by_id
            }
            return self.sequence, states

    def state(self, clip_id: str) -> dict[str, Any] | None:
        """What holds for one clip, as the page knows it; None where nothing does."""
        with self._lock:
            return self._state(clip_id)

    def _state(self, clip_id: str) -> dict[str, Any] | None:
        holding = self._standings.get(clip_id)
        if holding is None:
            return None
        current = {
            name: _told(review)
            for name in ("verdict", "domain", "identity", "trim")
            if (review := getattr(holding, name)) is not None
        }
        stale = [_told(review) for review in unconfirmed(holding)]
        return {**current, **({"stale": stale} if stale else {})} or None

    def said_of(self, clip_id: str) -> list[dict[str, Any]]:
        """Everything that was ever said of a clip, in order of time."""
        with self._lock:
            reviews = sorted(self._reviews.get(clip_id, {}).values(), key=lambda review: (review.at, review.review_id))
            holding = {review.review_id for review in in_force(reviews)}
            return [{**_told(review), "holds": review.review_id in holding} for review in reviews]

    def latest_of(self, who: str, count: int) -> list[dict[str, Any]]:
        """The latest reviews of one person that still hold, the newest last: what can be undone."""
        with self._lock:
            valid = [
                review
                for of_clip in self._reviews.values()
                for review in in_force(of_clip.values())
                if review.who == who and review.clip_id in self.catalogue.by_id
            ]
        newest = sorted(valid, key=lambda review: (review.at, review.review_id))[-count:]
        return [_told(review) for review in newest]

    def worked_s(self) -> float:
        """Seconds that people have spent, long breaks cut short."""
        return spent_s(self._everything())


def unconfirmed(holding: Standing) -> list[Review]:
    """What was said of an earlier version, of each kind the latest, where nothing of its kind was said of this one."""
    latest: dict[str, Review] = {}
    for review in holding.stale:
        kind = "verdict" if review.action in _VERDICTS else review.action.value
        if getattr(holding, kind) is None:
            latest[kind] = review
    return list(latest.values())


def _is_time(at: str) -> bool:
    """Whether a review may have been said then: in UTC, and no later than now, as far as clocks agree."""
    try:
        time_of = datetime.fromisoformat(at)
    except ValueError:
        return False
    return time_of.utcoffset() == timedelta(0) and time_of <= datetime.now(UTC) + timedelta(seconds=_AHEAD_S)


def _told(review: Review) -> dict[str, Any]:
    """A review without what is not there."""
    trim: FrameSpan | None = review.trim
    fields = review.model_dump(mode="json", exclude_defaults=True, exclude={"trim", "version"})
    return {**fields, **({"trim": [trim.start, trim.stop]} if trim else {})}
