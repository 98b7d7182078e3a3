"""A row's canonical bytes, written slowly from the format's text: what the fast writer is compared with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa

SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}
"""What has an escape of its own."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""Where Arrow counts from."""


def canonical_rows(table: pa.Table) -> list[bytes]:
    """Give each row's canonical bytes."""
    moments_as_numbers = pa.Table.from_arrays(
        [_counted(column.combine_chunks()) for column in table.columns], names=table.column_names
    )
    return [_object(table.schema, row).encode() for row in moments_as_numbers.to_pylist()]


def ecmascript(number: float) -> str:
    """Write a number as ECMAScript's Number::toString does, step by step; Python's shortest digits are the same."""
    if number == 0:
        return "0"
    mantissa, _, exponent = repr(abs(number)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    if len(digits) <= point <= 21:
        text = digits + "0" * (point - len(digits))
    elif 0 < point <= 21:
        text = f"{digits[:point]}.{digits[point:]}"
    elif -6 < point <= 0:
        text = "0." + "0" * -point + digits
    else:
        text = digits[0] + (f".{digits[1:]}" if len(digits) > 1 else "") + f"e{point - 1:+d}"
    return f"-{text}" if number < 0 else text


def _counted(array):
    """Replace moments by microseconds since 1970, which Python counts without time zones of its own."""
    if pa.types.is_timestamp(array.type):
        return array.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    if pa.types.is_struct(array.type):
        children = [_counted(array.field(index)) for index in range(array.type.num_fields)]
        names = [field.name for field in array.type]
        return pa.StructArray.from_arrays(children, names=names, mask=array.is_null()) if names else array
    return array


def _object(fields, values):
    members = {}
    for field in fields:
        if values[field.name] is not None:
            first, *words = field.name.split("_")
            name = first + "".join(word[:1].upper() + word[1:] for word in words)
            name += "Utc" if pa.types.is_timestamp(field.type) else ""
            members[name] = _value(field.type, values[field.name])
    return "{" + ",".join(f"{_string(name)}:{members[name]}" for name in sorted(members)) + "}"


def _value(kind, value):
    if pa.types.is_timestamp(kind):
        moment = EPOCH + timedelta(microseconds=value)
        return f'"{moment.year:04d}-{moment:%m-%dT%H:%M:%S}.{moment.microsecond:06d}Z"'
    if pa.types.is_struct(kind):
        return _object(kind, value)
    if isinstance(value, list):
        return "[" + ",".join(map(_string, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    return ecmascript(value) if isinstance(value, float) else str(value)


def _string(text):
    return '"' + "".join(SHORT.get(sign, sign if sign >= " " else f"\\u{ord(sign):04x}") for sign in text) + '"'
