"""Reviews as flat rows: JSON lines, CSV and Parquet, written and read back without a loss.

A cell of a CSV that begins like a formula would be run by the spreadsheet that a colleague opens it with, so such a
cell gets an apostrophe before it, which reading takes away again; cells that already begin with apostrophes before
such a sign get one more, so that both ways are exact.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.review.exchange.drafts import Draft, ImportEntry, ImportProblem
from schemas.arrow import record_schema
from schemas.base import FrameSpan
from schemas.manifest_syntax import SyntaxProblemError, csv_entries, jsonl_entries
from schemas.review import Review

# https://owasp.org/www-community/attacks/CSV_Injection names these, the full-width ones included.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
_ESCAPED = re.compile(r"'+[=+\-@\t\r\n＝＋－＠]")
MAX_UNPACKED_BYTES = 1 << 30  # of a Parquet file, which may unpack to much more than it weighs


def _columns() -> Iterator[pa.Field]:
    for column in record_schema(Review):
        if pa.types.is_struct(column.type):
            yield from (pa.field(f"{column.name}_{inner.name}", inner.type) for inner in column.type)
        else:
            yield column


SCHEMA = pa.schema(list(_columns()))
COLUMNS: tuple[str, ...] = tuple(SCHEMA.names)
_SPAN = tuple(FrameSpan.model_fields)
# An id is computed where it is missing, so that a table can be written by hand.
REQUIRED = tuple(name for name, field in Review.model_fields.items() if field.is_required() and name != "review_id")


def flat_row(review: Review) -> dict[str, Any]:
    """A review by column; ``trim`` becomes ``trim_start`` and ``trim_stop``."""
    row = review.model_dump(mode="json")
    trim = row.pop("trim") or {}
    row |= {f"trim_{name}": trim.get(name) for name in _SPAN}
    return {name: row.get(name) for name in COLUMNS}


def to_jsonl(reviews: Iterable[Review]) -> bytes:
    """One JSON object per line, only with what is there."""
    rows = ({name: value for name, value in flat_row(review).items() if value is not None} for review in reviews)
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows).encode()


def to_csv(reviews: Iterable[Review]) -> bytes:
    """Comma-separated UTF-8 with a header, lines ended as RFC 4180 has it; nothing and the empty text look alike."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows([_cell(value) for value in flat_row(review).values()] for review in reviews)
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return f"'{value}" if _FORMULA.match(value) else value
    return "" if value is None else json.dumps(value)


def to_parquet(reviews: Iterable[Review]) -> bytes:
    """A Parquet file with one row per review."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([flat_row(review) for review in reviews], schema=SCHEMA), buffer)
    return buffer.getvalue()


def iter_jsonl(text: str) -> Iterator[ImportEntry]:
    """The reviews of JSON lines, and what is wrong with the others."""
    for entry in jsonl_entries(text):
        if isinstance(entry, SyntaxProblemError):
            yield _problem(entry)
        else:
            yield Draft(f"line {entry.line}", _nested(entry.values))


def iter_csv(text: str) -> Iterator[ImportEntry]:
    """The reviews of a CSV file with a header, and what is wrong with the others."""
    try:
        for entry in csv_entries(text, frozenset(COLUMNS), REQUIRED):
            if isinstance(entry, SyntaxProblemError):
                yield _problem(entry)
                continue
            cells = {name: cell[1:] if _ESCAPED.match(cell) else cell for name, cell in entry.values.items()}
            yield Draft(f"line {entry.line}", _nested(cells))
    except SyntaxProblemError as error:
        yield _problem(error)


def iter_parquet(data: bytes) -> Iterator[ImportEntry]:
    """The reviews of a Parquet file, and what is wrong with the others."""
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        groups = (file.metadata.row_group(number) for number in range(file.metadata.num_row_groups))
        if sum(group.total_byte_size for group in groups) > MAX_UNPACKED_BYTES:
            yield ImportProblem("", "", f"would unpack to more than {MAX_UNPACKED_BYTES >> 20} MiB: divide it")
            return
        table = file.read()
    except (pa.ArrowException, OSError, ValueError) as error:
        yield ImportProblem("", "", f"is no readable Parquet file ({type(error).__name__}): write it again")
        return
    wrong = [f"unknown column {name!r}" for name in table.column_names if name not in COLUMNS]
    wrong += [f"missing column {name!r}" for name in REQUIRED if name not in table.column_names]
    wrong += [
        f"repeated column {name!r}" for name in sorted(set(table.column_names)) if table.column_names.count(name) > 1
    ]
    if wrong:
        yield ImportProblem("columns", "", f"{'; '.join(wrong)}; allowed columns: {', '.join(COLUMNS)}")
        return
    for number, row in enumerate(table.to_pylist(), start=1):
        yield Draft(f"row {number}", _nested(row))


def _problem(error: SyntaxProblemError) -> ImportProblem:
    return ImportProblem("" if error.line is None else f"line {error.line}", error.field_name or "", error.message)


def _nested(row: Mapping[str, Any]) -> dict[str, Any]:
    """A flat row as the fields of a review; what is not there is left out."""
    values = {name: value for name, value in row.items() if value is not None}
    trim = {name: values.pop(f"trim_{name}") for name in _SPAN if f"trim_{name}" in values}
    return values | ({"trim": trim} if trim else {})
