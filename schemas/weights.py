"""The weights registry: what each weights file is, where it comes from, and what may be done with it.

The shipped registry is ``manifests/weights.toml``. A checksum stands there only where the file itself or its
published checksum was seen; what is not known is left out, and whoever fetches such a file is told so.
"""

import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from schemas.base import Record, content_hash
from schemas.uri import check_uri, uri_scheme

_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")
_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*){0,3}")


class WeightsError(ValueError):
    """A registry that cannot be used: one line per problem."""


def check_path(value: str) -> str:
    """Accept a relative path that stays below the weights folder on every system.

    Raises:
        ValueError: for an absolute path, a part that begins with a dot, a backslash, or a character that is not
            a letter, a digit, ``.``, ``_`` or ``-``.
    """
    if not _PATH.fullmatch(value):
        raise ValueError(
            f"{value!r} is not a path below the weights folder: one to four names of letters, digits, '.', '_' and "
            "'-' with '/' between them, none beginning with a dot"
        )
    return value


def _check_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(f"{value!r} is not a usable name: small letters, digits, and '.', '_' or '-' between them")
    return value


def _check_url(value: str) -> str:
    if uri_scheme(value) == "file":
        raise ValueError(f"{value!r} is not an address to fetch from: http, https, s3 or gs")
    return check_uri(value)


def _to_answer(value: Any) -> Any:
    """TOML has no null: "unknown" stands for it."""
    return None if value == "unknown" else value


Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Path = Annotated[str, AfterValidator(check_path)]
Name = Annotated[str, AfterValidator(_check_name)]
Url = Annotated[str, AfterValidator(_check_url)]
Answer = Annotated[bool | None, BeforeValidator(_to_answer)]
Shape = tuple[Annotated[int, Field(ge=1)] | str, ...]  # a name stands for an axis of any length


class WeightsFile(Record):
    """One file of an entry."""

    path: Path
    """Where it lies below the weights folder."""
    url: Url
    """Where its publisher keeps it."""
    member: str = ""
    """Its name inside the zip archive at ``url``, where it is packed."""
    convert: Literal["", "torch_to_safetensors"] = ""
    """How it is made of what lies at ``url``: "torch_to_safetensors" reads a state dict without unpickling code and
    writes its tensors."""
    num_bytes: int | None = Field(default=None, ge=1)
    """Size in bytes of the file at ``path``; None: not known."""
    sha256: Sha256 | None = None
    """Checksum of the file at ``path``; None: not known."""
    download_num_bytes: int | None = Field(default=None, ge=1)
    """Size in bytes of what lies at ``url``, where that is another file; None: not known."""
    download_sha256: Sha256 | None = None
    """Checksum of what lies at ``url``, where that is another file; None: not known."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.member and self.convert:
            raise ValueError("a file is either a member of an archive or converted")
        if not self.is_made and (self.download_num_bytes or self.download_sha256):
            raise ValueError("download_num_bytes and download_sha256 belong to files with member or convert")
        return self

    @property
    def is_made(self) -> bool:
        """Whether what lies at ``url`` is another file."""
        return bool(self.member or self.convert)

    @property
    def transfer_num_bytes(self) -> int | None:
        """How much is fetched from ``url``; None where it is not known."""
        return self.download_num_bytes if self.is_made else self.num_bytes

    @property
    def transfer_sha256(self) -> str | None:
        """Checksum of what lies at ``url``; None where it is not known."""
        return self.download_sha256 if self.is_made else self.sha256


class Weights(Record):
    """One model's weights: a single file, or a folder of them."""

    name: Name
    """The entry's name in the registry."""
    files: tuple[WeightsFile, ...] = Field(min_length=1)
    """Its files; several have the name as the first part of their paths."""
    licence: str = Field(min_length=1)
    """An SPDX id, or the terms in words."""
    commercial_use: Answer
    """Whether the terms allow commercial use; None: they do not say, and readers must then assume no."""
    origin: str = Field(min_length=1)
    """Who publishes the files."""
    domains: tuple[str, ...]
    """Domains it is meant for."""
    input: str = Field(min_length=1)
    """What the network is given, in words: order of channels, scale, units."""
    output: str = Field(min_length=1)
    """What the network gives, in words."""
    inputs: dict[str, Shape] = {}
    """Shapes of an ONNX file's inputs, by name."""
    outputs: dict[str, Shape] = {}
    """Shapes of an ONNX file's outputs, by name."""
    at_hand: bool
    """Whether the files were there when the entry was written, so that checksum and contract were read from them, and
    not from others' publications."""
    measured: str = ""
    """A figure that was measured with it."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if len(self.files) > 1 and ({_first(file.path) for file in self.files} != {self.name}):
            raise ValueError(f"several files lie in a folder of the entry's name: {self.name}/…")
        return self

    @property
    def path(self) -> str:
        """The file, or the folder of several, below the weights folder."""
        return self.files[0].path if len(self.files) == 1 else self.name

    @property
    def num_bytes(self) -> int | None:
        """Size of all files; None where one is not known."""
        sizes = [file.num_bytes for file in self.files]
        return None if None in sizes else sum(size or 0 for size in sizes)

    @property
    def sha256(self) -> str | None:
        """What :func:`joint_sha256` gives for all files; None where one checksum is not known."""
        known = {file.path: file.sha256 for file in self.files if file.sha256 is not None}
        return joint_sha256(known) if len(known) == len(self.files) else None

    @property
    def asks_consent(self) -> bool:
        """Whether the terms are such that a person must agree to them before fetching."""
        return self.commercial_use is not True


def joint_sha256(digests: Mapping[str, str]) -> str:
    """One SHA-256 for the files of an entry, by path: a single file's own, or a hash over all of them."""
    if len(digests) == 1:
        return next(iter(digests.values()))
    return content_hash(sorted(digests.items()))


def read_weights(text: str, where: str) -> dict[str, Weights]:
    """The entries of a registry, by name: one TOML table each.

    Args:
        text: TOML.
        where: how errors name it.

    Raises:
        WeightsError: with one line per problem.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise WeightsError(f"{where} is not TOML: {error}") from error
    problems: list[str] = []
    entries: dict[str, Weights] = {}
    for name, table in tables.items():
        if not isinstance(table, dict):
            problems.append(f"{where}: {name}: expected a table, [{name}], found {table!r}")
            continue
        try:
            entries[name] = Weights.model_validate({**table, "name": name})
        except ValidationError as error:
            problems += [f"{where}: {name}{_address(problem['loc'])}: {problem['msg']}" for problem in error.errors()]
    paths = Counter(file.path for weights in entries.values() for file in weights.files)
    problems += [f"{where}: {count} entries have the file {path}" for path, count in paths.items() if count > 1]
    if problems:
        raise WeightsError("\n".join(problems))
    return entries


def _address(parts: tuple[int | str, ...]) -> str:
    return "".join(f".{part}" for part in parts if part != "name")


def _first(path: str) -> str:
    return path.split("/", 1)[0]
