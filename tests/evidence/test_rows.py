"""A row's canonical bytes and its leaf hash depend on its values, and on nothing else."""

from __future__ import annotations

import hashlib
import io
import json
import random
import struct

import plain_rows
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evidence_samples import stories
from hypothesis import assume, example, given
from hypothesis import strategies as st

from evidence import rows
from evidence.parsing import parse
from evidence.rows import canonical_rows, leaf_hashes
from evidence.schema import DICTIONARY, TIMESTAMP
from evidence.verify import rows as checker

MILLISECONDS = pa.timestamp("ms", tz="UTC")
FIRST, LAST = -62_135_596_800_000_000, 253_402_300_799_999_999
TEXT = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ["", '"', "\\", '\\"', "\x00", "\x1f\x7f", "\b\t\n\f\r", "é😀", "\\n", '{"a":[1,2]}', "a,b"]
)
VALUES = {
    pa.string(): TEXT,
    DICTIONARY: TEXT,
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.float64(): st.floats(allow_nan=False, allow_infinity=False),
    pa.bool_(): st.booleans(),
    TIMESTAMP: st.integers(FIRST, LAST),
    MILLISECONDS: st.integers(FIRST // 1000, LAST // 1000),
    pa.list_(pa.string()): st.lists(TEXT, max_size=3),
}
NAMES = ["a", "a_b", "a_c", "ab", "b", "b_a", "occurred", "occurred_at", "request_id", "x1", "x_1y", "zz"]


def kinds(depth=2):
    """Give types of columns, structs of them included."""
    plain = st.sampled_from(list(VALUES))
    if not depth:
        return plain
    inner = st.dictionaries(st.sampled_from(NAMES), kinds(depth - 1), min_size=1, max_size=4)
    return plain | inner.map(lambda fields: pa.struct(list(fields.items())))


def values(kind):
    """Give values of a type."""
    if pa.types.is_struct(kind):
        return st.fixed_dictionaries({field.name: st.none() | values(field.type) for field in kind})
    return VALUES[kind]


@st.composite
def tables(draw):
    """Give tables of any columns that can be hashed, some of them with nulls."""
    fields = draw(st.dictionaries(st.sampled_from(NAMES), kinds(), min_size=1, max_size=7))
    count = draw(st.integers(0, 6))
    arrays = {}
    for name, kind in fields.items():
        some = values(kind) if draw(st.booleans()) else st.none() | values(kind)
        arrays[name] = pa.array(draw(st.lists(some, min_size=count, max_size=count)), kind)
    return pa.table(arrays)


def evidence(count=60):
    """Give the rows of a few stories."""
    found = [event.to_json() for event in stories(count)]
    numbers = list(range(len(found)))
    return parse(found, partition=0, offsets=numbers, timestamps_ms=numbers).table


def through_parquet(table, **how):
    """Write a table and read it again."""
    sink = io.BytesIO()
    pq.write_table(table, sink, **how)
    return pq.read_table(sink)


@given(tables())
@example(pa.table({"a": pa.array([None, '"', None], DICTIONARY), "b": pa.array([None, 1, 2])}))
@example(pa.table({"a": pa.array([{"b": None}, None], pa.struct([("b", pa.string())]))}))
@example(pa.table({"a": pa.nulls(3, pa.string())}))
def test_the_bytes_are_those_of_the_format(table):
    """Rows of any table are written as the format's text says, and hashed with a zero byte before them."""
    expected = plain_rows.canonical_rows(table)
    assert canonical_rows(table) == expected
    assert leaf_hashes(table) == b"".join(hashlib.sha256(b"\x00" + row).digest() for row in expected)


@given(tables())
@example(pa.table({"n": pa.array([1e10, 123456789012.5])}))
@example(pa.table({"n": pa.array([-0.0, 1e15, 999999999999999900000.0, 1e21])}))
def test_the_checker_makes_the_same_bytes(table):
    """The checker's own program, which shares no code with this one, makes the same bytes and the same hashes."""
    batches = table.combine_chunks().to_batches()
    assert [row for batch in batches for row in checker.canonical_rows(batch)] == canonical_rows(table)
    assert b"".join(map(checker.leaf_hashes, batches)) == leaf_hashes(table)


def test_evidence_is_written_as_the_format_says():
    """Real rows, thousands of them and more than one piece, are written as the format's text says."""
    table = pa.concat_tables([evidence(400)] * 12)
    assert table.num_rows > rows._ROWS_AT_ONCE
    expected = plain_rows.canonical_rows(evidence(400)) * 12
    assert canonical_rows(table) == expected


def test_an_example():
    """The form is the one in the format's own words."""
    table = pa.table(
        {
            "request_id": pa.array(['say "hi"\n']),
            "occurred_at": pa.array([1_700_000_000_000_001], TIMESTAMP),
            "log_timestamp": pa.array([1_700_000_000_001], MILLISECONDS),
            "duration_ms": pa.array([1e21]),
            "fallbacks": pa.array([[]], pa.list_(pa.string())),
            "usage": pa.array([{"input_tokens": 2**63 - 1, "cost_usd": 1e-7, "model": None}]),
            "outcome": pa.array([None], DICTIONARY),
        }
    )
    expected = (
        b'{"durationMs":1e+21,"fallbacks":[],"logTimestampUtc":"2023-11-14T22:13:20.001000Z",'
        b'"occurredAtUtc":"2023-11-14T22:13:20.000001Z","requestId":"say \\"hi\\"\\n",'
        b'"usage":{"costUsd":1e-7,"inputTokens":9223372036854775807}}'
    )
    assert canonical_rows(table) == [expected]


@given(tables(), tables())
def test_rows_that_differ_have_other_bytes(one, other):
    """Two rows of one schema have the same bytes only if they hold the same values."""
    other = one if one.schema != other.schema else other
    written = zip(_told(one) + _told(other), canonical_rows(one) + canonical_rows(other), strict=True)
    by_bytes = {}
    for values, row in written:
        assert by_bytes.setdefault(row, values) == values


@given(tables(), st.data())
def test_a_changed_value_changes_the_hash(table, data):
    """Another value in one column of one row changes that row's hash and no other."""
    assume(table.num_rows)
    index = data.draw(st.integers(0, table.num_columns - 1))
    place = data.draw(st.integers(0, table.num_rows - 1))
    column = table.column(index).to_pylist()
    new = data.draw(st.none() | values(table.schema.field(index).type))
    changed = pa.array([*column[:place], new, *column[place + 1 :]], table.schema.field(index).type)
    after = table.set_column(index, table.schema.field(index), changed)
    assume(_told(table)[place] != _told(after)[place])
    before, after = leaf_hashes(table), leaf_hashes(after)
    differing = {at for at in range(table.num_rows) if before[32 * at : 32 * at + 32] != after[32 * at : 32 * at + 32]}
    assert differing == {place}


@given(tables(), kinds())
def test_a_column_of_nulls_changes_nothing(table, kind):
    """A row keeps its bytes when a later schema adds columns that it has no value for, of whatever type."""
    wider = table.append_column("new_one", pa.nulls(table.num_rows, kind))
    assert canonical_rows(wider) == canonical_rows(table)
    inside = pa.table(
        {"s": pa.StructArray.from_arrays([c.combine_chunks() for c in table.columns], table.column_names)}
    )
    inside_wider = pa.table(
        {"s": pa.StructArray.from_arrays([c.combine_chunks() for c in wider.columns], wider.column_names)}
    )
    assert canonical_rows(inside_wider) == canonical_rows(inside)


@given(tables(), st.data())
def test_the_layout_in_memory_changes_nothing(table, data):
    """Chunks, slices, the order of columns and dictionaries do not show in the bytes."""
    expected = canonical_rows(table)
    cut = data.draw(st.integers(0, table.num_rows))
    assert canonical_rows(table.slice(cut)) == expected[cut:]
    assert canonical_rows(table.slice(0, cut)) == expected[:cut]
    assert canonical_rows(pa.concat_tables([table.slice(0, cut), table.slice(cut), table])) == expected * 2
    assert canonical_rows(table.select(data.draw(st.permutations(table.column_names)))) == expected
    plain = [pa.string() if field.type == DICTIONARY else field.type for field in table.schema]
    assert canonical_rows(table.cast(pa.schema(zip(table.column_names, plain, strict=True)))) == expected
    few = [DICTIONARY if field.type == pa.string() else field.type for field in table.schema]
    assert canonical_rows(table.cast(pa.schema(zip(table.column_names, few, strict=True)))) == expected
    assert canonical_rows(table.take(pa.array(range(table.num_rows - 1, -1, -1), pa.int64()))) == expected[::-1]


def test_dictionaries_of_any_shape_are_read():
    """A dictionary may hold nulls, doubles, values that no row has, and differ from chunk to chunk."""
    indices = pa.array([0, 1, 2, None, 3], pa.int32())
    odd = pa.DictionaryArray.from_arrays(indices, pa.array(["x", None, "x", 'y"', "unused"]))
    other = pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), pa.array(['y"', *map(str, range(99))]))
    only_null = pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), pa.array([None], pa.string()))
    table = pa.table({"a": pa.chunked_array([odd, other, only_null])})
    x, y, nothing = b'{"a":"x"}', b'{"a":"y\\""}', b"{}"
    assert canonical_rows(table) == [x, nothing, x, nothing, y, y, nothing]
    assert canonical_rows(pa.table({"a": only_null})) == [nothing]


