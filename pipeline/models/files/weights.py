"""Where weights files lie on this machine, and whether they are the ones that the registry means.

A file that the registry gives a checksum is used only with exactly that content. Where no checksum is known,
the one that was recorded when the file was fetched takes its place; a file without either is used as it is, and its
content decides the keys of what is made with it. Nothing is fetched here: see ``pipeline.models.files.fetching``.
"""

import difflib
import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

from platformdirs import user_data_path

from pipeline.models.files.model_file import ModelFile, sha256_of
from schemas.config import WeightsConfig
from schemas.errors import UsageError
from schemas.models import ModelCard
from schemas.weights import Weights, WeightsError, WeightsFile, joint_sha256, read_weights

State = Literal["present", "missing", "damaged"]
_RECORD = ".fetched.json"


@lru_cache(maxsize=1)
def shipped_registry() -> Mapping[str, Weights]:
    """The entries of ``manifests/weights.toml``, by name.

    Raises:
        UsageError: when the installed file is damaged.
    """
    text = files("manifests").joinpath("weights.toml").read_text(encoding="utf-8")
    try:
        return read_weights(text, "manifests/weights.toml")
    except WeightsError as error:
        raise UsageError(str(error)) from error


@dataclass(frozen=True, slots=True)
class FileState:
    """One file of an entry as it was found. ``expected`` is None where nobody knows the checksum."""

    file: WeightsFile
    path: Path
    state: State
    sha256: str = ""
    expected: str | None = None


@dataclass(frozen=True, slots=True)
class EntryState:
    """An entry as it was found; ``verified`` says that the registry itself knows all checksums, and they agree."""

    weights: Weights
    files: tuple[FileState, ...]

    @property
    def state(self) -> State:
        """The worst of its files' states."""
        states = {state.state for state in self.files}
        return "damaged" if "damaged" in states else "missing" if "missing" in states else "present"

    @property
    def verified(self) -> bool:
        """Whether every file is there with the registry's own checksum."""
        return self.state == "present" and all(state.file.sha256 for state in self.files)

    def faults(self) -> list[str]:
        """A sentence per damaged file."""
        return [
            f"{state.path} is not the file that {self.weights.name} means (SHA-256 {state.expected}, found "
            f"{state.sha256}): run {fetch_command([self.weights])}"
            for state in self.files
            if state.state == "damaged"
        ]


