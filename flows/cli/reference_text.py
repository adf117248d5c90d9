"""Words and cells of the reference pages: types, values and texts as they stand in a Markdown table."""

import enum
import inspect
import json
import re
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel

_WORDS: dict[Any, str] = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path"}
_BOUNDS = {annotated_types.Ge: ("ge", "≥"), annotated_types.Gt: ("gt", ">"), annotated_types.Le: ("le", "≤")}
_BOUNDS |= {annotated_types.Lt: ("lt", "<"), annotated_types.MultipleOf: ("multiple_of", "a multiple of")}
NONE = "–"


def type_words(kind: Any) -> str:
    """A type in words, such as ``list of text``; choices are named one by one."""
    if kind is None or kind is types.NoneType:
        return "null"
    if kind in _WORDS:
        return _WORDS[kind]
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _bounded(type_words(inside[0]), inside[1:])
    if origin is Literal:
        return ", ".join(code(value) for value in inside)
    if origin in {Union, types.UnionType}:
        return " or ".join(dict.fromkeys(type_words(choice) for choice in inside))
    if inspect.isclass(kind) and issubclass(kind, enum.Enum):
        return ", ".join(code(member.value) for member in kind)
    if inspect.isclass(kind) and issubclass(kind, BaseModel):
        return "settings"
    return _collection(origin, inside) or "value"


def _collection(origin: Any, inside: tuple[Any, ...]) -> str | None:
    if origin is tuple and inside[-1] is not ...:
        return f"{len(inside)} × {type_words(inside[0])}"
    if origin in {tuple, list}:
        return f"list of {type_words(inside[0])}"
    if origin is dict:
        return f"{type_words(inside[1])} by name"
    return None


def _bounded(words: str, metadata: Iterable[Any]) -> str:
    limits = bounds(metadata)
    return f"{words}, {limits}" if limits else words


def bounds(metadata: Iterable[Any]) -> str:
    """The limits among pydantic's metadata of a field, such as ``≥ 0, < 1``."""
    limits = [(_BOUNDS[type(item)], item) for item in metadata if type(item) in _BOUNDS]
    return ", ".join(f"{sign} {getattr(item, name)}" for (name, sign), item in limits)


def code(value: Any) -> str:
    """A value as a user would write it in YAML, in code quotes."""
    plain = value.value if isinstance(value, enum.Enum) else value
    if isinstance(plain, str | Path):
        return f"`{plain}`" if str(plain) else '`""`'
    return f"`{json.dumps(plain, ensure_ascii=False)}`"


def one_line(text: str) -> str:
    """Text of a docstring for a table: one line, Markdown's code quotes, no bar that would end the cell."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", inspect.cleandoc(text))
    return cell(re.sub(r"\s+", " ", text.replace("``", "`")).strip())


def prose(text: str) -> str:
    """A docstring as Markdown: paragraphs stay, code quotes are Markdown's."""
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", inspect.cleandoc(text)).replace("``", "`")


def cell(text: str) -> str:
    """Text that ends no cell."""
    return text.replace("|", "\\|")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    titles = list(head)
    lines = [titles, ["---"] * len(titles), *(list(row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def size_words(name: str, value: Any) -> str:
    """What a number of bytes is in GiB or MiB, in brackets; nothing for another setting."""
    if not name.endswith("_bytes") or not isinstance(value, int):
        return ""
    unit, word = (1024**3, "GiB") if value % 1024**3 == 0 else (1024**2, "MiB")
    return f" ({value // unit} {word})"


def plain_json(value: Any) -> Any:
    """A default in JSON's types; records by their fields, a dict of records by its names."""
    if isinstance(value, Mapping) and any(isinstance(member, BaseModel) for member in value.values()):
        return list(value)
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, tuple | list):
        return [plain_json(member) for member in value]
    return value
