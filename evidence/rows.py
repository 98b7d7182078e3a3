"""The canonical bytes of a row, which are what the log hashes, and the leaf hashes made from them.

A row is written as RFC 8785 writes a JSON object: members sorted by name, nothing between tokens, columns that are null
left out (`docs/evidence-format.md` has all of it). The bytes are made from the columns alone, so that whoever has the
Parquet file can make them again, whatever its chunks, its dictionaries and the order of its columns are.

Many rows are written at once. Their parts, which are literals and columns of text, are laid out once for all of them
and joined in one pass. A member that only some rows have is a column that holds its name and its comma too, and is
empty where the member is missing.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Final, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

_ROWS_AT_ONCE: Final = 32 * 1024  # laying out costs some 5 ms, whatever the number of rows
_BYTES_AT_ONCE: Final = 64 * 1024 * 1024  # a column of text ends at 2 GiB, and escaping makes six bytes of one at most
_COLUMN_NAME: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_CONTROLS: Final = 0x20
_ESCAPES: Final = {
    "\\": "\\\\",  # before the others, which bring backslashes
    '"': '\\"',
    **{chr(code): f"\\u{code:04x}" for code in range(_CONTROLS)},
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\f": "\\f",
    "\r": "\\r",
}
_FIRST_MOMENT: Final = -62_135_596_800_000_000  # the year 1, in microseconds since 1970
_LAST_MOMENT: Final = 253_402_300_799_999_999  # the end of the year 9999
_MOMENT_BYTES: Final = len("2026-01-01 00:00:00.000000")
_MOMENT_BLANK: Final = len("2026-01-01")
_EXPONENT_FROM: Final = 1e10  # where Arrow begins to write numbers with an exponent; below it writes as ECMAScript does
_ECMASCRIPT_EXPONENT_FROM: Final = 1e21

_Part: TypeAlias = str | pa.Array


def canonical_rows(table: pa.Table) -> list[bytes]:
    """Give each row's canonical bytes.

    Raises:
        TypeError: a column has a type or a name for which there is no canonical form.
        ValueError: a value has none: an infinite number or NaN, a null in a list, a moment outside the years 1 to 9999.
    """
    return [bytes(entry[1:]) for entry in _entries(table)]


def leaf_hashes(table: pa.Table) -> bytes:
    """Give the leaf hash of each row, 32 bytes a row, in the rows' order.

    It is SHA-256 over a zero byte and the row's canonical bytes (RFC 6962).

    Raises:
        TypeError: a column has a type or a name for which there is no canonical form.
        ValueError: a value has none.
    """
    return b"".join([hashlib.sha256(entry).digest() for entry in _entries(table)])


def _entries(table: pa.Table) -> Iterator[memoryview]:
    """Give what is hashed for each row: a zero byte and the canonical bytes."""
    for piece in _pieces(table):
        values = _named(piece.schema, [_whole(column) for column in piece.columns])
        joined = _join(["\x00{", *_members(values), "}"], piece.num_rows)
        data = memoryview(joined.buffers()[2])
        stops = memoryview(joined.buffers()[1]).cast("i")[: len(joined) + 1].tolist()
        yield from [data[begin:stop] for begin, stop in itertools.pairwise(stops)]


def _pieces(table: pa.Table) -> Iterator[pa.Table]:
    """Cut a table into pieces that are large enough to be quick and small enough for a column of text."""
    for begin in range(0, table.num_rows, _ROWS_AT_ONCE):
        piece = table.slice(begin, _ROWS_AT_ONCE)
        rows = max(1, piece.num_rows * _BYTES_AT_ONCE // max(piece.nbytes, _BYTES_AT_ONCE))
        for start in range(0, piece.num_rows, rows):
            yield piece.slice(start, rows)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """Give a column as one array."""
    if pa.types.is_dictionary(column.type) and any(chunk.dictionary.null_count for chunk in column.chunks):
        column = column.cast(column.type.value_type)  # Arrow cannot make one of several such dictionaries
    return column.combine_chunks()


def _named(fields: pa.Schema | pa.StructType, arrays: list[pa.Array]) -> dict[str, pa.Array]:
    """Give columns or a struct's children by their names in the canonical form, without those that are all null."""
    named: dict[str, pa.Array] = {}
    for field, given in zip(fields, arrays, strict=True):
        array = given
        if pa.types.is_dictionary(array.type) and (array.dictionary.null_count or len(array.dictionary) > len(array)):
            array = array.dictionary.take(array.indices)
        if array.null_count == len(array):
            continue
        if not _COLUMN_NAME.fullmatch(field.name):
            raise TypeError(f"{field.name}: a column's name is lower case, its words joined by `_`")
        first, *others = field.name.split("_")
        name = first + "".join(map(str.capitalize, others)) + ("Utc" if pa.types.is_timestamp(field.type) else "")
        if name in named:
            raise TypeError(f"{field.name}: two columns would be written as {name}")
        named[name] = array
    return named


def _members(values: dict[str, pa.Array]) -> list[_Part]:
    """Lay out an object's members, without the braces."""
    # A comma belongs to the member that may be missing: it stands behind it, or before it once a member that is in
    # every row has been written. Where no member is in every row, all have it before them, and the first one goes.
    certain = min((name for name, array in values.items() if not array.null_count), default=None)
    begun = certain is None
    parts: list[_Part] = []
    for name in sorted(values):
        array = values[name]
        label, end = f'{"," if begun else ""}"{name}":', "" if begun or name == certain else ","
        if array.null_count:
            parts.append(_optional(label, array, end))
        else:
            parts += [label, *_value(array)]
        begun = begun or name == certain
    if certain is None and values:
        joined = _join(parts, len(next(iter(values.values()))))
        return [pc.binary_replace_slice(joined, 0, 1, "")]
    return parts


