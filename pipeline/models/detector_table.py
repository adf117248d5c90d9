"""Which face detectors there are, what each is made of, and how a choice becomes one.

Some live in installed packages, some in weights files that somebody fetched, and some belong to the user. The
difference ends here: what reads pictures only ever sees a ``Detector``. Code that runs a detector is imported when it
is built, since keys are computed from the names alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.models.files.model_file import FindModel
from pipeline.models.files.packaged import packaged_model
from schemas.detectors import DetectorChoice
from schemas.errors import UsageError

if TYPE_CHECKING:
    from pipeline.models.detectors import Detector


@dataclass(frozen=True, slots=True)
class DetectorModel:
    """What is known about a detector: how to build it, its file, and where it was measured to work.

    ``file`` is the name of a packaged model or of the weights registry; ``build`` is called with its path.
    ``takes_input_px`` says that the side of the picture that it sees is a choice.
    """

    build: "Callable[[DetectorChoice, Path], Detector]"
    file: str
    measured: str
    takes_input_px: bool = False


def _blazeface(choice: DetectorChoice, path: Path) -> "Detector":
    from pipeline.models.detectors import BlazeFace

    return BlazeFace(choice.min_score, path)


def _cat_cascade(choice: DetectorChoice, path: Path) -> "Detector":
    from pipeline.models.detectors import CatCascade

    return CatCascade(choice.min_score, path)


def _scrfd(choice: DetectorChoice, path: Path, *, dense: bool) -> "Detector":
    from pipeline.models.face_networks import Scrfd

    side = choice.input_px or Scrfd.default_input_px
    return Scrfd(path, choice.model, choice.min_score, side, dense=dense)


def _yunet(choice: DetectorChoice, path: Path) -> "Detector":
    from pipeline.models.face_networks import YuNet

    return YuNet(path, choice.min_score, choice.input_px or YuNet.default_input_px)


def _anime(choice: DetectorChoice, path: Path) -> "Detector":
    from pipeline.models.face_networks import AnimeCascade

    return AnimeCascade(path, choice.min_score)


DETECTORS: dict[str, DetectorModel] = {
    "blazeface_short": DetectorModel(
        _blazeface, "face_detection_short_range", "people, meshes, anime; weak on the rest"
    ),
    "cat_cascade": DetectorModel(_cat_cascade, "haarcascade_frontalcatface.xml", "real cats, about six frames in ten"),
    "scrfd_500m": DetectorModel(
        lambda choice, path: _scrfd(choice, path, dense=True),
        "scrfd_500m_kps",
        "people, meshes, rendered",
        takes_input_px=True,
    ),
    # Three times as dear, so it keeps to the grid.
    "scrfd_2.5g": DetectorModel(
        lambda choice, path: _scrfd(choice, path, dense=False),
        "scrfd_2.5g_kps",
        "people, rendered humans",
        takes_input_px=True,
    ),
    "yunet": DetectorModel(_yunet, "yunet_n", "people, cartoons, dogs", takes_input_px=True),
    "anime_cascade": DetectorModel(_anime, "lbpcascade_animeface", "one drawn figure"),
}


def build_detectors(choices: Sequence[DetectorChoice], find: FindModel = packaged_model) -> "list[Detector]":
    """Load the chosen detectors, in the order of ``choices``.

    Args:
        choices: of one domain.
        find: gives a model file by name; by default only packaged ones.

    Raises:
        UsageError: for a model that is not known, whose file is missing or another one than it should be, or that
            cannot see the size that was asked for.
    """
    for choice in choices:
        _check(choice)
    return [_build(choice, find) for choice in choices]


def detector_files(choice: DetectorChoice) -> tuple[str, ...]:
    """The names of the files that a detector reads; of a user's own one its path.

    Raises:
        UsageError: for a model that is not known.
    """
    _check(choice)
    return (choice.onnx.path if choice.onnx else DETECTORS[choice.model].file,)


def _build(choice: DetectorChoice, find: FindModel) -> "Detector":
    if choice.onnx is not None:
        from pipeline.models.onnx_detector import OnnxDetector

        return OnnxDetector(choice.model, choice.onnx, choice.min_score)
    model = DETECTORS[choice.model]
    return model.build(choice, find(model.file).path)


def _check(choice: DetectorChoice) -> None:
    known = choice.model in DETECTORS
    if choice.onnx is None and not known:
        raise UsageError(
            f"there is no face detector {choice.model!r}: choose from {', '.join(sorted(DETECTORS))}, "
            "or describe your own (onnx)"
        )
    if choice.onnx is not None and known:
        raise UsageError(f"{choice.model!r} is a detector of this project: give your own (onnx) another name")
    if choice.input_px is not None and not DETECTORS[choice.model].takes_input_px:
        raise UsageError(f"{choice.model} has an input of its own: leave out input_px")
