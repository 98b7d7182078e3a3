"""Values of an answer, exactly: what Python's own types cannot hold becomes the text that the database would show.

A moment in the year 10000, infinity, nanoseconds: Python has no type for them, and a conversion that fails or rounds
would make another answer of the one that the database gave.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

_DAY_NS: Final = 86_400_000_000_000
_PER_S: Final = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_INFINITE: Final = {64: 2**63 - 1, 32: 2**31 - 1}
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - the zone is put on where the column has one
_FIRST_DAY: Final = (date.min - date(1970, 1, 1)).days
_LAST_DAY: Final = (date.max - date(1970, 1, 1)).days
_ERA_DAYS: Final = 146_097
"""Days of 400 years, after which the calendar repeats."""

_LOSSY: Final = frozenset({"bit", "bignum", "uhugeint", "time with time zone", "variant", "geometry"})
"""Types that the exchange format has no form for (a zone would be lost, a number wrap round); read as text instead."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A length of time as the database keeps it: months and days are no fixed number of seconds."""

    months: int
    """Months."""
    days: int
    """Days."""
    nanoseconds: int
    """The rest."""

    def __str__(self) -> str:
        years, months = divmod(abs(self.months), 12)
        sign = -1 if self.months < 0 else 1
        parts = [
            f"{sign * number} {unit}{'' if abs(number) == 1 else 's'}"
            for number, unit in ((years, "year"), (months, "month"))
            if number
        ]
        if self.days:
            parts.append(f"{self.days} day{'' if abs(self.days) == 1 else 's'}")
        if self.nanoseconds or not parts:
            parts.append(("-" if self.nanoseconds < 0 else "") + _clock(abs(self.nanoseconds), trim=True))
        return " ".join(parts)


class Pairs(tuple[tuple[Any, Any], ...]):
    """A map: its keys with their values, in order; keys may be of any type."""

    __slots__ = ()


def readable(kind: Any) -> str | None:
    """Return the SQL type that a column is read as where its own has no exact form; None where it has.

    Args:
        kind: the column's type, as the database's module describes it.
    """
    found = _readable(kind)
    return None if found == str(kind) else found


def _readable(kind: Any) -> str:
    match kind.id:
        case name if name in _LOSSY:
            return "VARCHAR"
        case "list":
            return f"{_readable(kind.children[0][1])}[]"
        case "array":
            (_, inner), (_, size) = kind.children
            return f"{_readable(inner)}[{size}]"
        case "struct":
            fields = ", ".join(f'"{name.replace(chr(34), chr(34) * 2)}" {_readable(of)}' for name, of in kind.children)
            return f"STRUCT({fields})" if any(_readable(of) != str(of) for _, of in kind.children) else str(kind)
        case "map":
            (_, key), (_, value) = kind.children
            return f"MAP({_readable(key)}, {_readable(value)})"
        case "union":
            return "VARCHAR" if any(_readable(of) != str(of) for _, of in kind.children) else str(kind)
    return str(kind)


def converted(kind: str, values: list[Any]) -> list[Any]:
    """Return a column's values where it was read as text and is of numbers."""
    return [None if value is None else int(value) for value in values] if kind in {"UHUGEINT", "BIGNUM"} else values


def read(array: Any) -> list[Any]:
    """Return the values of a column."""
    if isinstance(array, pa.ExtensionArray):
        return read(array.storage)
    for is_kind, reader in _READERS:
        if is_kind(array.type):
            return reader(array)
    plain: list[Any] = array.to_pylist()
    return plain


def _structs(array: Any) -> list[Any]:
    names, parts = [field.name for field in array.type], [read(part) for part in array.flatten()]
    rows = zip(*parts, strict=True) if parts else [()] * len(array)
    return [dict(zip(names, row, strict=True)) if ok else None for row, ok in zip(rows, _valid(array), strict=True)]


def _maps(array: Any) -> list[Any]:
    pairs = list(zip(read(array.keys), read(array.items), strict=True))  # of the whole, wherever this part begins
    parts = [Pairs(pairs[begin:end]) for begin, end in pairwise(array.offsets.to_pylist())]
    return [part if ok else None for part, ok in zip(parts, _valid(array), strict=True)]


def _lists(array: Any) -> list[Any]:
    values, parts, place = read(array.flatten()), [], 0
    for length in pc.list_value_length(array).to_pylist():
        parts.append(None if length is None else values[place : place + length])
        place += length or 0
    return parts


