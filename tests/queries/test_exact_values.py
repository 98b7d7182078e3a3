"""Every value of an answer is the one that the database computed, in each form for programs and for people."""

from __future__ import annotations

import csv
import io
import json
import threading
from decimal import Decimal

import pytest
from rich.console import Console

from queries.database import Evidence
from queries.render import render

VALUES = [
    ("interval '0.837352 seconds'", "00:00:00.837352"),
    ("interval '1 year 2 months 3 days 4.5 seconds'", "1 year 2 months 3 days 00:00:04.5"),
    ("interval '-14 months 2 days -3 seconds'", "-1 year -2 months 2 days -00:00:03"),
    ("interval '0 seconds'", "00:00:00"),
    ("timestamp 'infinity'", "infinity"),
    ("timestamptz '-infinity'", "-infinity"),
    ("date 'infinity'", "infinity"),
    ("date '10000-01-01'", "10000-01-01"),
    ("date '0044-03-15 (BC)'", "0044-03-15 (BC)"),
    ("'290000-02-29 12:00:00'::timestamp", "290000-02-29T12:00:00"),
    ("'290000-01-01'::timestamptz", "290000-01-01T00:00:00Z"),
    ("'2026-01-01 00:00:00.123456789'::timestamp_ns", "2026-01-01T00:00:00.123456789"),
    ("'10000-01-01'::timestamp_ms", "10000-01-01T00:00:00"),
    ("timestamp '2026-01-01 00:00:00.123456'", "2026-01-01T00:00:00.123456"),
    ("time '24:00:00'", "24:00:00"),
    ("time '12:00:00.000001'", "12:00:00.000001"),
    ("'12:00:00+02:00'::timetz", "12:00:00+02"),
    ("'\\xAB\\x00'::blob", "ab00"),
    ("'0101'::bit", "0101"),
    ("'7d0c1f6e-8a35-4d7a-9a44-5f3f0b0f6d11'::uuid", "7d0c1f6e-8a35-4d7a-9a44-5f3f0b0f6d11"),
    ("'a'::enum('a', 'b')", "a"),
    ("'nan'::double", "NaN"),
    ("'-inf'::float", "-Infinity"),
]
"""Texts in JSON."""

NUMBERS = [
    ("99999999999999999999.123456789::decimal(38,9)", "99999999999999999999.123456789"),
    ("1.10::decimal(5,2)", "1.10"),
    ("0.000000001::decimal(20,9)", "0.000000001"),
    ("170141183460469231731687303715884105727::hugeint", "170141183460469231731687303715884105727"),
    ("340282366920938463463374607431768211455::uhugeint", "340282366920938463463374607431768211455"),
    ("'123456789012345678901234567890123456789012345'::bignum", "123456789012345678901234567890123456789012345"),
    ("(select sum(i) from range(3) t(i))", "3"),
    ("0.1::float", "0.1"),
    ("0.1::double + 0.2::double", "0.30000000000000004"),
    ("union_value(num := 2)", "2"),
    ("true", "true"),
]
"""Numbers and truth values in JSON."""

NESTED = [
    ("{'a': interval 1 day, 'b': [date 'infinity']}", '{"a": "1 day", "b": ["infinity"]}'),
    ("{'a': '01'::bit, 'b': [1.10::decimal(4,2), null]}", '{"a": "01", "b": [1.10, null]}'),
    ("map {1: {'x': 1.10}}", '{"1": {"x": 1.10}}'),
    ("map {1.50: '12:00:00+02:00'::timetz}", '{"1.50": "12:00:00+02"}'),
    ("[map {'a': [1]}, null]", '[{"a": [1]}, null]'),
    ("[[1], null, []]", "[[1], null, []]"),
    ("[1, null]::int[2]", "[1, null]"),
    ("[{'a': 'infinity'::timestamp}, null]", '[{"a": "infinity"}, null]'),
    ("map {}", "{}"),
]
"""Nested values, which are JSON in CSV too."""


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    """Give a database without any evidence."""
    with Evidence(tmp_path_factory.mktemp("evidence")) as opened:
        yield opened


def written(evidence, sql, form, width=200):
    """Give what a rendering writes."""
    out = io.StringIO()
    render(evidence.query(sql), form, Console(file=out, width=width))
    return out.getvalue()