class WeightsStore:
    """The weights folder of this machine.

    A model is named by its name in the registry, or by the path of a file of the user's own, which is told by its
    slash. Asking again costs nothing: a file is hashed once per process, and again only when it has changed.

    Args:
        config: where the folder is.
        registry: the entries; the shipped ones by default.
    """

    def __init__(self, config: WeightsConfig | None = None, registry: Mapping[str, Weights] | None = None) -> None:
        self.config = config or WeightsConfig()
        self._registry = registry

    @cached_property
    def folder(self) -> Path:
        """Where the files lie; it may not exist yet."""
        given = self.config.dir
        return Path(given).expanduser() if given else user_data_path("anitalk", appauthor=False) / "weights"

    @property
    def registry(self) -> Mapping[str, Weights]:
        """All entries by name; read when they are first asked for."""
        return shipped_registry() if self._registry is None else self._registry

    def entry(self, name: str) -> Weights:
        """The registry's entry.

        Raises:
            UsageError: for a name that it does not have.
        """
        if name in self.registry:
            return self.registry[name]
        near = difflib.get_close_matches(name, self.registry, n=1)
        meant = f", perhaps {near[0]!r}" if near else ""
        raise UsageError(
            f"there are no weights {name!r}{meant}: 'anitalk weights list' names all, and a file of your own is named "
            f"with its folder, such as ./{Path(name).name}"
        )

    def path(self, name: str) -> Path:
        """The verified file of a model, or the folder of one that has several.

        Raises:
            UsageError: as :meth:`model` does.
        """
        return self.model(name).path

    def sha256(self, name: str) -> str:
        """What stage keys depend on; where the registry knows it, the file need not be there.

        Raises:
            UsageError: as :meth:`card` does.
        """
        return self.card(name).sha256

    def model(self, name: str) -> ModelFile:
        """A model's verified file and what the dataset card says of it.

        Raises:
            UsageError: when it is missing or not the one that was meant, with its licence and the command that
                fetches it.
        """
        if is_path(name):
            return _own_file(Path(name).expanduser())
        self.check([name])
        entry = self.state(name)
        digest = joint_sha256({state.file.path: state.sha256 for state in entry.files})
        return ModelFile(self.folder / entry.weights.path, _card(entry.weights, digest))

    def card(self, name: str) -> ModelCard:
        """What the dataset card says of a model.

        Raises:
            UsageError: for an unknown name, and for a missing file whose checksum nobody knows.
        """
        if not is_path(name):
            weights = self.entry(name)
            if weights.sha256 is not None:
                return _card(weights, weights.sha256)
        return self.model(name).card

    def state(self, name: str) -> EntryState:
        """What is there of an entry; every file of it is hashed."""
        weights = self.entry(name)
        return EntryState(weights, tuple(self._file_state(file) for file in weights.files))

    def missing(self, names: Iterable[str]) -> list[Weights]:
        """Those of the named entries of which a file is missing, in the order of their names."""
        named = sorted(set(names))
        return [self.entry(name) for name in named if self.state(name).state == "missing"]

    def problems(self, names: Iterable[str]) -> list[str]:
        """Everything that keeps the named models from being used: all missing ones together, a line per other fault."""
        faults: list[str] = []
        missing: list[Weights] = []
        for name in sorted(set(names)):
            try:
                if is_path(name):
                    _own_file(Path(name).expanduser())
                    continue
                entry = self.state(name)
            except UsageError as error:
                faults.append(str(error))
                continue
            faults += entry.faults()
            missing += [entry.weights] if entry.state == "missing" else []
        return faults + ([self._missing_text(missing)] if missing else [])

    def check(self, names: Iterable[str]) -> None:
        """Pass when all the named models can be used.

        Raises:
            UsageError: with everything that is missing or wrong.
        """
        problems = self.problems(names)
        if problems:
            raise UsageError("\n".join(problems))

    def record(self, file: WeightsFile) -> Path:
        """Where it is noted what came when a file without a known checksum was fetched."""
        return self.folder / f"{file.path}{_RECORD}"

    def _file_state(self, file: WeightsFile) -> FileState:
        path = self.folder / file.path
        if not path.is_file():
            return FileState(file, path, "missing")
        expected = file.sha256 or self._recorded(file)
        digest = _hashed(path)
        state: State = "damaged" if expected is not None and digest != expected else "present"
        return FileState(file, path, state, digest, expected)

    def _recorded(self, file: WeightsFile) -> str | None:
        path = self.record(file)
        try:
            return str(json.loads(path.read_text(encoding="utf-8"))["sha256"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path} cannot be read: delete it together with the file that it describes") from error

    def _missing_text(self, missing: list[Weights]) -> str:
        lines = [f"  {weights.name}: {_size(weights)}, {weights.licence} ({_commerce(weights)})" for weights in missing]
        are = "model is" if len(missing) == 1 else "models are"
        elsewhere = f" --set weights.dir={shlex.quote(str(self.config.dir))}" if self.config.dir else ""
        return "\n".join(
            [
                f"{len(missing)} {are} missing from the weights folder {self.folder}:",
                *lines,
                f"run {fetch_command(missing)}{elsewhere} (or --from a mirror), or put the files there",
            ]
        )


def is_path(name: str) -> bool:
    """Whether a model is named by the path of a file, and not by its name in the registry."""
    return "/" in name or "\\" in name


def fetch_command(weights: Iterable[Weights]) -> str:
    """The command line that fetches entries, with consent where their terms ask for it."""
    entries = list(weights)
    consent = " --accept-license" if any(weights.asks_consent for weights in entries) else ""
    return f"anitalk weights fetch {' '.join(entry.name for entry in entries)}{consent}"


def _card(weights: Weights, sha256: str) -> ModelCard:
    return ModelCard(
        name=weights.name,
        file=weights.path,
        sha256=sha256,
        package=weights.origin,
        licence=weights.licence,
        commercial_use=weights.commercial_use,
        domains=weights.domains if weights.measured else (),
        measured=weights.measured,
    )


def _own_file(path: Path) -> ModelFile:
    """A file that the user supplies: named by its content, since its folder is nobody else's business."""
    if not path.is_file():
        raise UsageError(f"the model file {path} does not exist, or is no file: correct its path in the configuration")
    digest = _hashed(path)
    card = ModelCard(
        name=f"{path.stem}-{digest[:12]}",
        file=path.name,
        sha256=digest,
        package="supplied by the user",
        licence="not stated",
        commercial_use=None,
        domains=(),
        measured="",
    )
    return ModelFile(path, card)


def _hashed(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise UsageError(f"the model file {path} cannot be read: {error.strerror}") from error


def _size(weights: Weights) -> str:
    return "size unknown" if weights.num_bytes is None else f"{weights.num_bytes / 1e6:.1f} MB"


def _commerce(weights: Weights) -> str:
    answers = {True: "commercial use allowed", False: "no commercial use", None: "commercial use unknown"}
    return answers[weights.commercial_use]
