"""The networks of a build, loaded once per process and handed to the stages.

Which files a domain needs is read from the configuration before any work begins (``ModelFiles``), so that a missing
file is one clear error at the start and never a quiet change of method half-way.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import cv2

from pipeline.models.detector_table import build_detectors
from pipeline.models.detectors import Detector
from pipeline.models.files.model_file import ModelFile
from pipeline.models.files.model_files import LANDMARKER_FILES, POSE_FILES, ModelFiles
from pipeline.models.files.packaged import PACKAGED_MODELS
from pipeline.models.landmarkers import FaceMesh468, Landmarker, shows_face
from pipeline.models.speech import Hubert, SileroVad
from schemas.config import BuildConfig, DomainConfig
from schemas.errors import UsageError
from schemas.landmarkers import LandmarkerChoice, UserLandmarker

if TYPE_CHECKING:  # starts a network runtime, which only some configurations need
    from pipeline.models.pose_networks import PoseNetwork

N = TypeVar("N")


@dataclass
class ModelSet:
    """All models of one configuration; each is loaded at its first use and then kept.

    Attributes:
        files: names the models, and says where their files lie.
    """

    files: ModelFiles
    _detectors: dict[str, list[Detector]] = field(default_factory=dict)
    _landmarkers: dict[str | UserLandmarker, Landmarker] = field(default_factory=dict)
    _pose_network: "PoseNetwork | None" = None
    _vad: SileroVad | None = None
    _hubert: Hubert | None = None
    _others: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # The same numbers whatever the machine's core count; workers run side by side.
        cv2.setNumThreads(1)

    def check(self) -> None:
        """Locate and verify every file that the configuration needs, and load those that come in no package.

        Raises:
            UsageError: naming everything that is missing at once, and how to get it.
        """
        for user in self.files.users:
            user.check(self.config)
        if problems := self.files.problems():
            raise UsageError("\n".join(problems))
        for domain in self.config.domains:
            if self.files.needed(domain) - set(PACKAGED_MODELS):
                self._load(domain)
            for user in self.files.users:
                if user.files(self.config, domain) or user.folders(self.config):
                    user.load(self, domain)
        if hubert := self.hubert():
            hubert.prepare()

    def _load(self, domain: str) -> None:
        """A file that is there may still be no network of its kind, or lack the package that runs it."""
        self.detectors(domain)
        self.landmarker(domain)
        self.pose_network(domain)

    @property
    def config(self) -> BuildConfig:
        """All settings; they name the models."""
        return self.files.config

    def once(self, name: str, load: Callable[[], N]) -> N:
        """A network that only some configurations need: loaded when first asked for, and then kept.

        Args:
            name: of the network among all of this configuration.
            load: makes it.
        """
        if name not in self._others:
            self._others[name] = load()
        return self._others[name]

    def domain(self, name: str) -> DomainConfig:
        """Settings of one domain."""
        return self.config.domains[name]

    def detectors(self, name: str) -> list[Detector]:
        """The detectors of one domain, in their order."""
        if name not in self._detectors:
            self._detectors[name] = build_detectors(self.domain(name).detectors, self.file)
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

    def _load_landmarker(self, choice: LandmarkerChoice, domain: str) -> Landmarker:
        least = self.config.landmarks.min_confidence
        if choice == "facemesh":
            return FaceMesh468(least)
        if choice in {"fan2d", "fan3d"}:
            from pipeline.models.fan import FaceAlignment68

            names = LANDMARKER_FILES[str(choice)]
            # An archive is run only where the registry itself knows its checksum.
            trusted = [weights.sha256 for name in names if (weights := self.files.store.entry(name)).sha256]
            return FaceAlignment68(
                *(self.file(name).path for name in names),
                min_confidence=least,
                trusted=[*filter(None, trusted)],
                device=self.config.landmarks.fan_device,
            )
        from pipeline.models.point_networks import PFLD, OnnxLandmarker

        if isinstance(choice, UserLandmarker):
            return OnnxLandmarker(self.file(choice.path).path, choice, least, f"domains.{domain}.landmarker")
        return OnnxLandmarker(self.file("pfld").path, PFLD, least, "the landmarker PFLD")

    def pose_network(self, name: str) -> "PoseNetwork | None":
        """The network that reads the head's angles in the domain's pictures; None where they come from the points."""
        files = POSE_FILES[self.domain(name).pose]
        if not files:
            return None
        if self._pose_network is None:
            from pipeline.models.pose_networks import FsaNet

            self._pose_network = FsaNet(*(self.file(file).path for file in files))
        return self._pose_network

    def vad(self) -> SileroVad:
        """The voice activity detector."""
        if self._vad is None:
            self._vad = SileroVad()
        return self._vad

    def hubert(self) -> Hubert | None:
        """The speech network, when one is configured: by its name in the weights registry, a folder, or a hub name."""
        speech = self.config.speech
        if speech.hubert and self._hubert is None:
            folder = str(self.file(speech.hubert).path) if self.files.hubert_is_registered else speech.hubert
            self._hubert = Hubert(folder, speech.hubert_layers, speech.hubert_device, half=speech.hubert_half)
        return self._hubert

    def file(self, name: str) -> ModelFile:
        """A model's file on this machine, verified; see :meth:`ModelFiles.file`."""
        return self.files.file(name)
