"""Rows for people and for programs: one list of flat rows, in the format that was asked for."""

import csv
import io
import json
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError


class Format(StrEnum):
    """How rows are written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


Row = dict[str, Any]


def write_rows(rows: Sequence[Row], columns: Sequence[str], form: Format, output: Path | None) -> None:
    """Write rows to a file, or to standard output.

    Raises:
        UsageError: for Parquet to a terminal, or a file that cannot be written.
    """
    if form is Format.TABLE and output is None:
        _print_table(rows, columns)
        return
    data = _encoded(rows, columns, form)
    if output is not None:
        try:
            output.write_bytes(data)
        except OSError as error:
            raise UsageError(f"cannot write {output}: {error.strerror}") from error
        return
    if form is Format.PARQUET and sys.stdout.isatty():
        raise UsageError("Parquet is binary: name a file with -o, or redirect standard output")
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _encoded(rows: Sequence[Row], columns: Sequence[str], form: Format) -> bytes:
    if form is Format.PARQUET:
        import pyarrow as pa
        import pyarrow.parquet as pq

        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist([{name: row.get(name) for name in columns} for row in rows]), buffer)
        return buffer.getvalue()
    if form is Format.JSON:
        return (json.dumps(list(rows), indent=1, ensure_ascii=False) + "\n").encode()
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _print_table(rows: Sequence[Row], columns: Sequence[str]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    # A pipe has no width; rows must not be folded to a guess of 80.
    console = Console(width=None if sys.stdout.isatty() else 240)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(escape(_shown(row.get(name))) for name in columns))
    console.print(table)
    console.print(f"{len(rows)} row{'' if len(rows) == 1 else 's'}")


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
