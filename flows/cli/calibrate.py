"""``anitalk calibrate``: limits fitted to the accepted clips of a workspace, shown before they are written."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import WorkspaceOption
from flows.cli.rows import Format, write_file, write_rows
from schemas.errors import UsageError

if TYPE_CHECKING:
    from pipeline.build.results import BuildRecord, Results
    from pipeline.curate.calibrate import Fit


def calibrate(
    workspace: WorkspaceOption,
    write: Annotated[Path | None, typer.Option("--write", help="YAML file for the fitted limits.")] = None,
    share: Annotated[float, typer.Option(min=0.5, max=1.0, help="Of the accepted clips that each keeps.")] = 0.98,
    min_clips: Annotated[int, typer.Option(min=1, help="Accepted clips that a domain needs.")] = 20,
) -> None:
    """Fit limits of each domain to its accepted clips, and show what they would keep and drop."""
    from pipeline.build.results import load_build, results_of
    from pipeline.store.workspace import Workspace

    if write is not None and write.exists():
        raise UsageError(f"{write} is there already: name a file that is not")
    opened = Workspace(workspace)
    build = load_build(opened)
    fits = _fitted(results_of(opened, build), build, share=share, min_clips=min_clips)
    if write is not None:
        _write(fits, write)


def _fitted(results: "Results", build: "BuildRecord", *, share: float, min_clips: int) -> "list[Fit]":
    """Fit, and print the fitted limits and what they would do.

    Args:
        results: of the latest build.
        build: its sources.
        share: of the accepted clips that each limit must keep.
        min_clips: accepted clips that a domain needs.

    Raises:
        UsageError: when no domain has enough accepted clips.
    """
    from pipeline.curate.calibrate import Effect, Fit, effects, fit_limits, fitted_limits
    from pipeline.curate.choice import ReleaseOptions, choose
    from pipeline.curate.collect import stored_collection
    from pipeline.curate.reviewed import survey_reviewed

    surveyed = survey_reviewed(results, build.sources)
    clips = [finished.clip for finished in surveyed.clips]
    collection = stored_collection(results, surveyed)
    decisions = choose(results, build, surveyed, ReleaseOptions(), collection).decisions
    limits = {name: domain.limits for name, domain in results.config.domains.items()}
    fits = fit_limits(clips, decisions, limits, share=share, min_clips=min_clips)
    if not fits:
        num_accepted = sum(decision.keep for decision in decisions)
        raise UsageError(
            f"no domain has {min_clips} accepted clips to fit limits to ({num_accepted} in all): "
            "build more, or ask for less with --min-clips"
        )
    write_rows([asdict(fit) for fit in fits], [field.name for field in fields(Fit)], Format.TABLE, None)
    changes = effects(clips, limits, fitted_limits(limits, fits))
    write_rows([asdict(effect) for effect in changes], [field.name for field in fields(Effect)], Format.TABLE, None)
    return fits


def _write(fits: "list[Fit]", path: Path) -> None:
    """Write the limits as a configuration file."""
    import yaml

    domains: dict[str, dict[str, dict[str, float]]] = {}
    for fit in fits:
        domains.setdefault(fit.domain, {"limits": {}})["limits"][fit.limit] = fit.fitted
    write_file(path, yaml.safe_dump({"domains": domains}, sort_keys=True).encode())
    print(f"written to {path}: 'anitalk release --config {path}' applies it")  # noqa: T201
