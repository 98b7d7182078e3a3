"""Ids and events of one request's story: everything is derived, so that a replay tells the same story."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

import orjson

from evidence.records import EVIDENCE_VERSION, EventType, EvidenceEvent, Record, Stage
from streams.memory import Memory

TRACEPARENT: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}")
"""A W3C `traceparent` of version 00; ids that are all zeros are none."""

UNREADABLE: Final = "unreadable"
"""Stands for the request id where none could be read."""


def intake_id(log_id: str, topic: str, partition: int, offset: int, timestamp_ms: int) -> str:
    """Give the id of one arrival of a request: 32 hex digits, the same for the same record on the same log."""
    place = f"{log_id}/{topic}/{partition}/{offset}/{timestamp_ms}"
    return hashlib.sha256(place.encode()).hexdigest()[:32]


def span_id(intake: str, step: str) -> str:
    """Give the W3C span id of a step: 16 hex digits."""
    return hashlib.sha256(f"{intake}/{step}".encode()).hexdigest()[:16]


def event_id(intake: str, sequence: int) -> str:
    """Give the id of an event: 32 hex digits."""
    return hashlib.sha256(f"{intake}#{sequence}".encode()).hexdigest()[:32]


def trace_of(traceparent: str | None, intake: str) -> tuple[str, str | None]:
    """Give trace id and parent span of a W3C `traceparent`; one that is absent or broken starts a new trace."""
    match = TRACEPARENT.fullmatch(traceparent or "")
    if match:
        return match[1], match[2]
    return hashlib.sha256(f"{intake}/trace".encode()).hexdigest()[:32], None


def traceparent(trace_id: str, span: str) -> str:
    """Give a W3C `traceparent` header."""
    return f"00-{trace_id}-{span}-01"


class Told(NamedTuple):
    """An event as it travels."""

    event_id: str
    """Its id."""

    value: bytes
    """Its JSON."""


class Form:
    """Writes records of one type straight from their fields, as the type itself would write them."""

    def __init__(self, model: type[Record]) -> None:
        self.names = {name: field.alias or name for name, field in model.model_fields.items()}

    def named(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Give fields by their names in JSON; those that are None are left out."""
        names = self.names
        return {names[name]: value for name, value in fields.items() if value is not None}

    def json(self, fields: Mapping[str, Any]) -> bytes:
        """Give the record's bytes; nested records may be given as such or as `orjson.Fragment`."""
        return written(self.named(fields))


def written(content: Mapping[str, Any]) -> bytes:
    """Give the JSON of some content that may hold records."""
    return orjson.dumps(content, default=fragment, option=orjson.OPT_UTC_Z)


def fragment(record: Any) -> orjson.Fragment:
    """Give a nested record's JSON; the same record is told in several events, or of many requests, and written once.

    Raises:
        TypeError: it is no record.
    """
    found = _WRITTEN.get(id(record))
    if found is None:
        if not isinstance(record, Record):
            raise TypeError(type(record).__name__)
        found = _WRITTEN.keep(id(record), (record, orjson.Fragment(record.to_json())))
    return found[1]


_WRITTEN: Final = Memory[int, tuple[Record, orjson.Fragment]]()
_EVENT: Final = Form(EvidenceEvent)


class Story:
    """Tells the events of one intake in order; `common` is what all of them say.

    An event is written straight from its fields: seven of them are told of one request, and as `EvidenceEvent` objects
    they would cost a third of its whole CPU time. The form is that model's all the same: an unknown field is an error
    here, nested records are validated ones, and the sink checks what it reads.
    """

    def __init__(self, *, stage: Stage, intake: str, sequence: int, span: str, **common: Any) -> None:
        self.intake = intake
        self.sequence = sequence
        self.span = span
        said = {"evidence_version": EVIDENCE_VERSION, "stage": stage, "intake_id": intake, "span_id": span, **common}
        self._common = _EVENT.named(said)
        self._head = b""

    def tell(self, event_type: EventType, at: datetime, **fields: Any) -> Told:
        """Give the next event; `fields` are those of `EvidenceEvent`, and None takes a common one away."""
        names, common = _EVENT.names, self._common
        identity = event_id(self.intake, self.sequence)
        own: dict[str, Any] = {
            "eventId": identity,
            "eventType": event_type,
            "sequence": self.sequence,
            "occurredAtUtc": at,
        }
        instead = dict[str, Any]()
        for name, value in fields.items():
            alias = names[name]
            if alias in common:
                instead[alias] = value
            elif value is not None:
                own[alias] = value
        self.sequence += 1
        if instead:
            said = {name: value for name, value in {**common, **instead}.items() if value is not None}
            return Told(identity, written(said | own))
        # What all events say is written once.
        self._head = self._head or written(common)[:-1] + b","
        return Told(identity, self._head + written(own)[1:])
