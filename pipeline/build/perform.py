"""Do a job: publish its result, and enter what became of it in the ledger."""

import logging
import time
import traceback
from pathlib import Path

from pipeline.build.jobs import Job, JobContext
from pipeline.store.workspace import Workspace
from schemas.base import Record
from schemas.errors import AnitalkError, UsageError, WorkspaceError
from schemas.ledger import LedgerRow
from schemas.progress import Report, silent

_PACKAGE = Path(__file__).parents[1]  # ``pipeline``: lines of ours in a traceback
log = logging.getLogger(__name__)


def perform(job: Job, context: JobContext, report: Report = silent) -> Record | None:
    """Do a job and publish its result with a row in the ledger; None when it failed, which is a row as well.

    Raises:
        WorkspaceError: when the workspace cannot be written; no item is at fault, and the build must end.
        UsageError: a model that is missing ends the build too; a login that one source lacks costs that source.
    """
    row = ledger_row(job, context.tool_version)
    began = time.monotonic()
    try:
        record, files = job.compute(context, report)
        context.workspace.publish(job.stage, job.key, record, files)
    except WorkspaceError:
        raise
    except AnitalkError as error:
        if isinstance(error, UsageError) and job.stage != "acquire":
            raise
        log_failure(context.workspace, row, error.reason, type(error).__name__, str(error))
        return None
    except Exception as error:
        # The item's boundary: a bug or a decoder's surprise costs this item and is kept for repair.
        log.info("%s of %s crashed", job.stage, job.item, exc_info=True)
        message = f"{type(error).__name__}: {error} (in {_line_of(error)}; 'anitalk --verbose build' shows more)"
        log_failure(context.workspace, row, "crash", type(error).__name__, message)
        return None
    took_s = time.monotonic() - began
    context.workspace.log(row.model_copy(update={"took_s": round(took_s, 3)}))
    log.info("%s %s done in %.2f s", job.stage, job.item, took_s)
    return record


def ledger_row(job: Job, tool_version: str) -> LedgerRow:
    """The row of one attempt at a job, as if it had gone well."""
    return LedgerRow(
        stage=job.stage,
        source_id=job.source.id,
        item=job.item,
        attempt=1,
        outcome="done",
        key=job.key,
        tool_version=tool_version,
    )


def log_failure(workspace: Workspace, row: LedgerRow, reason_class: str, reason: str, message: str) -> None:
    """Enter a failed attempt."""
    log.warning("%s of %s failed: %s", row.stage, row.item, message)
    failure = {"outcome": "failed", "reason_class": reason_class, "reason": reason, "message": message}
    workspace.log(row.model_copy(update=failure))


def _line_of(error: BaseException) -> str:
    """The innermost line of ours, or of anyone's, that an error passed through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(_PACKAGE)]
    last = (ours or frames)[-1]
    return f"{Path(last.filename).name}:{last.lineno}"
