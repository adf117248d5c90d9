"""``anitalk calibrate``: limits fitted to the accepted clips of a workspace, shown before they are written."""

from dataclasses import asdict, fields
from pathlib import Path

import yaml

from flows.cli.rows import Format, write_file, write_rows
from pipeline.build.results import BuildRecord, Results
from pipeline.curate.calibrate import Effect, Fit, effects, fit_limits, fitted_limits
from pipeline.curate.choice import ReleaseOptions, choose
from pipeline.curate.collect import stored_collection
from pipeline.curate.reviewed import survey_reviewed
from schemas.errors import UsageError


def calibrate_workspace(
    results: Results, build: BuildRecord, *, share: float, min_clips: int, write: Path | None
) -> None:
    """Print the fitted limits and what they would do, then write them as a configuration file if asked to.

    Args:
        results: of the latest build.
        build: its sources.
        share: of the accepted clips that each limit must keep.
        min_clips: accepted clips that a domain needs.
        write: a YAML file that ``--config`` reads; it must not be there yet.

    Raises:
        UsageError: when no domain has enough accepted clips, or the file is there or cannot be written.
    """
    if write is not None and write.exists():
        raise UsageError(f"{write} is there already: name a file that is not")
    found = survey_reviewed(results, build.sources)
    clips = [made.clip for made in found.clips]
    decisions = choose(results, build, found, ReleaseOptions(), stored_collection(results, found)).decisions
    limits = {name: domain.limits for name, domain in results.config.domains.items()}
    fits = fit_limits(clips, decisions, limits, share=share, min_clips=min_clips)
    if not fits:
        raise UsageError(
            f"no domain has {min_clips} accepted clips to fit limits to ({sum(one.keep for one in decisions)} in all): "
            "build more, or ask for less with --min-clips"
        )
    fitted = fitted_limits(limits, fits)
    write_rows([asdict(fit) for fit in fits], [one.name for one in fields(Fit)], Format.TABLE, None)
    effect = effects(clips, limits, fitted)
    write_rows([asdict(one) for one in effect], [one.name for one in fields(Effect)], Format.TABLE, None)
    if write is not None:
        changes: dict[str, dict[str, dict[str, float]]] = {}
        for fit in fits:
            changes.setdefault(fit.domain, {"limits": {}})["limits"][fit.limit] = fit.fitted
        write_file(write, yaml.safe_dump({"domains": changes}, sort_keys=True).encode())
        print(f"written to {write}: 'anitalk release --config {write}' applies it")  # noqa: T201
