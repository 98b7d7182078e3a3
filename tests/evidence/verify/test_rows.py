"""Canonical bytes: made a column at a time, they are what RFC 8785 gives for each row."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from evidence_samples import stories as samples
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_store import SCHEMA, canonical, leaf, number_text, stories, told

from evidence.parsing import parse
from evidence.verify.cells import RowError, ecmascript
from evidence.verify.rows import canonical_rows, leaf_hashes

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
moment = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001 - the zone is given beside it
number = st.floats(allow_nan=False, allow_infinity=False)
whole = st.integers(-(2**63), 2**63 - 1)
row = st.fixed_dictionaries(
    {
        "evidence_version": text,
        "event_id": text,
        "event_type": text,
        "request_id": text,
        "intake_id": text,
        "sequence": whole,
        "occurred_at": moment,
        "stage": st.sampled_from(["admission", 'a"b', "é"]),
        "site": text,
        "log_partition": st.integers(0, 9),
        "log_offset": whole,
    },
    optional={
        "purpose": st.none() | text,
        "deadline": st.none() | moment,
        "classification": st.none()
        | st.fixed_dictionaries(
            {
                "declared": st.none() | text,
                "detected": st.none() | text,
                "findings": st.none() | st.lists(text, max_size=3),
            }
        ),
        "usage": st.none()
        | st.fixed_dictionaries(
            {"input_tokens": st.none() | whole, "cost_usd": st.none() | number, "expires_at": st.none() | moment}
        ),
        "fallbacks": st.none() | st.lists(text, max_size=3),
        "retryable": st.none() | st.booleans(),
        "duration_ms": st.none() | number,
        "output_bytes": st.none() | whole,
        "detail": st.none() | text,
        "log_timestamp": st.none() | moment.map(lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000)),
    },
)


def batch(rows: list[dict[str, Any]], schema: pa.Schema = SCHEMA) -> pa.RecordBatch:
    """Give rows as a batch."""
    return pa.RecordBatch.from_pylist(rows, schema=schema)


@settings(deadline=None)
@given(st.lists(row, min_size=1, max_size=8))
def test_the_bytes_are_those_of_a_slow_reference(rows: list[dict[str, Any]]) -> None:
    """Whatever the values, each row's bytes and hash are those that a row-by-row writer gives."""
    made = batch(rows)
    expected = [canonical(item) for item in made.to_pylist()]
    assert canonical_rows(made) == expected
    assert leaf_hashes(made) == b"".join(leaf(item) for item in expected)


@settings(deadline=None)
@given(st.lists(row, min_size=3, max_size=8), st.integers(0, 2))
def test_a_slice_gives_the_same_bytes(rows: list[dict[str, Any]], begin: int) -> None:
    """A batch that is a part of another, as readers give them, has the bytes of its own rows."""
    made = batch(rows)
    assert canonical_rows(made.slice(begin)) == canonical_rows(made)[begin:]
    assert leaf_hashes(made.slice(begin, 1)) == leaf_hashes(made)[begin * 32 : begin * 32 + 32]


def test_real_evidence_gives_the_reference_bytes() -> None:
    """The table that the pipeline writes, with all its columns, is hashed as the page says."""
    values = [event.to_json() for event in samples(40)]
    table = parse(
        values, partition=3, offsets=range(7, 7 + len(values)), timestamps_ms=[1_772_366_400_123] * len(values)
    ).table
    made = table.combine_chunks().to_batches()[0]
    expected = [canonical(item, table.schema) for item in made.to_pylist()]
    assert canonical_rows(made) == expected
    assert leaf_hashes(made) == b"".join(leaf(item) for item in expected)


def test_a_row_reads_as_json_with_the_records_names() -> None:
    """The bytes are a JSON object in camelCase, sorted, without what is null."""
    made = canonical_rows(
        batch([{**told(7, datetime(2026, 3, 1, tzinfo=UTC))[1], "log_partition": 0, "log_offset": 9}])
    )
    document = json.loads(made[0])
    assert list(document) == sorted(document)
    assert document["occurredAtUtc"] == "2026-03-01T00:00:00.001371Z"
    assert document["classification"]["findings"] == ["email", 'a "b"']
    assert document["usage"] == {"costUsd": 8e-7, "inputTokens": 119}
    assert "purpose" not in document


