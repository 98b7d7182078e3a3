"""One partition of the evidence topic, as its sink holds it: what is buffered, and what has to be said of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from evidence.log.ranges import Ranges, span
from evidence.moments import LAST_MS
from evidence.parsing import Parsed, Reject, parse
from evidence.store.writer import PartitionWriter
from streams.errors import LogMismatch
from streams.readable import failure_of


@dataclass(frozen=True, slots=True)
class RejectedRecord:
    """A record of the evidence topic that is no evidence event: where it is and what is wrong, never its text."""

    topic: str
    """Topic, as the broker names it."""

    partition: int
    """Partition number."""

    offset: int
    """Offset within the partition."""

    timestamp_ms: int
    """The log's time of it, in milliseconds since 1970; negative where there is none."""

    key: bytes | None
    """Its key."""

    sha256: str
    """SHA-256 of its value, in hex; of nothing where it has none."""

    size: int
    """Size of its value in bytes."""

    code: str
    """Stable reason code."""

    message: str
    """What is wrong with it; names fields, never values."""


@dataclass(slots=True)
class SinkPartition:
    """What the sink holds of one partition that it is the writer of."""

    writer: PartitionWriter
    next: int
    """Offset that must come next."""
    idle_since: float
    """When its last commit was, by the monotonic clock."""
    records: list[Any] = field(default_factory=list)
    size: int = 0
    since: float = 0.0
    """When the oldest buffered record came, by the monotonic clock."""
    gap: int | None = None
    """First offset that was skipped since the last flush: markers and aborted records, unless the log lost some."""
    flush: asyncio.Task[None] | None = None
    flushing: int = 0
    """Bytes in the running flush."""
    flushing_since_ms: int | None = None
    """The log's time of the first record in the running flush."""
    leaving: bool = False
    paused: bool = False

    def take(self, records: list[Any], now: float) -> None:
        """Add records that follow.

        Raises:
            LogMismatch: they do not follow.
        """
        first = records[0].offset
        if first < self.next:
            raise LogMismatch(
                f"{self.writer.log} went back from offset {self.next} to {first}: the topic was truncated or made "
                "anew; find out which, and give the sink another log id or another evidence directory"
            )
        if first > self.next and self.gap is None:
            self.gap = self.next
        if not self.records:
            self.since = now
        self.records.extend(records)
        self.size += sum([record.serialized_value_size for record in records])
        self.next = records[-1].offset + 1

    def oldest_ms(self) -> int | None:
        """Give the log's time, in milliseconds since 1970, of the oldest record that is not visible yet."""
        if self.flush is not None and self.flushing_since_ms is not None:
            return self.flushing_since_ms
        return self.records[0].timestamp if self.records and self.records[0].timestamp >= 0 else None

    def swap(self) -> tuple[list[Any], int | None]:
        """Give what is buffered, and begin anew."""
        taken = self.records, self.gap
        self.flushing, self.flushing_since_ms = self.size, self.oldest_ms()
        self.records, self.size, self.gap = [], 0, None
        return taken


def parse_records(records: list[Any], partition: int) -> Parsed:
    """Turn records into rows; one that could not be read is a reject, and a time that is none counts as absent."""
    parsed = parse(
        [None if failure_of(record) else record.value for record in records],
        partition=partition,
        offsets=[record.offset for record in records],
        timestamps_ms=[record.timestamp if record.timestamp <= LAST_MS else -1 for record in records],
    )
    if not parsed.rejects:
        return parsed
    rejects = (Reject(one.index, failure_of(records[one.index]) or one.error) for one in parsed.rejects)
    return Parsed(parsed.table, tuple(rejects))


def rejected_record(record: Any, error: Any) -> RejectedRecord:
    """Describe a record that is no evidence event."""
    value: bytes = record.value or b""
    return RejectedRecord(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp,
        key=record.key,
        sha256=hashlib.sha256(value).hexdigest(),
        size=len(value),
        code=error.code,
        message=str(error),
    )


def check_end(writer: PartitionWriter, end: int) -> None:
    """See that the store is not ahead of the topic.

    Raises:
        LogMismatch: it is.
    """
    if writer.position > end:
        raise LogMismatch(
            f"the evidence store is ahead of the topic: {writer.log} is stored up to offset {writer.position - 1}, and "
            f"the log ends at {end}; the topic was made anew under the same log id, or lost records. Give the sink "
            "another log id, or restore the topic"
        )


def missing(records: Iterable[Any], position: int, beginning: int) -> Ranges:
    """Give the offsets from `position` up to the topic's beginning that no record was read of.

    Transaction markers among them cannot be told from records any more, so they are counted as lost too.
    """
    found: Ranges = ()
    for offset in sorted({record.offset for record in records if position <= record.offset < beginning}):
        found += span(position, offset)
        position = offset + 1
    return found + span(position, beginning)
