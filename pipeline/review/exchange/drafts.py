"""What a file says of clips, before any of it is believed, and what is wrong with it."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Draft:
    """A review as a file has it: ``position`` says where ("line 7"), ``values`` are fields of ``Review``, unchecked."""

    position: str
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ImportProblem:
    """One thing that is wrong: where, in which field, and what would be right."""

    position: str
    field: str
    message: str

    def __str__(self) -> str:
        """One line; names come from the file, and a terminal obeys some characters."""
        line = ": ".join(part for part in (self.position, self.field, self.message) if part)
        return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something that is sound and no review; counted by ``why``."""

    why: str


ImportEntry = Draft | ImportProblem | LeftOut
