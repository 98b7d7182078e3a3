"""The dead letter of any record that a stage cannot use: where it lies and why, never what it holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from evidence.canonical import sha256_hex
from evidence.errors import RecordError
from evidence.records import Failure, Position, Stage
from streams import envelope
from streams.response import DeadLetter
from streams.story import event_id, intake_id, span_id, traceparent
from streams.topics import DEADLETTER, Topic
from streams.transactions import Outgoing

_LONGEST_KEY: Final = 1024
"""Bytes of a record's own key that its dead letter takes over; a key alone can fill a record."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Which stage writes dead letters."""

    stage: Stage
    """Its name."""

    site: str
    """Where it runs."""

    log_id: str
    """Which log the offsets belong to."""

    name: Callable[[Topic], str]
    """A topic's name on the broker."""

    def letter(self, record: Any, error: RecordError, now: datetime, *, request_id: str | None = None) -> Outgoing:
        """Return the dead letter of a record.

        Args:
            record: as a consumer gave it.
            error: what is wrong with it; its text is told, and holds no input.
            now: the time.
            request_id: the application's id, where it is known.
        """
        value = record.value or b""
        letter = DeadLetter(
            source=Position(topic=record.topic, partition=record.partition, offset=record.offset),
            source_timestamp_ms=record.timestamp,
            request_id=request_id,
            failure=Failure(code=error.code, message=str(error)[:2000]),
            payload_sha256=sha256_hex(value),
            payload_bytes=len(value),
            recorded_at_utc=now,
            stage=self.stage,
        )
        intake = intake_id(self.log_id, record.topic, record.partition, record.offset, record.timestamp)
        hop = envelope.Hop(
            source=f"/waybill/{self.site}/{self.stage}",
            subject=request_id or intake,
            traceparent=traceparent(intake, span_id(intake, self.stage)),
        )
        headers = hop.headers(envelope.DEADLETTER_TYPE, event_id(intake, 0), now)
        return Outgoing(self.name(DEADLETTER), letter_key(record.key, intake), letter.to_json(), headers)


def letter_key(key: bytes | None, intake: str) -> bytes:
    """Return the key of a dead letter: the record's own, unless there is none or it is too long."""
    return key if key and len(key) <= _LONGEST_KEY else intake.encode()
