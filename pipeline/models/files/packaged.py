"""Find model files that arrive inside pip packages, and make sure they are the ones that were measured.

A package is located by its import spec and never imported: mediapipe's runtime costs seconds and threads,
and only its files are wanted. Every file is pinned by its SHA-256, because a stage's results are cached
under that hash and another wheel may carry another network under the same name.
"""

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from pipeline.models.files.model_file import ModelFile
from schemas.errors import UsageError
from schemas.files import sha256_of_file
from schemas.licences import commercial_use
from schemas.models import ModelCard


@dataclass(frozen=True, slots=True)
class _Pin:
    package: str  # import name
    requirement: str  # what pip is asked for
    file: str  # inside the package's folder
    sha256: str
    licence: str  # an SPDX identifier
    domains: tuple[str, ...]  # it was measured on; the README says how
    measured: str


_MEDIAPIPE = ("mediapipe", "mediapipe==0.10.14")
_OPENCV = ("cv2", "'opencv-python-headless>=4.10,<5'")
_SILERO = ("silero_vad", "'silero-vad>=6.2,<7'")
# The cascade's own header grants use under OpenCV's terms of that time.
_CASCADE_LICENCE = "BSD-3-Clause"

_PINS: dict[str, _Pin] = {
    "face_landmark": _Pin(
        *_MEDIAPIPE,
        "modules/face_landmark/face_landmark.tflite",
        "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
        "Apache-2.0",
        ("real", "mesh", "disney_human"),
        "68-point error .040 to .083 eye distances on three faces",
    ),
    "face_detection_short_range": _Pin(
        *_MEDIAPIPE,
        "modules/face_detection/face_detection_short_range.tflite",
        "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
        "Apache-2.0",
        ("real", "mesh", "disney_human", "disney_animal"),
        "labelled frames found: real 88 of 88, mesh 32 of 32, rendered human 19 of 21, rabbit 8 of 11, cat 0 of 26",
    ),
    "silero_vad": _Pin(
        *_SILERO,
        "data/silero_vad.onnx",
        "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
        "MIT",
        ("real", "mesh"),
        "speech in .38 to .82 of talking clips, 0 in silent ones",
    ),
    "haarcascade_frontalcatface.xml": _Pin(
        *_OPENCV,
        "data/haarcascade_frontalcatface.xml",
        "ac2bac934ef24284ef8a2b2e9d8e57eef84ac1d6943b4d11e5c9e8584dc069c8",
        _CASCADE_LICENCE,
        ("disney_animal",),
        "labelled frames of a filmed cat found: 15 of 26",
    ),
}

PACKAGED_MODELS = tuple(sorted(_PINS))


@lru_cache(maxsize=32)
def packaged_model(name: str) -> ModelFile:
    """Locate one model file of an installed package and verify its SHA-256.

    Args:
        name: one of ``PACKAGED_MODELS``.

    Raises:
        UsageError: when the package is not installed, or its file is absent or another one than was measured.
        KeyError: for a name that is not pinned here (a bug, not a user's mistake).
    """
    pin = _PINS[name]
    mend = f"pip install --force-reinstall --no-deps {pin.requirement}"
    path = _package_folder(pin, mend) / pin.file
    if not path.is_file():
        raise UsageError(f"the model file {path} is missing from the package {pin.package}: run {mend}")
    digest = sha256_of_file(path)
    if digest != pin.sha256:
        raise UsageError(
            f"the model file {path} is not the one this version was measured with (SHA-256 {pin.sha256[:12]}… "
            f"expected, {digest[:12]}… found): run {mend}"
        )
    card = ModelCard(
        name=name,
        file=path.name,
        sha256=digest,
        package=pin.package,
        licence=pin.licence,
        commercial_use=commercial_use(pin.licence),
        domains=pin.domains,
        measured=pin.measured,
    )
    return ModelFile(path, card)


def _package_folder(pin: _Pin, mend: str) -> Path:
    spec = find_spec(pin.package)
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(f"the package {pin.package}, which carries the model file {pin.file}, is missing: run {mend}")
    return Path(next(iter(spec.submodule_search_locations)))
