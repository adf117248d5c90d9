"""Manifest text to entries: YAML, CSV and JSON lines, each value with the line it stands on.

The formats' own readers lose line numbers and stop at the first mistake; a person who mends a list of
a thousand films needs every mistake with its line. Nothing here knows what a field means.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml

from schemas.base import Record

MAX_MANIFEST_BYTES = 64 * 1024**2  # about 200,000 sources
_MAX_DEPTH = 8  # a span inside spans inside a source inside the list is 5
# libyaml's parser where PyYAML was built with it: ten times faster, the same events.
_YAML = cast("Any", yaml)  # untyped
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Problem(Record):
    """One thing that is wrong in a manifest: where, and what would be right."""

    path: str
    line: int | None
    field: str | None
    message: str

    def __str__(self) -> str:
        where = self.path if self.line is None else f"{self.path}:{self.line}"
        return f"{where}: {self.field}: {self.message}" if self.field else f"{where}: {self.message}"


@dataclass(slots=True)
class ManifestEntry:
    """The fields of one source as they stand in the file."""

    line: int
    values: dict[str, Any] = field(default_factory=dict[str, Any])
    lines: dict[str, int] = field(default_factory=dict[str, int])

    def line_of(self, name: str | None) -> int:
        """The line of a field, or of the entry where the field is missing."""
        return self.lines.get(name or "", self.line)


class SyntaxProblemError(ValueError):
    """The text cannot be read further than ``line``."""

    def __init__(self, line: int | None, message: str, field_name: str | None = None) -> None:
        super().__init__(message)
        self.line, self.message, self.field_name = line, message, field_name


def describe_kind(value: object) -> str:
    """What a person would call the type of ``value``."""
    if value is None:
        return "nothing"
    names: dict[type, str] = {
        bool: "a yes/no value",
        int: "a number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "a mapping",
    }
    name = names.get(type(value), "something else")
    return f"{name} ({value!r})" if isinstance(value, bool | int | float) else name


def read_text(path: Path) -> str:
    """The manifest's text, without a byte order mark.

    Raises:
        SyntaxProblemError: when it is missing, no regular file, too large, or not UTF-8.
    """
    if path.is_dir():
        raise SyntaxProblemError(None, "is a folder; expected a manifest file (.yaml, .csv or .jsonl)")
    if not path.exists():
        raise SyntaxProblemError(None, "does not exist")
    if not path.is_file():
        raise SyntaxProblemError(None, "is not a regular file")
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise SyntaxProblemError(None, f"cannot be read: {error.strerror}") from error
    if len(raw) > MAX_MANIFEST_BYTES:
        raise SyntaxProblemError(None, f"is larger than {MAX_MANIFEST_BYTES // 1024**2} MiB; split it")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SyntaxProblemError(line, f"byte 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8") from error


# --- YAML -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Node:
    """A YAML value with its line; mappings keep repeated keys so that they can be reported."""

    line: int
    value: object  # a scalar, _Sequence, or _Mapping


class _Sequence(list[_Node]):
    """The children of a list."""


class _Mapping(list[tuple[_Node, _Node]]):
    """Key and value nodes in file order."""


class _YamlTree:
    """A tree built from parse events: no aliases, no tags, no depth to overflow, so no bombs.

    Aliases would let a few lines expand to gigabytes; tags would name Python types.
    """

    def __init__(self, text: str) -> None:
        self._events: Iterator[Any] = _YAML.parse(text, Loader=_LOADER)
        self._scalars: Any = _YAML.SafeLoader("")

    def root(self) -> _Node | None:
        """The document's value, or None for an empty file."""
        documents: list[_Node] = []
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent) and documents:
                raise SyntaxProblemError(_line(event), "holds more than one YAML document; keep one 'sources:' list")
            if isinstance(event, yaml.NodeEvent):
                documents.append(self._node(event, 0))
        return documents[0] if documents else None

    def _node(self, event: Any, depth: int) -> _Node:
        line = _line(event)
        if isinstance(event, yaml.AliasEvent):
            raise SyntaxProblemError(line, f"alias '*{event.anchor}' is not allowed; write the value out")
        if depth > _MAX_DEPTH:
            raise SyntaxProblemError(line, f"is nested more than {_MAX_DEPTH} levels deep")
        if event.tag not in (None, "!"):
            raise SyntaxProblemError(line, f"tag '{event.tag}' is not allowed; write a plain value")
        if isinstance(event, yaml.ScalarEvent):
            return _Node(line, self._scalar(event, line))
        children = self._children(depth)
        if isinstance(event, yaml.SequenceStartEvent):
            return _Node(line, _Sequence(children))
        return _Node(line, _Mapping(zip(children, children, strict=True)))

    def _children(self, depth: int) -> Iterator[_Node]:
        for event in self._events:
            if isinstance(event, yaml.CollectionEndEvent):
                return
            yield self._node(event, depth + 1)

    def _scalar(self, event: Any, line: int) -> Any:
        tag: str = self._scalars.resolve(yaml.ScalarNode, event.value, event.implicit)
        if tag == "tag:yaml.org,2002:merge":
            raise SyntaxProblemError(line, "merge key '<<' is not read; write the fields out in every source")
        try:
            return self._scalars.construct_object(yaml.ScalarNode(tag, event.value))
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            raise SyntaxProblemError(
                line, f"{event.value[:40]!r} cannot be read as {tag.rsplit(':', 1)[-1]}"
            ) from error


def _line(event: Any) -> int:
    return event.start_mark.line + 1


def _plain(node: _Node) -> Any:
    if isinstance(node.value, _Mapping):
        return {str(key.value): _plain(value) for key, value in node.value}
    if isinstance(node.value, _Sequence):
        return [_plain(child) for child in node.value]
    return node.value


