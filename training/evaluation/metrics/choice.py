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
        return frozenset(metric.name for metric in self.metrics)

    @property
    def looks(self) -> frozenset[str]:
        """What has to be seen of every picture."""
        return frozenset(look for metric in self.metrics for look in metric.looks)


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
    wanted = [metric for metric in METRICS if protocol in metric.protocols and (not names or metric.name in names)]
    lacks = {metric.name: lacking for metric in wanted if (lacking := ", ".join(_lacks(metric, config, image_px)))}
    if lacks:
        left = [metric.name for metric in wanted if metric.name not in lacks]
        lacking = "; ".join(f"{name} ({what})" for name, what in lacks.items())
        remedy = f"or leave them out by --metrics {','.join(left)}" if left else "or use --metrics to choose others"
        raise UsageError(f"metrics that cannot be computed: {lacking}: set what is missing, {remedy}")
    files = {setting: _file(config, setting) for metric in wanted for setting in metric.weights}
    return Chosen(tuple(wanted), files, {metric.name: verified(metric, config) for metric in wanted})


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
    node: Any = config
    for part in setting.split("."):
        node = getattr(node, part)
    return node.path
