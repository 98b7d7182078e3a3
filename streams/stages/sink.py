"""The evidence sink: from `ai.evidence` to Parquet, each event once, never older than a set freshness.

The evidence store is the only memory of how far the log is stored: on each assignment the sink takes the partition's
log over, which fences whoever wrote it before, and reads on from its newest commit, so there is nothing that a crash
could leave out of step. Offsets are committed to the group as well, for those who watch its lag, and are never read
back. Offsets that the topic held no more are committed as lost, by number; silence is committed too, as an empty
window every so often.

Records are consumed while the batch before them is parsed, encoded and written in a thread. A partition has one flush
at a time, and when more is buffered than memory should hold, its fetching pauses.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from evidence.disk import PartitionHeld
from evidence.errors import RetryableError, WaybillError
from evidence.log.ranges import Ranges, count
from evidence.schema import EVENTS_SCHEMA
from evidence.store.site import EvidenceStore
from evidence.store.writer import PartitionWriter, Written
from streams import kafka
from streams.errors import BrokerUnavailable
from streams.kafka import KafkaSettings
from streams.stages.sink_continuity import check_same_topic
from streams.stages.sink_partition import (
    RejectedRecord,
    SinkPartition,
    check_end,
    missing,
    parse_records,
    rejected_record,
)
from streams.topics import EVIDENCE

log = logging.getLogger(__name__)

_FLUSH_BYTES: Final = 32 * 1024 * 1024
_BUFFER_BYTES: Final = 128 * 1024 * 1024
_DRAIN_S: Final = 20.0
_LOCK_POLL_S: Final = 0.1
_COMMIT_S: Final = 5.0
_ASK_S: Final = 2.0


class DeadLetter(Protocol):
    """Takes rejected records somewhere durable."""

    def __call__(self, rejected: Sequence[RejectedRecord]) -> Awaitable[None]:
        """Return once they are durable; after a crash the same ones may come again."""
        ...


class SinkObserver(Protocol):
    """Is told what the sink does; each method must return at once."""

    def rows(self, count: int) -> None:
        """So many events became durable and visible."""

    def flushed(self, rows: int, seconds: float, size: int) -> None:
        """A file of so many rows and bytes was written, parsing included, in so many seconds."""

    def freshness(self, seconds: float) -> None:
        """The oldest record of a flush was this old, by the log's time, when it became visible."""

    def lag(self, partition: int, records: int) -> None:
        """So many offsets of a partition are readable and not consumed yet."""

    def waiting(self, seconds: float) -> None:
        """The oldest record that was read and is not visible yet is this old, by the log's time; 0 if none is."""

    def lost(self, partition: int, offsets: int) -> None:
        """So many offsets were gone from the topic before they were read."""

    def upkeep_failed(self) -> None:
        """The upkeep of a log failed; it is tried again."""


class Unobserved:
    """A `SinkObserver` that forgets everything."""

    def rows(self, count: int) -> None:
        """Forget it."""

    def flushed(self, rows: int, seconds: float, size: int) -> None:
        """Forget it."""

    def freshness(self, seconds: float) -> None:
        """Forget it."""

    def lag(self, partition: int, records: int) -> None:
        """Forget it."""

    def waiting(self, seconds: float) -> None:
        """Forget it."""

    def lost(self, partition: int, offsets: int) -> None:
        """Forget it."""

    def upkeep_failed(self) -> None:
        """Forget it."""


