"""All rows of the accuracy bench together, as one Markdown page."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.bench.baselines import BASELINES
from pipeline.bench.detection import (
    ALL_FILMS,
    BEST_SINGLE,
    CANDIDATES,
    LEFT_OUT,
    describe,
    detection_rows,
    still_rows,
)
from pipeline.bench.landmarks import landmark_rows, measured_landmarkers, pose_rows
from pipeline.bench.mouths import mouth_rows
from pipeline.bench.shots import shot_rows
from pipeline.bench.speaker import summarise, sync_rows
from pipeline.bench.takes import filmed_takes, render_films, rendered_takes
from pipeline.models.detector_table import detector_files
from pipeline.models.files.model_files import LANDMARKER_FILES, POSE_FILES
from pipeline.models.files.packaged import PACKAGED_MODELS
from pipeline.models.files.weights import shipped_registry
from pipeline.models.registry import ModelSet
from schemas.accuracy import (
    DetectionRow,
    LandmarkRow,
    MouthRow,
    PoseRow,
    ShotRow,
    StillRow,
    SyncRow,
    SyncSummary,
)
from schemas.base import Record
from schemas.config import EMBEDDED_DOMAINS, SpeakerConfig
from schemas.detectors import STANDARD_DETECTORS, DomainDetectors
from schemas.errors import UsageError
from schemas.models import ModelCard
from schemas.weights import Weights

_PREFACE = (
    "Made by `anitalk bench accuracy`. Times are processor time of one core. Thresholds and unions were chosen on "
    "these same media, so expect a little less elsewhere. *Rendered* are the films and heads of the demo, whose truth "
    "is exact."
)
_FACES = (
    "Hits of labelled faces and false alarms in the frames looked at; a hit overlaps by at least .3 and has its centre "
    "inside. By profile; beside them the best single row below, what is chosen for each film by the others alone, and "
    "OpenCV's frontal cascade and MediaPipe's detectors with one look at the whole picture."
)
_SHOTS = (
    "Transitions met by one boundary each: a cut within a frame of its place, a gradual one in its extent or 8 frames "
    "beside it; a fade out and the fade in after it are one. Labels in doubt count neither way. `anitalk` is ours, and "
    "its settings were chosen on sintel.mp4; the others are PySceneDetect's, through its own reader and at its "
    "defaults. A film without transitions shows traps only: what is found there is false."
)
_MOUTHS = (
    "The channel `mouth_open` against the opening that was drawn, both over their own range in the clip, on films that "
    "went through decoding, detection and cropping."
)
_SYNC = (
    "Place of a clip's own sound among those of all talkers of its pool (`first_of_sounds`), and among copies of "
    "itself moved by 1.5 s or more (`first_of_shifts`). No media with a talker of `disney_human` or `disney_animal` "
    "were at hand. The two correlations at the end have no null, so no `z`."
)
_LAGS = (
    "Each clip. `lag_frames` is positive where the picture comes later than the sound; `true_lag_frames` is known of "
    "rendered films, whose mouths open up to a frame before they are heard."
)
_ABSENT = (
    "Nothing is known here about how good these are: no real weights were at hand. Where a stage uses one, its code "
    "was run end to end with small random stand-ins in the real file's layout, by the tests."
)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Everything that was measured, the files that it was measured with, and those that were not at hand."""

    detection: tuple[DetectionRow, ...]
    stills: tuple[StillRow, ...]
    shots: tuple[ShotRow, ...]
    landmarks: tuple[LandmarkRow, ...]
    poses: tuple[PoseRow, ...]
    mouths: tuple[MouthRow, ...]
    sync: tuple[SyncRow, ...]
    models: tuple[ModelCard, ...]
    absent: tuple[Weights, ...]


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
    models.files.store.check(set(names) - set(PACKAGED_MODELS))
    told("detection")
    detection = detection_rows(assets, models)
    stills = still_rows(assets, models)
    told("landmarks")
    landmarks = landmark_rows(assets, models)
    told("poses")
    poses = pose_rows(assets, models)
    with TemporaryDirectory(prefix="anitalk-") as folder:
        told("rendered films")
        films = render_films(Path(folder))
        told("shots")
        shots = shot_rows(assets, [(film.path, film.shots) for film in films])
        told("talkers")
        rendered = rendered_takes(films, models)
    filmed = filmed_takes(assets, models)
    told("mouths")
    mouths = mouth_rows(rendered, measured_landmarkers(models))
    told("sync")
    sync = [*sync_rows(filmed, models, "filmed"), *sync_rows(rendered, models, "rendered")]
    return Accuracy(
        detection=tuple(detection),
        stills=tuple(stills),
        shots=tuple(shots),
        landmarks=tuple(landmarks),
        poses=tuple(poses),
        mouths=tuple(mouths),
        sync=tuple(sync),
        models=tuple(models.file(name).card for name in names),
        absent=absent_weights(),
    )


