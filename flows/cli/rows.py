"""Rows for people and for programs: one list of flat rows, in the format that was asked for."""

import csv
import io
import json
import shutil
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any


class Format(StrEnum):
    """How rows are written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


Row = dict[str, Any]
_WIDE = 10_000  # letters in a line where there is no terminal: enough for any
_READABLE = 14  # letters that a column needs


def write_file(path: Path, data: bytes) -> None:
    """Write what was asked for to a file, its folder made.

    Raises:
        UsageError: when it cannot be written.
    """
    from schemas.errors import UsageError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}: name another file") from error


def write_rows(rows: Sequence[Row], columns: Sequence[str], form: Format, output: Path | None) -> None:
    """Write rows to a file, or to standard output.

    Raises:
        UsageError: for Parquet to a terminal, or a file that cannot be written.
    """
    from schemas.errors import UsageError

    if form is Format.TABLE and output is None:
        # A pipe has no width; rows must not be folded to a guess of 80.
        is_terminal = sys.stdout.isatty()
        # Nor does it help to fold thirty columns into a terminal: it wraps whole lines better.
        width = max(shutil.get_terminal_size().columns, _READABLE * len(columns)) if is_terminal else _WIDE
        sys.stdout.write(_table(rows, columns, width, is_terminal=is_terminal))
        return
    data = _table(rows, columns, _WIDE).encode() if form is Format.TABLE else _encoded(rows, columns, form)
    if output is not None:
        write_file(output, data)
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
        # Columns are named one by one: a list without rows still has all of them.
        table = pa.table({name: pa.array([row.get(name) for row in rows]) for name in columns})
        pq.write_table(table, buffer)
        return buffer.getvalue()
    if form is Format.JSON:
        return (json.dumps(list(rows), indent=1, ensure_ascii=False) + "\n").encode()
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _table(rows: Sequence[Row], columns: Sequence[str], width: int, *, is_terminal: bool = False) -> str:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    # Rich would end the program itself when the reader of a pipe has left.
    text = io.StringIO()
    console = Console(file=text, width=width, force_terminal=is_terminal)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(escape(_shown(row.get(name))) for name in columns))
    console.print(table)
    console.print(f"{len(rows)} row{'' if len(rows) == 1 else 's'}")
    return text.getvalue()


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
