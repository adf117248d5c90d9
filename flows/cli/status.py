"""``anitalk status``: what became of every source, and what is left."""

import json
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import WorkspaceOption

if TYPE_CHECKING:
    from pipeline.build.survey import Survey
    from pipeline.store.workspace import Workspace
    from schemas.funnel import Funnel, FunnelDrop
    from schemas.ledger import LedgerRow


def status(
    workspace: WorkspaceOption, json_: Annotated[bool, typer.Option("--json", help="For programs.")] = False
) -> None:
    """Show what became of every source: the funnel, failures by class, and what is left."""
    from pipeline.store.workspace import Workspace

    print_status(Workspace(workspace), as_json=json_)


def print_status(workspace: "Workspace", *, as_json: bool = False) -> None:
    """Print the funnel, the failures by class with their sentences, and what is left.

    Raises:
        UsageError: when nothing has been built in the workspace.
    """
    from pipeline.build.results import load_build, results_of
    from pipeline.curate.choice import ReleaseOptions, choose
    from pipeline.curate.collect import stored_collection
    from pipeline.curate.reviewed import survey_reviewed

    build = load_build(workspace)
    results = results_of(workspace, build)
    surveyed = survey_reviewed(results, build.sources)
    collection = stored_collection(results, surveyed)
    funnel = choose(results, build, surveyed, ReleaseOptions(), collection).funnel
    if as_json:
        _print_json(funnel, surveyed, is_compared=collection is not None)
    else:
        _print_text(funnel, surveyed, is_compared=collection is not None)


def _failures(surveyed: "Survey") -> "list[LedgerRow]":
    return [row for row in surveyed.rows if row.outcome == "failed"]


def _by_class(failures: "list[LedgerRow]") -> dict[str, int]:
    return dict(sorted(Counter(str(row.reason_class) for row in failures).items()))


def _print_json(funnel: "Funnel", surveyed: "Survey", *, is_compared: bool) -> None:
    failures = _failures(surveyed)
    content = {
        "funnel": funnel.model_dump(mode="json")["steps"],
        "failures": [row.model_dump(mode="json") for row in failures],
        "failures_by_class": _by_class(failures),
        "left": surveyed.left,
        "forgotten": surveyed.forgotten,
        "compared": is_compared,
        "stale_reviews": surveyed.num_stale,
    }
    print(json.dumps(content, indent=1, ensure_ascii=False))  # noqa: T201


def _print_text(funnel: "Funnel", surveyed: "Survey", *, is_compared: bool) -> None:
    failures = _failures(surveyed)
    _print_funnel(funnel)
    if surveyed.clips and not is_compared:
        print("these clips have not been compared with one another yet: 'anitalk release' looks for duplicates")  # noqa: T201
    if surveyed.num_stale:
        print(_stale_sentence(surveyed))  # noqa: T201
    for kind, count in _by_class(failures).items():
        print(f"\nfailed, {kind}: {count}")  # noqa: T201
        for row in failures:
            if row.reason_class == kind:
                print(f"  {row.item}: {row.message}")  # noqa: T201
    if surveyed.forgotten:
        print(f"\nforgotten: {', '.join(surveyed.forgotten)}")  # noqa: T201
    if surveyed.left:
        print(f"\nleft to do: {', '.join(surveyed.left)}")  # noqa: T201


def _stale_sentence(surveyed: "Survey") -> str:
    clips = [clip_id for clip_id, standing in sorted(surveyed.reviews.items()) if standing.stale]
    which = clips[0] if len(clips) == 1 else f"{len(clips)} clips such as {clips[0]}"
    counted = "1 review is" if surveyed.num_stale == 1 else f"{surveyed.num_stale} reviews are"
    return f"{counted} of an earlier version of {which}, and count for nothing now: 'anitalk review' shows them again"


def _print_funnel(funnel: "Funnel") -> None:
    for step in funnel.steps:
        drops = ", ".join(
            f"{drop.count} {drop.label}"
            + (f" ({drop.median_measured:g}, limit {drop.limit:g})" if _has_numbers(drop) else "")
            for drop in step.drops
        )
        pending = f", {step.pending} to do" if step.pending else ""
        overruled = f"  kept by a reviewer against the filters: {step.overruled}" if step.overruled else ""
        dropped = f"  dropped: {drops}" if drops else ""
        print(f"{step.stage:<8} {step.passed:>6} of {step.entered:<6} {step.unit:<8}{dropped}{pending}{overruled}")  # noqa: T201


def _has_numbers(drop: "FunnelDrop") -> bool:
    return drop.median_measured is not None and drop.limit is not None