@given(tables())
def test_what_lies_under_a_null_does_not_show(table):
    """Values that a struct's own null hides are not written."""
    assume(table.num_rows)
    mask = pa.array([number % 2 == 0 for number in range(table.num_rows)])
    hidden = pa.StructArray.from_arrays([c.combine_chunks() for c in table.columns], table.column_names, mask=mask)
    inside = canonical_rows(pa.table({"s": hidden}))
    assert inside == [
        b"{}" if number % 2 == 0 else b'{"s":' + row + b"}" for number, row in enumerate(canonical_rows(table))
    ]


def test_parquet_and_another_order_change_nothing():
    """Evidence that went through a file, or was sorted anew, has the same leaf hashes for the same rows."""
    table = evidence()
    expected = leaf_hashes(table)
    assert leaf_hashes(through_parquet(table, row_group_size=50, compression="zstd")) == expected
    assert leaf_hashes(through_parquet(table, use_dictionary=False, store_schema=False)) == expected
    mixed = list(range(table.num_rows))
    random.Random(4).shuffle(mixed)  # noqa: S311 - an order, not a secret
    again = through_parquet(table.take(mixed)).sort_by("log_offset")
    assert leaf_hashes(again) == expected


def test_the_row_is_hashed_and_not_the_record_s_value():
    """An event that was written with blanks, in another order and with other escapes is the same entry of the log."""
    usual = next(iter(stories(1))).to_json()
    unusual = json.dumps(dict(reversed(json.loads(usual).items())), indent=1).replace("home", "\\u0068ome").encode()
    tables = [parse([value], partition=0, offsets=[7], timestamps_ms=[0]).table for value in (usual, unusual)]
    assert usual != unusual
    assert leaf_hashes(tables[0]) == leaf_hashes(tables[1])


