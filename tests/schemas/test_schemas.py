"""Records, and the Arrow and JSON schemas derived from them: one definition, two forms, no drift."""

import json
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from schemas.arrow import RECORDS, json_schemas, record_of, record_schema, sparse_columns, table_of
from schemas.base import Rate, Record, TimeSpan, canonical_json, content_hash, is_absent
from schemas.config import BuildConfig
from schemas.decision import Decision, RejectReason
from schemas.funnel import Funnel, FunnelDrop, FunnelStep
from schemas.release import shard_file
from schemas.sample import FIELDS, SampleInfo, fields_of, num_audio_samples
from tests.helpers.release_items import make_clip, make_source


class Everything(Record):
    """One field of every kind."""

    flag: bool
    count: int
    rate: Rate
    maybe: float | None
    reason: RejectReason | None
    names: tuple[str, ...]
    pair: tuple[float, float]
    spans: tuple[TimeSpan, ...]
    span: TimeSpan
    table: dict[str, dict[str, int]]


@st.composite
def everything(draw):
    numbers = st.floats(-1e6, 1e6)
    span = st.builds(lambda a, length: TimeSpan(start_s=a, stop_s=a + length), numbers, st.floats(1, 100))
    return Everything(
        flag=draw(st.booleans()),
        count=draw(st.integers(-(2**40), 2**40)),
        rate=Fraction(draw(st.integers(1, 60000)), draw(st.integers(1, 1001))),
        maybe=draw(st.none() | numbers),
        reason=draw(st.none() | st.sampled_from(RejectReason)),
        names=tuple(draw(st.lists(st.text(), max_size=3))),
        pair=(draw(numbers), draw(numbers)),
        spans=tuple(draw(st.lists(span, max_size=3))),
        span=draw(span),
        table=draw(st.dictionaries(st.text(), st.dictionaries(st.text(), st.integers(0, 9), max_size=2), max_size=2)),
    )


@given(st.lists(everything(), max_size=4))
def test_records_survive_a_table(records):
    rows = table_of(records, Everything).to_pylist(maps_as_pydicts="strict")
    assert [Everything.model_validate_json(json.dumps(row)) for row in rows] == records


@given(everything())
def test_flat_tables_name_their_leaves(record):
    row = table_of([record], Everything, flatten=True).to_pylist()[0]
    assert row["span_start_s"] == record.span.start_s
    assert "span" not in row
    assert row["rate"] == f"{record.rate.numerator}/{record.rate.denominator}"


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_every_published_record_has_schemas(kind):
    for flatten in (False, True):
        schema = record_schema(kind, flatten=flatten)
        assert len(set(schema.names)) == len(schema.names)
        assert table_of([], kind, flatten=flatten).schema == schema
    assert record_schema(kind).names == list(kind.model_fields)
    published = json_schemas()[kind.__name__]
    assert published["additionalProperties"] is False
    assert set(published["properties"]) == set(kind.model_fields)
    json.dumps(published, allow_nan=False)


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        (make_clip(), type(make_clip())),
        (make_source(spans=[[1.0, 2.0]]), type(make_source())),
        (Decision(clip_id="a", keep=False, reason=RejectReason.STILL, measured=0.1, limit=0.2), Decision),
        (
            Funnel(steps=(FunnelStep(stage="x", entered=2, passed=1, drops=(FunnelDrop(reason="y", count=1),)),)),
            Funnel,
        ),
    ],
    ids=["clip", "source", "decision", "funnel"],
)
def test_real_records_survive_json_and_tables(record, kind):
    assert kind.model_validate_json(canonical_json(record)) == record
    row = table_of([record], kind).to_pylist(maps_as_pydicts="strict")[0]
    assert kind.model_validate(row) == record


def test_what_arrow_cannot_say_is_refused():
    class Mixed(Record):
        pair: tuple[int, str]

    with pytest.raises(TypeError, match="mixes types"):
        record_schema(Mixed)


