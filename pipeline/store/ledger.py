"""Which of an item's failures still count, and when to stop trying.

The ledger only grows, so asking for another try is a row as well: it forgives what lies before it.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable

from pipeline.store.workspace import Workspace
from schemas.ledger import LedgerRow

STRIKES = 3  # crashes and time-outs of one item, after which it is left alone
_STRIKE = frozenset({"crash", "timeout"})
_LASTING = frozenset({"permanent", "decode"})


def standing(rows: Iterable[LedgerRow]) -> list[LedgerRow]:
    """The rows that no later wish to try again has forgiven, without those wishes; order is kept."""
    rows = list(rows)
    forgiven: defaultdict[tuple[str, str], int] = defaultdict(int)
    for row in rows:
        if row.outcome == "retry":
            forgiven[row.stage, row.item] = max(forgiven[row.stage, row.item], row.attempt)
    return [row for row in rows if row.outcome != "retry" and row.attempt > forgiven[row.stage, row.item]]


def strikes(rows: Iterable[LedgerRow], key: str) -> int:
    """How often this very input ended its process, or the time it was given."""
    return sum(row.key == key and row.outcome == "failed" and row.reason_class in _STRIKE for row in rows)


def given_up(rows: Iterable[LedgerRow], key: str) -> bool:
    """Whether this very input failed before in a way that trying again cannot mend. ``rows`` are standing ones."""
    rows = list(rows)
    lasting = any(row.key == key and row.outcome == "failed" and row.reason_class in _LASTING for row in rows)
    return lasting or strikes(rows, key) >= STRIKES


def forgive(workspace: Workspace, source_id: str, classes: Collection[str] = ()) -> int:
    """Let every failed item of a source be tried again, or those of some reason classes; returns how many.

    An item counts by its last attempt: what has gone well since needs no forgiveness.
    """
    last: dict[tuple[str, str], LedgerRow] = {}
    for row in standing(workspace.ledger(source_id)):
        known = last.get((row.stage, row.item))
        if known is None or row.attempt >= known.attempt:
            last[row.stage, row.item] = row
    failed = [row for row in last.values() if row.outcome == "failed" and (not classes or row.reason_class in classes)]
    for row in failed:
        said = {"outcome": "retry", "reason_class": None, "reason": "", "message": "", "took_s": 0.0}
        workspace.log(row.model_copy(update=said))
    return len(failed)