def test_numbers_are_ecmascript_s():
    """RFC 8785's own samples (appendix B) and the edges of ECMAScript's and Arrow's forms are written exactly."""
    samples = {
        "0000000000000000": "0",
        "8000000000000000": "0",
        "0000000000000001": "5e-324",
        "8000000000000001": "-5e-324",
        "7fefffffffffffff": "1.7976931348623157e+308",
        "ffefffffffffffff": "-1.7976931348623157e+308",
        "4340000000000000": "9007199254740992",
        "c340000000000000": "-9007199254740992",
        "4430000000000000": "295147905179352830000",
        "44b52d02c7e14af5": "9.999999999999997e+22",
        "44b52d02c7e14af6": "1e+23",
        "44b52d02c7e14af7": "1.0000000000000001e+23",
        "444b1ae4d6e2ef4e": "999999999999999700000",
        "444b1ae4d6e2ef4f": "999999999999999900000",
        "444b1ae4d6e2ef50": "1e+21",
        "3eb0c6f7a0b5ed8c": "9.999999999999997e-7",
        "3eb0c6f7a0b5ed8d": "0.000001",
        "41b3de4355555553": "333333333.3333332",
        "41b3de4355555554": "333333333.33333325",
        "41b3de4355555555": "333333333.3333333",
        "41b3de4355555556": "333333333.3333334",
        "41b3de4355555557": "333333333.33333343",
        "becbf647612f3696": "-0.0000033333333333333333",
        "43143ff3c1cb0959": "1424953923781206.2",
    }
    numbers = {struct.unpack(">d", bytes.fromhex(bits))[0]: text for bits, text in samples.items()}
    numbers |= {9_999_999_999.999998: "9999999999.999998", 1e10: "10000000000", 1e16: "10000000000000000"}
    written = canonical_rows(pa.table({"n": pa.array(list(numbers), pa.float64())}))
    assert written == [f'{{"n":{text}}}'.encode() for text in numbers.values()]


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1))
def test_numbers_of_any_bits_are_ecmascript_s(bits):
    """Any 64 bits that are a finite number are written as ECMAScript does."""
    numbers = [struct.unpack(">d", struct.pack(">Q", each))[0] for each in bits]
    numbers = [number for number in numbers if number - number == 0]
    written = canonical_rows(pa.table({"n": pa.array(numbers, pa.float64())}))
    assert written == [f'{{"n":{plain_rows.ecmascript(number)}}}'.encode() for number in numbers]


