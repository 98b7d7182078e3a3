"""Requests of a file or of standard input, checked before anything is sent.

A request without `requestId` gets a fresh one, and one without `timestampUtc` the present: the same file can be sent
again and again, although the pipeline answers each request id once. `deadlineInSeconds` becomes `deadlineUtc`. A
request of the form `{"raw": "…"}` is sent as it stands, unchecked: for seeing what becomes of a broken record.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson

from evidence.canonical import sha256_hex
from evidence.errors import ConfigError, RecordError
from streams.kafka import MAX_RECORD_BYTES
from streams.request import RuntimeRequest, parse, readable_request_id
from waybill.cli.documents import Piece, split

RAW: Final = "raw"
DEADLINE: Final = "deadlineInSeconds"
MAX_DEADLINE_S: Final = 365 * 24 * 3600
STDIN: Final = "-"
_HEADERS_BYTES: Final = 16 * 1024
"""Room for a record's headers, a token among them."""
_SHOWN: Final = 20
"""More faults than this are only counted."""

Check = Callable[[RuntimeRequest], None]
"""Raises a RecordError where a request would be rejected."""


@dataclass(frozen=True, slots=True)
class Line:
    """One record to be sent."""

    number: int
    """Its line in the file, from 1; in a JSON array, which one it is."""
    request_id: str
    """The request's id; for a raw line without one the key that it is sent under."""
    value: bytes
    """The record's value."""
    raw: bool
    """Whether it is sent unchecked."""
    own_id: bool = True
    """Whether the id is the file's; else it was made as the file was read."""
    digest: str = ""
    """SHA-256 of the request as the file has it, whatever its layout."""

    def named(self, request_id: str) -> Line:
        """Return the same request under another id."""
        if self.raw:
            return replace(self, request_id=request_id)
        value = orjson.dumps({**orjson.loads(self.value), "requestId": request_id})
        return replace(self, request_id=request_id, value=value)


def read(path: Path, now: datetime, new_id: Callable[[], str], check: Check | None = None) -> tuple[Line, ...]:
    """Read and check the requests of a file, or of standard input where the path is `-`.

    Args:
        path: the file.
        now: the time, in UTC.
        new_id: makes a fresh request id.
        check: looks at each request in addition.

    Raises:
        ConfigError: the file cannot be read, or requests break the contract; the text names each with its line.
    """
    try:
        text = sys.stdin.buffer.read() if str(path) == STDIN else path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    return parse_lines(text, "standard input" if str(path) == STDIN else str(path), now, new_id, check)


def parse_lines(
    text: bytes, source: str, now: datetime, new_id: Callable[[], str], check: Check | None = None
) -> tuple[Line, ...]:
    """Read and check requests; see `read`. `source` is what errors call them."""
    lines: list[Line] = []
    wrong: list[str] = []
    places: dict[str, str] = {}
    for piece in split(text, source):
        try:
            line = _line(piece, now, new_id, check)
        except RecordError as error:
            wrong.append(f"  {piece.place}: {error} ({error.code})")
            continue
        if line.request_id in places:
            wrong.append(f"  {piece.place}: the request id of {places[line.request_id]} again")
        places[line.request_id] = piece.place
        lines.append(line)
    if len(wrong) > _SHOWN:
        wrong[_SHOWN:] = [f"  and {len(wrong) - _SHOWN} more"]
    if wrong:
        raise ConfigError("\n".join([f"{source} was not sent, because it is wrong:", *wrong]))
    if not lines:
        raise ConfigError(f"{source} holds no request")
    return tuple(lines)


def _line(piece: Piece, now: datetime, new_id: Callable[[], str], check: Check | None) -> Line:
    try:
        found: Any = orjson.loads(piece.content)
    except orjson.JSONDecodeError as error:
        # A piece of several lines counts its own from 1.
        where = f"column {error.colno}" if error.lineno == 1 else f"line {piece.line + error.lineno - 1}"
        raise RecordError("not_json", f"not JSON at {where}: {error.msg}") from None
    if not isinstance(found, dict):
        raise RecordError("not_json", "not a JSON object")
    digest = sha256_hex(orjson.dumps(found, option=orjson.OPT_SORT_KEYS))
    if RAW in found:
        if set(found) != {RAW} or not isinstance(found[RAW], str):
            raise RecordError("invalid_field", 'a raw line is {"raw": "text"} and nothing else')
        raw = found[RAW].encode()
        own = readable_request_id(raw)
        return Line(piece.number, own or new_id(), raw, raw=True, own_id=own is not None, digest=digest)
    filled = {"requestId": new_id(), "timestampUtc": _z(now), **found}
    if DEADLINE in filled:
        seconds = filled.pop(DEADLINE)
        number_given = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not number_given or not 0 < seconds <= MAX_DEADLINE_S or "deadlineUtc" in filled:
            raise RecordError("invalid_field", f"{DEADLINE} is a number above 0, and stands instead of deadlineUtc")
        filled["deadlineUtc"] = _z(now + timedelta(seconds=seconds))
    value = orjson.dumps(filled)
    if len(value) > MAX_RECORD_BYTES - _HEADERS_BYTES:
        raise RecordError("oversized", f"it has {len(value)} bytes, more than a record may have")
    request = parse(value)
    if check is not None:
        check(request)
    own_id = "requestId" in found
    return Line(piece.number, request.request_id, value, raw=False, own_id=own_id, digest=digest)


def _z(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