@settings(deadline=None)
@given(number)
def test_numbers_are_written_as_ecmascript_writes_them(value: float) -> None:
    """Two ways of writing a number agree, and what is written reads as the same number."""
    assert ecmascript(value) == number_text(value)
    assert float(ecmascript(value)) == value


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (-1.5, "-1.5"),
        (1e21, "1e+21"),
        (1e20, "100000000000000000000"),
        (123456789012345680000.0, "123456789012345680000"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (1.5e-9, "1.5e-9"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (333333333.33333329, "333333333.3333333"),
        (9007199254740992.0, "9007199254740992"),
    ],
)
def test_numbers_of_the_standards_examples(value: float, written: str) -> None:
    """Values at the borders of ECMAScript's rules, most of them from RFC 8785's appendix, alone and in a column."""
    assert ecmascript(value) == written
    schema = pa.schema([("duration_ms", pa.float64())])
    assert canonical_rows(batch([{"duration_ms": value}, {"duration_ms": 0.5}], schema))[0] == (
        b'{"durationMs":%s}' % written.encode()
    )


@pytest.mark.parametrize(
    ("kind", "values", "says"),
    [
        (pa.float64(), [math.nan], "a number that JSON does not have"),
        (pa.float64(), [math.inf], "a number that JSON does not have"),
        (pa.decimal128(5), [1], "has no canonical form"),
        (pa.binary(), [b"x"], "has no canonical form"),
        (pa.date32(), [3], "has no canonical form"),
        (pa.list_(pa.int64()), [[1]], "a list of int64"),
        (pa.list_(pa.string()), [["a", None]], "a list with an empty place"),
        (pa.timestamp("ns", tz="UTC"), [1], "finer than microseconds"),
        (pa.timestamp("us", tz="UTC"), [2**62], "outside the years"),
        (pa.map_(pa.string(), pa.string()), [[("a", "b")]], "has no canonical form"),
    ],
)
def test_what_has_no_canonical_form_is_refused(kind: pa.DataType, values: list[Any], says: str) -> None:
    """A type or a value that the page does not know is an error that names the column, never a guess."""
    made = pa.RecordBatch.from_arrays([pa.array(values, kind)], names=["odd"])
    with pytest.raises(RowError, match=f"column odd: .*{says}"):
        leaf_hashes(made)


def test_text_that_is_not_utf8_is_refused() -> None:
    """Bytes that are no text are an error, not a hash."""
    made = pa.RecordBatch.from_arrays([pa.array([b"\xff\xfe"]).view(pa.string())], names=["odd"])
    with pytest.raises(RowError, match="not UTF-8"):
        leaf_hashes(made)


def test_names_that_no_column_has_are_refused() -> None:
    """Two columns that would be one member, and names that are none, are errors."""
    for names in (["a_b", "aB"], ["", "x"], ["é", "x"], ["a b", "x"]):
        made = pa.RecordBatch.from_arrays([pa.array(["v"]), pa.array(["w"])], names=names)
        with pytest.raises(RowError):
            leaf_hashes(made)
    twice = pa.RecordBatch.from_arrays([pa.array(["v"]), pa.array(["w"])], names=["a_b", "a__b"])
    with pytest.raises(RowError, match="two columns are called"):
        leaf_hashes(twice)


def test_more_columns_than_a_word_has_bits() -> None:
    """Rows differ in any of 150 optional columns, and each has its own members only."""
    schema = pa.schema([(f"c{place:03d}", pa.string()) for place in range(150)])
    rows = [{f"c{place:03d}": "v"} for place in range(0, 150, 7)] + [{}]
    assert canonical_rows(batch(rows, schema)) == [canonical(item, schema) for item in rows]


def test_large_and_plain_strings_give_the_same_bytes() -> None:
    """How a column is encoded does not matter: plain, large, dictionary."""
    values = ["a", None, 'b"\n']
    made = [
        canonical_rows(pa.RecordBatch.from_arrays([pa.array(values, kind)], names=["detail"]))
        for kind in (
            pa.string(),
            pa.large_string(),
            pa.dictionary(pa.int32(), pa.string()),
            pa.dictionary(pa.int8(), pa.large_string()),
        )
    ]
    assert all(item == made[0] for item in made)
    assert made[0][2] == b'{"detail":"b\\"\\n"}'


def test_many_rows_keep_their_order() -> None:
    """Rows of different members, mixed, come back each at its place."""
    rows = [
        {**item, "log_partition": 0, "log_offset": place}
        for place, item in enumerate(stories(0, 400, datetime.now(UTC) - timedelta(days=1)))
    ]
    assert leaf_hashes(batch(rows)) == b"".join(leaf(canonical(item)) for item in rows)