def _optional(label: str, array: pa.Array, end: str) -> pa.Array:
    """Write a member that some rows lack; it is null or empty where they do."""
    if pa.types.is_dictionary(array.type) and pa.types.is_string(array.type.value_type):
        return _of_few(label, array, end)
    dense = array.drop_null()
    written = _join([label, *_value(dense), end], len(dense))
    # The same text serves all rows: where the member is missing, a value ends where the one before has ended.
    _, offsets, text = written.buffers()
    ends = pa.Array.from_buffers(pa.int32(), len(dense) + 1, [None, offsets])
    ends = ends.take(pc.cumulative_sum(array.is_valid().cast(pa.int32())))
    return pa.StringArray.from_buffers(len(array), _from_zero(ends).buffers()[1], text)


def _from_zero(ends: pa.Int32Array) -> pa.Int32Array:
    return pa.concat_arrays([pa.array([0], pa.int32()), ends])


def _value(array: pa.Array) -> list[_Part]:
    """Write values, none of which is null."""
    kind = array.type
    if pa.types.is_string(kind):
        return ['"', _escaped(array), '"']
    if pa.types.is_dictionary(kind) and pa.types.is_string(kind.value_type):
        if len(array.dictionary) == 1:
            return [f'"{_escaped(array.dictionary)[0]}"']
        return [_of_few("", array, "")]
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        low, high = pc.min_max(array).values()
        return [low.cast(pa.string()).as_py()] if low == high else [array.cast(pa.string())]
    if pa.types.is_float64(kind):
        return [_numbers(array)]
    if pa.types.is_timestamp(kind) and kind.tz == "UTC":
        return ['"', _moments(array), 'Z"']
    if pa.types.is_struct(kind):
        children = [array.field(index) for index in range(kind.num_fields)]
        return ["{", *_members(_named(kind, children)), "}"]
    if pa.types.is_list(kind) and pa.types.is_string(kind.value_type):
        return _lists(array)
    raise TypeError(f"a column of type {kind} has no canonical form")


def _of_few(label: str, array: pa.DictionaryArray, end: str) -> pa.Array:
    """Write strings that repeat: each different one once."""
    written = pc.binary_join_element_wise(f'{label}"', _escaped(array.dictionary), f'"{end}', "")
    return written.take(array.indices)


def _escaped(array: pa.StringArray) -> pa.StringArray:
    """Escape what JSON wants escaped, if any of it is there at all."""
    data = _text(array)
    if not data:
        return array
    lowest = pc.min(pa.Array.from_buffers(pa.uint8(), len(data), [None, pa.py_buffer(data)])).as_py()
    for character, escape in _ESCAPES.items():
        if (lowest < _CONTROLS or character in '\\"') and ord(character) in data:
            array = pc.replace_substring(array, character, escape)
    return array


def _text(array: pa.StringArray) -> bytes:
    """Give all of an array's text, one value after the other."""
    _, offsets, data = array.buffers()
    if data is None:
        return b""
    stops = memoryview(offsets).cast("i")
    begin, stop = stops[array.offset], stops[array.offset + len(array)]
    return bytes(memoryview(data)[begin:stop])


def _numbers(array: pa.DoubleArray) -> pa.StringArray:
    """Write numbers as ECMAScript does: the shortest digits that mean them, an exponent from 1e21 and below 1e-6."""
    if not pc.all(pc.is_finite(array)).as_py():
        raise ValueError("a number that is not finite has no canonical form")
    array = pc.add(array, 0.0)  # of -0.0 this makes 0.0, and that is how it is written
    written, size = array.cast(pa.string()), pc.abs(array)
    if pc.max(size).as_py() < _EXPONENT_FROM:
        return written
    large = pc.and_(pc.greater_equal(size, _EXPONENT_FROM), pc.less(size, _ECMASCRIPT_EXPONENT_FROM))
    digits = [format(Decimal(repr(number)), "f").removesuffix(".0") for number in array.filter(large).to_pylist()]
    return pc.replace_with_mask(written, large, pa.array(digits, pa.string()))


def _moments(array: pa.TimestampArray) -> pa.StringArray:
    """Write moments, but for the `Z`."""
    moments = array.cast(pa.timestamp("us"))
    bounds = pc.min_max(moments.cast(pa.int64()))
    if bounds["min"].as_py() < _FIRST_MOMENT or bounds["max"].as_py() > _LAST_MOMENT:
        raise ValueError("a moment that is not in the years 1 to 9999 has no canonical form")
    written = moments.cast(pa.string())
    text = bytearray(_text(written))
    text[_MOMENT_BLANK::_MOMENT_BYTES] = b"T" * len(written)
    return pa.StringArray.from_buffers(len(written), written.buffers()[1], pa.py_buffer(text))


def _lists(array: pa.ListArray) -> list[_Part]:
    items, lengths = array.flatten(), pc.list_value_length(array)
    if items.null_count:
        raise ValueError("a list with a null in it has no canonical form")
    if not len(items):
        return ["[]"]
    ends = _from_zero(pc.cumulative_sum(lengths))
    inner = pc.binary_join(pa.ListArray.from_arrays(ends, _escaped(items)), '","')
    return [pc.if_else(pc.equal(lengths, 0), "[]", pc.binary_join_element_wise('["', inner, '"]', ""))]


def _join(parts: list[_Part], rows: int) -> pa.StringArray:
    """Put the parts of each row together; one that is null counts as empty."""
    merged: list[_Part] = []
    for part in parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        else:
            merged.append(part)
    joined = pc.binary_join_element_wise(*merged, "", null_handling="replace", null_replacement="")
    return joined if isinstance(joined, pa.Array) else pa.repeat(joined, rows)