class Sink:
    """Stores the evidence topic; `run` it as a service and start it again when it raises a retryable error."""

    def __init__(
        self,
        *,
        kafka: KafkaSettings,
        store: EvidenceStore,
        log_id: str,
        dead_letter: DeadLetter,
        freshness_s: float = 5.0,
        idle_s: float = 60.0,
        max_rows: int = 50_000,
        upkeep: Callable[[PartitionWriter], None] | None = None,
        upkeep_s: float = 60.0,
        group: str | None = None,
        observe: SinkObserver | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Describe the sink; nothing is opened yet.

        Args:
            kafka: how to reach the broker.
            store: where the evidence goes.
            log_id: identity of the cluster that the topic lives on.
            dead_letter: takes records that are no evidence events; awaited before their offsets count as stored.
            freshness_s: an event is readable at most this many seconds after it is in the log, also without new ones.
            idle_s: where nothing comes, a commit says so this often.
            max_rows: a partition is written out when it has buffered this many records.
            upkeep: keeps a log in shape (compaction, retention); called in a thread for one log after the other.
            upkeep_s: seconds between two rounds of it.
            group: consumer group; None takes the pipeline's own.
            observe: is told what happens, for metrics.
            now: the wall clock, in seconds since 1970.
        """
        self._settings = kafka
        self._store = store
        self._log_id = log_id
        self._dead_letter = dead_letter
        self._max_rows = max_rows
        self._idle_s = idle_s
        self._upkeep = upkeep
        self._upkeep_s = upkeep_s
        self._max_age_s = freshness_s * 0.5
        self._poll_ms = max(10, min(200, int(freshness_s * 50)))
        self._group = kafka.group("sink") if group is None else group
        self._topic = kafka.name(EVIDENCE)
        self._observe: SinkObserver = observe or Unobserved()
        self._now = now
        self._parts: dict[TopicPartition, SinkPartition] = {}
        self._failure: BaseException | None = None
        self._stopping = False
        self._ready: Callable[[], None] = lambda: None

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Store evidence until cancelled; then write out what is buffered and give the partitions back.

        Args:
            ready: called when this sink is the writer of the partitions that it was assigned.

        Raises:
            BrokerUnavailable: no broker answers.
            KafkaError: the broker refuses something.
            LogMismatch: the store and the topic do not belong together.
            Fenced: another sink has taken a partition over.
            PartitionHeld: another process writes a partition that this one was assigned.
            StoreError: the log of a partition is not as one writer left it.
            UnavailableError: the disk fails.
        """
        self._failure, self._stopping, self._ready = None, False, ready
        consumer = kafka.consumer(self._settings, group=self._group, follower=True)
        consumer.subscribe([self._topic], listener=_Listener(self, consumer))
        try:
            try:
                await consumer.start()
            except (KafkaError, OSError) as error:
                raise BrokerUnavailable(f"no broker answers at {self._settings.bootstrap}: {error}") from error
            upkeep = asyncio.create_task(self._keep_up(), name="upkeep")
            try:
                await self._consume(consumer)
            finally:
                upkeep.cancel()
        except asyncio.CancelledError:
            await self._drain(consumer)
            raise
        finally:
            await self._close(consumer)

    async def _consume(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            if self._failure is not None:
                raise self._failure
            before = dict(self._parts)
            batches = await consumer.getmany(timeout_ms=self._poll_ms)
            now = time.monotonic()
            for tp, records in batches.items():
                if tp not in self._parts or self._parts[tp].leaving or not records:
                    continue
                owned = self._parts[tp]
                if owned is not before.get(tp):
                    # Assigned while we waited: these may have been fetched from another position than the store's.
                    consumer.seek(tp, owned.next)
                    continue
                owned.take(records, now)
                self._report_lag(consumer, tp, owned)
            for tp, part in list(self._parts.items()):
                # What follows a batch that could not be stored must not be, and a leaving one's positions are fixed.
                if part.flush is None and not part.leaving and self._failure is None and self._is_due(part, now):
                    end = await self._consumed(consumer, tp, part)
                    if not part.leaving and part.flush is None:
                        self._start_flush(consumer, tp, part, end)
            self._regulate(consumer)
            self._report_waiting()

    async def _keep_up(self) -> None:
        """Keep the logs in shape, one after the other, beside what comes in."""
        while self._upkeep is not None:
            await asyncio.sleep(self._upkeep_s)
            for part in list(self._parts.values()):
                if part.leaving:
                    continue
                try:
                    await asyncio.to_thread(self._upkeep, part.writer)
                except RetryableError as error:
                    self._failure = self._failure or error
                except Exception as error:  # noqa: BLE001 - whatever it is, the next round and the other logs go on
                    # What lies there already does not keep new evidence from being stored.
                    if not part.leaving:
                        self._observe.upkeep_failed()
                        told = error if isinstance(error, WaybillError) else type(error).__name__
                        log.error("upkeep of %s failed: %s", part.writer.log, told)  # noqa: TRY400 - the text says it all

    def _is_due(self, part: SinkPartition, now: float) -> bool:
        if not part.records:
            return now - part.idle_since >= self._idle_s
        return len(part.records) >= self._max_rows or part.size >= _FLUSH_BYTES or now - part.since >= self._max_age_s

    async def _consumed(self, consumer: AIOKafkaConsumer, tp: TopicPartition, part: SinkPartition) -> int:
        """Give the last offset that was seen, markers and aborted records after the last record included."""
        position = part.next
        with suppress(TimeoutError, KafkaError):
            # Not `wait_for`: it may lose the cancellation that ends this sink, when both come at once.
            async with asyncio.timeout(0.1):
                position = await consumer.position(tp)
        if position > part.next:
            part.gap = part.next if part.gap is None else part.gap
            part.next = position
        return part.next - 1

    def _start_flush(self, consumer: AIOKafkaConsumer, tp: TopicPartition, part: SinkPartition, end: int) -> None:
        records, gap = part.swap()
        part.idle_since = time.monotonic()
        part.flush = asyncio.create_task(self._flush(consumer, tp, part, records, end, gap))
        part.flush.add_done_callback(lambda task: self._flush_done(part, task))

    def _flush_done(self, part: SinkPartition, task: asyncio.Task[None]) -> None:
        part.flush, part.flushing = None, 0
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = self._failure or error

    async def _flush(
        self,
        consumer: AIOKafkaConsumer,
        tp: TopicPartition,
        part: SinkPartition,
        records: list[Any],
        end: int,
        gap: int | None,
    ) -> None:
        lost: Ranges = ()
        if gap is not None:
            beginning = (await consumer.beginning_offsets([tp]))[tp]
            lost = missing(records, gap, min(beginning, end + 1))  # what is behind may have been read, and come next
        elif not records and not await self._is_silent(consumer, tp, end):
            return
        begun = time.perf_counter()
        parsed = await asyncio.to_thread(parse_records, records, tp.partition)
        rejected = [records[reject.index].offset for reject in parsed.rejects]
        if parsed.rejects:
            await self._dead_letter([rejected_record(records[reject.index], reject.error) for reject in parsed.rejects])
        written = await asyncio.to_thread(part.writer.append, parsed.table, end=end, rejected=rejected, lost=lost)
        self._report(records, written, time.perf_counter() - begun)
        self._tell_lost(part.writer, lost)
        if not part.leaving:
            with suppress(KafkaError, TimeoutError):  # for lag displays only, and the next flush commits again
                await asyncio.wait_for(consumer.commit({tp: end + 1}), timeout=_COMMIT_S)

    async def _is_silent(self, consumer: AIOKafkaConsumer, tp: TopicPartition, end: int) -> bool:
        """Ask the broker whether nothing has come: where it does not answer, nobody can say that."""
        try:
            async with asyncio.timeout(_ASK_S):
                return bool((await consumer.end_offsets([tp]))[tp] <= end + 1)
        except (KafkaError, TimeoutError):
            return False

    def _tell_lost(self, writer: PartitionWriter, lost: Ranges) -> None:
        if lost:
            self._observe.lost(writer.log.partition, count(lost))
            log.error(
                "%s: offsets %d to %d were gone from the topic before they were read; the log names them as lost",
                writer.log, lost[0][0], lost[-1][1],
            )  # fmt: skip

    def _report(self, records: list[Any], written: Written, seconds: float) -> None:
        if not records:
            return
        self._observe.rows(written.rows)
        self._observe.flushed(written.rows, seconds, written.size)
        stamps = [record.timestamp for record in records if record.timestamp >= 0]
        if stamps:
            self._observe.freshness(max(0.0, self._now() - min(stamps) / 1000))

    def _report_waiting(self) -> None:
        stamps = [part.oldest_ms() for part in self._parts.values()]
        oldest = min((stamp for stamp in stamps if stamp is not None), default=None)
        self._observe.waiting(0.0 if oldest is None else max(0.0, self._now() - oldest / 1000))

    def _report_lag(self, consumer: AIOKafkaConsumer, tp: TopicPartition, part: SinkPartition) -> None:
        stable = consumer.last_stable_offset(tp)
        if stable is not None:
            self._observe.lag(tp.partition, max(0, stable - part.next))

    def _regulate(self, consumer: AIOKafkaConsumer) -> None:
        """Pause the fetching of partitions that hold too much, and let them go on when they hold less."""
        held = sum(part.size + part.flushing for part in self._parts.values())
        for tp, part in self._parts.items():
            much = held > _BUFFER_BYTES or len(part.records) >= 2 * self._max_rows
            if part.leaving or part.paused == much:
                continue
            if much and part.records:
                consumer.pause(tp)
                part.paused = True
            elif not much:
                consumer.resume(tp)
                part.paused = False

    async def assign(self, consumer: AIOKafkaConsumer, assigned: Iterable[TopicPartition]) -> None:
        """Become the writer of partitions; a failure ends `run`, because the consumer would swallow it here."""
        fresh = [tp for tp in assigned if tp not in self._parts]
        try:
            beginnings = await consumer.beginning_offsets(fresh) if fresh else {}
            ends = await consumer.end_offsets(fresh) if fresh else {}
            partitions = len(consumer.partitions_for_topic(self._topic) or fresh)
            # Side by side: aiokafka sends no heartbeats before this returns, and the session ends without any.
            taken = await asyncio.gather(
                *[self._take(consumer, tp, (beginnings[tp], ends[tp]), partitions) for tp in fresh],
                return_exceptions=True,
            )
            failed = [error for error in taken if isinstance(error, BaseException)]
            self._failure = self._failure or next(iter(failed), None)
            if not failed and all(taken):
                self._ready()
        except Exception as error:  # noqa: BLE001 - run() raises it
            self._failure = self._failure or error

    async def _take(
        self, consumer: AIOKafkaConsumer, tp: TopicPartition, there: tuple[int, int], partitions: int
    ) -> bool:
        """Become the writer of a partition; False where the sink was told to end meanwhile."""
        beginning, end = there
        writer = await self._open(tp, beginning, partitions)
        if writer is None:
            return False
        try:
            check_end(writer, end)
            await check_same_topic(self._settings, self._store.files, writer, tp)
            if writer.position < beginning:
                await self._pass_over(writer, beginning)
            consumer.seek(tp, writer.position)
        except Exception:
            writer.close()
            raise
        self._parts[tp] = SinkPartition(writer, writer.position, time.monotonic())
        return True

    async def _pass_over(self, writer: PartitionWriter, beginning: int) -> None:
        lost = ((writer.position, beginning - 1),)
        await asyncio.to_thread(writer.append, EVENTS_SCHEMA.empty_table(), end=beginning - 1, lost=lost)
        self._tell_lost(writer, lost)

    async def _open(self, tp: TopicPartition, beginning: int, partitions: int) -> PartitionWriter | None:
        deadline = time.monotonic() + self._store.lock_wait_s
        while not self._stopping:
            try:
                return await asyncio.to_thread(
                    self._store.open,
                    self._log_id,
                    tp.topic,
                    tp.partition,
                    beginning=beginning,
                    partitions=partitions,
                    wait_s=0,
                )
            except PartitionHeld:
                if time.monotonic() >= deadline:
                    raise
                await asyncio.sleep(_LOCK_POLL_S)
        return None

    async def revoke(self, consumer: AIOKafkaConsumer, revoked: Iterable[TopicPartition]) -> None:
        """Write out what is buffered of some partitions and give them back."""
        leaving = {tp: self._parts[tp] for tp in revoked if tp in self._parts}
        for part in leaving.values():
            part.leaving = True
        for tp, part in leaving.items():
            await self._finish(consumer, tp, part)
            await asyncio.to_thread(part.writer.close)
            self._parts.pop(tp, None)

    async def _finish(self, consumer: AIOKafkaConsumer, tp: TopicPartition, part: SinkPartition) -> None:
        """Wait for the running flush, then write out what came since; failures are kept for `run`."""
        if part.flush is not None:
            await asyncio.wait([part.flush])
        if part.records and self._failure is None:
            self._start_flush(consumer, tp, part, part.next - 1)
            if part.flush is not None:
                await asyncio.wait([part.flush])

    async def _drain(self, consumer: AIOKafkaConsumer) -> None:
        self._stopping = True
        for part in self._parts.values():
            part.leaving = True
        finishing = [self._finish(consumer, tp, part) for tp, part in self._parts.items()]
        try:
            async with asyncio.timeout(_DRAIN_S):
                await asyncio.gather(*finishing)
        except TimeoutError:
            log.warning("the sink stops without having written all that it had read; the next start reads it again")
        if self._failure is not None:
            log.warning(
                "the sink could not write all that it had read, the next start reads it again: %s", self._failure
            )

    async def _close(self, consumer: AIOKafkaConsumer) -> None:
        self._stopping = True
        for part in self._parts.values():
            part.leaving = True
            if part.flush is not None:
                part.flush.cancel()  # a file that is being written is finished by its thread before close() returns
        await self._give_back()
        await consumer.stop()
        await self._give_back()  # what the group gave us while the consumer ended

    async def _give_back(self) -> None:
        # One after the other: a rebalance that is under way takes partitions away meanwhile, or brings some.
        while self._parts:
            _, part = self._parts.popitem()
            await asyncio.to_thread(part.writer.close)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka ships no types
    """Passes assignments on to the sink."""

    def __init__(self, sink: Sink, consumer: AIOKafkaConsumer) -> None:
        self._sink = sink
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Called before a rebalance, while the partitions are still ours."""
        await self._sink.revoke(self._consumer, revoked)

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Called after it, before anything is fetched."""
        await self._sink.assign(self._consumer, assigned)
