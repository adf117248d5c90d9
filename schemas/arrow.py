"""Arrow schemas and JSON Schemas, derived from the records so that no second definition can drift.

Values take their JSON form: exact rates are strings ("30000/1001"), enumerations their values, tuples
lists. Nested records are structs, or one column per leaf when flattened.
"""
# pyright: standard
# (pyarrow carries no types, so strict mode would only repeat that on every line)

import types
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Annotated, Any, Literal, TypeGuard, TypeVar, Union, get_args, get_origin

import pyarrow as pa

from schemas.base import Record
from schemas.clip import Clip
from schemas.collection import Collection
from schemas.config import BuildConfig, EngineConfig, WeightsConfig
from schemas.decision import Decision
from schemas.face import FaceTrack
from schemas.funnel import Funnel
from schemas.ledger import LedgerRow
from schemas.media import Shot, Video
from schemas.release import About, ClipListRow, ManifestRow, Release
from schemas.sample import SampleInfo
from schemas.source import Source
from schemas.tombstone import Tombstone

R = TypeVar("R", bound=Record)

# What is published or stored as rows, and therefore has a documented schema.
RECORDS: tuple[type[Record], ...] = (
    Source,
    Video,
    Shot,
    FaceTrack,
    Clip,
    Decision,
    Funnel,
    Collection,
    LedgerRow,
    Tombstone,
    SampleInfo,
    Release,
    About,
    ManifestRow,
    ClipListRow,
)

# What a configuration file may hold.
SETTINGS: tuple[type[Record], ...] = (BuildConfig, EngineConfig, WeightsConfig)

_PLAIN: dict[type, pa.DataType] = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    Fraction: pa.string(),
}


def record_schema(kind: type[Record], *, flatten: bool = False) -> pa.Schema:
    """The Arrow schema of a record's JSON form.

    Args:
        kind: the record type.
        flatten: nested records become columns named PARENT_CHILD instead of structs (lists keep structs).

    Raises:
        TypeError: for an annotation that has no Arrow counterpart, naming it.
    """
    return pa.schema(_fields(kind, flatten=flatten))


def table_of(records: Iterable[Record], kind: type[Record], *, flatten: bool = False) -> pa.Table:
    """A table with one row per record, in the given order; of the schema also when there are none."""
    rows = [row_of(record, flatten=flatten) for record in records]
    return pa.Table.from_pylist(rows, schema=record_schema(kind, flatten=flatten))


def sparse_columns(kind: type[Record], *, prefix: str = "") -> frozenset[str]:
    """Columns of ``record_schema(kind, flatten=True)`` for fields that JSON leaves out while they are not there.

    A published table leaves such a column out as well when no row has it, so that a new optional score changes
    nothing for those who do not ask for it.
    """
    names: set[str] = set()
    for name, field in kind.model_fields.items():
        if field.exclude_if is not None:
            names.add(prefix + name)
        elif _is_record(field.annotation):
            names |= sparse_columns(field.annotation, prefix=f"{prefix}{name}_")
    return frozenset(names)


def row_of(record: Record, *, flatten: bool = False) -> dict[str, Any]:
    """One row of ``table_of`` as plain values, as Arrow gives them back (dicts apart, which become pairs)."""
    row = record.model_dump(mode="json")
    return _flat(row, type(record)) if flatten else row


def record_of(row: Mapping[str, Any], kind: type[R]) -> R:
    """The record of one row of ``table_of(..., flatten=True)``.

    Raises:
        ValueError: when the row is none of that kind.
    """
    return kind.model_validate(_nested(row, kind))


def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schemas of all published records and of all settings by type name."""
    return {kind.__name__: kind.model_json_schema() for kind in (*RECORDS, *SETTINGS)}


def _fields(kind: type[Record], *, flatten: bool = False, prefix: str = "") -> list[pa.Field]:
    fields: list[pa.Field] = []
    for name, field in kind.model_fields.items():
        if flatten and _is_record(field.annotation):
            fields += _fields(field.annotation, flatten=True, prefix=f"{prefix}{name}_")
            continue
        data_type, nullable = _arrow_type(field.annotation)
        fields.append(pa.field(prefix + name, data_type, nullable=nullable))
    return fields


def _flat(row: dict[str, Any], kind: type[Record], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, field in kind.model_fields.items():
        if _is_record(field.annotation):
            flat |= _flat(row[name], field.annotation, f"{prefix}{name}_")
        else:
            flat[prefix + name] = row.get(name)  # None: left out of the JSON form
    return flat


def _nested(row: Mapping[str, Any], kind: type[Record], prefix: str = "") -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, field in kind.model_fields.items():
        if _is_record(field.annotation):
            nested[name] = _nested(row, field.annotation, f"{prefix}{name}_")
        elif prefix + name in row:
            nested[name] = row[prefix + name]
    return nested


def _is_record(annotation: Any) -> TypeGuard[type[Record]]:
    return isinstance(annotation, type) and issubclass(annotation, Record)


def _arrow_type(annotation: Any) -> tuple[pa.DataType, bool]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _arrow_type(arguments[0])
    if origin in {Union, types.UnionType}:
        inner = [argument for argument in arguments if argument is not type(None)]
        if len(inner) == 1:
            return _arrow_type(inner[0])[0], True
    if origin is Literal:
        return _arrow_type(type(arguments[0]))
    if origin is tuple:
        return _list_type(arguments), False
    if origin is dict:
        return pa.map_(_arrow_type(arguments[0])[0], _arrow_type(arguments[1])[0]), False
    if _is_record(annotation):
        return pa.struct(_fields(annotation)), False
    if isinstance(annotation, type):
        for plain, data_type in _PLAIN.items():
            if issubclass(annotation, plain):
                return data_type, False
    raise TypeError(f"{annotation!r} has no Arrow type: add it to schemas/arrow.py or change the record")


def _list_type(arguments: tuple[Any, ...]) -> pa.DataType:
    item, nullable = _arrow_type(arguments[0])
    if arguments[-1] is Ellipsis:
        return pa.list_(pa.field("item", item, nullable=nullable))
    if any(argument is not arguments[0] for argument in arguments):
        raise TypeError(f"tuple{list(arguments)} mixes types, which an Arrow list cannot")
    return pa.list_(pa.field("item", item, nullable=nullable), len(arguments))
