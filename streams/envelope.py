"""CloudEvents 1.0 in Kafka's binary mode: headers say what the value is, the value is the data."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, NamedTuple

import orjson

from evidence.errors import RecordError
from streams.memory import Memory
from streams.story import TRACEPARENT

REQUEST_TYPE: Final = "io.waybill.request.v1"
WORK_TYPE: Final = "io.waybill.work.v1"
RESPONSE_TYPE: Final = "io.waybill.response.v1"
EVIDENCE_TYPE: Final = "io.waybill.evidence.v1"
DEADLETTER_TYPE: Final = "io.waybill.deadletter.v1"
LEDGER_TYPE: Final = "io.waybill.ledger.v1"
CONSENT_TYPE: Final = "io.waybill.consent.v1"
APPROVAL_TYPE: Final = "io.waybill.approval.v1"

JSON: Final = "application/json"
_MAX_TRACESTATE: Final = 512
"""Characters of a `tracestate` that are handed on: W3C lets a longer one be dropped, which every record would carry."""

_TRACE_LENGTHS: Final = frozenset({len("traceparent"), len("tracestate")})
"""Most headers of a record are of another length, which is known before their case is looked at."""

Headers = list[tuple[str, bytes]]

_READ: Final = frozenset({"content-type", "ce_specversion", "ce_type", "ce_id", "ce_source", "ce_dataclassification"})
"""The headers that mean something here; others may say what they like."""


def content(value: bytes | None, *texts: str, objects: tuple[str, ...] = ()) -> dict[str, Any] | None:
    """Return a record's JSON object; None where it is none, or lacks one of these members: anybody may write a record.

    Args:
        value: the record's value.
        texts: members that have to be there as texts.
        objects: members that have to be there as objects.
    """
    try:
        found = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return None
    if not isinstance(found, dict):
        return None
    whole = all(isinstance(found.get(name), str) for name in texts)
    return found if whole and all(isinstance(found.get(name), dict) for name in objects) else None


class Envelope(NamedTuple):
    """What the headers of a request say."""

    event_id: str
    """`ce_id`: the sender's id of this record."""

    source: str
    """`ce_source`: who sent it."""

    traceparent: str | None
    """W3C trace context, where the sender has one."""

    tracestate: str
    """Its vendor part, handed on unchanged."""

    declared_class: str | None
    """`ce_dataclassification`, where given; it must agree with the data."""


def read(headers: Iterable[tuple[str, bytes | None]]) -> Envelope:
    """Read a request's headers.

    Raises:
        RecordError: `bad_envelope`, with the header that is missing or wrong.
    """
    given = tuple(headers)
    found = _known(given)
    content_type = found.get("content-type", "")
    if content_type.startswith("application/cloudevents"):
        raise RecordError("bad_envelope", "structured mode is not served; send CloudEvents in binary mode")
    if content_type.partition(";")[0].strip().lower() != JSON:
        raise RecordError("bad_envelope", f"header content-type must be {JSON}")
    for name, expected in (("ce_specversion", "1.0"), ("ce_type", REQUEST_TYPE)):
        if found.get(name) != expected:
            raise RecordError("bad_envelope", f"header {name} must be {expected}")
    for name in ("ce_id", "ce_source"):
        if not found.get(name):
            raise RecordError("bad_envelope", f"header {name} is missing")
    parent, state = trace_context(given)
    return Envelope(
        event_id=found["ce_id"],
        source=found["ce_source"],
        traceparent=parent,
        tracestate=state,
        declared_class=found.get("ce_dataclassification"),
    )


def _known(headers: Iterable[tuple[str, bytes | None]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        known = name.lower()
        if known not in _READ:
            continue
        if known in found:
            raise RecordError("bad_envelope", f"header {known} is given twice")
        try:
            found[known] = (value or b"").decode()
        except UnicodeDecodeError:
            raise RecordError("bad_envelope", f"header {known} is not UTF-8") from None
    return found


def trace_context(headers: Iterable[tuple[str, bytes | None]]) -> tuple[str | None, str]:
    """Give `traceparent` and `tracestate` of any record; what is broken counts as absent, as W3C asks."""
    found: dict[str, list[str]] = {"traceparent": [], "tracestate": []}
    for name, value in headers:
        if len(name) in _TRACE_LENGTHS and name.lower() in found:
            found[name.lower()].append((value or b"").decode("ascii", "replace"))
    parents, state = found["traceparent"], ",".join(found["tracestate"])
    if len(parents) != 1 or TRACEPARENT.fullmatch(parents[0]) is None:
        return None, ""
    return parents[0], state if len(state) <= _MAX_TRACESTATE and state.isascii() else ""


class Hop:
    """Writes the headers of the records that one step writes about one request.

    Args:
        source: who writes.
        subject: the request id, or what stands for it.
        traceparent: trace context of this hop.
        tracestate: its vendor part, handed on unchanged.
    """

    def __init__(self, *, source: str, subject: str, traceparent: str, tracestate: str = "") -> None:
        self._source = ("ce_source", source.encode())
        self._rest: Headers = [
            ("ce_subject", subject.encode()),
            ("content-type", b"application/json"),
            ("traceparent", traceparent.encode()),
        ]
        if tracestate:
            self._rest.append(("tracestate", tracestate.encode()))

    def headers(self, ce_type: str, event_id: str, at: datetime) -> Headers:
        """Give the headers of one record."""
        time = _TIMES.get(at)  # records of one moment are many
        if time is None:
            time = _TIMES.keep(at, ("ce_time", at.isoformat().replace("+00:00", "Z").encode()))
        return [
            ("ce_specversion", b"1.0"),
            ("ce_type", ce_type.encode()),
            self._source,
            ("ce_id", event_id.encode()),
            time,
            *self._rest,
        ]


_TIMES: Final = Memory[datetime, tuple[str, bytes]]()
"""The header of a moment."""
