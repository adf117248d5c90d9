"""The accuracy page's picture: one panel per question, the models side by side in each."""

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.bench.baselines import HaarFrontal
from pipeline.bench.detection import BEST_SINGLE
from pipeline.bench.report import Accuracy, summarise_faces
from pipeline.draw.page import FAINT, Page

_COLOURS = ("#2f6db5", "#e08a1e", "#6b9a4b", "#8a8f98", "#a35fa8")
_WIDTH, _HEIGHT = 1360, 1330
_LEFT, _RIGHT, _PANEL_PX = 70, 750, 560
_SHOWN = ("embedded", "standard", BEST_SINGLE, "mediapipe_short", HaarFrontal.name)

Series = Mapping[str, Mapping[str, float]]  # by model, then by what it was measured on


def draw(accuracy: Accuracy) -> bytes:
    """The figures that choices rest on, as PNG."""
    page = Page(_WIDTH, _HEIGHT)
    faces = {name: rows for name, rows in summarise_faces(accuracy.detection).items() if name in _SHOWN}
    _bars(page, (_LEFT, 40), "Labelled faces found", "share; above each bar: false alarms",
          {name: {row.domain: row.recall for row in rows} for name, rows in faces.items()},
          {name: {row.domain: str(row.false_alarms) for row in rows} for name, rows in faces.items()})  # fmt: skip
    _bars(page, (_RIGHT, 40), "Shot boundaries, F1", "two labelled films, then rendered ones", _shots(accuracy))
    _bars(page, (_LEFT, 470), "Landmarks, 68 points",
          "mean error over the eye distance; three labelled photographs, then rendered heads",
          _landmarks(accuracy))  # fmt: skip
    _bars(page, (_RIGHT, 470), "Head pose on rendered heads", "mean error, degrees", _poses(accuracy))
    _bars(page, (_LEFT, 900), "Mouth opening on rendered talkers", "correlation with what was drawn", _mouths(accuracy))
    _bars(page, (_RIGHT, 900), "Own sound first",
          "share of clips that prefer it to all other talkers' sounds and to moved copies of itself",
          _ranks(accuracy))  # fmt: skip
    return page.png()


def _shots(accuracy: Accuracy) -> Series:
    series: dict[str, dict[str, float]] = {}
    for row in accuracy.shots:
        if row.num_true:
            series.setdefault(row.detector.removesuffix("Detector"), {})[_short(row.media)] = row.f1 or 0.0
    return series


def _landmarks(accuracy: Accuracy) -> Series:
    series: dict[str, dict[str, float]] = {}
    for row in accuracy.landmarks:
        if row.nme_68 is not None:
            series.setdefault(row.landmarker, {})[_short(row.media)] = row.nme_68
    return series


def _poses(accuracy: Accuracy) -> Series:
    return {
        f"{row.landmarker}, {row.pose}": {
            "yaw": row.yaw_error_deg,
            "pitch": row.pitch_error_deg,
            "roll": row.roll_error_deg,
        }
        for row in accuracy.poses
    }


def _mouths(accuracy: Accuracy) -> Series:
    series: dict[str, dict[str, float]] = {}
    for row in accuracy.mouths:
        series.setdefault(row.landmarker, {})[_short(row.media)] = max(row.correlation or 0.0, 0.0)
    return series


def _ranks(accuracy: Accuracy) -> Series:
    groups: dict[tuple[str, str], list[bool]] = {}
    for row in accuracy.sync:
        first = row.rank == row.shift_rank == 1
        groups.setdefault((row.model, f"{row.domain} {row.pool}"), []).append(first)
    series: dict[str, dict[str, float]] = {}
    for (model, group), firsts in groups.items():
        series.setdefault(model, {})[f"{group} ({len(firsts)})"] = sum(firsts) / len(firsts)
    return series


def _short(media: str) -> str:
    return media.removeprefix("rendered ").removeprefix("mesh-").removesuffix("_beach_surfing.mp4").split(".")[0]


def _bars(
    page: Page,
    corner: tuple[int, int],
    title: str,
    unit: str,
    series: Series,
    notes: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Groups of bars: one group per key, one colour per model; above a bar stands its note, or a 0 that has no bar."""
    x, y = corner
    page.text(x, y, title, size_px=18, bold=True)
    page.text(x, y + 24, unit, size_px=13, color=FAINT)
    axes = page.plot(x, y + 80, _PANEL_PX, 240)
    groups = list(dict.fromkeys(key for values in series.values() for key in values))
    width = 0.84 / max(len(series), 1)
    for number, (name, values) in enumerate(series.items()):
        places = np.arange(len(groups)) + (number - (len(series) - 1) / 2) * width
        heights = [values.get(group, 0.0) for group in groups]
        drawn = axes.bar(places, heights, width * 0.94, label=name, color=_COLOURS[number % len(_COLOURS)])
        zeros = {group: "0" for group, value in values.items() if not value}
        labels = notes[name] if notes else zeros
        axes.bar_label(drawn, [labels.get(group, "") for group in groups], fontsize=8.5, padding=1)
    axes.set_xticks(np.arange(len(groups)), [_two_lines(group) for group in groups], fontsize=9)
    axes.tick_params(axis="y", labelsize=9)
    axes.margins(x=0.02, y=0.09)
    if series:
        axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=len(series), fontsize=8.5, frameon=False,
                    handlelength=1, columnspacing=1.2, borderaxespad=0.1)  # fmt: skip


def _two_lines(name: str) -> str:
    """Broken where a word ends, nearest to the middle."""
    ends: Sequence[int] = [index for index, letter in enumerate(name) if letter in " _-" and index]
    if len(name) < 11 or not ends:
        return name
    middle = min(ends, key=lambda index: abs(index - len(name) / 2))
    return f"{name[: middle + 1].rstrip()}\n{name[middle + 1 :]}"