def bench_files() -> list[str]:
    """The names of all model files that the bench reads."""
    names = {file for one in CANDIDATES if not one.baseline for file in detector_files(one.choice)}
    names |= {*LANDMARKER_FILES["facemesh"], *LANDMARKER_FILES["pfld"], *POSE_FILES["fsanet"], SpeakerConfig().weights}
    return sorted(names | {"silero_vad"})


def absent_weights() -> tuple[Weights, ...]:
    """What the registry offers and nobody here could run."""
    return tuple(weights for _, weights in sorted(shipped_registry().items()) if not weights.at_hand)


def to_markdown(accuracy: Accuracy, picture: str) -> str:
    """The page; ``picture`` is the address of what :func:`pipeline.bench.picture.draw` makes."""
    shot_columns = [*ShotRow.model_fields, "precision", "recall", "f1"]
    parts = [
        "# Accuracy on media with known truth",
        _PREFACE,
        f"![Faces found, shots, landmarks, head pose, mouths and sync, model by model]({picture})",
        "## Faces, in short",
        _FACES,
        _faces_table(accuracy.detection),
        "## Faces",
        "Every model and setting; `ms_per_frame` is without the gate.",
        _table(accuracy.detection, DetectionRow),
        "## Faces counted on photographs",
        "How many are told; what is true stands above.",
        _stills_table(accuracy.stills),
        "## Shot boundaries",
        _SHOTS,
        _table(accuracy.shots, ShotRow, shot_columns),
        "## Landmarks",
        "Distance to the reference over the distance between the outer eye corners; without the jaw in `nme_51`.",
        _table(accuracy.landmarks, LandmarkRow),
        "## Head pose",
        "Mean error in degrees on rendered heads of known pose, and how much the angles tremble on a talking clip.",
        _table(accuracy.poses, PoseRow),
        "## Mouth opening",
        _MOUTHS,
        _table(accuracy.mouths, MouthRow),
        "## Whose sound is it?",
        _SYNC,
        _table(summarise(accuracy.sync), SyncSummary),
        _LAGS,
        _table(accuracy.sync, SyncRow),
        "## Models",
        _table(accuracy.models, ModelCard, ("name", "sha256", "licence", "commercial_use")),
        "## Not run with real weights",
        _ABSENT,
        _absent_table(accuracy.absent),
    ]
    return "\n\n".join(parts) + "\n"


def summarise_faces(rows: Sequence[DetectionRow]) -> dict[str, list[DetectionRow]]:
    """The rows that choices rest on: by profile, the best single ones, those chosen on other films, and a baseline."""
    embedded = {
        name: DomainDetectors(detectors=one.detectors, presence_gate=one.presence_gate)
        for name, one in EMBEDDED_DOMAINS.items()
    }
    told = {
        name: [row for row in rows if row.domain in plans and describe(plans[row.domain]) == (row.model, row.settings)]
        for name, plans in {"embedded": embedded, "standard": STANDARD_DETECTORS}.items()
    }
    told[BEST_SINGLE] = [row for row in rows if row.model == BEST_SINGLE]
    told[LEFT_OUT] = [row for row in rows if row.model == LEFT_OUT and row.settings == ALL_FILMS]
    return told | {name: [row for row in rows if row.model == name] for name in BASELINES}


def _faces_table(rows: Sequence[DetectionRow]) -> str:
    domains = list(dict.fromkeys(row.domain for row in rows))
    cells = []
    for name, chosen in summarise_faces(rows).items():
        by_domain = {row.domain: f"{row.hits}/{row.num_faces}, {row.false_alarms}" for row in chosen}
        cells.append([name, *(by_domain.get(domain) for domain in domains)])
    return _cells(["", *domains], cells)


def _stills_table(rows: Sequence[StillRow]) -> str:
    """One line per model and setting, one column per photograph."""
    told = {(row.photograph, row.model, row.settings): row.num_found for row in rows}
    photographs = {row.photograph: f"{row.photograph} ({row.num_faces})" for row in rows}
    models = dict.fromkeys((row.model, row.settings) for row in rows)
    cells = [[*model, *(told.get((photograph, *model)) for photograph in photographs)] for model in models]
    return _cells(["model", "settings", *photographs.values()], cells)


def _absent_table(absent: Sequence[Weights]) -> str:
    cells = [[one.name, one.origin, ", ".join(one.domains), one.licence, one.commercial_use] for one in absent]
    return _cells(["name", "origin", "domains", "licence", "commercial_use"], cells)


def _table(rows: Iterable[Record], kind: type[Record], columns: Sequence[str] = ()) -> str:
    names = columns or list(kind.model_fields)
    return _cells(names, [[getattr(row, name) for name in names] for row in rows])


def _cells(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    lines += [f"| {' | '.join(map(_cell, row))} |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value).replace("|", "\\|")
