"""Hashes of records: SHA-256 over a canonical form, so that two parties get the same digest."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> bytes:
    """Give the RFC 8785 form of a JSON value made of strings, integers, booleans, nulls, lists and objects.

    Object names are sorted by their UTF-16 code units and nothing is written between tokens. Floats are refused:
    RFC 8785 prescribes ECMAScript's form for them, and what we hash holds none.

    Raises:
        TypeError: the value holds a float or something that is not JSON.
    """
    return json.dumps(_sorted(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value, key=lambda name: name.encode("utf-16-be"))}
    if isinstance(value, list | tuple):
        return [_sorted(item) for item in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    raise TypeError(f"cannot be hashed canonically: {type(value).__name__}")


def sha256_hex(data: bytes) -> str:
    """Give the SHA-256 digest of some bytes, in lower-case hex."""
    return hashlib.sha256(data).hexdigest()