def test_pieces_are_small_enough_for_a_column_of_text(monkeypatch):
    """Rows that are too much for one column of text are written in several pieces, with the same bytes."""
    table = evidence(20)
    expected = canonical_rows(table)
    monkeypatch.setattr(rows, "_BYTES_AT_ONCE", 5000)
    assert max(piece.num_rows for piece in rows._pieces(table)) < table.num_rows / 4
    assert canonical_rows(table) == expected


BAD = {
    "number": (pa.array([float("nan")]), ValueError),
    "infinity": (pa.array([1.0, float("inf")]), ValueError),
    "null_in_list": (pa.array([["a", None]]), ValueError),
    "year_0": (pa.array([FIRST - 1], TIMESTAMP), ValueError),
    "year_10000": (pa.array([LAST + 1], TIMESTAMP), ValueError),
    "no_zone": (pa.array([0], pa.timestamp("us")), TypeError),
    "bytes": (pa.array([b"a"]), TypeError),
    "small_float": (pa.array([1.0], pa.float32()), TypeError),
    "numbers": (pa.array([[1]]), TypeError),
    "few_bytes": (pa.array([b"a", b"b", b"a"]).dictionary_encode(), TypeError),
    "Capital": (pa.array(["a"]), TypeError),
    "two__blanks": (pa.array(["a"]), TypeError),
}


@pytest.mark.parametrize("name", BAD)
def test_what_has_no_canonical_form_is_refused(name):
    """A value or a column that the format has no form for is an error, and never a hash."""
    array, error = BAD[name]
    with pytest.raises(error, match=r"canonical form|name is lower case"):
        leaf_hashes(pa.table({name: array}))


def test_two_columns_cannot_share_a_name():
    """Columns whose names become one in the canonical form are refused."""
    table = pa.table({"at": pa.array([0], TIMESTAMP), "at_utc": pa.array(["x"])})
    with pytest.raises(TypeError, match="atUtc"):
        canonical_rows(table)


def _told(table):
    """Give a table's rows as values that can be compared: what Arrow holds, and -0.0 as 0.0."""
    return [str(row) for row in table.to_pylist()] if table.num_rows else []
