"""Ids and events of one request's story: everything is derived, so that a replay tells the same story."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from typing import Any, Final

from evidence.records import EventType, EvidenceEvent, Stage

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


class Story:
    """Builds the events of one intake in order; `common` is what all of them say."""

    def __init__(self, *, stage: Stage, intake: str, sequence: int, span: str, **common: Any) -> None:
        self.intake = intake
        self.sequence = sequence
        self.span = span
        self._common = {"stage": stage, "intake_id": intake, **common}

    def event(self, event_type: EventType, at: datetime, **fields: Any) -> EvidenceEvent:
        """Give the next event; `fields` are those of `EvidenceEvent`."""
        merged = {"span_id": self.span, **self._common, **fields}
        event = EvidenceEvent(
            event_id=event_id(self.intake, self.sequence),
            event_type=event_type,
            sequence=self.sequence,
            occurred_at_utc=at,
            **merged,
        )
        self.sequence += 1
        return event
