"""Which face detectors there are, what each is made of, and how a choice becomes one.

Some live in installed packages, some in weights files that somebody fetched, and some belong to the user. The
difference ends here: what reads pictures only ever sees a ``Detector``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.models.detectors import BlazeFace, CatCascade, Detector
from schemas.detectors import DetectorChoice

# The file of a named weight; raises a UsageError where there is none.
Weights = Callable[[str], Path]


@dataclass(frozen=True, slots=True)
class PackagedDetector:
    """A detector whose file lies in an installed package: how to build it, and where it was measured to work."""

    build: Callable[[float], Detector]
    files: tuple[str, ...]  # names in ``packaged_model``, for their SHA-256 and licence
    measured: str


@dataclass(frozen=True, slots=True)
class WeightsDetector:
    """A detector with a weights file of its own; ``weights`` is that file's name among the registered weights."""

    build: Callable[[Path, DetectorChoice], Detector]
    weights: str
    measured: str


def _scrfd(path: Path, choice: DetectorChoice, *, dense: bool) -> Detector:
    from pipeline.models.face_networks import Scrfd

    side = choice.input_px or Scrfd.default_input_px
    return Scrfd(path, choice.model, choice.min_score, side, dense=dense)


def _yunet(path: Path, choice: DetectorChoice) -> Detector:
    from pipeline.models.face_networks import YuNet

    return YuNet(path, choice.min_score, choice.input_px or YuNet.default_input_px)


def _anime(path: Path, choice: DetectorChoice) -> Detector:
    from pipeline.models.face_networks import AnimeCascade

    _refuse_input(choice)
    return AnimeCascade(path, choice.min_score)


DETECTORS: dict[str, PackagedDetector] = {
    BlazeFace.name: PackagedDetector(
        BlazeFace, ("face_detection_short_range",), "people, meshes, anime; weak on the rest"
    ),
    CatCascade.name: PackagedDetector(
        CatCascade, ("haarcascade_frontalcatface.xml",), "real cats, about six frames in ten"
    ),
}

WEIGHTS_DETECTORS: dict[str, WeightsDetector] = {
    "scrfd_500m": WeightsDetector(
        lambda path, choice: _scrfd(path, choice, dense=True), "scrfd_500m_kps", "people, meshes, rendered"
    ),
    # Three times as dear, so it keeps to the grid.
    "scrfd_2.5g": WeightsDetector(
        lambda path, choice: _scrfd(path, choice, dense=False), "scrfd_2.5g_kps", "people, rendered humans"
    ),
    "yunet": WeightsDetector(_yunet, "yunet_n", "people, cartoons, dogs"),
    "anime_cascade": WeightsDetector(_anime, "lbpcascade_animeface", "one drawn figure"),
}


def no_weights(name: str) -> Path:
    """The weights of a build that has none.

    Raises:
        UsageError: always.
    """
    raise UsageError(f"a face detector needs the weights {name!r}, and this build has none: fetch them first")


def build_detectors(choices: Sequence[DetectorChoice], weights: Weights = no_weights) -> list[Detector]:
    """Load the chosen detectors, in the order of ``choices``.

    Args:
        choices: of one domain.
        weights: gives the file of a registered weight, by its name.

    Raises:
        UsageError: for a model that is not known, whose file is missing or another one than it should be, or that
            cannot see the size that was asked for.
    """
    for choice in choices:
        _check_name(choice)
    return [_build(choice, weights) for choice in choices]


def detector_files(choice: DetectorChoice) -> tuple[str, ...]:
    """The names in ``packaged_model`` of the files that a detector reads; none where it has a file of its own.

    Raises:
        UsageError: for a model that is not known.
    """
    _check_name(choice)
    return DETECTORS[choice.model].files if choice.model in DETECTORS else ()


def _build(choice: DetectorChoice, weights: Weights) -> Detector:
    if choice.onnx is not None:
        from pipeline.models.onnx_detector import OnnxDetector

        return OnnxDetector(choice.model, choice.onnx, choice.min_score)
    if choice.model in WEIGHTS_DETECTORS:
        model = WEIGHTS_DETECTORS[choice.model]
        return model.build(weights(model.weights), choice)
    _refuse_input(choice)
    return DETECTORS[choice.model].build(choice.min_score)


def _check_name(choice: DetectorChoice) -> None:
    known = sorted({*DETECTORS, *WEIGHTS_DETECTORS})
    if choice.onnx is None and choice.model not in known:
        raise UsageError(
            f"there is no face detector {choice.model!r}: choose from {', '.join(known)}, or describe your own (onnx)"
        )
    if choice.onnx is not None and choice.model in known:
        raise UsageError(f"{choice.model!r} is a detector of this project: give your own (onnx) another name")


def _refuse_input(choice: DetectorChoice) -> None:
    if choice.input_px is not None:
        raise UsageError(f"{choice.model} has an input of its own: leave out input_px")
