"""Tells apart the forms in which requests are given: one JSON document, a JSON array, or JSON Lines.

JSON Lines are lines that are JSON each. A document or an array may be spread over lines, and several documents may
follow each other, as `jq` prints them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson

from evidence.errors import ConfigError

FORMS: Final = "one JSON document, a JSON array of them, or JSON Lines (one a line, as `jq -c .` prints them)"
"""What can be sent, in words."""

_POSITIONS: Final = json.JSONDecoder(parse_int=str, parse_float=str)
"""Finds where values end; the values themselves are read by orjson, as everywhere else."""

_BLANK: Final = " \t\r\n"
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Piece:
    """The text of one request."""

    place: str
    """Where it stands, in words: `line 3`, or `request 2 (line 14)` in an array."""

    number: int
    """Its line, or which one of an array it is, from 1."""

    line: int
    """The line in which it begins, from 1."""

    content: bytes
    """The text."""


def split(text: bytes, source: str) -> list[Piece]:
    """Return the text of each request, in order; whether each is a request is not checked.

    Args:
        text: the whole input.
        source: how errors call it.

    Raises:
        ConfigError: the input has none of the forms; the text names line and column.
    """
    plain = _decoded(text, source)
    rows = [(at, row) for at, row in enumerate(plain.encode().splitlines(), start=1) if row.strip()]
    if not rows:
        return []
    try:
        whole: Any = orjson.loads(plain)
    except orjson.JSONDecodeError as error:
        return _several(plain, rows, error, source)
    if isinstance(whole, list):
        return list(_elements(plain, rows[0][0]))
    return [Piece(f"line {rows[0][0]}", rows[0][0], rows[0][0], plain.encode())]


def _decoded(text: bytes, source: str) -> str:
    if text.startswith(_UTF_16):
        raise ConfigError(f"{source} is UTF-16 text; requests are UTF-8: `iconv -f UTF-16 -t UTF-8` makes it so")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{source} is not UTF-8 text: line {line} has the byte 0x{text[error.start]:02x}") from None


def _several(plain: str, rows: list[tuple[int, bytes]], error: orjson.JSONDecodeError, source: str) -> list[Piece]:
    """Return documents that follow each other, as lines or otherwise; or lines of which some are broken."""
    try:
        return list(_sequence(plain))
    except json.JSONDecodeError as found:
        place, reason = f"line {found.lineno}, column {found.colno}", found.msg
    except RecursionError:
        place, reason = f"line {error.lineno}, column {error.colno}", error.msg
    if any(row.startswith(b"{") and _is_object(row) for _, row in rows):
        return [Piece(f"line {at}", at, at, row) for at, row in rows]
    raise ConfigError(f"{source} was not sent: {place} is not JSON: {reason}; what can be sent is {FORMS}")


def _is_object(row: bytes) -> bool:
    try:
        return isinstance(orjson.loads(row), dict)
    except orjson.JSONDecodeError:
        return False


def _sequence(plain: str) -> Iterator[Piece]:
    at, line = 0, 1
    while (start := _skip(plain, at, _BLANK)) < len(plain):
        line += plain.count("\n", at, start)
        _, end = _POSITIONS.raw_decode(plain, start)
        yield Piece(f"line {line}", line, line, plain[start:end].encode())
        line += plain.count("\n", start, end)
        at = end


def _elements(plain: str, line: int) -> Iterator[Piece]:
    """Return the elements of a text that is known to be an array, which begins in this line."""
    begin = plain.index("[") + 1
    at, number = begin, 0
    while plain[start := _skip(plain, at, _BLANK + ",")] != "]":
        line += plain.count("\n", at, start)
        number += 1
        _, end = _POSITIONS.raw_decode(plain, start)
        yield Piece(f"request {number} (line {line})", number, line, plain[start:end].encode())
        line += plain.count("\n", start, end)
        at = end


def _skip(plain: str, at: int, characters: str) -> int:
    while at < len(plain) and plain[at] in characters:
        at += 1
    return at
