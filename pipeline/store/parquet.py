"""Parquet tables of records, written and read: the border to Arrow, which carries no types."""
# pyright: reportMissingTypeStubs=false

import io
from collections.abc import Iterable
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

import schemas.arrow
from schemas.base import Record

_ARROW = cast("Any", pa)
_PARQUET = cast("Any", pq)
_RECORDS = cast("Any", schemas.arrow)

ParquetErrors: tuple[type[Exception], ...] = (_ARROW.ArrowException, OSError)
"""What reading data that is no Parquet file raises; they share no base of their own."""


class ParquetTable:
    """The content of a Parquet file.

    Args:
        data: the whole file.

    Raises:
        ParquetErrors: when it is none.
    """

    def __init__(self, data: bytes) -> None:
        self._table: Any = _PARQUET.read_table(io.BytesIO(data))

    @property
    def columns(self) -> list[str]:
        """Their names in order."""
        return self._table.column_names

    def rows(self) -> list[dict[str, Any]]:
        """Plain values by column; dicts come as lists of pairs."""
        return self._table.to_pylist()

    def holds(self, kind: type[Record]) -> bool:
        """Whether its columns are those of ``parquet_of`` such records, whichever sparse ones are there."""
        sparse = schemas.arrow.sparse_columns(kind)
        schema = _RECORDS.record_schema(kind, flatten=True)
        expected = [column for column in schema if column.name in self.columns or column.name not in sparse]
        return self._table.schema.equals(_ARROW.schema(expected))


def unpacked_bytes(data: bytes) -> int:
    """How many bytes a Parquet file says it takes in memory, told from its footer alone.

    Raises:
        ParquetErrors: when it is none.
    """
    footer: Any = _PARQUET.ParquetFile(io.BytesIO(data)).metadata
    return sum(footer.row_group(number).total_byte_size for number in range(footer.num_row_groups))


def parquet_of(records: Iterable[Record], kind: type[Record]) -> bytes:
    """A Parquet file with a row per record and a column per leaf; sparse columns that no row fills are left out."""
    table: Any = _RECORDS.table_of(records, kind, flatten=True)
    sparse = schemas.arrow.sparse_columns(kind)
    empty = [name for name in sparse if table.column(name).null_count == len(table)]
    buffer = io.BytesIO()
    _PARQUET.write_table(table.drop_columns(sorted(empty)), buffer, compression="zstd")
    return buffer.getvalue()
