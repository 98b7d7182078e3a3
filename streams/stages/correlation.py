"""Correlation: follows `ai.evidence`, closes stories, exports their spans, and counts what should have ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final

import orjson
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, KafkaError

from streams.errors import BrokerUnavailable
from streams.kafka import KafkaSettings, committed_notes, consumer, noted_offset
from streams.metrics import Metrics
from streams.processors.correlation import ClosedStory, Correlator
from streams.telemetry import Exporter
from streams.topics import EVIDENCE

log = logging.getLogger(__name__)

NAME: Final = "correlation"
_BATCH: Final = 500
_CHUNK: Final = 100
_POLL_MS: Final = 1000
_COMMIT_S: Final = 2.0


class Correlation(ConsumerRebalanceListener):  # type: ignore[misc] # the library is untyped
    """The stage: after a restart it reads again from the oldest open story.

    With each position it commits, as its metadata, how far it had read. What closed since the last commit before a
    crash is told again; its spans have the same ids.
    """

    def __init__(
        self, kafka: KafkaSettings, metrics: Metrics, clock: Callable[[], datetime], exporter: Exporter | None
    ) -> None:
        self._kafka = kafka
        self._metrics = metrics
        self._clock = clock
        self._exporter = exporter
        self._correlator = Correlator()
        self._partitions: set[TopicPartition] = set()
        self._assigned = asyncio.Event()
        self._failure: Exception | None = None
        self._ready: Callable[[], None] = lambda: None

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Work until cancelled; `ready` is called when the group has said which partitions are ours.

        Raises:
            BrokerUnavailable: no broker answers at the start.
            KafkaError: the broker failed; run again.
        """
        self._correlator, self._failure, self._ready = Correlator(), None, ready
        reader = consumer(self._kafka, group=self._kafka.group(NAME), follower=True)
        try:
            await reader.start()
        except (KafkaError, OSError) as error:
            await reader.stop()
            raise BrokerUnavailable(f"no broker answers at {self._kafka.bootstrap}: {error}") from error
        except BaseException:
            await reader.stop()
            raise
        try:
            reader.subscribe([self._kafka.name(EVIDENCE)], listener=self)
            await self._follow(reader)
        finally:
            await reader.stop()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Begin with nothing: the committed position is where the oldest open story starts."""
        partitions = list(assigned)
        try:
            told = await committed_notes(self._kafka, self._kafka.group(NAME), partitions)
        except Exception as error:  # noqa: BLE001 - run() raises it; the consumer would swallow it here
            self._failure, told = error, {}
        for partition in partitions:
            self._correlator.begin(partition.partition, noted_offset(told.get(partition)))
        self._partitions = set(partitions)
        self._assigned.set()
        self._ready()

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Forget what another worker follows now."""
        self._assigned.clear()
        for partition in revoked:
            self._correlator.forget(partition.partition)
        self._partitions = set()

    async def _follow(self, reader: AIOKafkaConsumer) -> None:
        loop = asyncio.get_running_loop()
        commit_at = loop.time() + _COMMIT_S
        while True:
            found = await reader.getmany(timeout_ms=_POLL_MS, max_records=_BATCH)
            await self._assigned.wait()
            if self._failure is not None:
                raise self._failure
            for partition, records in found.items():
                await self._take(records)
                end = reader.highwater(partition)
                if end is not None:
                    lag = max(0, end - await reader.position(partition))
                    self._metrics.lag.labels(NAME, partition.topic, partition.partition).set(lag)
            if loop.time() >= commit_at:
                commit_at = loop.time() + _COMMIT_S
                self._metrics.open_stories.set(len(self._correlator))
                self._metrics.overdue_stories.set(sum(1 for _ in self._correlator.overdue(self._clock())))
                await self._commit(reader)

    async def _take(self, records: list[Any]) -> None:
        for place, record in enumerate(records):
            try:
                self._tell(self._correlator.observe(orjson.loads(record.value), record.partition, record.offset))
            except Exception:  # noqa: BLE001 - this stage only looks on: nothing that an event holds ends it
                # The sink sends what is no event to the dead letters; here it is merely not a story.
                self._metrics.uncorrelated.inc()
            if place % _CHUNK == _CHUNK - 1:
                await asyncio.sleep(0)

    def _tell(self, closed: ClosedStory | None) -> None:
        if closed is None:
            return
        if closed.events[0]["stage"] == "operator":
            return  # what a person did is no request
        self._metrics.stories.labels("yes" if closed.complete else "no").inc()
        if self._exporter is not None:
            self._exporter.export(closed)

    async def _commit(self, reader: AIOKafkaConsumer) -> None:
        positions = {}
        for partition in self._partitions:
            mark = self._correlator.watermark(partition.partition)
            if mark is not None:
                positions[partition] = mark, str(self._correlator.told(partition.partition))
        if positions:
            try:
                await reader.commit(positions)
            except CommitFailedError:
                log.info("the group is being rebalanced; positions are committed after it")
