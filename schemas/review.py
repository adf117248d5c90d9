"""What a person said of one clip.

Records are only ever added, so that neither several people nor a crash can lose anybody's words: whoever changes their
mind adds one that undoes an earlier one. Each names the version of the clip that was looked at: a clip that has been
made anew since is another picture, and what was said of the old one must not pass for it.
"""

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from schemas.base import FrameSpan, Id, Record, content_hash
from schemas.decision import RejectReason

MAX_NAME = 80  # letters of a reviewer's name
MAX_NOTE = 2000


class ReviewAction(StrEnum):
    """What a review does."""

    ACCEPT = "accept"
    REJECT = "reject"
    DOMAIN = "domain"
    IDENTITY = "identity"
    TRIM = "trim"
    UNDO = "undo"


# The field that an action needs; every other one of these stays empty.
_FIELD_OF = {
    ReviewAction.REJECT: "reason",
    ReviewAction.DOMAIN: "domain",
    ReviewAction.IDENTITY: "identity_id",
    ReviewAction.TRIM: "trim",
    ReviewAction.UNDO: "undoes",
}

# What the keys 1 to 9 mean on the screening page, in that order.
REVIEW_REASONS: tuple[RejectReason, ...] = (
    RejectReason.NOT_SPEAKING,
    RejectReason.OUT_OF_SYNC,
    RejectReason.NOT_THE_SPEAKER,
    RejectReason.SEVERAL_FACES,
    RejectReason.OCCLUDED,
    RejectReason.BLURRED,
    RejectReason.OVERLAY,
    RejectReason.BAD_LANDMARKS,
    RejectReason.REVIEWER,
)


class Review(Record):
    """One thing that one person said of one clip at one time.

    ``version`` is the key of the clip's result that was looked at. ``at`` is ISO 8601 in UTC with milliseconds.
    ``trim`` counts frames of that version. ``blind`` marks a second look at a clip whose earlier verdict was not shown.
    ``origin`` names the format of an imported record, empty for the page's own.
    """

    review_id: Id
    clip_id: Id
    version: str = Field(min_length=1, max_length=MAX_NAME)
    who: str = Field(min_length=1, max_length=MAX_NAME)
    at: str
    action: ReviewAction
    reason: RejectReason | None = None
    domain: str | None = None
    identity_id: Id | None = None
    trim: FrameSpan | None = None
    undoes: Id | None = None
    note: str = Field(default="", max_length=MAX_NOTE)
    blind: bool = False
    origin: str = ""

    @model_validator(mode="after")
    def _what_the_action_needs(self) -> Self:
        needed = _FIELD_OF.get(self.action)
        for name in _FIELD_OF.values():
            given = getattr(self, name) is not None
            if given != (name == needed):
                state = "missing" if not given else "given"
                raise ValueError(f"{self.action.value}: {name} is {state}; it belongs to {_action_of(name)} alone")
        return self

    @classmethod
    def of(cls, **fields: object) -> "Review":
        """A review whose id is computed from all the rest, so that the same words are never there twice."""
        draft = cls.model_validate({**fields, "review_id": "draft"})
        stamp = "".join(letter for letter in draft.at if letter.isdigit())[:17]
        digest = content_hash(draft.model_dump(mode="json", exclude={"review_id"}))
        return draft.model_copy(update={"review_id": f"{stamp}-{digest[:16]}"})


def _action_of(field_name: str) -> str:
    return next(action.value for action, name in _FIELD_OF.items() if name == field_name)
