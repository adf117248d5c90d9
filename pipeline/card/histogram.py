"""Distributions of stored scores as small inline SVG: no script, no font, no file beside the page.

The edges of the bins are the same for all domains of a release, so that their charts can be compared by eye;
their width is a round number, so that a bin can be said in words.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from schemas.config import SelectLimits
from schemas.release import ManifestRow

_MAX_BINS = 24
_MIN_SPAN = 1e-6

_WIDTH, _HEIGHT = 260, 132  # of the drawing, in its own units; about pixels on a desktop
_LEFT, _RIGHT, _TOP, _BOTTOM = 30, 10, 20, 20


@dataclass(frozen=True, slots=True)
class Measure:
    """One score of a clip: how it is read from a row (None: not measured there), its unit, and its limit.

    ``limit`` reads the limit of a domain, inclusive; ``is_most`` says that it is an upper one.
    """

    title: str
    unit: str
    value: Callable[[ManifestRow], float | None]
    limit: Callable[[SelectLimits], float]
    is_most: bool = False


MEASURES: tuple[Measure, ...] = (
    Measure(
        "head turn",
        "°",
        lambda row: row.scores.yaw_abs_median_deg,
        lambda limits: limits.max_abs_yaw_deg,
        is_most=True,
    ),
    Measure("length", " s", lambda row: row.duration_s, lambda limits: limits.min_clip_s),
    Measure("size before scaling", " px", lambda row: row.scores.native_crop_px, lambda li: li.min_native_crop_px),
    Measure("sync z", "", lambda row: row.scores.sync.z, lambda limits: limits.min_sync_z),
    Measure("speech", "", lambda row: row.scores.speech_ratio, lambda limits: limits.min_speech_ratio),
)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Clips by one measure. Bin k counts values from ``edges[k]`` up to ``edges[k + 1]``, the last with its end."""

    measure: Measure
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    num_unknown: int
    quantiles: tuple[float, float, float] | None  # at 5, 50 and 95 %; None when nothing was measured
    limit: float | None

    @property
    def num_known(self) -> int:
        """Clips that have the measure; equal to the sum of the counts."""
        return sum(self.counts)

    @property
    def summary(self) -> str:
        """The chart in words, with its unit."""
        unit = self.measure.unit
        unknown = f"; {self.num_unknown:,} not measured" if self.num_unknown else ""
        if self.quantiles is None:
            return f"none measured of {self.num_unknown:,}"
        low, middle, high = (figure(value) for value in self.quantiles)
        return f"n {self.num_known:,}, median {middle}{unit}, 5–95 % {low} to {high}{unit}{unknown}"


def histograms(
    rows: Sequence[ManifestRow], limits: dict[str, SelectLimits], domains: Iterable[str]
) -> dict[str, list[Histogram]]:
    """One histogram per measure for each domain."""
    by_domain = {domain: [row for row in rows if row.domain == domain] for domain in domains}
    drawn: dict[str, list[Histogram]] = {domain: [] for domain in by_domain}
    for measure in MEASURES:
        values = {domain: [measure.value(row) for row in mine] for domain, mine in by_domain.items()}
        marks = {domain: measure.limit(limits[domain]) for domain in by_domain if domain in limits}
        known = [value for mine in values.values() for value in mine if value is not None]
        edges = round_edges([*known, *marks.values()])
        for domain, mine in values.items():
            drawn[domain].append(count_into(measure, edges, mine, marks.get(domain)))
    return drawn


def round_edges(values: Sequence[float]) -> tuple[float, ...]:
    """Edges of at most 24 bins whose width is 1, 2 or 5 times a power of ten, and which hold all values and 0."""
    low, high = min([0.0, *values]), max([0.0, *values])
    span = high - low if high - low > _MIN_SPAN else 1.0
    step = _round_step(span / (_MAX_BINS - 2))  # a bin may be begun beyond the span at either end
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 1)
    return tuple(float(f"{k * step:.12g}") for k in range(first, last + 1))


