"""What every record shares: frozen, closed, hashable by content, with exact rates and half-open spans.

Records are compared, cached and published by their content, so the canonical JSON form here
is the one place that decides what "the same" means.
"""

import hashlib
import json
import re
from fractions import Fraction
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetJsonSchemaHandler,
    PlainSerializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

# WebDataset ends a key at the first dot, and ids become file names: letters, digits, - and _ only.
MAX_ID_LENGTH = 96
ID_PATTERN = re.compile(rf"^[A-Za-z0-9][A-Za-z0-9_-]{{0,{MAX_ID_LENGTH - 1}}}$")


def check_id(value: str) -> str:
    """Accept a dot-free identifier that is safe as a file name and as a WebDataset key.

    Raises:
        ValueError: for anything but 1 to 96 letters, digits, ``-`` and ``_`` starting with a letter or digit.
    """
    if not ID_PATTERN.match(value):
        raise ValueError(
            f"{value!r} is not a usable id: 1 to 96 letters, digits, '-' or '_', beginning with a letter or digit"
        )
    return value


def _to_fraction(value: Any) -> Fraction:
    if isinstance(value, Fraction):
        return value
    if isinstance(value, int | str):
        return Fraction(value)
    raise ValueError(f"expected an exact rate such as '30000/1001', found {value!r}")


Id = Annotated[str, AfterValidator(check_id)]
Rate = Annotated[
    Fraction,
    BeforeValidator(_to_fraction, json_schema_input_type=str),
    PlainSerializer(lambda rate: f"{rate.numerator}/{rate.denominator}", return_type=str),
]


def is_absent(value: Any) -> bool:
    """For ``Field(exclude_if=…)``: a value that is not there leaves no trace in JSON, nor in any hash of it."""
    return value is None


class Record(BaseModel):
    """Base of all records: frozen, no unknown fields, never NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=False)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The JSON Schema, in which every field has the explanation that stands below it in the source."""
        from schemas.explanations import explanations

        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, text in explanations(cls).items():
            properties[name]["description"] = text
        return schema


class FrameSpan(Record):
    """Frames ``start`` up to but not including ``stop``."""

    start: int
    stop: int

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"a frame span needs 0 <= start < stop, found {self.start}..{self.stop}")
        return self

    def __len__(self) -> int:
        return self.stop - self.start


class TimeSpan(Record):
    """Seconds ``start_s`` up to but not including ``stop_s``; on the file's own clock, where nothing else is said."""

    start_s: float
    stop_s: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.start_s < self.stop_s:
            raise ValueError(f"a time span needs start_s < stop_s, found {self.start_s}..{self.stop_s}")
        return self

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.stop_s - self.start_s


class Box(Record):
    """An axis-aligned xyxy box in source pixels (upright, square pixels)."""

    x0: float
    y0: float
    x1: float
    y1: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not (self.x0 < self.x1 and self.y0 < self.y1):
            raise ValueError(f"a box needs x0 < x1 and y0 < y1, found {self.x0, self.y0, self.x1, self.y1}")
        return self

    @property
    def width_px(self) -> float:
        """Width in pixels."""
        return self.x1 - self.x0

    @property
    def height_px(self) -> float:
        """Height in pixels."""
        return self.y1 - self.y0

    @property
    def area(self) -> float:
        """Area in square pixels."""
        return self.width_px * self.height_px


def canonical_json(value: Any) -> bytes:
    """One byte string per content: sorted keys, no spaces, records by their JSON form.

    Raises:
        ValueError: for NaN or infinity, which JSON cannot carry.
    """

    def plain(item: Any) -> Any:
        if isinstance(item, BaseModel):
            return item.model_dump(mode="json")
        if isinstance(item, Fraction):
            return f"{item.numerator}/{item.denominator}"
        raise TypeError(f"cannot hash a {type(item).__name__}")

    return json.dumps(
        value, default=plain, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    ).encode()


def content_hash(value: Any) -> str:
    """SHA-256 (64 hex digits) of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value)).hexdigest()