@pytest.mark.parametrize(("sql", "text"), [*VALUES, *NUMBERS, *NESTED], ids=lambda value: value[:40])
def test_a_value_is_exact(evidence, sql, text):
    """CSV has the text, JSON the text or the number, JSON lines the same, and nothing is lost in a table."""
    whole = f"select {sql} as v"
    (row,) = list(csv.DictReader(io.StringIO(written(evidence, whole, "csv"), newline="")))
    assert row["v"] == text
    shown = json.dumps(text) if (sql, text) in VALUES else text
    assert written(evidence, whole, "json") == f'[{{"v": {shown}}}]\n'
    assert written(evidence, whole, "jsonl") == f'{{"v": {shown}}}\n'
    json.loads(written(evidence, whole, "json"), parse_float=Decimal)
    if sql not in {"0.1::double + 0.2::double", "timestamp '2026-01-01 00:00:00.123456'"}:  # shortened for people
        assert text in written(evidence, whole, "table")
        assert text in written(evidence, whole, "line")


def test_values_of_many_rows_and_batches_stay_in_place(evidence):
    """Nulls between them, and more rows than a batch holds, change nothing."""
    sql = (
        "select case when i % 3 = 0 then null else interval (i) second end as a, "
        "case when i % 2 = 0 then null else [i, null] end as b, map {i: i} as c from range(10000) t(i)"
    )
    rows = [json.loads(line) for line in written(evidence, sql, "jsonl").splitlines()]
    assert len(rows) == 10000
    assert rows[9999] == {"a": None, "b": [9999, None], "c": {"9999": 9999}}
    assert rows[4097] == {"a": "01:08:17", "b": [4097, None], "c": {"4097": 4097}}


def test_columns_of_one_name_both_stay(evidence):
    """CSV and tables have both heads; JSON tells them apart by a number that is free."""
    sql = "select 1 as a, 2 as a, 3 as a_2"
    assert json.loads(written(evidence, sql, "json")) == [{"a": 1, "a_3": 2, "a_2": 3}]
    assert written(evidence, sql, "csv") == "a,a,a_2\n1,2,3\n"
    assert json.loads(written(evidence, "select '1'::bit as a, 2 as a", "json")) == [{"a": "1", "a_2": 2}]


def test_null_is_not_an_empty_text(evidence):
    """Null is nothing in CSV, an empty text is quoted; JSON and tables tell them apart too."""
    sql = "select null as n, '' as e, 'x' as x"
    assert written(evidence, sql, "csv") == 'n,e,x\n,"",x\n'
    assert json.loads(written(evidence, sql, "json")) == [{"n": None, "e": "", "x": "x"}]
    assert "NULL" in written(evidence, sql, "table")


@pytest.mark.parametrize("text", ["a\rb", "a\nb", "a\r\nb", 'a"b', "a,b", " a", "a\x1bb", "\u2028"])
def test_csv_is_what_rfc_4180_says(evidence, text):
    """A field with a quote, a comma, CR or LF is quoted, and comes back as it was."""
    out = io.StringIO(newline="")
    render(evidence.query("select $t as t, 1 as one", {"t": text}), "csv", Console(file=out))
    assert list(csv.reader(io.StringIO(out.getvalue(), newline="")))[1] == [text, "1"]


def test_an_answer_that_is_too_wide_is_shown_record_by_record(evidence):
    """A table where each short value stays whole, else one record a block; hashes are cut before that."""
    sql = f"select '{'a1' * 32}' as hash, '7d0c1f6e-8a35-4d7a-9a44-5f3f0b0f6d11' as id"
    assert "a1" * 32 in written(evidence, sql, "auto", width=120)
    cut = written(evidence, sql, "auto", width=65)
    assert "a1a1a1a1a1a1…" in cut
    assert "7d0c1f6e-8a35-4d7a-9a44-5f3f0b0f6d11" in cut
    lines = written(evidence, sql, "auto", width=50).splitlines()
    assert lines[0].startswith("── 1 ")
    assert "7d0c1f6e-8a35-4d7a-9a44-5f3f0b0f6d11" in lines[-2]
    assert lines[-1] == "1 row"


def test_markdown_is_text(evidence):
    """What Markdown or a browser would read as its own is escaped."""
    told = written(evidence, "select 'a|b' as \"c|d\", '<b>[x](y)*' as e, 'user_name' as f", "md")
    assert told == "| c\\|d | e | f |\n| --- | --- | --- |\n| a\\|b | &lt;b>\\[x\\](y)\\* | user_name |\n"


def test_nothing_of_the_database_outlives_an_answer(evidence):
    """The watch over the time limit, which holds the cursor, is gone when the answer is closed."""
    list(evidence.query("select 1"))
    with evidence.query("select * from range(1000000)") as result:
        next(result)
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
