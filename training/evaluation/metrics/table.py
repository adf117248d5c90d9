"""Every metric of an evaluation: what it looks at, which way is better, where it applies, how far it is verified."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from training.evaluation.metrics.config import MetricsConfig
from training.evaluation.metrics.eyes import Sights
from training.evaluation.metrics.frechet import Moments, frechet_distance
from training.evaluation.metrics.likeness import aed, akd_l1, akd_l2, mean_cosine
from training.evaluation.protocols import Protocol, spread

ALL: tuple[Protocol, ...] = ("same-identity", "cross-identity", "cross-domain")
SAME: tuple[Protocol, ...] = ("same-identity",)  # only there a frame shows what should have come out

Row = Literal["made", "source", "truth"]
UNVERIFIED = ""


@dataclass(frozen=True, slots=True)
class Views:
    """What was seen of N pictures, and of what each is compared with.

    Attributes:
        generated: of the pictures that are judged.
        real: of the driving frames; None where there are none.
        source: of each picture's source.
        reference: of real pictures, however many, for distances between sets.
        beside: figures of each picture beside its driving frame, by metric.
    """

    generated: Sights
    real: Sights | None
    source: Sights
    reference: Sights
    beside: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Metric:
    """One column of the table.

    Attributes:
        figure: the value over all pictures, and how many of them counted.
        looks: names of ``Eyes`` that it needs.
        weights: settings whose files it needs, ``metrics`` left out.
        verified: against what; empty for not at all.
        rows: beside the made pictures, ``source`` in their place where a real frame judges, ``truth`` (real pictures
            in their place) where none does.
        min_px: smallest pictures that it takes.
    """

    name: str
    better: Literal["higher", "lower"]
    protocols: tuple[Protocol, ...]
    figure: Callable[[Views], tuple[float | None, int]]
    looks: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    verified: str = UNVERIFIED
    rows: tuple[Row, ...] = ("made", "truth")
    min_px: int = 1


def _mean(name: str) -> Callable[[Views], tuple[float | None, int]]:
    """The mean of a figure that each picture has alone, or beside its driving frame."""

    def figure(views: Views) -> tuple[float | None, int]:
        values = np.asarray(views.beside[name] if name in views.beside else views.generated[name], np.float64)
        counted = values[~np.isnan(values)]
        return (float(counted.mean()) if len(counted) else None), len(counted)

    return figure


def _compared(
    measure: Callable[[np.ndarray, np.ndarray], float], name: str, other: Literal["real", "source"]
) -> Callable[[Views], tuple[float | None, int]]:
    """A measure over the pairs in which both pictures had something to see."""

    def figure(views: Views) -> tuple[float | None, int]:
        sights = views.real if other == "real" else views.source
        if sights is None:
            return None, 0
        mine, theirs = views.generated[name], sights[name]
        both = ~(_blank(mine) | _blank(theirs))
        return (measure(mine[both], theirs[both]) if both.any() else None), int(both.sum())

    return figure


def _blank(rows: np.ndarray) -> np.ndarray:
    return np.asarray(np.isnan(rows.reshape(len(rows), -1)).any(axis=1))


def _fid(views: Views) -> tuple[float | None, int]:
    """Of equally many on both sides: what there are more of is thinned evenly."""
    generated, real = views.generated["inception"], views.reference["inception"]
    count = min(len(generated), len(real))
    if count < 2:
        return None, count
    first, second = (Moments.of(rows[list(spread(range(len(rows)), count))]) for rows in (generated, real))
    return frechet_distance(first, second), count


MIN_FID_PICTURES = 2048  # as many as there are features: below it a covariance has no full rank

METRICS: tuple[Metric, ...] = (
    Metric(
        "fid",
        "lower",
        ALL,
        _fid,
        looks=("inception",),
        weights=("fid",),
        verified="pytorch-fid's network, random weights in both; SciPy's distance",
    ),
    Metric(
        "csim",
        "higher",
        ALL,
        _compared(mean_cosine, "identity", "source"),
        looks=("points", "identity"),
        weights=("points", "identity.file"),
    ),
    Metric(
        "ceim_feat",
        "higher",
        ALL,
        _compared(mean_cosine, "expression", "real"),
        looks=("expression",),
        weights=("expression.file",),
        rows=("made", "source"),
    ),
    Metric(
        "ceim_logit",
        "higher",
        ALL,
        _compared(mean_cosine, "emotion", "real"),
        looks=("emotion",),
        weights=("expression.file",),
        rows=("made", "source"),
    ),
    Metric("l1", "lower", SAME, _mean("l1"), verified="by its definition", rows=("made", "source")),
    Metric(
        "lpips",
        "lower",
        SAME,
        _mean("lpips"),
        weights=("lpips.file", "lpips.heads"),
        rows=("made", "source"),
        min_px=31,  # of AlexNet
    ),
    Metric("psnr", "higher", SAME, _mean("psnr"), verified="scikit-image", rows=("made", "source")),
    Metric("ssim", "higher", SAME, _mean("ssim"), verified="scikit-image", rows=("made", "source"), min_px=11),
    Metric(
        "akd_l1",
        "lower",
        SAME,
        _compared(akd_l1, "points", "real"),
        looks=("points",),
        weights=("points",),
        rows=("made", "source"),
    ),
    Metric(
        "akd_l2",
        "lower",
        SAME,
        _compared(akd_l2, "points", "real"),
        looks=("points",),
        weights=("points",),
        rows=("made", "source"),
    ),
    Metric(
        "aed_arcface",
        "lower",
        SAME,
        _compared(aed, "identity", "real"),
        looks=("points", "identity"),
        weights=("points", "identity.file"),
        rows=("made", "source"),
    ),
    Metric("cpbd", "higher", ALL, _mean("cpbd"), looks=("cpbd",), verified="the package cpbd 1.0.7", min_px=64),
    Metric(
        "niqe",
        "lower",
        ALL,
        _mean("niqe"),
        looks=("niqe",),
        weights=("niqe",),
        verified="the package basicsr 1.4.2",
        min_px=192,
    ),
)
BY_NAME = {metric.name: metric for metric in METRICS}


def verified(metric: Metric, config: MetricsConfig) -> str:
    """Against what a metric was checked, as it is configured."""
    if metric.name == "lpips" and config.lpips.backbone == "squeezenet1_1":
        return "its authors' pictures"
    return metric.verified
