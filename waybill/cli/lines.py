"""A file of requests, one JSON object a line, checked before anything is sent.

A line without `requestId` gets a fresh one, and one without `timestampUtc` the present: the same file can be sent again
and again, although the pipeline answers each request id once. `deadlineInSeconds` becomes `deadlineUtc`. A line of the
form `{"raw": "…"}` is sent as it stands, unchecked: for seeing what becomes of a broken record.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson

from evidence.errors import ConfigError, RecordError
from streams.request import parse

RAW: Final = "raw"
DEADLINE: Final = "deadlineInSeconds"
MAX_DEADLINE_S: Final = 365 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Line:
    """One record to be sent."""

    number: int
    """Its line in the file, from 1."""
    request_id: str
    """The request's id; for a raw line the key that it is sent under."""
    value: bytes
    """The record's value."""
    raw: bool
    """Whether it is sent unchecked."""


def read(path: Path, now: datetime, new_id: Callable[[], str]) -> tuple[Line, ...]:
    """Read and check a file of requests.

    Args:
        path: the file.
        now: the time, in UTC.
        new_id: makes a fresh request id.

    Raises:
        ConfigError: the file cannot be read, or lines break the contract; the text names each with its number.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    return parse_lines(text, str(path), now, new_id)


def parse_lines(text: bytes, source: str, now: datetime, new_id: Callable[[], str]) -> tuple[Line, ...]:
    """Read and check lines; see `read`. `source` is what errors call them."""
    lines: list[Line] = []
    wrong: list[str] = []
    numbers: dict[str, int] = {}
    for number, content in enumerate(text.splitlines(), start=1):
        if not content.strip():
            continue
        try:
            line = _line(number, content, now, new_id)
        except RecordError as error:
            wrong.append(f"  line {number}: {error} ({error.code})")
            continue
        if line.request_id in numbers:
            wrong.append(f"  line {number}: the request id of line {numbers[line.request_id]} again")
        numbers[line.request_id] = number
        lines.append(line)
    if wrong:
        raise ConfigError("\n".join([f"{source} was not sent, because it is wrong:", *wrong]))
    if not lines:
        raise ConfigError(f"{source} holds no request")
    return tuple(lines)


def _line(number: int, content: bytes, now: datetime, new_id: Callable[[], str]) -> Line:
    try:
        found: Any = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise RecordError("not_json", f"not JSON: {error}") from None
    if not isinstance(found, dict):
        raise RecordError("not_json", "not a JSON object")
    if RAW in found:
        if set(found) != {RAW} or not isinstance(found[RAW], str):
            raise RecordError("invalid_field", 'a raw line is {"raw": "text"} and nothing else')
        return Line(number, new_id(), found[RAW].encode(), raw=True)
    filled = {"requestId": new_id(), "timestampUtc": _z(now), **found}
    if DEADLINE in filled:
        seconds = filled.pop(DEADLINE)
        number_given = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not number_given or not 0 < seconds <= MAX_DEADLINE_S or "deadlineUtc" in filled:
            raise RecordError("invalid_field", f"{DEADLINE} is a number above 0, and stands instead of deadlineUtc")
        filled["deadlineUtc"] = _z(now + timedelta(seconds=seconds))
    value = orjson.dumps(filled)
    return Line(number, parse(value).request_id, value, raw=False)


def _z(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