def count_into(
    measure: Measure, edges: Sequence[float], values: Sequence[float | None], limit: float | None
) -> Histogram:
    """Count values into bins; None counts as unknown, and every other value counts once."""
    known = np.array(sorted(value for value in values if value is not None), np.float64)
    # Searching instead of np.histogram: a value that rounding puts past the last edge must not vanish.
    places = np.clip(np.searchsorted(np.array(edges), known, side="right") - 1, 0, len(edges) - 2)
    counts = np.bincount(places, minlength=len(edges) - 1)
    low, middle, high = np.quantile(known, (0.05, 0.5, 0.95)) if len(known) else (0.0, 0.0, 0.0)
    return Histogram(
        measure=measure,
        edges=tuple(edges),
        counts=tuple(int(count) for count in counts),
        num_unknown=len(values) - len(known),
        quantiles=(float(low), float(middle), float(high)) if len(known) else None,
        limit=limit,
    )


def draw_histogram(histogram: Histogram) -> Markup:
    """One chart as an SVG element; its colours are the classes bar, line, limit and text of the page."""
    edges, counts, measure = histogram.edges, histogram.counts, histogram.measure
    inner_width, inner_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    peak = max(*counts, 1)

    def x_of(value: float) -> float:
        return _LEFT + inner_width * (value - edges[0]) / (edges[-1] - edges[0])

    base = _TOP + inner_height
    label = escape(f"{measure.title}: {histogram.summary}")
    parts = [f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">']
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        if count:
            # A single clip among thousands must still be seen.
            height = max(1.5, inner_height * count / peak)
            x, width = x_of(low) + 0.5, max(0.5, x_of(high) - x_of(low) - 1)
            label = f"{figure(low)} to {figure(high)}{measure.unit}: {count:,} {'clip' if count == 1 else 'clips'}"
            parts.append(
                f'<rect class="bar" x="{x:.2f}" y="{base - height:.2f}" width="{width:.2f}" height="{height:.2f}">'
                f"<title>{escape(label)}</title></rect>"
            )
    parts.append(f'<path class="line" d="M{_LEFT} {base}H{_WIDTH - _RIGHT}"/>')
    parts.append(f'<text x="{_LEFT - 4}" y="{_TOP + 4}" text-anchor="end">{peak:,}</text>')
    for value in _ticks(edges):
        anchor = "start" if value == edges[0] else "end" if value == edges[-1] else "middle"
        parts.append(f'<text x="{x_of(value):.1f}" y="{base + 14}" text-anchor="{anchor}">{figure(value)}</text>')
    if histogram.limit is not None:
        parts.append(_limit_mark(histogram, x_of(histogram.limit), base))
    return Markup("".join(parts) + "</svg>")  # noqa: S704 - numbers and escaped text


def figure(value: float) -> str:
    """Three significant digits, whole numbers whole."""
    shown = f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return "0" if shown == "-0" else shown.replace("-", "−")


def _limit_mark(histogram: Histogram, x: float, base: float) -> str:
    limit = histogram.limit or 0.0
    is_right = x > _WIDTH / 2
    anchor, shift = ("end", -4) if is_right else ("start", 4)
    words = f"{'at most' if histogram.measure.is_most else 'at least'} {figure(limit)}{histogram.measure.unit}"
    return (
        f'<path class="limit" d="M{x:.2f} 4V{base}"><title>limit: {escape(words)}</title></path>'
        f'<text class="limit" x="{x + shift:.1f}" y="12" text-anchor="{anchor}">{escape(words)}</text>'
    )


def _ticks(edges: Sequence[float]) -> list[float]:
    """Multiples of a round number inside the axis: at most six."""
    step = _round_step((edges[-1] - edges[0]) / 5)
    first, last = math.ceil(edges[0] / step), math.floor(edges[-1] / step + 1e-9)
    return [float(f"{k * step:.12g}") for k in range(first, last + 1)]


def _round_step(at_least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is not below a positive number."""
    power = 10.0 ** math.floor(math.log10(at_least))
    return next(power * factor for factor in (1, 2, 5, 10, 20) if power * factor >= at_least)
