"""How well each face detector finds the labelled faces, and which one a domain should use.

Each network looks at each frame once, at the lowest score of its rows; thresholds, the presence gate and
unions are then applied to what it found, which gives the same as running it again. Since models are chosen on the
frames they are scored on, the choice is also made without each film in turn and scored on that film.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from pipeline.analyse.faces import without_doubles
from pipeline.bench.baselines import BASELINES, HaarFrontal
from pipeline.bench.labelled import FILM_DOMAINS, LabelledFrame, Score, labelled_frames, score_frame
from pipeline.media.decode import fit_within
from pipeline.models.detector_table import build_detectors
from pipeline.models.detectors import BgrImage, Detector, FaceBox
from pipeline.models.landmarkers import shows_face
from pipeline.models.registry import ModelSet
from schemas.accuracy import DetectionRow, StillRow
from schemas.config import EMBEDDED_DOMAINS, FaceConfig
from schemas.detectors import STANDARD_DETECTORS, DetectorChoice, DomainDetectors
from schemas.errors import UsageError

STILLS = {"t1.jpg": 6, "aflw-test-grid3x3.jpg": 9, "twogirls.jpg": 2, "grass.jpg": 0}
# What stands for a model in rows that choose one.
BEST_SINGLE, LEFT_OUT = "best single row", "chosen on the other films"
ALL_FILMS = "all films"  # settings of the row that adds up the latter
# A detector at an input size.
_Look = tuple[str, int | None]
_HUMAN_LIKE = ("real", "disney_human", "mesh")
_UNGATED = "disney_animal"
_ALL = (*_HUMAN_LIKE, _UNGATED)


@dataclass(frozen=True, slots=True)
class DetectorCandidate:
    """A detector at one input size, its thresholds, and the domains it is worth asking in.

    A ``baseline`` is there to be compared with: builds cannot use it, so no domain can choose it.
    """

    model: str
    thresholds: tuple[float, ...]
    input_px: int | None = None
    domains: tuple[str, ...] = _ALL
    baseline: bool = False

    @property
    def choice(self) -> DetectorChoice:
        """At the lowest threshold."""
        return DetectorChoice(model=self.model, min_score=min(self.thresholds), input_px=self.input_px)


CANDIDATES = (
    DetectorCandidate("blazeface_short", (0.4, 0.5, 0.6)),
    DetectorCandidate("yunet", (0.3, 0.45, 0.6)),
    DetectorCandidate("yunet", (0.3, 0.45, 0.6), 480),
    DetectorCandidate("yunet", (0.3, 0.45, 0.6), 320),
    DetectorCandidate("scrfd_500m", (0.3, 0.4, 0.5)),
    DetectorCandidate("scrfd_2.5g", (0.3, 0.4, 0.5)),
    DetectorCandidate("anime_cascade", (0.5,), domains=("disney_human",)),
    DetectorCandidate(
        "cat_cascade", (0.6,), domains=("disney_animal",)
    ),  # filters before it merges: one threshold only
    DetectorCandidate("mediapipe_short", (0.5,), baseline=True),
    DetectorCandidate("mediapipe_full", (0.5,), baseline=True),
    DetectorCandidate(HaarFrontal.name, (1.0,), baseline=True),
)


def _plan(*models: tuple[str, float] | tuple[str, float, int], gate: bool = False) -> DomainDetectors:
    choices = [DetectorChoice(model=name, min_score=score, input_px=px) for name, score, px in map(_padded, models)]
    return DomainDetectors(detectors=tuple(choices), presence_gate=gate)


def _padded(model: tuple[str, float] | tuple[str, float, int]) -> tuple[str, float, int | None]:
    return (*model, None) if len(model) == 2 else model


# Asked one after the other in the order given, as a build does; beside these the profiles' own.
UNIONS: dict[str, tuple[DomainDetectors, ...]] = {
    "disney_human": (
        _plan(("yunet", 0.3), ("blazeface_short", 0.4), gate=True),
        _plan(("yunet", 0.3), ("scrfd_2.5g", 0.3), gate=True),
        _plan(("scrfd_500m", 0.4), ("yunet", 0.6, 480)),
    ),
    "disney_animal": (
        _plan(("cat_cascade", 0.6), ("yunet", 0.45, 480)),
        _plan(("yunet", 0.45, 480), ("scrfd_2.5g", 0.3)),
        _plan(("cat_cascade", 0.6), ("yunet", 0.45, 480), ("scrfd_2.5g", 0.3)),
        _plan(("cat_cascade", 0.6), ("yunet", 0.45, 480), ("scrfd_500m", 0.4)),
    ),
}


@dataclass(frozen=True, slots=True)
class Seen:
    """What one detector found in one frame: the faces, and which of them the presence gate sees too."""

    faces: tuple[FaceBox, ...]
    present: tuple[bool, ...]

    def chosen(self, min_score: float, *, gate: bool) -> list[FaceBox]:
        """The faces that a build with this threshold and gate would keep."""
        pairs = zip(self.faces, self.present, strict=True)
        return [face for face, present in pairs if face.score >= min_score and (present or not gate)]


@dataclass
class _Domain:
    """Everything that was seen in the films of one domain."""

    frames: list[LabelledFrame] = field(default_factory=list)
    seen: dict[_Look, list[Seen]] = field(default_factory=lambda: defaultdict(list))
    seconds: dict[_Look, float] = field(default_factory=lambda: defaultdict(float))

    def score(self, plan: DomainDetectors, films: Iterable[str] | None = None) -> Score:
        wanted = set(films) if films is not None else None
        total = Score()
        for index, frame in enumerate(self.frames):
            if wanted is None or frame.film in wanted:
                total += score_frame(frame, self._faces(plan, index))
        return total

    def ms_per_frame(self, plan: DomainDetectors) -> float:
        """Of the detectors alone, without the gate."""
        seconds = sum(self.seconds[_look_of(choice)] for choice in plan.detectors)
        return round(1000 * seconds / max(len(self.frames), 1), 1)

    def _faces(self, plan: DomainDetectors, index: int) -> list[FaceBox]:
        by_detector = [
            self.seen[_look_of(choice)][index].chosen(choice.min_score, gate=plan.presence_gate)
            for choice in plan.detectors
        ]
        return [face for faces in without_doubles(by_detector) for face in faces]


def detection_rows(
    assets: Path, models: ModelSet, candidates: Sequence[DetectorCandidate] = CANDIDATES
) -> list[DetectionRow]:
    """Every candidate on every domain, the choices without each film, and the best single rows.

    Args:
        assets: a folder with ``video`` and ``truth/faces.csv``.
        models: find the weights files.
        candidates: the detectors to try.

    Raises:
        UsageError: when a file of the assets is missing.
    """
    cv2.setNumThreads(1)
    detectors = _built(candidates, models)
    rows: list[DetectionRow] = []
    for name in _ALL:
        asked = [candidate for candidate in candidates if name in candidate.domains]
        domain = _look_at(assets, [film for film, of in FILM_DOMAINS.items() if of == name], asked, detectors)
        singles = [plan for candidate in asked if not candidate.baseline for plan in _plans(candidate, name)]
        plans = list(dict.fromkeys([*singles, *UNIONS.get(name, ()), *_profiles(name)]))
        baselines = [
            plan
            for candidate in asked
            if candidate.baseline
            for plan in _plans(candidate, name)
            if not plan.presence_gate
        ]
        rows += [_row(name, domain, plan) for plan in (*plans, *baselines)]
        rows += _chosen_rows(name, domain, singles, plans)
    return rows


def still_rows(assets: Path, models: ModelSet, candidates: Sequence[DetectorCandidate] = CANDIDATES) -> list[StillRow]:
    """Faces counted by every candidate on photographs that have no boxes.

    Args:
        assets: a folder with ``stills``.
        models: find the weights files.
        candidates: the detectors to try.

    Raises:
        UsageError: when a photograph is missing.
    """
    cv2.setNumThreads(1)
    detectors = _built(candidates, models)
    return [
        row
        for name, num_faces in STILLS.items()
        for row in _counted(name, num_faces, _still(assets / "stills" / name), candidates, detectors)
    ]


def _built(candidates: Sequence[DetectorCandidate], models: ModelSet) -> dict[_Look, Detector]:
    return {
        _look_of(candidate.choice): BASELINES[candidate.model](min(candidate.thresholds))
        if candidate.baseline
        else build_detectors([candidate.choice], models.file)[0]
        for candidate in candidates
    }


def describe(plan: DomainDetectors) -> tuple[str, str]:
    """Model and settings as a row shows them."""
    models = " ∪ ".join(choice.model for choice in plan.detectors)
    sides = [f"@{choice.input_px}" if choice.input_px else "" for choice in plan.detectors]
    scores = ", ".join(f"≥ {choice.min_score:.2f}{side}" for choice, side in zip(plan.detectors, sides, strict=True))
    return models, scores + (", gate" if plan.presence_gate else "")


def _look_of(choice: DetectorChoice) -> _Look:
    return choice.model, choice.input_px


def _plans(candidate: DetectorCandidate, domain: str) -> list[DomainDetectors]:
    gates = (False, True) if domain in _HUMAN_LIKE else (False,)
    choices = [candidate.choice.model_copy(update={"min_score": score}) for score in candidate.thresholds]
    return [DomainDetectors(detectors=(choice,), presence_gate=gate) for choice in choices for gate in gates]


def _profiles(domain: str) -> list[DomainDetectors]:
    embedded = EMBEDDED_DOMAINS[domain]
    return [
        DomainDetectors(detectors=embedded.detectors, presence_gate=embedded.presence_gate),
        STANDARD_DETECTORS[domain],
    ]


def _look_at(
    assets: Path, films: Sequence[str], candidates: Sequence[DetectorCandidate], detectors: dict[_Look, Detector]
) -> _Domain:
    domain = _Domain()
    for film in films:
        for frame in labelled_frames(assets, film):
            domain.frames.append(frame)
            rgb = cv2.cvtColor(frame.image, cv2.COLOR_BGR2RGB)
            for look in dict.fromkeys(_look_of(candidate.choice) for candidate in candidates):
                began = time.thread_time()
                faces = detectors[look].detect(frame.image)
                domain.seconds[look] += time.thread_time() - began
                present = [shows_face(rgb, face.box, FaceConfig().min_presence) for face in faces]
                domain.seen[look].append(Seen(tuple(faces), tuple(present)))
    return domain


def _row(name: str, domain: _Domain, plan: DomainDetectors) -> DetectionRow:
    model, settings = describe(plan)
    return _row_of(name, model, settings, domain.score(plan), domain.ms_per_frame(plan))


def _row_of(name: str, model: str, settings: str, score: Score, ms_per_frame: float) -> DetectionRow:
    return DetectionRow(
        domain=name,
        model=model,
        settings=settings,
        hits=score.hits,
        num_faces=score.num_faces,
        false_alarms=score.false_alarms,
        num_frames=score.num_frames,
        ms_per_frame=ms_per_frame,
        real_weights=True,
    )


def _chosen_rows(
    name: str, domain: _Domain, singles: Sequence[DomainDetectors], plans: Sequence[DomainDetectors]
) -> list[DetectionRow]:
    """The best single row, and what is chosen without each film, scored on it; with one film there is no choice."""
    films = list(dict.fromkeys(frame.film for frame in domain.frames))
    best = _best(domain, singles, films)
    rows = [_row_of(name, BEST_SINGLE, " ".join(describe(best)), domain.score(best), domain.ms_per_frame(best))]
    if len(films) == 1:
        return rows
    total, spent = Score(), 0.0
    for film in films:
        plan = _best(domain, plans, [other for other in films if other != film])
        score = domain.score(plan, [film])
        total, spent = total + score, spent + domain.ms_per_frame(plan) * score.num_frames
        rows.append(_row_of(name, LEFT_OUT, f"{film}: {' '.join(describe(plan))}", score, domain.ms_per_frame(plan)))
    rows.append(_row_of(name, LEFT_OUT, ALL_FILMS, total, round(spent / total.num_frames, 1)))
    return rows


def _best(domain: _Domain, plans: Sequence[DomainDetectors], films: Sequence[str]) -> DomainDetectors:
    """Of the highest merit; of equals the one with fewer false alarms, then the faster, then the first."""

    def rank(plan: DomainDetectors) -> tuple[float, int, float]:
        score = domain.score(plan, films)
        return -round(score.merit, 6), score.false_alarms, domain.ms_per_frame(plan)

    return min(plans, key=rank)


def _counted(
    photograph: str,
    num_faces: int,
    image: BgrImage,
    candidates: Sequence[DetectorCandidate],
    detectors: dict[_Look, Detector],
) -> Iterator[StillRow]:
    for candidate in candidates:
        began = time.thread_time()
        faces = detectors[_look_of(candidate.choice)].detect(image)
        ms = round(1000 * (time.thread_time() - began), 1)
        for plan in _plans(candidate, _UNGATED):
            model, settings = describe(plan)
            num_found = sum(face.score >= plan.detectors[0].min_score for face in faces)
            yield StillRow(
                photograph=photograph,
                model=model,
                settings=settings,
                num_faces=num_faces,
                num_found=num_found,
                ms_per_frame=ms,
            )


def _still(path: Path) -> BgrImage:
    image = cv2.imread(str(path))
    if image is None:
        raise UsageError(f"the photograph {path} is missing or damaged: check the folder of assets")
    size = fit_within(image.shape[1], image.shape[0], FaceConfig().analysis_side_px)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
