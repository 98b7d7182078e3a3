"""The canonical bytes of rows and their leaf hashes, derived from Parquet columns alone.

A row is the JSON object that RFC 8785 gives for it. Rows are not visited one by one: the columns are turned into text
as a whole, rows that have the same members are put together, and each group is one join of columns and fixed text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from evidence.verify.cells import RowError, texts

MOST_BYTES: Final = 256 * 1024 * 1024
"""Rows are halved until their columns hold fewer bytes: the joined text of a batch must stay below 2 GiB."""

PIECE_ROWS: Final = 1024
"""Rows that are joined at once: their text stays in the processor's cache until it is hashed."""

_BITS: Final = 60
_FEW: Final = 8  # a dictionary with so many times fewer words than there are rows is cheaper to change than to join


@dataclass(slots=True)
class _Member:
    """One member of the object, for all rows of a batch."""

    name: str
    values: tuple[Any, ...] = ()  # arrays of text, dictionary-encoded or not; none for an object or a constant
    before: str = ""
    after: str = ""
    fixed: str | None = None  # the whole value, where it is the same in each row
    children: list[_Member] | None = None
    present: int | None = None  # bit of the pattern that says whether it is there; None: wherever its parent is
    filled: int | None = None  # bit that says whether a list has items; None: always


@dataclass(slots=True)
class _Patterns:
    """Which members each row has, as numbers made of bits."""

    rows: int
    bits: list[Any] = field(default_factory=list)

    def add(self, mask: Any) -> int:
        self.bits.append(mask)
        return len(self.bits) - 1

    def groups(self) -> Iterator[tuple[list[bool], Any]]:
        """Give each pattern with the numbers of its rows; None stands for all rows."""
        if not self.bits:
            yield [], None
            return
        words = []
        for begin in range(0, len(self.bits), _BITS):
            word: Any = pa.scalar(0, pa.int64())
            for shift, mask in enumerate(self.bits[begin : begin + _BITS]):
                bit = pc.if_else(mask, pa.scalar(1 << shift, pa.int64()), pa.scalar(0, pa.int64()))
                word = pc.bit_wise_or(word, bit)
            words.append(word)
        coded = [word.dictionary_encode() for word in words]
        kinds = coded[0].indices.cast(pa.int64())
        for other in coded[1:]:
            kinds = pc.add(pc.multiply(kinds, len(other.dictionary)), other.indices.cast(pa.int64()))
        kinds = kinds.dictionary_encode()
        if len(kinds.dictionary) == 1:
            yield self._pattern(words, 0), None
            return
        order = pc.array_sort_indices(kinds.indices)
        counts = {item["values"]: item["counts"] for item in kinds.indices.value_counts().to_pylist()}
        begin = 0
        for kind in range(len(kinds.dictionary)):
            rows = order.slice(begin, counts[kind])
            begin += counts[kind]
            yield self._pattern(words, rows[0].as_py()), rows

    def _pattern(self, words: list[Any], row: int) -> list[bool]:
        values = [word[row].as_py() for word in words]
        return [bool(values[bit // _BITS] >> bit % _BITS & 1) for bit in range(len(self.bits))]


def leaf_hashes(batch: pa.RecordBatch) -> bytes:
    """Give the leaf hashes of rows, 32 bytes each, in the order of the rows.

    Raises:
        RowError: a column's type or a value has no canonical form; the text names the column.
    """
    if batch.num_rows == 0:
        return b""
    if batch.num_rows > 1 and batch.nbytes > MOST_BYTES:
        half = batch.num_rows // 2
        return leaf_hashes(batch.slice(0, half)) + leaf_hashes(batch.slice(half))
    orders, parts = [], []
    for rows, pieces in _joined(batch):
        made = b"".join([_hashes(piece) for piece in pieces])
        if rows is None:
            return made
        orders.append(rows)
        parts.append(made)
    everything = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(32), batch.num_rows, [None, pa.py_buffer(b"".join(parts))]
    )
    back = pc.inverse_permutation(pa.concat_arrays(orders).cast(pa.int64()))
    return bytes(everything.take(back).buffers()[1].to_pybytes())


def canonical_rows(batch: pa.RecordBatch) -> list[bytes]:
    """Give the canonical bytes of each row, in the order of the rows; for showing and for packs, not for speed.

    Raises:
        RowError: a column's type or a value has no canonical form; the text names the column.
    """
    found: list[bytes] = [b""] * batch.num_rows
    if batch.num_rows == 0:
        return found
    for rows, pieces in _joined(batch):
        places = range(batch.num_rows) if rows is None else rows.to_pylist()
        texts_of = (text for piece in pieces for text in piece.cast(pa.binary()).to_pylist())
        for place, text in zip(places, texts_of, strict=True):
            found[place] = text[1:]
    return found


def _joined(batch: pa.RecordBatch) -> Iterator[tuple[Any, Iterator[Any]]]:
    patterns = _Patterns(batch.num_rows)
    columns = [(name, batch.column(index)) for index, name in enumerate(batch.schema.names)]
    members = _members(columns, patterns, 0, "")
    for pattern, rows in patterns.groups():
        parts: list[Any] = ["\x00"]
        _write(members, pattern, rows, parts)
        yield rows, _pieces(parts, batch.num_rows if rows is None else len(rows))


def _pieces(parts: list[Any], count: int) -> Iterator[Any]:
    if len(parts) == 1:
        yield pa.array([parts[0]] * count, pa.string())
        return
    parts = [pa.scalar(part) if isinstance(part, str) else part for part in parts]
    for begin in range(0, count, PIECE_ROWS):
        some = [part if isinstance(part, pa.Scalar) else part.slice(begin, PIECE_ROWS) for part in parts]
        try:
            yield pc.binary_join_element_wise(*some, "")
        except pa.ArrowInvalid as error:
            raise RowError("", f"rows that are too long to be written: {error}") from error


def _hashes(joined: Any) -> bytes:
    _, ends, data = joined.buffers()
    offsets = memoryview(ends).cast("i")[joined.offset : joined.offset + len(joined) + 1].tolist()
    text, sha = memoryview(data), hashlib.sha256
    return b"".join([sha(text[begin:end]).digest() for begin, end in pairwise(offsets)])


def camel(name: str, kind: pa.DataType, where: str) -> str:
    """Give the member's name of a column.

    Raises:
        RowError: the column's name is none that a table of evidence can have.
    """
    if not name or not name.isascii() or not name.replace("_", "").isalnum() or name != name.lower():
        raise RowError(where, f"no column can be called {name!r}")
    head, *tail = name.split("_")
    made = head + "".join(part[:1].upper() + part[1:] for part in tail)
    return f"{made}Utc" if pa.types.is_timestamp(kind) else made


def _members(columns: list[tuple[str, Any]], patterns: _Patterns, absent: int, where: str) -> list[_Member]:
    """Turn columns into members, sorted by name; `absent` rows have no object to put them into."""
    made = []
    for name, column in columns:
        path = f"{where}.{name}" if where else name
        if column.null_count == patterns.rows:
            camel(name, column.type, path)
            continue
        member = _Member(camel(name, column.type, path))
        if column.null_count != absent:
            member.present = patterns.add(column.is_valid())
        if pa.types.is_struct(column.type):
            fields = [column.type.field(index).name for index in range(column.type.num_fields)]
            inside = list(zip(fields, column.flatten(), strict=True))
            member.children = _members(inside, patterns, column.null_count, path)
        else:
            cell = texts(column, path)
            member.values, member.before, member.after, member.fixed = cell.values, cell.before, cell.after, cell.fixed
            if cell.filled is not None:
                member.filled = patterns.add(cell.filled)
        made.append(member)
    made.sort(key=lambda member: member.name)
    for one, other in pairwise(made):
        if one.name == other.name:
            raise RowError(where, f"two columns are called {one.name}")
    return made


def _write(members: list[_Member], pattern: list[bool], rows: Any, parts: list[Any]) -> None:
    _text(parts, "{")
    comma = ""
    for member in members:
        if member.present is not None and not pattern[member.present]:
            continue
        _text(parts, f'{comma}"{member.name}":')
        comma = ","
        if member.children is not None:
            _write(member.children, pattern, rows, parts)
        elif member.fixed is not None:
            _text(parts, member.fixed)
        elif member.filled is not None and not pattern[member.filled]:
            _text(parts, "[]")
        else:
            _text(parts, member.before)
            for values in member.values:
                _values(values, rows, parts)
            _text(parts, member.after)
    _text(parts, "}")


def _values(values: Any, rows: Any, parts: list[Any]) -> None:
    if rows is not None:
        values = values.take(rows)
    if not pa.types.is_dictionary(values.type):
        parts.append(values)
        return
    indices, words = values.indices, values.dictionary
    lowest, highest = pc.min_max(indices).values()
    if lowest == highest:
        _text(parts, words[lowest.as_py()].as_py())
        return
    if isinstance(parts[-1], str) and len(words) * _FEW < len(indices):
        words = pc.binary_join_element_wise(parts.pop(), words, "")
    parts.append(words.take(indices))


def _text(parts: list[Any], text: str) -> None:
    if parts and isinstance(parts[-1], str):
        parts[-1] += text
    else:
        parts.append(text)