def _yaml_root(text: str) -> _Mapping:
    try:
        root = _YamlTree(text).root()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise SyntaxProblemError(line, f"is not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:  # a reader error: a character that YAML forbids
        position = getattr(error, "position", None)
        line = text.count("\n", 0, position) + 1 if isinstance(position, int) else None
        raise SyntaxProblemError(line, f"is not YAML: {str(error).splitlines()[0]}") from error
    if root is None or root.value is None:
        raise SyntaxProblemError(None, "is empty; expected a list named 'sources:'")
    if not isinstance(root.value, _Mapping):
        raise SyntaxProblemError(root.line, "expected a mapping with a list named 'sources:'")
    return root.value


def yaml_entries(text: str) -> Iterator[ManifestEntry | SyntaxProblemError]:
    """Yield the entries of a YAML manifest, and problems in between that do not end the reading."""
    has_sources = False
    for key, value in _yaml_root(text):
        if key.value != "sources" or has_sources:
            yield SyntaxProblemError(key.line, "is not expected at the top; only one list 'sources' is", str(key.value))
            continue
        has_sources = True
        if not isinstance(value.value, _Sequence):
            yield SyntaxProblemError(value.line, "expected a list of sources, each beginning with '- id:'", "sources")
            continue
        for item in value.value:
            yield from _yaml_entry(item)
    if not has_sources:
        yield SyntaxProblemError(None, "has no list named 'sources:'")


def _yaml_entry(item: _Node) -> Iterator[ManifestEntry | SyntaxProblemError]:
    if not isinstance(item.value, _Mapping):
        yield SyntaxProblemError(item.line, "expected a source with named fields (id, uri, domain, license, title)")
        return
    entry = ManifestEntry(item.line)
    for key, value in item.value:
        name = str(key.value)
        if name in entry.values:
            yield SyntaxProblemError(key.line, f"is given twice; first on line {entry.lines[name]}", name)
            continue
        entry.values[name], entry.lines[name] = _plain(value), value.line
    yield entry


# --- JSON lines -----------------------------------------------------------------------------------------------------


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"field {next(name for name in names if names.count(name) > 1)!r} is given twice")
    return result


def jsonl_entries(text: str) -> Iterator[ManifestEntry | SyntaxProblemError]:
    """Yield one entry per line that is not blank."""
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line, object_pairs_hook=_unrepeated, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            yield SyntaxProblemError(number, f"is not a JSON object: {reason}")
            continue
        if not isinstance(value, dict):
            yield SyntaxProblemError(number, "expected one JSON object per line")
            continue
        yield ManifestEntry(number, cast("dict[str, Any]", value))


# --- CSV ------------------------------------------------------------------------------------------------------------


def _csv_spans(text: str) -> Any:
    """``0-12.5;20-31`` to pairs; text that is none is handed on, to be refused with its line."""
    spans: list[list[float]] = []
    for part in text.split(";"):
        start, dash, stop = part.strip().partition("-")
        try:
            spans.append([float(start), float(stop)])
        except ValueError:
            given = part.strip() if dash else f"{part.strip()} without '-'"
            raise ValueError(f"expected seconds as in 0-12.5;20-31, found {given!r}") from None
    return spans


def _csv_header(header: list[str], allowed: frozenset[str], required: tuple[str, ...]) -> None:
    wrong: list[str] = []
    if unknown := [name for name in header if name not in allowed]:
        wrong.append(f"unknown column {', '.join(map(repr, unknown))}")
    if missing := [name for name in required if name not in header]:
        wrong.append(f"missing column {', '.join(map(repr, missing))}")
    if repeated := sorted({name for name in header if header.count(name) > 1}):
        wrong.append(f"repeated column {', '.join(map(repr, repeated))}")
    if wrong:
        raise SyntaxProblemError(1, f"header: {'; '.join(wrong)}; allowed columns: {', '.join(sorted(allowed))}")


def separator_of(header: str) -> str:
    """What stands between the columns of a header line: commas, semicolons or tabs, whichever there are more of."""
    return max(",;\t", key=header.count)


def csv_entries(
    text: str, allowed: frozenset[str], required: tuple[str, ...]
) -> Iterator[ManifestEntry | SyntaxProblemError]:
    """Yield one entry per row below the header; an empty cell is a field that is not given."""
    separator = separator_of(text.lstrip("\r\n").partition("\n")[0])
    rows = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    try:
        header = [name.strip() for name in next(rows, list[str]())]
        if not any(header):
            raise SyntaxProblemError(1, f"is empty; expected a header line: {','.join(required)}")
        _csv_header(header, allowed, required)
        line = rows.line_num + 1
        for row in rows:
            if row:
                yield from _csv_entry(line, header, row)
            line = rows.line_num + 1  # a quoted cell may span lines, so a row begins where the last one ended
    except csv.Error as error:
        raise SyntaxProblemError(rows.line_num, f"is not CSV: {error}") from error


def _csv_entry(line: int, header: list[str], row: list[str]) -> Iterator[ManifestEntry | SyntaxProblemError]:
    if len(row) != len(header):
        yield SyntaxProblemError(line, f"has {len(row)} cells where the header has {len(header)} columns")
        return
    entry = ManifestEntry(line, {name: cell for name, cell in zip(header, row, strict=True) if cell})
    if spans := entry.values.get("spans"):
        try:
            entry.values["spans"] = _csv_spans(spans)
        except ValueError as error:
            yield SyntaxProblemError(line, str(error), "spans")
            del entry.values["spans"]
    yield entry
