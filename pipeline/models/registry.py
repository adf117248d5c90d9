"""The models of a build, loaded once per process and handed to the stages.

Which models a domain needs is read from the configuration before any work begins, so that a missing
file is one clear error at the start and never a quiet change of method half-way.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2

from pipeline.errors import UsageError
from pipeline.models.detectors import Detector, build_detectors, detector_files
from pipeline.models.expression import ExpressionNetwork
from pipeline.models.landmarkers import FaceMesh468, Landmarker, shows_face
from pipeline.models.packaged import packaged_model
from pipeline.models.speaker import LIGHT_ASD_FPS, LightAsd
from pipeline.models.speech import Hubert, SileroVad
from schemas.config import BuildConfig, DomainConfig
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
_COMMERCIAL = {"Apache-2.0": True, "MIT": True, "BSD-3-Clause": True}


@dataclass
class ModelSet:
    """All models of one configuration; each is loaded at its first use and then kept."""

    config: BuildConfig
    _detectors: dict[str, list[Detector]] = field(default_factory=dict)
    _landmarker: Landmarker | None = None
    _vad: SileroVad | None = None
    _hubert: Hubert | None = None
    _speaker: LightAsd | None = None
    _expression: ExpressionNetwork | None = None

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
        if self.config.speech.hubert:
            self.hubert()
        if self.config.speaker and self.config.crop.fps != LIGHT_ASD_FPS:
            raise UsageError(
                f"the speaker network reads {LIGHT_ASD_FPS} frames per second: leave crop.fps at that, or speaker out"
            )

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
        if self.domain(name).landmarker == "none":
            return None
        if self._landmarker is None:
            self._landmarker = FaceMesh468(self.config.landmarks.min_confidence)
        return self._landmarker

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

    def speaker(self, name: str) -> LightAsd | None:
        """The speaker network, when one is configured for the domain."""
        config = self.config.speaker
        if config is None or name not in config.domains:
            return None
        if self._speaker is None:
            self._speaker = LightAsd(Path(config.weights))
        return self._speaker

    def expression(self, name: str) -> ExpressionNetwork | None:
        """The expression network, when one is configured for the domain."""
        config = self.config.expression
        if config is None or name not in config.domains:
            return None
        if self._expression is None:
            self._expression = ExpressionNetwork(Path(config.weights), config.input)
        return self._expression

    def files(self, name: str) -> dict[str, str]:
        """SHA-256 of every model file that a domain's clips depend on, by name."""
        found = self.detection_files(name)
        if self.domain(name).landmarker != "none":
            found["face_landmark"] = packaged_model("face_landmark").sha256
        found["silero_vad"] = packaged_model("silero_vad").sha256
        hubert = self.hubert()
        if hubert is not None:
            found["hubert"] = hubert.sha256
        speaker = self.speaker(name)
        if speaker is not None:
            found["light_asd"] = speaker.sha256
        expression = self.expression(name)
        if expression is not None:
            found["expression"] = expression.sha256
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
        if file == "light_asd" and self.config.speaker:
            return ModelCard(
                name=file, file=Path(self.config.speaker.weights).name, sha256=sha256, package="",
                licence="MIT", commercial_use=True, domains=("real", "mesh"),
                measured="own sound first of five sounds for 4 of 5 talkers, second for the fifth",
            )  # fmt: skip
        if file == "expression" and self.config.expression:
            return ModelCard(
                name=file, file=Path(self.config.expression.weights).name, sha256=sha256, package="",
                licence="as its file's origin states", commercial_use=None, domains=(), measured="",
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
