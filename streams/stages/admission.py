"""Admission: reads requests, decides on each, and writes what follows in one transaction with the position."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from time import perf_counter
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from evidence.errors import RecordError, UnavailableError
from evidence.records import Outcome, Position
from policy.detection.names import DetectorDown
from policy.detection.names import Names as NamesFinder
from streams.errors import kind_and_place
from streams.kafka import KafkaSettings
from streams.metrics import Metrics
from streams.processors.classification import NAMES_FAILED, whole_text
from streams.readable import failure_of
from streams.scanning import Pace, scan_all
from streams.stages.admit import Asked, Incoming, Names, Read, Rules, admit_all, read_request, refuse
from streams.stages.admitted import Admitted
from streams.stages.lanes import LaneStage
from streams.topics import REQUESTS
from streams.transactions import Batch, Writer, committed_position

log = logging.getLogger(__name__)

NAME: Final = "admission"
_BATCH: Final = 128
"""Records of one transaction at most: its CPU time bounds how long other stages of this process wait."""

_CHUNK: Final = 16
"""So many records are decided on together; after that, the event loop gets its turn."""

_POLL_MS: Final = 1000


def stage(
    kafka: KafkaSettings,
    rules: Rules,
    metrics: Metrics,
    clock: Callable[[], datetime],
    names: NamesFinder | None = None,
) -> LaneStage:
    """Make the stage; `names` looks for names and places where the labels ask for that."""
    group = kafka.group(NAME)

    def make(reader: AIOKafkaConsumer, number: int, partitions: tuple[TopicPartition, ...]) -> AdmissionLane:
        (partition,) = partitions
        writer = Writer(kafka, transactional_id=f"waybill-{NAME}-{number}", group=group)
        return AdmissionLane(reader, partition, writer, rules, metrics, clock, names)

    return LaneStage(kafka, group=group, topics=(kafka.name(REQUESTS),), make=make)


class AdmissionLane:
    """One partition of `ai.requests`."""

    def __init__(
        self,
        reader: AIOKafkaConsumer,
        partition: TopicPartition,
        writer: Writer,
        rules: Rules,
        metrics: Metrics,
        clock: Callable[[], datetime],
        names: NamesFinder | None = None,
    ) -> None:
        self._names = names
        self._reader = reader
        self._partition = partition
        self._writer = writer
        self._rules = rules
        self._metrics = metrics
        self._clock = clock
        self._reading: asyncio.Task[Any] | None = None
        self._stopping = False

    async def run(self) -> None:
        """See `Lane`."""
        await self._writer.start()
        try:
            position = await committed_position(self._reader, self._partition)
            if position is not None:
                self._reader.seek(self._partition, position)
            while not self._stopping:
                await self._step()
        finally:
            await self._writer.stop()

    async def stop(self) -> None:
        """See `Lane`; a transaction that has begun is ended."""
        self._stopping = True
        if self._reading is not None:
            self._reading.cancel()

    async def _step(self) -> None:
        self._reading = asyncio.ensure_future(
            self._reader.getmany(self._partition, timeout_ms=_POLL_MS, max_records=_BATCH)
        )
        try:
            found = await self._reading
        except asyncio.CancelledError:
            if self._stopping and self._reading.cancelled():
                return
            raise
        finally:
            self._reading = None
        records = found.get(self._partition, ())
        if not records:
            return
        batch, results, pace = Batch(), list[Admitted](), Pace()
        asked = await self._look(records)
        for start in range(0, len(asked), _CHUNK):
            await pace.pause()
            now = self._clock()
            results += admit_all(asked[start : start + _CHUNK], self._rules, now, partial(self._fault, now))
        for admitted in results:
            batch.records.extend(admitted.records)
        batch.positions[self._partition] = records[-1].offset + 1
        began = perf_counter()
        await self._writer.write(batch)
        self._count(records, results, perf_counter() - began)

    async def _look(self, records: Sequence[Any]) -> list[Asked]:
        """Read records and find out what their texts hold, without keeping the event loop from others.

        Names are looked for where they are wanted, for all records at once: it takes a model in another process.
        """
        asked, pace = [Asked(_incoming(record)) for record in records], Pace()
        read: dict[int, Read] = {}
        for place, one in enumerate(asked):
            await pace.pause()
            with suppress(Exception):  # `admit_all` meets it again, and tells it
                read[place] = read_request(one.record, self._rules, self._clock())
        scanned = await scan_all(self._rules.scanner, [whole_text(found.request) for found in read.values()])
        wanted = [found for found in read.values() if found.book.labels.wants_names(found.request.purpose)]
        names = dict(zip(map(id, wanted), await asyncio.gather(*map(self._find, wanted)), strict=True))
        for (place, found), result in zip(read.items(), scanned, strict=True):
            asked[place] = Asked(asked[place].record, found, names.get(id(found)), result)
        return asked

    async def _find(self, read: Read) -> Names:
        if self._names is None:
            return NAMES_FAILED
        try:
            return await self._names.find(read.request.parts())
        except DetectorDown:
            self._metrics.detector_failures.inc()
            return NAMES_FAILED

    def _fault(self, now: datetime, incoming: Incoming, error: Exception) -> Admitted:
        """A fault of ours must not stop the partition for ever: the record goes to the dead letters like a bad one."""
        place = incoming.position
        # An exception's own text may hold input.
        where = place.topic, place.partition, place.offset
        log.error("%s[%d] offset %d could not be decided: %s", *where, kind_and_place(error))
        if isinstance(error, UnavailableError | OSError):
            raise error  # the vault's disk, not the record: the same record may be decided later
        fault = RecordError("internal_error", "the program failed on this record; its log says how")
        return refuse(incoming, fault, self._rules, now)

    def _count(self, records: Any, results: list[Admitted], seconds: float) -> None:
        metrics = self._metrics
        metrics.transaction_seconds.labels(NAME).observe(seconds)
        now_ms = self._clock().timestamp() * 1000
        waited = metrics.stage_seconds.labels(NAME)
        for record in records:
            waited.observe(max(0.0, now_ms - record.timestamp) / 1000)
        for (result, reason), count in Counter((admitted.result, admitted.reason) for admitted in results).items():
            metrics.admitted.labels(result).inc(count)
            if result == "rejected":
                metrics.dead_letters.labels(reason).inc(count)
                metrics.ended.labels(Outcome.REJECTED, "none").inc(count)
            elif result == "denied":
                metrics.ended.labels(Outcome.DENIED, "none").inc(count)
        end = self._reader.highwater(self._partition)
        if end is not None:
            lag = max(0, end - records[-1].offset - 1)
            metrics.lag.labels(NAME, self._partition.topic, self._partition.partition).set(lag)


def _incoming(record: Any) -> Incoming:
    return Incoming(
        position=Position(topic=record.topic, partition=record.partition, offset=record.offset),
        timestamp_ms=record.timestamp,
        value=record.value,
        headers=record.headers,
        unreadable=failure_of(record),
    )
