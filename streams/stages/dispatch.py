"""Dispatch: many requests in flight, one committer, positions committed up to the lowest unfinished request.

A lane owns partition N of both work topics and of the ledger. What its requests have to say gathers while a transaction
is under way and goes out together in the next one, so that a commit is shared by all who wait for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from evidence.errors import RecordError, RetryableError
from evidence.moments import log_moment
from evidence.records import Failure, Outcome, Position, Stage
from streams.errors import kind_and_place
from streams.kafka import KafkaSettings
from streams.ledger import Finding, Ledger, Standing, rebuild
from streams.metrics import Metrics
from streams.stages import bad_work
from streams.stages.account import Kitchen, Served
from streams.stages.lanes import LaneStage
from streams.stages.letters import Sender
from streams.stages.serve import Serving
from streams.topics import LEDGER, WORK_HOSTED, WORK_LOCAL
from streams.transactions import Batch, Outgoing, Writer, committed_position
from streams.watermark import Watermark
from streams.work import Work

log = logging.getLogger(__name__)

NAME: Final = "dispatch"
_BATCH: Final = 64
"""Work records taken at once at most."""

_PEEK_S: Final = 5.0
"""How long the first unfinished work record may take to arrive."""

_PEEK_STEP_MS: Final = 50

_EPOCH: Final = datetime.fromtimestamp(0, UTC)

_POLL_MS: Final = 1000


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be in flight in this worker."""

    local: int = 8
    """Requests to local models."""

    hosted: int = 256
    """Requests to hosted providers."""

    drain_s: float = 20.0
    """Seconds that requests in flight get to end when the worker stops or loses its partitions."""


class Gate:
    """Bounds what is in flight on one side of the boundary; lanes that wait are let in by turns."""

    def __init__(self, limit: int, metrics: Metrics, placement: str) -> None:
        self._places = asyncio.Semaphore(limit)
        self._gauge = metrics.in_flight.labels(placement)

    async def enter(self) -> None:
        """Wait for a place and take it."""
        await self._places.acquire()
        self._gauge.inc()

    def leave(self, task: asyncio.Task[None]) -> None:
        """Give back the place of a task that has ended."""
        del task
        self._gauge.dec()
        self._places.release()


def stage(kafka: KafkaSettings, kitchen: Kitchen, limits: Limits, log_id: str) -> LaneStage:
    """Make the stage."""
    group = kafka.group(NAME)
    gates = {
        kafka.name(WORK_LOCAL): Gate(limits.local, kitchen.metrics, "local"),
        kafka.name(WORK_HOSTED): Gate(limits.hosted, kitchen.metrics, "hosted"),
    }

    def make(reader: AIOKafkaConsumer, number: int, partitions: tuple[TopicPartition, ...]) -> DispatchLane:
        if len(partitions) != len(gates):
            raise RuntimeError(f"partition {number} of the work topics was split between workers: {partitions}")
        writer = Writer(kafka, transactional_id=f"waybill-{NAME}-{number}", group=group)
        return DispatchLane(kafka, reader, number, partitions, writer, kitchen, gates, limits, log_id)

    return LaneStage(kafka, group=group, topics=tuple(gates), make=make, drain_s=limits.drain_s)


@dataclass(slots=True)
class _Pending:
    """What waits for the next transaction."""

    records: list[Outgoing] = field(default_factory=list)
    waiting: list[asyncio.Future[None]] = field(default_factory=list)
    ended: list[tuple[TopicPartition, int]] = field(default_factory=list)
    served: list[tuple[str, Served]] = field(default_factory=list)


