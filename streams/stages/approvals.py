"""Approvals: holds what waits for a person, and lets each request go on, or end, once.

A lane owns one partition of `ai.approvals`. It commits the offset of the oldest request that waits and, as the
position's note, how far it has judged. What an answer leads to, the marker that the request is closed and the position
are one transaction. A new owner first reads, from the committed position to the very end of the log, what is closed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from time import perf_counter
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from prometheus_client import CollectorRegistry, Counter, Gauge

from evidence.errors import RecordError, RetryableError
from evidence.records import Outcome, Position, Stage
from policy.vault.erased import Erased
from streams.approvals import (
    ApprovalClosed,
    ApprovalRequest,
    Approvals,
    ApprovalVerdict,
    Approver,
    Authenticate,
    Judgement,
    Ruling,
    Waiting,
    judge,
    read,
    unsigned,
)
from streams.errors import BrokerUnavailable, kind_and_place
from streams.kafka import KafkaSettings, committed_notes, noted_offset
from streams.metrics import Metrics
from streams.readable import failure_of
from streams.stages.answer import Answer, Answering, note_of
from streams.stages.lanes import LaneStage
from streams.stages.letters import Sender
from streams.topics import APPROVALS
from streams.transactions import Batch, Outgoing, Writer, committed_position
from streams.watermark import Watermark

log = logging.getLogger(__name__)

NAME: Final = "approvals"
_BATCH: Final = 16
"""Records of one transaction at most: each may release a whole request."""

_POLL_MS: Final = 1000
_LOOK_S: Final = 0.9
"""Seconds between two looks at who was erased; a little less than a poll takes."""
_END_TIMEOUT_S: Final = 20.0


class ApprovalMetrics:
    """What the stage counts; made once for each process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.results = Counter(
            "waybill_approvals",
            "Requests for approval and verdicts on them, by what became of them.",
            ["result"],
            registry=registry,
        )
        self.waiting = Gauge(
            "waybill_approvals_waiting",
            "Requests that wait for a person, by partition.",
            ["partition"],
            registry=registry,
        )


@dataclass(frozen=True, slots=True)
class Desk:
    """What the stage works with."""

    site: str
    """Where this runs."""

    log_id: str
    """Which log the offsets belong to."""

    clock: Callable[[], datetime]
    """Gives the time."""

    metrics: Metrics
    """The process's metrics."""

    counts: ApprovalMetrics
    """Those of this stage."""

    mask: Callable[[str], str]
    """Masks what detectors find in an approver's note."""

    erased: Erased
    """Says who was erased, and when."""

    authenticate: Authenticate = unsigned
    """Says who sent a verdict."""


def stage(kafka: KafkaSettings, desk: Desk) -> LaneStage:
    """Make the stage."""
    group = kafka.group(NAME)

    def make(reader: AIOKafkaConsumer, number: int, partitions: tuple[TopicPartition, ...]) -> ApprovalsLane:
        (partition,) = partitions
        writer = Writer(kafka, transactional_id=f"waybill-{NAME}-{number}", group=group)
        return ApprovalsLane(kafka, reader, partition, writer, desk)

    return LaneStage(kafka, group=group, topics=(kafka.name(APPROVALS),), make=make)


@dataclass(slots=True)
class _Step:
    """What one step writes, and what it counts once that is durable."""

    now: datetime
    records: list[Outgoing] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    ended: list[Outcome] = field(default_factory=list)


