"""From a column's values to the text that JSON has for them (RFC 8785), a whole column at a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

_YEAR_1: Final = -62_135_596_800_000_000
_YEAR_10000: Final = 253_402_300_800_000_000
_DAY_US: Final = 86_400_000_000
_MINUTE_US: Final = 60_000_000
_ARROW_IS_ECMASCRIPT_BELOW: Final = 1e10  # from there on Arrow writes an exponent, ECMAScript from 1e21 on
_ECMASCRIPT_EXPONENT_FROM: Final = 21
_ECMASCRIPT_ZEROS_FROM: Final = -6
_SHORT_ESCAPES: Final = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}
_SPACE: Final = 0x20
_ASCII_END: Final = 0x80


class RowError(Exception):
    """A column or a value that has no canonical form."""

    def __init__(self, column: str, what: str) -> None:
        super().__init__(f"column {column}: {what}" if column else what)


@dataclass(frozen=True, slots=True)
class Cell:
    """A column as text."""

    values: tuple[Any, ...] = ()
    """Its values, null where the column is; text between `before` and `after`. Several stand one behind another."""

    before: str = ""
    """What stands in front of each."""

    after: str = ""
    """What stands behind each."""

    fixed: str | None = None
    """The whole text, where all values are the same."""

    filled: Any = None
    """For lists of which some are empty: which are not."""


def texts(column: Any, where: str) -> Cell:
    """Give a column's values as JSON text.

    Raises:
        RowError: the type, or a value, has no canonical form.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        if not _is_text(kind.value_type):
            raise RowError(where, f"type {kind} has no canonical form")
        if column.dictionary.null_count:
            raise RowError(where, "a dictionary with an empty entry")
        words = escaped(column.dictionary, where)
        return Cell((pa.DictionaryArray.from_arrays(column.indices, words),), '"', '"')
    if _is_text(kind):
        return Cell((escaped(column, where),), '"', '"')
    if pa.types.is_boolean(kind):
        return Cell((pc.if_else(column, "true", "false"),))
    if pa.types.is_integer(kind):
        low, high = pc.min_max(column).values()
        return Cell(fixed=str(low.as_py())) if low == high else Cell((column.cast(pa.string()),))
    if pa.types.is_floating(kind):
        return Cell((_floats(column, where),))
    if pa.types.is_timestamp(kind):
        return _moments(column, where)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _lists(column, where)
    raise RowError(where, f"type {kind} has no canonical form")


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def escaped(column: Any, where: str) -> Any:
    """Give strings with what JSON must escape escaped; a column without such characters is given back as it is.

    Raises:
        RowError: the text is not UTF-8.
    """
    if pa.types.is_large_string(column.type):
        try:
            column = column.cast(pa.string())
        except pa.ArrowInvalid as error:
            raise RowError(where, f"too much text at once: {error}") from error
    _, ends, data = column.buffers()
    if data is None or len(column) == 0:
        return column
    offsets = memoryview(ends).cast("i")
    begin, end = offsets[column.offset], offsets[column.offset + len(column)]
    if end <= begin:
        return column
    # The bytes of all strings, looked at as a whole: most columns hold nothing to escape, and that is soon known.
    span = data.slice(begin, end - begin)
    codes = pa.Array.from_buffers(pa.uint8(), end - begin, [None, span])
    low, high = (edge.as_py() for edge in pc.min_max(codes).values())
    if high >= _ASCII_END:
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            raise RowError(where, "text that is not UTF-8") from error
    return _escape(column, span.to_pybytes(), control=low < _SPACE)


def _escape(column: Any, whole: bytes, *, control: bool) -> Any:
    if b"\\" in whole:
        column = pc.replace_substring(column, "\\", "\\\\")
    if b'"' in whole:
        column = pc.replace_substring(column, '"', '\\"')
    for code in range(_SPACE if control else 0):
        if code in whole:
            letter = chr(code)
            column = pc.replace_substring(column, letter, _SHORT_ESCAPES.get(letter, f"\\u{code:04x}"))
    return column


