"""What the sink tells: its metrics, and its rejected records on the way to the dead letters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from evidence.records import Failure, Position
from streams import envelope
from streams.kafka import KafkaSettings, producer
from streams.metrics import Metrics
from streams.response import DeadLetter
from streams.stages.letters import letter_key
from streams.stages.sink_partition import RejectedRecord
from streams.story import event_id, intake_id, span_id, traceparent
from streams.topics import DEADLETTER, EVIDENCE


class SinkMetrics:
    """The sink's observations as Prometheus metrics."""

    def __init__(self, kafka: KafkaSettings, metrics: Metrics) -> None:
        self._topic = kafka.name(EVIDENCE)
        self._metrics = metrics

    def rows(self, count: int) -> None:
        """See `SinkObserver`."""
        self._metrics.evidence_rows.inc(count)

    def flushed(self, rows: int, seconds: float, size: int) -> None:
        """See `SinkObserver`."""
        del rows
        self._metrics.flush_seconds.observe(seconds)
        self._metrics.evidence_bytes.inc(size)

    def freshness(self, seconds: float) -> None:
        """See `SinkObserver`."""
        self._metrics.freshness.set(seconds)

    def lag(self, partition: int, records: int) -> None:
        """See `SinkObserver`."""
        self._metrics.lag.labels("sink", self._topic, partition).set(records)

    def waiting(self, seconds: float) -> None:
        """See `SinkObserver`."""
        self._metrics.waiting.set(seconds)

    def lost(self, partition: int, offsets: int) -> None:
        """See `SinkObserver`."""
        del partition
        self._metrics.evidence_lost.inc(offsets)

    def upkeep_failed(self) -> None:
        """See `SinkObserver`."""
        self._metrics.upkeep_failures.inc()


class SinkRejects:
    """Writes rejected evidence records to the dead letters, acknowledged by all in-sync replicas.

    At least once: after a crash the same record may be reported again, under the same event id.
    """

    def __init__(
        self, kafka: KafkaSettings, metrics: Metrics, clock: Callable[[], datetime], *, log_id: str, site: str
    ) -> None:
        self._kafka = kafka
        self._metrics = metrics
        self._clock = clock
        self._log_id = log_id
        self._source = f"/waybill/{site}/sink"

    async def __call__(self, rejected: Sequence[RejectedRecord]) -> None:
        """See `streams.stages.sink.DeadLetter`; a connection is made for the occasion, which is rare."""
        made = producer(self._kafka)
        try:
            await made.start()
            for record in rejected:
                await self._send(made, record)
        finally:
            await made.stop()
        for record in rejected:
            self._metrics.evidence_rejected.inc()
            self._metrics.dead_letters.labels(record.code).inc()

    async def _send(self, made: Any, record: RejectedRecord) -> None:
        now = self._clock()
        intake = intake_id(self._log_id, record.topic, record.partition, record.offset, record.timestamp_ms)
        letter = DeadLetter(
            source=Position(topic=record.topic, partition=record.partition, offset=record.offset),
            source_timestamp_ms=record.timestamp_ms,
            failure=Failure(code=record.code, message=record.message[:2000]),
            payload_sha256=record.sha256,
            payload_bytes=record.size,
            recorded_at_utc=now,
            stage="sink",
        )
        hop = envelope.Hop(
            source=self._source, subject=intake, traceparent=traceparent(intake, span_id(intake, "sink"))
        )
        headers = hop.headers(envelope.DEADLETTER_TYPE, event_id(intake, 0), now)
        await made.send_and_wait(
            self._kafka.name(DEADLETTER), key=letter_key(record.key, intake), value=letter.to_json(), headers=headers
        )
