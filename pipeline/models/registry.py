"""The models of a build, loaded once per process and handed to the stages.

Which models a domain needs is read from the configuration before any work begins, so that a missing
file is one clear error at the start and never a quiet change of method half-way. A model is named; its file comes out
of a pip package (``packaged_model``) or out of the weights folder (``WeightsStore``), and nobody else needs to know.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from pipeline.models.detector_table import build_detectors, detector_files
from pipeline.models.detectors import Detector
from pipeline.models.domain_evidence import EVIDENCE_FILES
from pipeline.models.expression import ExpressionNetwork
from pipeline.models.files.model_file import ModelFile
from pipeline.models.files.packaged import PACKAGED_MODELS, packaged_model
from pipeline.models.files.weights import WeightsStore
from pipeline.models.landmarkers import FaceMesh468, Landmarker, shows_face
from pipeline.models.speaker import LIGHT_ASD_FPS, LightAsd
from pipeline.models.speech import Hubert, SileroVad
from pipeline.models.zero_shot import ZeroShot
from schemas.config import BuildConfig, DomainConfig
from schemas.errors import UsageError
from schemas.landmarkers import LandmarkerChoice, UserLandmarker
from schemas.models import ModelCard

if TYPE_CHECKING:  # starts a network runtime, which only some configurations need
    from pipeline.models.identity import ArcFace
    from pipeline.models.pose_networks import PoseNetwork

# The files of each landmarker and source of angles that a domain can name.
LANDMARKER_FILES: dict[str, tuple[str, ...]] = {
    "facemesh": ("face_landmark",),
    "pfld": ("pfld",),
    "fan2d": ("fan2d",),
    "fan3d": ("fan3d", "fan_depth"),
    "none": (),
}
POSE_FILES: dict[str, tuple[str, ...]] = {"mesh": (), "pnp": (), "fsanet": ("fsanet_1x1", "fsanet_var")}
_VAD = "silero_vad"


@dataclass
class ModelSet:
    """All models of one configuration; each is loaded at its first use and then kept.

    Attributes:
        config: names the models.
        store: where weights files lie that come in no package.
    """

    config: BuildConfig
    store: WeightsStore = field(default_factory=WeightsStore)
    _detectors: dict[str, list[Detector]] = field(default_factory=dict)
    _landmarkers: dict[str | UserLandmarker, Landmarker] = field(default_factory=dict)
    _pose_network: "PoseNetwork | None" = None
    _vad: SileroVad | None = None
    _hubert: Hubert | None = None
    _speaker: LightAsd | None = None
    _expression: ExpressionNetwork | None = None
    _identity: "ArcFace | None" = None
    _zero_shot: ZeroShot | None = None

    def __post_init__(self) -> None:
        # The same numbers whatever the machine's core count; workers run side by side.
        cv2.setNumThreads(1)

    def check(self) -> None:
        """Locate and verify every file that the configuration needs, and load those that come in no package.

        Raises:
            UsageError: naming everything that is missing at once, and how to get it.
        """
        if self.config.speaker and self.config.crop.fps != LIGHT_ASD_FPS:
            raise UsageError(
                f"the speaker network reads {LIGHT_ASD_FPS} frames per second: leave crop.fps at that, or speaker out"
            )
        names = {name for domain in self.config.domains for name in self.needed(domain)}
        problems = self.store.problems(names - set(PACKAGED_MODELS))
        for name in sorted(names & set(PACKAGED_MODELS)):
            try:
                packaged_model(name)
            except UsageError as error:
                problems.append(str(error))
        if problems:
            raise UsageError("\n".join(problems))
        for domain in self.config.domains:
            if self.needed(domain) - set(PACKAGED_MODELS):
                self._load(domain)
        if hubert := self.hubert():
            hubert.prepare()
        self.zero_shot()

    def _load(self, domain: str) -> None:
        """A file that is there may still be no network of its kind, or lack the package that runs it."""
        self.detectors(domain)
        self.landmarker(domain)
        self.pose_network(domain)
        self.speaker(domain)
        self.expression(domain)
        self.identity(domain)

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
            trusted = [weights.sha256 for name in names if (weights := self.store.entry(name)).sha256]
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
            place = str(self.file(speech.hubert).path) if self._hubert_is_registered else speech.hubert
            self._hubert = Hubert(place, speech.hubert_layers, speech.hubert_device, half=speech.hubert_half)
        return self._hubert

    def speaker(self, name: str) -> LightAsd | None:
        """The speaker network, where one is configured for the domain."""
        settings = self.config.speaker
        if settings is None or name not in settings.domains:
            return None
        if self._speaker is None:
            self._speaker = LightAsd(self.file(settings.weights).path)
        return self._speaker

    def expression(self, name: str) -> ExpressionNetwork | None:
        """The expression network, where one is configured for the domain."""
        settings = self.config.expression
        if settings is None or name not in settings.domains:
            return None
        if self._expression is None:
            self._expression = ExpressionNetwork(self.file(settings.weights).path, settings.input, settings.device)
        return self._expression

    def identity(self, name: str) -> "ArcFace | None":
        """The network that tells people apart, where one is configured for the domain."""
        settings = self.config.identity
        if settings is None or name not in settings.domains:
            return None
        if self._identity is None:
            from pipeline.models.identity import ArcFace

            self._identity = ArcFace(self.file(settings.weights).path, settings.device)
        return self._identity

    def zero_shot(self) -> ZeroShot | None:
        """CLIP with the texts of all domains, where the router is to ask it."""
        settings = self.config.router
        if settings is None or not settings.clip:
            return None
        if self._zero_shot is None:
            self._zero_shot = ZeroShot(settings.clip, domain_prompts(self.config))
        return self._zero_shot

    # ---- files ---------------------------------------------------------------------------------

    def file(self, name: str) -> ModelFile:
        """A model's file on this machine, verified.

        Args:
            name: of a packaged model or of the weights registry, or the path of a file of the user's own.

        Raises:
            UsageError: when it is missing or damaged, with what to do.
        """
        return packaged_model(name) if name in PACKAGED_MODELS else self.store.model(name)

    def needed(self, domain: str) -> set[str]:
        """The names of all files that a domain's clips depend on; each is found by :meth:`file`."""
        choice, pose = self.domain(domain).landmarker, self.domain(domain).pose
        points = (choice.path,) if isinstance(choice, UserLandmarker) else LANDMARKER_FILES[choice]
        names = self._needed_to_detect(domain) | {*points, *POSE_FILES[pose], _VAD}
        optional = (self.config.speaker, self.config.expression, self.config.identity)
        names |= {one.weights for one in optional if one and domain in one.domains}
        names |= {*EVIDENCE_FILES} if self.config.router else set()
        return names | {self.config.speech.hubert} if self._hubert_is_registered else names

    def files(self, name: str) -> dict[str, str]:
        """SHA-256 of every model file that a domain's clips depend on, by name."""
        found = {card.name: card.sha256 for card in self._domain_cards(name)}
        return dict(sorted(found.items()))

    def detection_files(self, name: str) -> dict[str, str]:
        """SHA-256 of the model files that a domain's analysis depends on, by name."""
        found = [self._card(file) for file in self._needed_to_detect(name)]
        return {card.name: card.sha256 for card in sorted(found, key=lambda card: card.name)}

    def cards(self, names: set[str]) -> list[ModelCard]:
        """The model files behind clips of the named domains, as the dataset card lists them."""
        found = {card.name: card for name in sorted(names) for card in self._domain_cards(name)}
        return [found[name] for name in sorted(found)]

    @property
    def _hubert_is_registered(self) -> bool:
        return self.config.speech.hubert != "" and self.config.speech.hubert in self.store.registry

    def _needed_to_detect(self, domain: str) -> set[str]:
        settings = self.domain(domain)
        names = {file for choice in settings.detectors for file in detector_files(choice)}
        return names | {"face_landmark"} if settings.presence_gate else names

    def _domain_cards(self, domain: str) -> list[ModelCard]:
        cards = [self._card(name) for name in self.needed(domain)]
        hubert = None if self._hubert_is_registered else self.hubert()
        if hubert is not None:
            cards.append(_folder_card("hubert", self.config.speech.hubert, hubert.sha256))
        if self.config.router and (clip := self.zero_shot()):
            cards.append(_folder_card("clip", self.config.router.clip, clip.sha256))
        return cards

    def _card(self, name: str) -> ModelCard:
        return packaged_model(name).card if name in PACKAGED_MODELS else self.store.card(name)


def domain_prompts(config: BuildConfig) -> dict[str, tuple[str, ...]]:
    """What CLIP compares pictures with, by domain."""
    given = config.router.prompts if config.router else {}
    return {name: given.get(name) or (f"a picture of {domain.description}",) for name, domain in config.domains.items()}


def _folder_card(name: str, folder: str, sha256: str) -> ModelCard:
    """Of a model that transformers loads from a folder of the user's."""
    return ModelCard(
        name=name, file=Path(folder).name, sha256=sha256, package="transformers",
        licence="as its folder states", commercial_use=None, domains=(), measured="",
    )  # fmt: skip
