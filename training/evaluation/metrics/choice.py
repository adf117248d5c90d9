"""Which metrics an evaluation has, settled before its first frame: what is missing is told at once and in full."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.errors import UsageError
from training.evaluation.metrics.config import MetricsConfig
from training.evaluation.metrics.table import BY_NAME, METRICS, Metric, verified
from training.evaluation.protocols import Protocol


@dataclass(frozen=True, slots=True)
class Chosen:
    """The metrics in the table's order, the files that they need by setting, and against what each was verified."""

    metrics: tuple[Metric, ...]
    files: Mapping[str, Path]
    verified: Mapping[str, str]

    @property
    def names(self) -> frozenset[str]:
        """Of the metrics."""
        return frozenset(one.name for one in self.metrics)

    @property
    def looks(self) -> frozenset[str]:
        """What has to be seen of every picture."""
        return frozenset(look for one in self.metrics for look in one.looks)


def choose_metrics(protocol: Protocol, names: Sequence[str], config: MetricsConfig, image_px: int) -> Chosen:
    """The metrics asked for, or all of the protocol.

    Raises:
        UsageError: for an unknown one, one of another protocol; or when some cannot be computed, naming all of them,
            what each lacks, and what would be left without them.
    """
    for name in names:
        if name not in BY_NAME:
            raise UsageError(f"--metrics: there is no {name!r}: choose from {', '.join(BY_NAME)}")
        if protocol not in BY_NAME[name].protocols:
            raise UsageError(
                f"--metrics: {name} compares with the frame that should have come out, which {protocol} does not have"
            )
    wanted = [one for one in METRICS if protocol in one.protocols and (not names or one.name in names)]
    lacks = {one.name: told for one in wanted if (told := ", ".join(_lacks(one, config, image_px)))}
    if lacks:
        left = [one.name for one in wanted if one.name not in lacks]
        told = "; ".join(f"{name} ({what})" for name, what in lacks.items())
        remedy = f"or leave them out by --metrics {','.join(left)}" if left else "or use --metrics to choose others"
        raise UsageError(f"metrics that cannot be computed: {told}: set what is missing, {remedy}")
    files = {setting: _file(config, setting) for one in wanted for setting in one.weights}
    return Chosen(tuple(wanted), files, {one.name: verified(one, config) for one in wanted})


def _lacks(metric: Metric, config: MetricsConfig, image_px: int) -> Iterable[str]:
    if image_px < metric.min_px:
        yield f"pictures of {metric.min_px} px and more, and the model makes {image_px}"
    for setting in metric.weights:
        path = _path(config, setting)
        if path is None:
            yield f"metrics.{setting}.path is not set"
        elif not Path(path).expanduser().is_file():
            yield f"metrics.{setting}.path: {path} is not there"


def _file(config: MetricsConfig, setting: str) -> Path:
    return Path(_path(config, setting) or "").expanduser()


def _path(config: MetricsConfig, setting: str) -> str | None:
    found: Any = config
    for part in setting.split("."):
        found = getattr(found, part)
    return found.path