class ApprovalsLane:
    """One partition of `ai.approvals`."""

    def __init__(
        self, kafka: KafkaSettings, reader: AIOKafkaConsumer, partition: TopicPartition, writer: Writer, desk: Desk
    ) -> None:
        self._kafka = kafka
        self._reader = reader
        self._partition = partition
        self._writer = writer
        self._desk = desk
        self._known = Approvals()
        self._mark = Watermark()
        self._judged = 0
        self._looked = -_LOOK_S
        self._undecided: list[tuple[Any, ApprovalVerdict]] = []
        self._reading: asyncio.Task[Any] | None = None
        self._stopping = False

    async def run(self) -> None:
        """See `Lane`."""
        await self._writer.start()
        try:
            await self._recover()
            while not self._stopping:
                await self._step()
        finally:
            self._desk.counts.waiting.labels(self._partition.partition).set(0)
            await self._writer.stop()

    async def stop(self) -> None:
        """See `Lane`; a transaction that has begun is ended."""
        self._stopping = True
        if self._reading is not None:
            self._reading.cancel()

    async def _recover(self) -> None:
        """Learn what waits and what is closed, and only then judge what nobody has judged.

        The markers of a predecessor may lie behind the open transaction of somebody else, where a reader of committed
        records does not see them yet. So the end is asked for without regard to transactions, once ours is fenced.
        """
        position = await committed_position(self._reader, self._partition)
        if position is not None:
            self._reader.seek(self._partition, position)
            notes = await committed_notes(self._kafka, self._kafka.group(NAME), [self._partition])
            self._judged = noted_offset(notes.get(self._partition))
        end = await log_end(self._kafka, self._partition)
        found: list[Any] = []
        while not self._stopping and await self._reader.position(self._partition) < end:
            found += await self._read(_POLL_MS)
        if not self._stopping:
            await self._handle(found)

    async def _step(self) -> None:
        due = self._known.next_due()
        wait_ms = _POLL_MS
        if due is not None:
            left_ms = (due - self._desk.clock()).total_seconds() * 1000
            wait_ms = min(_POLL_MS, max(1, int(left_ms) + 1))
        records = await self._read(wait_ms)
        if not self._stopping:
            await self._handle(records)

    async def _read(self, timeout_ms: int) -> Sequence[Any]:
        self._reading = asyncio.ensure_future(
            self._reader.getmany(self._partition, timeout_ms=timeout_ms, max_records=_BATCH)
        )
        try:
            found = await self._reading
        except asyncio.CancelledError:
            if self._stopping and self._reading.cancelled():
                return ()
            raise
        finally:
            self._reading = None
        records: Sequence[Any] = found.get(self._partition, ())
        return records

    async def _handle(self, records: Sequence[Any]) -> None:
        """Take records and the clock, and write what follows in one transaction with the position."""
        step = _Step(self._desk.clock())
        learnt = [self._learn(record, step) for record in records]
        self._end_erased(step)
        self._answer_all([*self._undecided, *(each for each in learnt if each is not None)], step)
        for waiting in self._known.due(step.now):
            self._close(waiting, self._answering(waiting, step).expired(), step)
            step.results.append("expired")
        if not records and not step.records:
            return
        if records:
            self._judged = max(self._judged, records[-1].offset + 1)
        began = perf_counter()
        # The note tells the next owner which verdicts had their turn: what was void stays void.
        judged = self._undecided[0][0].offset if self._undecided else self._judged
        position: dict[TopicPartition, Any] = {self._partition: (self._mark.position, str(judged))}
        await self._writer.write(Batch(step.records, position))
        self._count(step, perf_counter() - began)

    def _end_erased(self, step: _Step) -> None:
        """End what waits about people who were erased since; that is looked up once a second."""
        if perf_counter() - self._looked < _LOOK_S:
            return
        for waiting in list(self._known):
            at = self._desk.erased(waiting.request.tenant, waiting.request.person)
            if at is not None and waiting.request.requested_at_utc <= at:
                self._close(waiting, self._answering(waiting, step).erased(), step)
                step.results.append("erased")
        self._looked = perf_counter()

    def _learn(self, record: Any, step: _Step) -> tuple[Any, ApprovalVerdict] | None:
        """Take what a record says of what waits and what is closed; give a verdict that has not had its turn."""
        self._mark.begin(record.offset)
        handled = record.offset < self._judged
        try:
            if (unreadable := failure_of(record)) is not None:
                raise unreadable
            found = read(record.key, record.value)
        except RecordError as error:
            if not handled:
                self._reject(record, error.code, str(error), None, step)
            found = None
        match found:
            case ApprovalRequest():
                place = Position(topic=record.topic, partition=record.partition, offset=record.offset)
                if self._known.park(found, place):
                    if not handled:
                        step.results.append("requested")
                    return None  # its offset stays open
            case ApprovalClosed():
                closed = self._known.close(found)
                if closed is not None:
                    self._mark.end(closed.place.offset)
            case ApprovalVerdict() if not handled:
                return record, found
        self._mark.end(record.offset)
        return None

    def _answer_all(self, verdicts: list[tuple[Any, ApprovalVerdict]], step: _Step) -> None:
        """Judge verdicts in their order; where nobody can say now who sent one, it and those after it wait."""
        before, self._undecided = bool(self._undecided), []
        for place, (record, verdict) in enumerate(verdicts):
            try:
                self._answer(record, verdict, step)
            except RetryableError as error:
                self._undecided = verdicts[place:]
                if not before:
                    log.warning("%s[%d]: verdicts wait: %s", *self._partition, error)
                return

    def _answer(self, record: Any, verdict: ApprovalVerdict, step: _Step) -> None:
        waiting = self._known.waiting(verdict.approval_id)
        if waiting is None:
            self._mark.end(record.offset)
            if self._known.closed(verdict.approval_id) is not None:
                step.results.append("repeated")
            else:
                told = "nothing waits under this id: it was answered or has expired before, or never was"
                self._reject(record, "unknown_approval", told, None, step)
            return
        approver, judgement = self._judged_by(record, verdict, waiting, step.now)
        self._mark.end(record.offset)
        answering, note = self._answering(waiting, step), note_of(verdict, self._desk.mask)
        match judgement.ruling:
            case Ruling.APPROVE if approver is not None:
                self._close(waiting, answering.approved(approver, note), step)
                step.results.append("approved")
            case Ruling.DENY if approver is not None:
                self._close(waiting, answering.denied(approver, note), step)
                step.results.append("denied")
            case Ruling.LATE:
                step.results.append("late")
            case _:
                self._reject(record, judgement.code, judgement.message, waiting.request.request_id, step)

    def _judged_by(
        self, record: Any, verdict: ApprovalVerdict, waiting: Waiting, now: datetime
    ) -> tuple[Approver | None, Judgement]:
        try:
            approver = self._desk.authenticate(record.headers, verdict)
        except RecordError as error:
            return None, Judgement(Ruling.VOID, error.code, str(error))
        except RetryableError:
            raise
        except Exception as error:  # noqa: BLE001 - a fault of ours must not stop the partition for ever
            log.error("%s[%d] offset %d: %s", *self._partition, record.offset, kind_and_place(error))  # noqa: TRY400 - an exception's own text may hold input
            return None, Judgement(
                Ruling.VOID, "internal_error", "the program failed on this verdict; its log says how"
            )
        return approver, judge(waiting.request, verdict, approver, now)

    def _answering(self, waiting: Waiting, step: _Step) -> Answering:
        return Answering(waiting.request, site=self._desk.site, name=self._kafka.name, now=step.now)

    def _close(self, waiting: Waiting, answer: Answer, step: _Step) -> None:
        self._known.close(answer.marker)
        self._mark.end(waiting.place.offset)
        step.records.extend(answer.records)
        if answer.outcome is not None:
            step.ended.append(answer.outcome)

    def _reject(self, record: Any, code: str, message: str, request_id: str | None, step: _Step) -> None:
        """Send a record to the dead letters; what it was about, if anything, waits on."""
        sender = Sender(Stage.APPROVALS, self._desk.site, self._desk.log_id, self._kafka.name)
        step.records.append(sender.letter(record, RecordError(code, message), step.now, request_id=request_id))
        step.results.append("void")
        step.dead.append(code)

    def _count(self, step: _Step, seconds: float) -> None:
        metrics, counts = self._desk.metrics, self._desk.counts
        metrics.transaction_seconds.labels(NAME).observe(seconds)
        for result in step.results:
            counts.results.labels(result).inc()
        for code in step.dead:
            metrics.dead_letters.labels(code).inc()
        for outcome in step.ended:
            metrics.ended.labels(outcome, "none").inc()
        counts.waiting.labels(self._partition.partition).set(len(self._known))
        end = self._reader.highwater(self._partition)
        if end is not None:
            lag = max(0, end - self._judged)
            metrics.lag.labels(NAME, self._partition.topic, self._partition.partition).set(lag)


async def log_end(kafka: KafkaSettings, partition: TopicPartition) -> int:
    """Give the end of a partition, open transactions included.

    Raises:
        BrokerUnavailable: the broker does not say.
    """
    asking = AIOKafkaConsumer(**kafka.client_options(), group_id=None, isolation_level="read_uncommitted")
    try:
        async with asyncio.timeout(_END_TIMEOUT_S):
            await asking.start()
            ends = await asking.end_offsets([partition])
    except (KafkaError, OSError, TimeoutError) as error:
        raise BrokerUnavailable(f"the broker at {kafka.bootstrap} does not say where {partition.topic} ends") from error
    finally:
        await asking.stop()
    end: int = ends[partition]
    return end
