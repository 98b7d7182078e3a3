"""From records on `ai.evidence` to rows of the table `events`, many at a time.

A batch is first read as a whole by Arrow's JSON reader and checked column by column. When anything in it is not as it
must be, the batch is halved until the odd records stand alone, and each of those is judged by `EvidenceEvent` itself:
a good one (written in an unusual but legal form) is written again in the usual form and kept, a bad one is returned as
a `Reject`. Either way each value is exactly one row or exactly one reject.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
from pydantic import ValidationError

from evidence.errors import RecordError
from evidence.faults import faults
from evidence.records import EventType, EvidenceEvent
from evidence.schema import (
    COLUMNS,
    DICTIONARY,
    EVENTS_SCHEMA,
    JSON_SCHEMA,
    POSITION_FIELDS,
    SUPPORTED_MAJOR,
    TIMESTAMP,
    Column,
)

_BLOCK_BYTES: Final = 4 * 1024 * 1024
_ONE_BY_ONE: Final = 16  # below this, judging each record costs less than halving on
_SHORTEST_MOMENT: Final = len("2026-01-01T00:00:00Z")
_FIRST_MOMENT: Final = -62_135_596_800_000_000  # year 1, which is as far back as a date goes
_BY_TYPE_FROM: Final = 8192  # with fewer records, reading each type by itself costs more than it saves
_GROUP_FROM: Final = 512
_TYPE: Final = re.compile(rb'"eventType":"([a-z.]+)"')
_TYPES: Final = frozenset(kind.value.encode() for kind in EventType)
_SEEN: Final[dict[bytes | None, pa.Schema]] = {}  # the columns that each type had so far; they only become more
_PARSE_OPTIONS: Final = pj.ParseOptions(explicit_schema=JSON_SCHEMA, unexpected_field_behavior="error")
_FIELDS: Final = pa.schema(list(EVENTS_SCHEMA)[: len(COLUMNS)])


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that is no evidence event."""

    index: int
    """Its place in the batch, from 0."""

    error: RecordError
    """What is wrong with it; the text holds none of its values."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A batch, taken apart: `table.num_rows + len(rejects)` is the number of values."""

    table: pa.Table
    """The good records, in their order, in `EVENTS_SCHEMA`."""

    rejects: tuple[Reject, ...]
    """The bad ones, in their order."""


def parse(
    values: Sequence[bytes | None], *, partition: int, offsets: Sequence[int], timestamps_ms: Sequence[int]
) -> Parsed:
    """Turn the values of records into rows.

    Args:
        values: the records' values, in log order; None for a record without one.
        partition: the partition that they come from.
        offsets: the offset of each.
        timestamps_ms: the log's time of each in milliseconds since 1970, negative where the log gives none.

    Raises:
        ValueError: the three sequences differ in length.
    """
    if not len(values) == len(offsets) == len(timestamps_ms):
        raise ValueError(f"{len(values)} values, {len(offsets)} offsets and {len(timestamps_ms)} timestamps")
    tables: list[pa.Table] = []
    rejects: list[Reject] = []
    _sift(values, 0, tables, rejects)
    match tables:
        case []:
            fields = _FIELDS.empty_table()
        case [only]:
            fields = only
        case _:
            fields = pa.concat_tables(tables).unify_dictionaries()
    if rejects:
        gone = {reject.index for reject in rejects}
        offsets = [offset for index, offset in enumerate(offsets) if index not in gone]
        timestamps_ms = [moment for index, moment in enumerate(timestamps_ms) if index not in gone]
    moments = pa.array(timestamps_ms, pa.int64())
    if timestamps_ms and pc.min(moments).as_py() < 0:
        moments = pc.if_else(pc.less(moments, 0), pa.scalar(None, pa.int64()), moments)
    position = [
        pa.repeat(pa.scalar(partition, pa.int32()), len(offsets)),
        pa.array(offsets, pa.int64()),
        moments.cast(POSITION_FIELDS[2].type),
    ]
    table = pa.Table.from_arrays([*fields.columns, *position], schema=EVENTS_SCHEMA)
    return Parsed(table, tuple(rejects))


