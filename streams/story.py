"""Ids and events of one request's story: everything is derived, so that a replay tells the same story."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from evidence.records import EVIDENCE_VERSION, EventType, EvidenceEvent, Record, Stage

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


@dataclass(frozen=True, slots=True)
class Told:
    """An event as it travels."""

    event_id: str
    """Its id."""

    value: bytes
    """Its JSON."""


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
        self._forms: dict[int, tuple[Record, orjson.Fragment]] = {}
        said = {"evidence_version": EVIDENCE_VERSION, "stage": stage, "intake_id": intake, "span_id": span, **common}
        self._common = {_NAMES[name]: value for name, value in said.items() if value is not None}

    def tell(self, event_type: EventType, at: datetime, **fields: Any) -> Told:
        """Give the next event; `fields` are those of `EvidenceEvent`, and None takes a common one away."""
        identity = event_id(self.intake, self.sequence)
        content = {
            **self._common,
            "eventId": identity,
            "eventType": event_type,
            "sequence": self.sequence,
            "occurredAtUtc": at,
        }
        for name, value in fields.items():
            if value is not None:
                content[_NAMES[name]] = self._form(value) if isinstance(value, Record) else value
            else:
                content.pop(_NAMES[name], None)
        self.sequence += 1
        return Told(identity, orjson.dumps(content, option=orjson.OPT_UTC_Z))

    def _form(self, record: Record) -> orjson.Fragment:
        """Give a nested record's JSON; the same record is told in several events and is written once."""
        found = self._forms.get(id(record))
        if found is None:
            found = self._forms[id(record)] = (record, orjson.Fragment(record.to_json()))
        return found[1]


_NAMES: Final = {name: field.alias or name for name, field in EvidenceEvent.model_fields.items()}
"""JSON names of the fields of an event."""