def _floats(column: Any, where: str) -> Any:
    column = column.cast(pa.float64())
    if not pc.all(pc.is_finite(column)).as_py():
        raise RowError(where, "a number that JSON does not have (NaN or infinite)")
    low, high = (edge.as_py() for edge in pc.min_max(column).values())
    if low <= -_ARROW_IS_ECMASCRIPT_BELOW or high >= _ARROW_IS_ECMASCRIPT_BELOW:
        return pa.array([None if value is None else ecmascript(value) for value in column.to_pylist()], pa.string())
    made = column.cast(pa.string())
    return pc.if_else(pc.equal(column, 0.0), "0", made) if low <= 0.0 <= high else made


def ecmascript(value: float) -> str:
    """Give a number as ECMAScript's Number::toString does."""
    if value == 0:
        return "0"
    sign, text = ("-", repr(-value)) if value < 0 else ("", repr(value))
    mantissa, _, exponent = text.partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    point = len(whole) + int(exponent or 0)
    digits = whole + fraction
    stripped = digits.lstrip("0")
    point -= len(digits) - len(stripped)
    digits = stripped.rstrip("0")
    count = len(digits)
    if count <= point <= _ECMASCRIPT_EXPONENT_FROM:
        return sign + digits + "0" * (point - count)
    if 0 < point <= _ECMASCRIPT_EXPONENT_FROM:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if _ECMASCRIPT_ZEROS_FROM < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    power = point - 1
    tail = f".{digits[1:]}" if count > 1 else ""
    return f"{sign}{digits[0]}{tail}e{'+' if power >= 0 else '-'}{abs(power)}"


def _moments(column: Any, where: str) -> Cell:
    try:
        moments = column.cast(pa.timestamp("us", tz="UTC"))
    except pa.ArrowInvalid as error:
        raise RowError(where, "a moment that is finer than microseconds") from error
    numbers = moments.cast(pa.int64())
    low, high = (edge.as_py() for edge in pc.min_max(numbers).values())
    if low < _YEAR_1 or high >= _YEAR_10000:
        raise RowError(where, "a moment outside the years 1 to 9999")
    # The moment is looked up in four parts, the day, minute, millisecond and microsecond: Arrow's own way of writing
    # moments takes several times as long.
    begin = low // _DAY_US * _DAY_US
    numbers = pc.subtract(numbers, begin)
    day, numbers = _divided(numbers, _DAY_US)
    minute, numbers = _divided(numbers, _MINUTE_US)
    milli, micro = _divided(numbers, 1000)
    days = day.dictionary_encode()
    dates = pc.add(days.dictionary, begin // _DAY_US).cast(pa.int32()).cast(pa.date32()).cast(pa.string())
    looked_up = ((days.indices, dates), *zip((minute, milli, micro), _clock(), strict=True))
    parts = tuple(pa.DictionaryArray.from_arrays(place.cast(pa.int32()), words) for place, words in looked_up)
    return Cell(parts, '"', 'Z"')


def _divided(numbers: Any, by: int) -> tuple[Any, Any]:
    whole = pc.divide(numbers, by)
    return whole, pc.subtract(numbers, pc.multiply(whole, by))


@cache
def _clock() -> tuple[Any, Any, Any]:
    """Give the texts of a day's minutes, of a minute's milliseconds and of a millisecond's microseconds."""
    minutes = pa.array([f"T{hour:02}:{minute:02}:" for hour in range(24) for minute in range(60)])
    thousand = [f"{number:03}" for number in range(1000)]
    millis = pa.array([f"{second:02}.{milli}" for second in range(60) for milli in thousand])
    return minutes, millis, pa.array(thousand)


def _lists(column: Any, where: str) -> Cell:
    inside = column.type.value_type
    if not _is_text(inside):
        raise RowError(where, f"a list of {inside} has no canonical form")
    values = column.flatten()
    if values.null_count:
        raise RowError(where, "a list with an empty place")
    lengths = pc.list_value_length(column)
    low, high = (edge.as_py() for edge in pc.min_max(lengths).values())
    if high == 0:
        return Cell(fixed="[]")
    words = escaped(values, where)
    whole = pc.fill_null(lengths, 0)
    ends = pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(whole.cast(pa.int64()))]).cast(pa.int32())
    rebuilt = pa.ListArray.from_arrays(ends, words)
    joined = pc.binary_join(rebuilt, '","')
    if column.null_count:
        joined = pc.if_else(column.is_valid(), joined, pa.scalar(None, pa.string()))
    return Cell((joined,), '["', '"]', filled=pc.greater(whole, 0) if low == 0 else None)