def check(value: bytes | None) -> EvidenceEvent:
    """Read one record and judge it by its own model.

    Raises:
        RecordError: it is not an evidence event; the text names fields, never values.
    """
    if value is None:
        raise RecordError("empty", "the record has no value; an evidence event is a JSON object")
    try:
        document = json.loads(value.decode(), object_pairs_hook=_unique, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise RecordError("not_json", f"not a JSON document in UTF-8: {reason}") from None
    if not isinstance(document, dict):
        raise RecordError("not_json", f"an evidence event is a JSON object, not {type(document).__name__}")
    version = document.get("evidenceVersion")
    if isinstance(version, str) and version.split(".", maxsplit=1)[0] != SUPPORTED_MAJOR:
        raise RecordError("unsupported_version", f"only major version {SUPPORTED_MAJOR} of evidence can be read")
    try:
        return EvidenceEvent.model_validate_json(value, by_alias=True, by_name=False)
    except ValidationError as error:
        raise _record_error(error) from None


def _sift(values: Sequence[bytes | None], base: int, tables: list[pa.Table], rejects: list[Reject]) -> None:
    if not values:
        return
    if (table := _read(values)) is not None:
        tables.append(table)
    elif len(values) > _ONE_BY_ONE:
        middle = len(values) // 2
        _sift(values[:middle], base, tables, rejects)
        _sift(values[middle:], base + middle, tables, rejects)
    else:
        for index, value in enumerate(values, start=base):
            try:
                table = _read([check(value).to_json()])
                if table is None:
                    raise RecordError("out_of_range", "a number or a moment is larger than the table can hold")  # noqa: TRY301 - one way out for all rejects
                tables.append(table)
            except RecordError as error:
                rejects.append(Reject(index, error))
            except Exception as error:  # noqa: BLE001 - what cannot be stored is told, and never ends the sink
                told = f"the event cannot be brought into the table's form ({type(error).__name__})"
                rejects.append(Reject(index, RecordError("out_of_range", told)))


def _read(values: Sequence[bytes | None]) -> pa.Table | None:
    """Read records in the usual form, or give None if any of them is in another or is wrong."""
    there = [value for value in values if value is not None]
    if len(there) < len(values):
        return None
    try:
        return _table(there) if len(there) < _BY_TYPE_FROM else _by_type(there)
    except Exception:  # noqa: BLE001 - whatever the reader cannot do with them, one by one tells which it is
        return None


def _by_type(values: Sequence[bytes]) -> pa.Table:
    """Read records of each type by themselves, which spares the reader the columns that the type does not have.

    A type is only guessed: whatever the guess, the same rows come of it.
    """
    groups: dict[bytes | None, list[int]] = {}
    for index, value in enumerate(values):
        match = _TYPE.search(value)
        groups.setdefault(match[1] if match else None, []).append(index)
    for kind in [*groups]:
        if kind is not None and (len(groups[kind]) < _GROUP_FROM or kind not in _TYPES):
            groups.setdefault(None, []).extend(groups.pop(kind))
    tables = [_table([values[place] for place in places], kind) for kind, places in groups.items()]
    table = pa.concat_tables(tables).unify_dictionaries()
    order = pa.array(itertools.chain.from_iterable(groups.values()), pa.int64())
    return table if len(tables) == 1 else table.take(pc.inverse_permutation(order))


def _table(values: Sequence[bytes], kind: bytes | None = None) -> pa.Table:
    """Read records.

    Args:
        values: the records.
        kind: their type, where all seem to be of one.

    Raises:
        pa.ArrowInvalid: one is no JSON, or has another form than the schema's.
        UnicodeDecodeError: one is not UTF-8.
        _Odd: one needs a closer look.
    """
    joined = b"\n".join(values)
    # A line feed inside a string is no JSON, and between `}` and `{` it can only separate whole documents. So, where
    # each value begins and ends with a brace, each is one row or more, and the row count proves that each is one.
    if joined.count(b"\n") != len(values) - 1 or joined.count(b"}\n{") != len(values) - 1:
        raise _Odd
    if joined[:1] != b"{" or joined[-1:] != b"}" or b"\r" in joined or not _is_utf8(joined):
        raise _Odd
    options = pj.ReadOptions(use_threads=False, block_size=max(_BLOCK_BYTES, max(map(len, values)) + 2))
    raw = None
    if kind in _SEEN:
        with suppress(pa.ArrowInvalid):  # there is a column in it that none of this type had before
            raw = pj.read_json(pa.BufferReader(joined), read_options=options, parse_options=_parse_options(_SEEN[kind]))
    if raw is None:
        raw = pj.read_json(pa.BufferReader(joined), read_options=options, parse_options=_PARSE_OPTIONS)
        if kind is not None:
            _SEEN[kind] = pa.schema(_held(JSON_SCHEMA, raw.columns, _SEEN.get(kind)))
    if raw.num_rows != len(values):
        raise _Odd
    names = {name: index for index, name in enumerate(raw.column_names)}
    arrays = [
        _convert(column, _completed(column, raw.column(names[column.json_name])))
        if column.json_name in names
        else _absent(column, raw.num_rows)
        for column in COLUMNS
    ]
    return pa.Table.from_arrays(arrays, schema=_FIELDS)


def _parse_options(schema: pa.Schema) -> pj.ParseOptions:
    return pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")


def _held(
    fields: pa.Schema | pa.StructType, columns: Sequence[pa.ChunkedArray], known: pa.Schema | pa.StructType | None
) -> list[pa.Field]:
    """Give the fields of which there is a value, or of which there was one before."""
    held: list[pa.Field] = []
    for field, column in zip(fields, columns, strict=True):
        place = -1 if known is None else known.get_field_index(field.name)
        before = None if known is None or place < 0 else known.field(place)
        if before is None and column.null_count == len(column):
            continue
        if pa.types.is_struct(field.type):
            inside = _held(field.type, column.flatten(), None if before is None else before.type)
            held.append(pa.field(field.name, pa.struct(inside)))
        else:
            held.append(field)
    return held


def _completed(column: Column, array: pa.ChunkedArray) -> pa.ChunkedArray:
    """Give a struct the members that were not looked for, without values."""
    if column.kind != "struct" or array.type.num_fields == len(column.children):
        return array
    names = [child.json_name for child in column.children]
    chunks = []
    for chunk in array.chunks:
        there = {field.name for field in chunk.type}
        members = [
            chunk.field(child.json_name) if child.json_name in there else pa.nulls(len(chunk), child.json_type)
            for child in column.children
        ]
        chunks.append(pa.StructArray.from_arrays(members, names=names, mask=chunk.is_null()))
    return pa.chunked_array(chunks, column.json_type)


def _absent(column: Column, rows: int) -> pa.ChunkedArray:
    if not column.optional:
        raise _Odd
    return pa.chunked_array([pa.nulls(rows, column.type)])


class _Odd(Exception):  # noqa: N818 - a signal between two functions of this module, never seen outside
    """A column holds something that only the record's own model can judge."""


def _convert(column: Column, array: pa.ChunkedArray) -> pa.ChunkedArray:
    """Check a column's values and give it the table's type."""
    if array.null_count and not column.optional:
        raise _Odd
    if array.null_count == len(array):
        return pa.chunked_array([pa.nulls(len(array), column.type)])
    match column.kind:
        case "string" if column.type == DICTIONARY:
            array = array.dictionary_encode()
            _check_text(column, array.chunk(0).dictionary)
        case "string":
            _check_text(column, array)
        case "integer" | "number":
            _check_number(column, array)
        case "moment":
            array = _moments(array)
        case "strings":
            _check_items(array)
        case "struct":
            array = pa.chunked_array([_struct(column, chunk) for chunk in array.chunks])
    return array


def _struct(column: Column, chunk: pa.StructArray) -> pa.StructArray:
    valid = chunk.drop_null() if chunk.null_count else chunk
    for index, child in enumerate(column.children):
        _convert(child, pa.chunked_array([valid.field(index)]))
    names = [child.name for child in column.children]
    fields = [
        chunk.field(index).cast(TIMESTAMP) if child.kind == "moment" else chunk.field(index)
        for index, child in enumerate(column.children)
    ]
    return pa.StructArray.from_arrays(fields, names=names, mask=chunk.is_null() if chunk.null_count else None)


def _check_text(column: Column, array: pa.Array | pa.ChunkedArray) -> None:
    if column.values is not None:
        if not set(array.unique().to_pylist()) <= {*column.values, None}:
            raise _Odd
        return
    lengths = pc.min_max(pc.binary_length(array))
    if column.min_length is not None and lengths["min"].as_py() < column.min_length:
        raise _Odd
    # The limit counts characters; only a text that is long in bytes is worth counting them.
    long = column.max_length is not None and lengths["max"].as_py() > column.max_length
    if long and pc.max(pc.utf8_length(array)).as_py() > column.max_length:
        raise _Odd
    if column.name == "evidence_version":
        versions = {text.split(".", maxsplit=1)[0] for text in array.to_pylist() if text is not None}
        if versions != {SUPPORTED_MAJOR}:
            raise _Odd


def _check_number(column: Column, array: pa.ChunkedArray) -> None:
    if column.kind == "number" and not pc.all(pc.is_finite(array)).as_py():
        raise _Odd
    if column.minimum is not None and pc.min(array).as_py() < column.minimum:
        raise _Odd
    if column.maximum is not None and pc.max(array).as_py() > column.maximum:
        raise _Odd


def _moments(array: pa.ChunkedArray) -> pa.ChunkedArray:
    if pc.min(pc.binary_length(array)).as_py() < _SHORTEST_MOMENT or not pc.all(pc.ends_with(array, "Z")).as_py():
        raise _Odd
    moments = array.cast(TIMESTAMP)
    if pc.min(moments.cast(pa.int64())).as_py() < _FIRST_MOMENT:
        raise _Odd
    return moments


def _check_items(array: pa.ChunkedArray) -> None:
    if any(chunk.flatten().null_count for chunk in array.chunks):
        raise _Odd


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) != len(pairs):
        raise RecordError(
            "duplicate_field", "a field stands twice in one object; which of them counts is anyone's guess"
        )
    return names


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise RecordError("not_json", "JSON has no NaN and no infinite numbers, and none that no 64-bit float can hold")
    return number


def _record_error(error: ValidationError) -> RecordError:
    problems = faults(error, EvidenceEvent)
    codes = {"missing": "missing_field", "extra_forbidden": "unknown_field", "json_invalid": "not_json"}
    told = [f"{'.'.join(str(part)[:64] for part in problem.place)}: {problem.text}" for problem in problems[:3]]
    if len(problems) > len(told):
        told.append(f"and {len(problems) - len(told)} more")
    return RecordError(codes.get(problems[0].kind, "invalid_field"), "; ".join(told))
