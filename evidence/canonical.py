"""Hashes of records: SHA-256 over a canonical form, so that two parties get the same digest."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson


def canonical_json(value: Any) -> bytes:
    """Give the RFC 8785 form of a JSON value made of strings, integers, booleans, nulls, lists and objects.

    Object names are sorted and nothing is written between tokens. Two things are refused rather than written in a form
    of our own: floats, for which RFC 8785 prescribes ECMAScript's form, and names that are not ASCII, which it sorts by
    UTF-16 code units. What we hash holds neither.

    Raises:
        TypeError: the value holds a float, a name that is not ASCII, or something that is not JSON.
    """
    _check(value)
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _check(value: Any) -> None:
    if isinstance(value, str | bool | int) or value is None:
        return
    if isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str) or not name.isascii():
                raise TypeError(f"cannot be hashed canonically: the name {name!r}")
            _check(item)
        return
    if isinstance(value, list | tuple):
        for item in value:
            _check(item)
        return
    raise TypeError(f"cannot be hashed canonically: {type(value).__name__}")


def sha256_hex(data: bytes) -> str:
    """Give the SHA-256 digest of some bytes, in lower-case hex."""
    return hashlib.sha256(data).hexdigest()
