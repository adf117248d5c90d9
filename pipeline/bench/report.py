"""All rows of the accuracy bench together, as one Markdown page and one picture."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.bench.detection import CANDIDATES, describe, detection_rows
from pipeline.bench.landmarks import landmark_rows, pose_rows
from pipeline.bench.speaker import sync_rows
from pipeline.errors import UsageError
from pipeline.models.detector_table import detector_files
from pipeline.models.packaged import PACKAGED_MODELS
from pipeline.models.registry import LANDMARKER_FILES, POSE_FILES, ModelSet
from pipeline.page import Page
from schemas.accuracy import DetectionRow, LandmarkRow, PoseRow, SyncRow
from schemas.base import Record
from schemas.config import EMBEDDED_DOMAINS, SpeakerConfig
from schemas.detectors import STANDARD_DETECTORS, DomainDetectors
from schemas.models import ModelCard

_PREFACE = (
    "Made by `anitalk bench accuracy`. Times are processor time of one core. Thresholds and unions were chosen on "
    "these same media, so expect a little less elsewhere."
)
_COLOURS = ("#8a8f98", "#2f6db5")


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Everything that was measured, and the files that it was measured with."""

    detection: tuple[DetectionRow, ...]
    landmarks: tuple[LandmarkRow, ...]
    poses: tuple[PoseRow, ...]
    sync: tuple[SyncRow, ...]
    models: tuple[ModelCard, ...]


def measure(assets: Path, models: ModelSet, told: Callable[[str], None] = lambda _: None) -> Accuracy:
    """Run every part of the bench; minutes of one core.

    Args:
        assets: a folder with ``video``, ``stills`` and ``truth``.
        models: of the embedded profile, with the weights folder.
        told: hears which part begins.

    Raises:
        UsageError: when the folder, a file of it, or weights are missing.
    """
    if not (assets / "truth").is_dir():
        raise UsageError(f"{assets} is no folder of assets: it needs video, stills and truth")
    names = bench_files()
    models.store.check(set(names) - set(PACKAGED_MODELS))
    told("detection")
    detection = detection_rows(assets, models)
    told("landmarks")
    landmarks = landmark_rows(assets, models)
    told("poses")
    poses = pose_rows(assets, models)
    told("sync")
    sync = sync_rows(assets, models)
    cards = tuple(models.file(name).card for name in names)
    return Accuracy(tuple(detection), tuple(landmarks), tuple(poses), tuple(sync), cards)


def bench_files() -> list[str]:
    """The names of all model files that the bench reads."""
    names = {file for candidate in CANDIDATES for file in detector_files(candidate.choice)}
    names |= {*LANDMARKER_FILES["facemesh"], *LANDMARKER_FILES["pfld"], *POSE_FILES["fsanet"], SpeakerConfig().weights}
    return sorted(names | {"silero_vad"})


def to_markdown(accuracy: Accuracy, picture: str) -> str:
    """The page; ``picture`` is the address of what :func:`draw` makes."""
    parts = [
        "# Accuracy on hand-labelled media",
        _PREFACE,
        f"![Faces found and landmark error]({picture})",
        "## Faces",
        "Hits of labelled faces and false alarms in the frames looked at; a hit overlaps by at least .3.",
        _table(accuracy.detection, DetectionRow),
        "## Landmarks",
        "Distance to the reference over the distance between the outer eye corners; without the jaw in `nme_51`.",
        _table(accuracy.landmarks, LandmarkRow),
        "## Head pose",
        "Mean error in degrees on rendered heads of known pose, and how much the angles tremble on a talking clip.",
        _table(accuracy.poses, PoseRow),
        "## Whose sound is it?",
        "Rank of a clip's own sound among those of other talkers.",
        _table(accuracy.sync, SyncRow),
        "## Models",
        _table(accuracy.models, ModelCard, ("name", "sha256", "licence", "commercial_use")),
    ]
    return "\n\n".join(parts) + "\n"


def _table(rows: Iterable[Record], kind: type[Record], columns: Sequence[str] = ()) -> str:
    names = columns or list(kind.model_fields)
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    lines += [f"| {' | '.join(_cell(getattr(row, name)) for name in names)} |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value).replace("|", "\\|")


def draw(accuracy: Accuracy) -> bytes:
    """Faces found by each profile, and landmark errors, as PNG."""
    page = Page(1280, 420)
    embedded = {
        name: DomainDetectors(detectors=one.detectors, presence_gate=one.presence_gate)
        for name, one in EMBEDDED_DOMAINS.items()
    }
    recalls = {"embedded": _recalls(accuracy, embedded), "standard": _recalls(accuracy, STANDARD_DETECTORS)}
    _bars(page, 90, "Faces found, by profile", recalls)
    errors: dict[str, dict[str, float]] = {}
    for row in accuracy.landmarks:
        if row.nme_68 is not None:
            errors.setdefault(row.landmarker, {})[row.media.removeprefix("rendered ").split(".")[0]] = row.nme_68
    _bars(page, 730, "68-point error over the eye distance", errors)
    return page.png()


def _recalls(accuracy: Accuracy, plans: dict[str, DomainDetectors]) -> dict[str, float]:
    """Share of the labelled faces that a profile's detectors find, by domain; domains without a row are left out."""
    found = {(row.domain, row.model, row.settings): row.recall for row in accuracy.detection}
    told = {domain: (domain, *describe(plan)) for domain, plan in plans.items()}
    return {domain: found[key] for domain, key in told.items() if key in found}


def _bars(page: Page, x: int, title: str, series: dict[str, dict[str, float]]) -> None:
    """Groups of bars: one group per key, one colour per series."""
    axes = page.plot(x, 60, 500, 280)
    groups = list(dict.fromkeys(key for values in series.values() for key in values))
    width = 0.8 / max(len(series), 1)
    for number, (name, values) in enumerate(series.items()):
        places = np.arange(len(groups)) + (number - (len(series) - 1) / 2) * width
        heights = [values.get(group, 0.0) for group in groups]
        axes.bar(places, heights, width, label=name, color=_COLOURS[number % len(_COLOURS)])
    axes.set_xticks(np.arange(len(groups)), groups, rotation=20, fontsize=8)
    axes.legend(loc="lower right", fontsize=8)
    page.text(x, 30, title, size_px=18, bold=True)
