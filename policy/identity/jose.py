"""The strict forms that signed tokens and keys are written in: base64url with one spelling, JSON without surprises."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

from evidence.errors import RecordError


def strict_json(text: str) -> Any:
    """Read JSON in which no member is given twice and no number is NaN or infinite.

    Raises:
        ValueError: it is not.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=no_constant)
    except RecursionError:
        raise ValueError("nested too deep") from None


def decoded(text: str, what: str) -> bytes:
    """Read base64url without padding.

    Raises:
        RecordError: `bad_token`: it is not in that form, or is not the one spelling of its bytes.
    """
    try:
        data = base64.b64decode(text.encode("ascii").translate(_FROM_URL) + b"=" * (-len(text) % 4), validate=True)
    except ValueError:
        data = b""
    if not data or encoded(data) != text:  # the same bytes have exactly one spelling
        raise RecordError("bad_token", f"the token's {what} is not base64url without padding")
    return data


_FROM_URL: Final = bytes.maketrans(b"-_+/", b"+/!!")


def encoded(data: bytes) -> str:
    """Write base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a member is given twice")
    return made


def no_constant(name: str) -> Any:
    """Refuse NaN and infinite numbers, which JSON does not have; for `json.loads`.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"{name} is no JSON number")


def reason(error: ValueError) -> str:
    """Say what is wrong with a text without quoting it."""
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON ({error.msg}, column {error.colno})"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    return str(error) if len(error.args) == 1 and str(error) in _SAID else "not JSON that is read here"


_SAID: Final = frozenset({"a member is given twice", "nested too deep"})
