"""JSON read strictly: what has two readings, or more in it than it should, is refused."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final, Never

from evidence.verify.notes import NoteError, strict_base64
from evidence.verify.tree import HASH

MOST_BYTES: Final = 64 * 1024 * 1024
"""A document that is larger is refused."""

_MOST_DIGITS: Final = 19


class ShapeError(ValueError):
    """A document is not in its form; the text says where and why."""


def load(data: bytes | str, where: str, *, floats: bool = False) -> Any:
    """Read a JSON document.

    Args:
        data: the document.
        where: its name in errors.
        floats: whether numbers may have a fraction.

    Raises:
        ShapeError: not UTF-8, not JSON, a name that stands twice, a number that is too large or has a fraction, half a
            character, or something behind the document.
    """
    if len(data) > MOST_BYTES:
        raise ShapeError(f"{where}: more than {MOST_BYTES} bytes")
    try:
        text = data.decode() if isinstance(data, bytes) else data
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_int=_whole,
            parse_float=float if floats else _no_float,
            parse_constant=_no_float,
        )
        json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair cannot be written
    except ShapeError as error:
        raise ShapeError(f"{where}: {error}") from None
    except UnicodeError:
        raise ShapeError(f"{where}: not UTF-8") from None
    except (ValueError, RecursionError):
        raise ShapeError(f"{where}: not one JSON document and nothing else") from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ShapeError("a name stands twice in one object")
    return made


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS + text.startswith("-"):
        raise ShapeError("a number of more digits than are believed")
    return int(text)


def _no_float(text: str) -> Never:
    raise ShapeError(f"{text[:20]} is no whole number")


def members(value: Any, where: str, needed: Iterable[str], optional: Iterable[str] = ()) -> dict[str, Any]:
    """Give an object that has the members that it must have, and no others than it may.

    Raises:
        ShapeError: it has not.
    """
    if not isinstance(value, dict):
        raise ShapeError(f"{where}: not an object")
    must = set(needed)
    if missing := must - set(value):
        raise ShapeError(f"{where}: there is no `{min(missing)}`")
    if more := set(value) - must - set(optional):
        raise ShapeError(f"{where}: there is a member {min(more)[:60]!r}, which does not belong there")
    return value


def text_of(value: Any, where: str) -> str:
    """Give a text that is not empty.

    Raises:
        ShapeError: it is none.
    """
    if not isinstance(value, str) or not value:
        raise ShapeError(f"{where}: not a text, or empty")
    return value


def list_of(value: Any, where: str) -> list[Any]:
    """Give a list.

    Raises:
        ShapeError: it is none.
    """
    if not isinstance(value, list):
        raise ShapeError(f"{where}: not a list")
    return value


def number_of(value: Any, where: str) -> int:
    """Give a number from 0 on.

    Raises:
        ShapeError: it is none.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ShapeError(f"{where}: not a number from 0 on")
    return value


def base64_of(value: Any, where: str) -> bytes:
    """Give the bytes that base64 stands for, in its one form.

    Raises:
        ShapeError: it is none.
    """
    if not isinstance(value, str):
        raise ShapeError(f"{where}: not a text")
    try:
        return strict_base64(value)
    except NoteError as error:
        raise ShapeError(f"{where}: {error}") from None


def hashes_of(value: Any, where: str) -> list[bytes]:
    """Give hashes of 32 bytes each.

    Raises:
        ShapeError: one is none.
    """
    made = [base64_of(item, where) for item in list_of(value, where)]
    if any(len(item) != HASH for item in made):
        raise ShapeError(f"{where}: a hash has not {HASH} bytes")
    return made