class DispatchLane:
    """Partition N of the work topics and of the ledger."""

    def __init__(
        self,
        kafka: KafkaSettings,
        reader: AIOKafkaConsumer,
        number: int,
        partitions: tuple[TopicPartition, ...],
        writer: Writer,
        kitchen: Kitchen,
        gates: dict[str, Gate],
        limits: Limits,
        log_id: str,
    ) -> None:
        self._kafka = kafka
        self._reader = reader
        self._ledger_partition = TopicPartition(kafka.name(LEDGER), number)
        self._partitions = partitions
        self._writer = writer
        self._kitchen = kitchen
        self._gates = gates
        self._limits = limits
        self._sender = Sender(Stage.DISPATCH, kitchen.site, log_id, kafka.name)
        self._ledger = Ledger()
        self._marks = {partition: Watermark() for partition in partitions}
        self._committed: dict[TopicPartition, int] = {}
        self._pending = _Pending()
        self._something = asyncio.Event()
        self._serving: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """See `Lane`."""
        await self._writer.start()
        stop = asyncio.create_task(self._stop.wait())
        try:
            if await self._recovered(stop):
                await self._work(stop)
        finally:
            await _cancel([stop])
            await self._writer.stop()

    async def _recovered(self, stop: asyncio.Task[Any]) -> bool:
        """Recover, but not beyond a stop: a group that assembles gives nothing to read until this lane has ended."""
        recovering = asyncio.create_task(self._recover())
        try:
            await asyncio.wait({recovering, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not stop.done():
                recovering.result()
            return not stop.done()
        finally:
            await _cancel([recovering])

    async def _work(self, stop: asyncio.Task[Any]) -> None:
        workers = [asyncio.create_task(self._pull(partition)) for partition in self._partitions]
        committer = asyncio.create_task(self._commit_for_ever())
        try:
            done, _ = await asyncio.wait({*workers, committer, stop}, return_when=asyncio.FIRST_COMPLETED)
            await _cancel(workers)
            if committer not in done:  # reading may have failed: what was read ends in order all the same
                await self._drain(committer)
            for task in done:
                task.result()
        finally:
            await _cancel([*workers, *self._serving, committer])

    async def stop(self) -> None:
        """See `Lane`."""
        self._stop.set()

    async def _recover(self) -> None:
        """Go to the committed positions and learn what was intended and ended beyond them."""
        for partition in self._partitions:
            position = await committed_position(self._reader, partition)
            if position is not None:
                self._reader.seek(partition, position)
        ends = await self._reader.end_offsets(list(self._partitions))
        oldest: datetime | None = None
        for partition, end in ends.items():
            begun = await self._begun(partition, end)
            if begun is not None:
                oldest = begun if oldest is None else min(oldest, begun)
        self._ledger = await rebuild(
            self._kafka,
            self._ledger_partition,
            now=self._kitchen.clock(),
            oldest_work=oldest,
            skipped=self._kitchen.metrics.ledger_skipped.inc,
        )

    async def _begun(self, partition: TopicPartition, end: int) -> datetime | None:
        """Say when the first unfinished work record was written; None where there is none."""
        loop = asyncio.get_running_loop()
        position, give_up = await self._reader.position(partition), loop.time() + _PEEK_S
        try:
            # What is left may be the marks of transactions alone; reading moves past them and gives nothing.
            while await self._reader.position(partition) < end:
                found = await self._reader.getmany(partition, timeout_ms=_PEEK_STEP_MS, max_records=1)
                if found.get(partition):
                    return log_moment(found[partition][0].timestamp, _EPOCH)
                if loop.time() > give_up:
                    return _EPOCH  # there is some, and it does not show itself: the whole ledger is read
            return None
        finally:
            self._reader.seek(partition, position)

    async def _pull(self, partition: TopicPartition) -> None:
        gate = self._gates[partition.topic]
        mark = self._marks[partition]
        while True:
            found = await self._reader.getmany(partition, timeout_ms=_POLL_MS, max_records=_BATCH)
            for record in found.get(partition, ()):
                await gate.enter()
                mark.begin(record.offset)
                task = asyncio.create_task(self._serve(partition, record))
                self._serving.add(task)
                task.add_done_callback(self._serving.discard)
                # Not in the task itself: one that is cancelled before its first step runs nothing of its own.
                task.add_done_callback(gate.leave)
            end = self._reader.highwater(partition)
            if end is not None:
                lag = max(0, end - await self._reader.position(partition))
                self._kitchen.metrics.lag.labels(NAME, partition.topic, partition.partition).set(lag)

    async def _serve(self, partition: TopicPartition, record: Any) -> None:
        try:
            try:
                work = bad_work.read(record)
            except RecordError as error:
                self._kitchen.metrics.dead_letters.labels(error.code).inc()
                await self._finish(partition, record.offset, self._unserved(record, error))
                return
            place = Position(topic=partition.topic, partition=partition.partition, offset=record.offset)
            now = self._kitchen.clock()
            self._kitchen.metrics.stage_seconds.labels("queue").observe(
                max(0.0, (now - work.admitted_at_utc).total_seconds())
            )
            finding = self._ledger.claim(work)
            serving: Serving | None = None
            try:
                serving = Serving(self._kitchen, work, place, self._commit)
                served = await serving.run(finding)
            except (KafkaError, RetryableError, OSError):
                raise  # not the record: the same one may be served later
            except Exception as error:  # noqa: BLE001 - it ends this request, and no other
                served = self._failed(record, work, finding, serving, error)
            if served is None:
                await self._finish(partition, record.offset, [])
                return
            began = perf_counter()
            await self._finish(partition, record.offset, served.records, work.scope, served)
            metrics = self._kitchen.metrics
            metrics.stage_seconds.labels("finish").observe(perf_counter() - began)
            spent = (self._kitchen.clock() - work.admitted_at_utc).total_seconds()
            metrics.stage_seconds.labels("total").observe(max(0.0, spent))
            metrics.ended.labels(served.outcome, served.placement).inc()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - see below
            # One way back to work: the lane ends, the stage starts again from what is committed.
            self._tell(record, error)
            self._fail(error)

    def _tell(self, record: Any, error: Exception) -> None:
        where = record.topic, record.partition, record.offset
        log.error(
            "%s[%d] offset %d could not be served: %s", *where, kind_and_place(error)
        )  # an exception's own text may hold input

    def _failed(self, record: Any, work: Work, finding: Finding, serving: Serving | None, error: Exception) -> Served:
        """End a request on which the program itself failed: `failed`, or `unknown` where its call may have been made.

        Raises:
            Exception: a call may have been made, and not even its end can be told.
        """
        self._tell(record, error)
        self._kitchen.metrics.dead_letters.labels(bad_work.INTERNAL.code).inc()
        now, said = self._kitchen.clock(), work.said.request_id
        if serving is not None:
            try:
                served = serving.broken(Failure(code=bad_work.INTERNAL.code, message=str(bad_work.INTERNAL)))
            except Exception:
                if serving.crossed:
                    raise
            else:
                served.records.append(self._sender.letter(record, bad_work.INTERNAL, now, request_id=said))
                return served
        if finding.standing is Standing.INTERRUPTED:
            raise error
        self._ledger.release(work)
        return Served(self._unserved(record, bad_work.INTERNAL), None, Outcome.FAILED, "none")

    def _unserved(self, record: Any, error: RecordError) -> list[Outgoing]:
        """Give what ends a work record that cannot be served; a request that is taken already has another end."""
        request = bad_work.glimpse(record.value)
        if request is not None and self._ledger.knows(request.scope, request.intake_id):
            request = None
        return bad_work.end(record, error, self._sender, self._kitchen.clock(), request)

    async def _commit(self, records: Sequence[Outgoing]) -> None:
        """Make records durable; returns when the transaction that holds them is committed."""
        waiting = asyncio.get_running_loop().create_future()
        self._pending.records.extend(records)
        self._pending.waiting.append(waiting)
        self._something.set()
        await waiting

    async def _finish(
        self,
        partition: TopicPartition,
        offset: int,
        records: Sequence[Outgoing],
        scope: str | None = None,
        served: Served | None = None,
    ) -> None:
        self._pending.ended.append((partition, offset))
        if scope is not None and served is not None:
            self._pending.served.append((scope, served))
        await self._commit(records)

    def _fail(self, error: BaseException) -> None:
        _disappoint(self._pending, error)
        self._failure = error
        self._something.set()

    _failure: BaseException | None = None

    async def _commit_for_ever(self) -> None:
        while True:
            await self._something.wait()
            self._something.clear()
            if self._failure is not None:
                raise self._failure
            # Let everyone who is ready say what they have: one transaction serves them all.
            await asyncio.sleep(0)
            pending, self._pending = self._pending, _Pending()
            await self._commit_once(pending)

    async def _commit_once(self, pending: _Pending) -> None:
        positions = self._positions(pending)
        began = perf_counter()
        try:
            await self._writer.write(Batch(pending.records, dict(positions)))
        except BaseException as error:
            _disappoint(pending, error)
            raise
        self._committed.update(positions)
        self._kitchen.metrics.transaction_seconds.labels(NAME).observe(perf_counter() - began)
        now = self._kitchen.clock()
        for scope, served in pending.served:
            if served.entry is not None:
                self._ledger.put(scope, served.entry, now)
        for waiting in pending.waiting:
            if not waiting.done():
                waiting.set_result(None)

    def _positions(self, pending: _Pending) -> dict[TopicPartition, int]:
        for partition, offset in pending.ended:
            self._marks[partition].end(offset)
        found = {partition: self._marks[partition].position for partition, _ in pending.ended}
        return {
            partition: position
            for partition, position in found.items()
            if position is not None and position != self._committed.get(partition)
        }

    async def _drain(self, committer: asyncio.Task[None]) -> None:
        """Let what is in flight end; what does not end in time is left to the next owner, who finds its intent."""
        if not self._serving:
            return
        serving = asyncio.gather(*self._serving, return_exceptions=True)
        waited: set[asyncio.Future[Any]] = {serving, committer}
        await asyncio.wait(waited, timeout=self._limits.drain_s, return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            if not committer.done():
                log.warning("%d requests were still in flight after %.0f s", len(self._serving), self._limits.drain_s)
            serving.cancel()


def _disappoint(pending: _Pending, error: BaseException) -> None:
    """Tell everyone who waits for a transaction that it failed."""
    for waiting in pending.waiting:
        if waiting.done():
            continue
        if isinstance(error, asyncio.CancelledError):
            waiting.cancel()
        else:
            waiting.set_exception(error)


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