def test_nullable_columns_are_the_optional_fields():
    schema = record_schema(Everything)
    assert [field.name for field in schema if field.nullable] == ["maybe", "reason"]
    assert schema.field("pair").type == pa.list_(pa.field("item", pa.float64(), nullable=False), 2)


# ---- the field table -------------------------------------------------------------------------------

SIZES = {"T": 5, "P": 68, "M": 6, "Tm": 20}


def test_suffixes_are_single_per_series_and_readable_by_webdataset():
    for series in ("visual", "speech"):
        assert len(fields_of(series)) == sum(field.series == series for field in FIELDS)
    assert all(field.suffix == field.suffix.lower() for field in FIELDS)
    assert {"json"} == fields_of("visual").keys() & fields_of("speech").keys()


@pytest.mark.parametrize("field", [field for field in FIELDS if field.suffix.endswith(".npy")], ids=lambda f: f.suffix)
def test_shapes_fit_exactly(field):
    shape = tuple(int(axis) if axis.isdigit() else SIZES.get(axis, 3) for axis in field.axes)
    assert field.fits(shape, SIZES)
    assert not field.fits((*shape, 1), SIZES)
    assert not field.fits(shape[:-1], SIZES)
    assert not field.fits((*shape[:-1], 0), SIZES)
    if "T" in field.axes:
        axis_of_time = field.axes.index("T")
        for wrong in (4, 6):
            assert not field.fits((*shape[:axis_of_time], wrong, *shape[axis_of_time + 1 :]), SIZES)
    assert np.dtype(field.dtype).kind in "fb"


@pytest.mark.parametrize(("num_frames", "fps", "expected"), [(1, 25, 640), (64, 25, 40960), (75, 30, 40000)])
def test_audio_length_follows_the_frames(num_frames, fps, expected):
    assert num_audio_samples(num_frames, fps) == expected


# ---- ids and hashes --------------------------------------------------------------------------------


@given(st.permutations(["a", "b", "c", "d"]))
def test_the_order_of_keys_does_not_change_a_hash(keys):
    assert content_hash(dict.fromkeys(keys, 1)) == content_hash(dict.fromkeys("abcd", 1))


@pytest.mark.parametrize("bad", ["a.b", "", "-a", "a b", "a/b", "é", "a" * 97])
def test_ids_are_safe_as_keys_and_names(bad):
    with pytest.raises(ValidationError):
        Decision(clip_id=bad, keep=True)


def test_samples_are_closed_records():
    with pytest.raises(ValidationError):
        SampleInfo.model_validate({"surprise": 1})


def test_shards_say_what_they_are_without_their_folder():
    path = shard_file("train", "real", "visual", 3)
    assert path == "train/real/train-real-visual-000003.tar"


class _Sparse(Record):
    name: str
    extra: float | None = Field(default=None, exclude_if=is_absent)


class _Around(Record):
    inner: _Sparse


def test_a_field_that_is_left_out_of_json_is_an_empty_cell():
    bare, full = _Around(inner=_Sparse(name="a")), _Around(inner=_Sparse(name="b", extra=1.5))
    assert canonical_json(bare) == b'{"inner":{"name":"a"}}'
    assert sparse_columns(_Around) == {"inner_extra"}
    for flatten in (False, True):
        rows = table_of([bare, full], _Around, flatten=flatten).to_pylist()
        values = [row["inner_extra"] if flatten else row["inner"]["extra"] for row in rows]
        assert values == [None, 1.5]
    assert record_of({"inner_name": "a"}, _Around) == bare


def test_nothing_that_is_off_by_default_shows_in_a_configuration():
    """Or every key and every release of before would be made again."""
    written = BuildConfig().model_dump(mode="json")
    assert not {"speaker", "expression"} & written.keys()
    assert not {"one_speaker", "min_speaker_z"} & written["domains"]["real"]["limits"].keys()
    assert BuildConfig.model_validate(written) == BuildConfig()
