"""The models of a build, loaded once per process and handed to the stages.

Which models a domain needs is read from the configuration before any work begins, so that a missing
file is one clear error at the start and never a quiet change of method half-way.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import cv2

from pipeline.errors import UsageError
from pipeline.models.detectors import Detector, build_detectors, detector_files
from pipeline.models.fan import FaceAlignment68
from pipeline.models.landmarkers import FaceMesh468, Landmarker, shows_face
from pipeline.models.packaged import packaged_model
from pipeline.models.point_networks import PFLD, OnnxLandmarker
from pipeline.models.pose_networks import FsaNet, PoseNetwork
from pipeline.models.speech import Hubert, SileroVad
from schemas.config import BuildConfig, DomainConfig, UserLandmarker
from schemas.models import ModelCard

# What each packaged file was measured on, for the dataset card; the README says how.
_MEASURED: dict[str, tuple[tuple[str, ...], str]] = {
    "face_detection_short_range": (
        ("real", "mesh", "disney_human", "disney_animal"),
        "labelled frames found: real 88 of 88, mesh 32 of 32, rendered human 19 of 21, rabbit 8 of 11, cat 0 of 26",
    ),
    "face_landmark": (("real", "mesh", "disney_human"), "68-point error .040 to .083 eye distances on three faces"),
    "haarcascade_frontalcatface.xml": (("disney_animal",), "labelled frames of a filmed cat found: 15 of 26"),
    "silero_vad": (("real", "mesh"), "speech in .38 to .82 of talking clips, 0 in silent ones"),
}
# Weights files behind each landmarker and source of angles, by their names in the registry of weights.
LANDMARKER_WEIGHTS = {"pfld": ("pfld",), "fan2d": ("fan2d",), "fan3d": ("fan3d", "fan_depth")}
POSE_WEIGHTS = {"fsanet": ("fsanet_1x1", "fsanet_var")}
_COMMERCIAL = {"Apache-2.0": True, "MIT": True, "BSD-3-Clause": True}


def no_weights(name: str) -> Path:
    """Where there are no weights beyond the packages' own.

    Raises:
        UsageError: always, naming the weights.
    """
    raise UsageError(f"the configuration asks for the weights {name}, and none are known here: choose a packaged model")


@dataclass
class ModelSet:
    """All models of one configuration; each is loaded at its first use and then kept.

    ``weights`` tells where the weights file of a name lies, and raises UsageError where it is not.
    """

    config: BuildConfig
    weights: Callable[[str], Path] = no_weights
    _detectors: dict[str, list[Detector]] = field(default_factory=dict)
    _landmarkers: dict[str | UserLandmarker, Landmarker] = field(default_factory=dict)
    _pose_network: PoseNetwork | None = None
    _vad: SileroVad | None = None
    _hubert: Hubert | None = None

    def __post_init__(self) -> None:
        # The same numbers whatever the machine's core count; workers run side by side.
        cv2.setNumThreads(1)

    def check(self) -> None:
        """Locate and verify every file that the configuration needs.

        Raises:
            UsageError: naming the file that is missing and how to get it.
        """
        for domain in self.config.domains:
            self.files(domain)
            if self.domain(domain).landmarker not in {"facemesh", "none"}:
                self.landmarker(domain)
            self.pose_network(domain)
        if self.config.speech.hubert:
            self.hubert()

    def domain(self, name: str) -> DomainConfig:
        """Settings of one domain."""
        return self.config.domains[name]

    def detectors(self, name: str) -> list[Detector]:
        """The detectors of one domain, in their order."""
        if name not in self._detectors:
            self._detectors[name] = build_detectors(self.domain(name).detectors)
        return self._detectors[name]

    def presence(self, name: str) -> Callable[..., bool] | None:
        """The presence gate of a human-like domain, None elsewhere."""
        return shows_face if self.domain(name).presence_gate else None

    def landmarker(self, name: str) -> Landmarker | None:
        """The landmarker that covers the domain; None where none does."""
        choice = self.domain(name).landmarker
        if choice == "none":
            return None
        if choice not in self._landmarkers:
            self._landmarkers[choice] = self._load_landmarker(choice, name)
        return self._landmarkers[choice]

    def _load_landmarker(self, choice: str | UserLandmarker, domain: str) -> Landmarker:
        least = self.config.landmarks.min_confidence
        if isinstance(choice, UserLandmarker):
            return OnnxLandmarker(Path(choice.path), choice, least, f"domains.{domain}.landmarker")
        if choice == "pfld":
            return OnnxLandmarker(self.weights("pfld"), PFLD, least, "the landmarker PFLD")
        if choice in LANDMARKER_WEIGHTS:
            points, *depth = (self.weights(file) for file in LANDMARKER_WEIGHTS[choice])
            return FaceAlignment68(points, *depth, min_confidence=least)
        return FaceMesh468(least)

    def pose_network(self, name: str) -> PoseNetwork | None:
        """The network that reads the domain's head angles from pictures; None where points give them."""
        if self.domain(name).pose != "fsanet":
            return None
        if self._pose_network is None:
            self._pose_network = FsaNet(*(self.weights(file) for file in POSE_WEIGHTS["fsanet"]))
        return self._pose_network

    def vad(self) -> SileroVad:
        """The voice activity detector."""
        if self._vad is None:
            self._vad = SileroVad()
        return self._vad

    def hubert(self) -> Hubert | None:
        """The speech network, when one is configured."""
        if self.config.speech.hubert and self._hubert is None:
            self._hubert = Hubert(self.config.speech.hubert, self.config.speech.hubert_layers)
        return self._hubert

    def files(self, name: str) -> dict[str, str]:
        """SHA-256 of every model file that a domain's clips depend on, by name."""
        found = self.detection_files(name)
        domain = self.domain(name)
        if domain.landmarker == "facemesh":
            found["face_landmark"] = packaged_model("face_landmark").sha256
        elif isinstance(domain.landmarker, UserLandmarker):
            found["landmarker"] = _sha256(Path(domain.landmarker.path), f"domains.{name}.landmarker")
        for file in (*LANDMARKER_WEIGHTS.get(str(domain.landmarker), ()), *POSE_WEIGHTS.get(domain.pose, ())):
            found[file] = _sha256(self.weights(file), file)
        found["silero_vad"] = packaged_model("silero_vad").sha256
        hubert = self.hubert()
        if hubert is not None:
            found["hubert"] = hubert.sha256
        return dict(sorted(found.items()))

    def detection_files(self, name: str) -> dict[str, str]:
        """SHA-256 of the model files that a domain's analysis depends on, by name."""
        domain = self.domain(name)
        files = {file for choice in domain.detectors for file in detector_files(choice.model)}
        if domain.presence_gate:
            files.add("face_landmark")
        return {file: packaged_model(file).sha256 for file in sorted(files)}

    def cards(self, names: set[str]) -> list[ModelCard]:
        """The model files behind clips of the named domains, as the dataset card lists them."""
        files = {file: sha for name in sorted(names) for file, sha in self.files(name).items()}
        return [self._card(file, sha) for file, sha in sorted(files.items())]

    def _card(self, file: str, sha256: str) -> ModelCard:
        if file == "hubert":
            return ModelCard(
                name="HuBERT", file=Path(self.config.speech.hubert).name, sha256=sha256, package="transformers",
                licence="as its folder states", commercial_use=None, domains=(), measured="",
            )  # fmt: skip
        model = packaged_model(file)
        domains, measured = _MEASURED.get(file, ((), ""))
        return ModelCard(
            name=file,
            file=model.path.name,
            sha256=sha256,
            package=model.package,
            licence=model.licence,
            commercial_use=_COMMERCIAL.get(model.licence),
            domains=domains,
            measured=measured,
        )


def _sha256(path: Path, what: str) -> str:
    try:
        state = path.stat()
    except OSError as error:
        raise UsageError(f"{what}: there is no file {path}") from error
    return _sha256_of(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=32)
def _sha256_of(path: Path, *_state: int) -> str:
    """Asked for with every key; read again only when the file has changed."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