def _unions(array: Any) -> list[Any]:
    return [None if item.value is None else read(pa.repeat(item.value, 1))[0] for item in array]


def _moments(array: Any) -> list[Any]:
    unit, zoned = array.type.unit, array.type.tz is not None
    return _each(array.cast(pa.int64()), lambda value: _moment(value, unit, zoned=zoned))


def _times(array: Any) -> list[Any]:
    scale = _PER_S["ns"] // _PER_S[array.type.unit]
    return _each(array.cast(pa.int64()), lambda value: _time(value * scale))


def _decimals(array: Any) -> list[Any]:
    # The database counts sums of integers in 128 bits, which are decimals without a fraction on the way here.
    return array.to_pylist() if array.type.scale else _each(array, int)


def _each(array: Any, made: Any) -> list[Any]:
    return [None if value is None else made(value) for value in array.to_pylist()]


def _valid(array: Any) -> list[bool]:
    valid: list[bool] = array.is_valid().to_pylist()
    return valid


def _moment(value: int, unit: str, *, zoned: bool) -> datetime | str:
    if abs(value) == _INFINITE[64]:
        return "infinity" if value > 0 else "-infinity"
    days, rest = divmod(value * (_PER_S["ns"] // _PER_S[unit]), _DAY_NS)
    if _FIRST_DAY <= days <= _LAST_DAY and rest % 1_000 == 0:
        moment = _EPOCH + timedelta(days=days, microseconds=rest // 1_000)
        return moment.replace(tzinfo=UTC) if zoned else moment
    return f"{_day(days)}T{_clock(rest)}{'Z' if zoned else ''}"


def _date(days: int) -> date | str:
    if abs(days) == _INFINITE[32]:
        return "infinity" if days > 0 else "-infinity"
    return _EPOCH.date() + timedelta(days=days) if _FIRST_DAY <= days <= _LAST_DAY else _day(days)


def _time(nanoseconds: int) -> time | str:
    if nanoseconds >= _DAY_NS or nanoseconds % 1_000:
        return _clock(nanoseconds)
    return (_EPOCH + timedelta(microseconds=nanoseconds // 1_000)).time()


def _day(days: int) -> str:
    """Return a day of any year; a year before 1 is written as the database does."""
    era = (days - _FIRST_DAY) // _ERA_DAYS
    day = _EPOCH.date() + timedelta(days=days - era * _ERA_DAYS)
    year = day.year + 400 * era
    return f"{year:04d}-{day:%m-%d}" if year > 0 else f"{1 - year:04d}-{day:%m-%d} (BC)"


def _clock(nanoseconds: int, *, trim: bool = False) -> str:
    """Return hours, minutes and seconds, with as many decimals as Python writes, or nine where they are needed."""
    seconds, rest = divmod(nanoseconds, _PER_S["ns"])
    fraction = f"{rest:09d}" if rest % 1_000 else f"{rest // 1_000:06d}" if rest else ""
    if trim:
        fraction = fraction.rstrip("0")
    shown = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{shown}.{fraction}" if fraction else shown


def _short(value: float) -> float:
    """Return the shortest number that is the same one in 32 bits."""
    packed = struct.pack("<f", value)
    for digits in range(6, 9):
        shorter = float(f"{value:.{digits}g}")
        try:
            if struct.pack("<f", shorter) == packed:
                return shorter
        except OverflowError:
            continue
    return value


def exact(value: Decimal) -> str:
    """Return a decimal with all its digits."""
    return format(value, "f")


_READERS: Final[tuple[tuple[Callable[[Any], bool], Callable[[Any], list[Any]]], ...]] = (
    (pa.types.is_dictionary, lambda array: read(array.dictionary_decode())),
    (pa.types.is_struct, _structs),
    (pa.types.is_map, _maps),
    (pa.types.is_list, _lists),
    (pa.types.is_large_list, _lists),
    (pa.types.is_fixed_size_list, _lists),
    (pa.types.is_union, _unions),
    (pa.types.is_timestamp, _moments),
    (pa.types.is_date32, lambda array: _each(array.cast(pa.int32()), _date)),
    (pa.types.is_time64, _times),
    (
        pa.types.is_interval,
        lambda array: _each(array, lambda each: Interval(each.months, each.days, each.nanoseconds)),
    ),
    (pa.types.is_float32, lambda array: _each(array, _short)),
    (pa.types.is_decimal, _decimals),
)
"""How the values of a column are read, by its type; those of other types are Python's own."""
