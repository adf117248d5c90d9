"""How a flow's run ends for good: a user's mistake stays one, however often it is tried."""

from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext

from schemas.errors import UsageError

REFUSED = "Refused"  # name of the failed state after a user's mistake


def full_path(what: str, given: str) -> str:
    """The path or URI as given; a run starts in a folder that is made for it, so a relative one names nothing.

    Raises:
        UsageError: when it is relative.
    """
    if "://" in given or Path(given).is_absolute():
        return given
    raise UsageError(f"{what} {given!r} is a relative path: name the full path on the worker's machine")


def retry_no_more() -> None:
    """Take the run's retries back: they are decided where failed states are judged, and a mistake stays a mistake."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    policy = context.flow_run.empirical_policy.model_copy(update={"retries": 0})
    with get_client(sync_client=True) as client:
        client.update_flow_run(context.flow_run.id, empirical_policy=policy)
