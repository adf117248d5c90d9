"""Which model files a build depends on: their names, places, digests and what the dataset card says of them.

Keys are computed from this alone, so nothing here loads a network or imports what would run one: whoever asks where a
build stands must not wait for torch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from pipeline.models.detector_table import detector_files
from pipeline.models.files.folders import folder_card, folder_sha256, hubert_sha256
from pipeline.models.files.model_file import ModelFile
from pipeline.models.files.packaged import PACKAGED_MODELS, packaged_model
from pipeline.models.files.weights import WeightsStore
from schemas.config import BuildConfig
from schemas.errors import UsageError
from schemas.landmarkers import UserLandmarker
from schemas.models import ModelCard

if TYPE_CHECKING:
    from pipeline.models.registry import ModelSet

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


@dataclass(frozen=True, slots=True)
class FolderModel:
    """A model that transformers loads from a folder of the user's: its name in keys, and the setting that names it."""

    name: str
    folder: str
    setting: str


class UsesModels(Protocol):
    """Whatever needs models besides those that every clip of a domain is made with; see ``pipeline.clip.meter``."""

    def files(self, config: BuildConfig, domain: str) -> tuple[str, ...]:
        """Names of files."""
        ...

    def folders(self, config: BuildConfig) -> tuple[FolderModel, ...]:
        """Models in folders."""
        ...

    def check(self, config: BuildConfig) -> None:
        """Refuse settings that contradict others."""
        ...

    def load(self, models: "ModelSet", domain: str) -> object:
        """Load what is used."""
        ...


@dataclass
class ModelFiles:
    """The model files of one configuration; ``pipeline.clip.meters.model_files`` makes it with all meters.

    Attributes:
        config: names the models.
        store: where weights files lie that come in no package.
        users: need models, each where ``config`` says so.
    """

    config: BuildConfig
    store: WeightsStore
    users: "Sequence[UsesModels]"

    def file(self, name: str) -> ModelFile:
        """A model's file on this machine, verified.

        Args:
            name: of a packaged model or of the weights registry, or the path of a file of the user's own.

        Raises:
            UsageError: when it is missing or damaged, with what to do.
        """
        return packaged_model(name) if name in PACKAGED_MODELS else self.store.model(name)

    def card(self, name: str) -> ModelCard:
        """What the dataset card says of a model; where its checksum is known, its file need not be there.

        Raises:
            UsageError: for an unknown name, and for a missing file whose checksum nobody knows.
        """
        return packaged_model(name).card if name in PACKAGED_MODELS else self.store.card(name)

    def needed(self, domain: str) -> set[str]:
        """The names of all files that a domain's clips depend on; each is opened by :meth:`file`."""
        choice, pose = self.config.domains[domain].landmarker, self.config.domains[domain].pose
        points = (choice.path,) if isinstance(choice, UserLandmarker) else LANDMARKER_FILES[choice]
        names = self._needed_to_detect(domain) | {*points, *POSE_FILES[pose], _VAD}
        names |= {name for user in self.users for name in user.files(self.config, domain)}
        return names | {self.config.speech.hubert} if self.hubert_is_registered else names

    def digests(self, domain: str) -> dict[str, str]:
        """SHA-256 of every model file that a domain's clips depend on, by name."""
        return {card.name: card.sha256 for card in sorted(self._cards_of(domain), key=lambda card: card.name)}

    def detection_digests(self, domain: str) -> dict[str, str]:
        """SHA-256 of the model files that a domain's analysis depends on, by name."""
        cards = [self.card(name) for name in self._needed_to_detect(domain)]
        return {card.name: card.sha256 for card in sorted(cards, key=lambda card: card.name)}

    def cards(self, domains: Iterable[str]) -> list[ModelCard]:
        """The model files behind clips of the named domains, as the dataset card lists them."""
        cards = {card.name: card for domain in sorted(domains) for card in self._cards_of(domain)}
        return [cards[name] for name in sorted(cards)]

    def problems(self) -> list[str]:
        """A sentence for everything that is missing or damaged of what the configuration needs; all files are read."""
        names = {name for domain in self.config.domains for name in self.needed(domain)}
        problems = self.store.problems(names - set(PACKAGED_MODELS))
        for name in sorted(names & set(PACKAGED_MODELS)):
            try:
                packaged_model(name)
            except UsageError as error:
                problems.append(str(error))
        return problems

    @property
    def hubert_is_registered(self) -> bool:
        """Whether ``speech.hubert`` is a name of the weights registry, and not a folder or a hub name."""
        return self.config.speech.hubert != "" and self.config.speech.hubert in self.store.registry

    @cached_property
    def _folder_cards(self) -> list[ModelCard]:
        """Of the models that transformers loads from folders of the user's."""
        cards, speech = [], self.config.speech
        if speech.hubert and not self.hubert_is_registered:
            cards.append(folder_card("hubert", speech.hubert, hubert_sha256(speech.hubert, speech.hubert_layers)))
        models = [model for user in self.users for model in user.folders(self.config)]
        digests = [folder_sha256(model.folder, model.setting) for model in models]
        return cards + [folder_card(model.name, model.folder, sha) for model, sha in zip(models, digests, strict=True)]

    def _needed_to_detect(self, domain: str) -> set[str]:
        settings = self.config.domains[domain]
        names = {file for choice in settings.detectors for file in detector_files(choice)}
        return names | {"face_landmark"} if settings.presence_gate else names

    def _cards_of(self, domain: str) -> list[ModelCard]:
        return [*(self.card(name) for name in self.needed(domain)), *self._folder_cards]
