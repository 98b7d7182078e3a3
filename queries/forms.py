"""How a value is written: as JSON, as the text of a cell, and shortly for people."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final

from queries.values import Interval, Pairs, exact

_HASH: Final = re.compile(r"(sha256:)?[0-9a-f]{40,128}")
_HASH_SHOWN: Final = 12
_MICROSECONDS: Final = re.compile(r"(?<=\d{2}:\d{2}:\d{2})\.(\d{3})\d+")


def json_text(value: Any) -> str:
    """Return a value as JSON: decimals with all digits, moments as RFC 3339, what JSON has no form for as text."""
    if isinstance(value, Decimal):
        return exact(value) if value.is_finite() else json.dumps(str(value))
    if isinstance(value, dict | Pairs):
        members = (
            f"{json.dumps('null' if name is None else plain_text(name), ensure_ascii=False)}: {json_text(inner)}"
            for name, inner in (value.items() if isinstance(value, dict) else value)
        )
        return f"{{{', '.join(members)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(json_text(inner) for inner in value)}]"
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return json.dumps(value)
    return json.dumps(_text(value), ensure_ascii=False)


def plain_text(value: Any) -> str:
    """Return a value as the text of a CSV field: exactly, nested ones as JSON; nothing for null."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, Decimal):
        return exact(value) if value.is_finite() else str(value)
    if isinstance(value, dict | list | tuple) or (isinstance(value, bool | int | float) and _is_json(value)):
        return json_text(value)
    return _text(value)


def cell(value: Any) -> str:
    """Return a value as the text of a table's cell: floats rounded, moments without microseconds."""
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return _MICROSECONDS.sub(r".\1", _text(value))
    return plain_text(value)


def short(text: str) -> str:
    """Return a text with a hash cut: enough of it to tell it from others."""
    if not _HASH.fullmatch(text):
        return text
    start = len("sha256:") if text.startswith("sha256:") else 0
    return f"{text[: start + _HASH_SHOWN]}…"


def unique(names: Sequence[str]) -> list[str]:
    """Return names of which no two are the same: the second `a` is `a_2`."""
    found: list[str] = []
    taken = set(names)
    for name in names:
        new, number = name, 1
        while new in found or (number > 1 and new in taken):
            number += 1
            new = f"{name}_{number}"
        found.append(new)
    return found


def _is_json(value: float) -> bool:
    return isinstance(value, bool | int) or math.isfinite(value)


def _text(value: Any) -> str:
    match value:
        case float():
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case datetime():
            moment = value.astimezone(UTC) if value.tzinfo else value
            return moment.isoformat().replace("+00:00", "Z")
        case date() | time():
            return value.isoformat()
        case timedelta():
            return str(Interval(0, 0, round(value.total_seconds() * 1_000_000) * 1_000))
        case bytes():
            return value.hex()
        case _:
            return str(value)
