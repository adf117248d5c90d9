"""One row per item and attempt: failures are data, and the funnel is counted from here."""

from typing import Literal

from schemas.base import Record

Outcome = Literal["done", "failed", "rejected", "retry"]
ReasonClass = Literal["permanent", "transient", "throttled", "decode", "crash", "timeout", "rejected"]


class LedgerRow(Record):
    """What happened to one item at one stage.

    ``item`` is a source id, or SOURCE/shot/track below it. ``reason`` is a short machine word (a
    RejectReason or an error class), ``message`` the sentence a person reads. ``measured`` and
    ``limit`` are the numbers behind a rejection. The outcome ``retry`` is a person's wish: what lies before it no
    longer keeps the item from being tried.
    """

    stage: Literal["acquire", "probe", "analyse", "plan", "clip"]
    source_id: str
    item: str
    attempt: int
    outcome: Outcome
    reason_class: ReasonClass | None = None
    reason: str = ""
    message: str = ""
    measured: float | None = None
    limit: float | None = None
    key: str = ""
    tool_version: str = ""
    at: str = ""
    took_s: float = 0.0
