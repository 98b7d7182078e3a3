"""Transactions: what a stage read, and all that it wrote because of it, become visible together or not at all.

One writer belongs to one input partition. Its transactional id is derived from that partition alone, so that a new
owner of the partition fences the old one before it reads where the old one stopped. (aiokafka speaks the first version
of TxnOffsetCommit, which carries no group generation: a writer shared by partitions could not be fenced.)

A writer takes turns between producers. After a commit the broker is still writing markers, and a producer that begins
again at once is told to wait, for 20 ms in aiokafka; another one is not. Transactions stay one after the other.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2

from evidence.errors import RecordError
from streams.envelope import Headers
from streams.kafka import KafkaSettings, producer

_hash: Final = functools.lru_cache(4096)(murmur2)  # a request's key is that of all its records, on every topic
_PRODUCERS: Final = 2
"""Producers that take turns; with two, back-to-back transactions take 3 to 5 ms instead of 25 to 30."""


class Outgoing(NamedTuple):
    """One record to be written; a tuple, because eleven of them are made for each request."""

    topic: str
    """Topic, by its name on the broker."""

    key: bytes
    """Decides the partition."""

    value: bytes
    """The data."""

    headers: Headers
    """CloudEvents and trace context."""


@dataclass(slots=True)
class Batch:
    """What one transaction writes, and the positions that it commits."""

    records: list[Outgoing] = field(default_factory=list)
    """In order; order is kept within a partition."""

    positions: dict[TopicPartition, int | tuple[int, str]] = field(default_factory=dict)
    """The offset of the next record to be read, by input partition; with a note where there is one."""


class Writer:
    """Writes batches in transactions, one after the other."""

    def __init__(self, settings: KafkaSettings, *, transactional_id: str, group: str) -> None:
        self._settings = settings
        self._transactional_id = settings.prefix + transactional_id
        self._group = group
        self._producers: list[AIOKafkaProducer] = []
        self._turn = 0
        self._partitions: dict[str, int] = {}

    async def start(self) -> Self:
        """Connect, and fence whoever held this writer's identity; their open transaction is aborted first."""
        made = [
            producer(self._settings, transactional_id=f"{self._transactional_id}-{place}")
            for place in range(_PRODUCERS)
        ]
        try:
            await asyncio.gather(*(one.start() for one in made))
        except BaseException:
            await asyncio.gather(*(one.stop() for one in made), return_exceptions=True)
            raise
        self._producers = made
        return self

    async def stop(self) -> None:
        """Disconnect; safe to call twice."""
        made, self._producers = self._producers, []
        await asyncio.gather(*(one.stop() for one in made))

    async def write(self, batch: Batch) -> None:
        """Write a batch in one transaction; when this returns, it is committed on all in-sync replicas.

        Raises:
            KafkaError: nothing of the batch is visible; a fenced writer has to stop.
        """
        if not batch.records and not batch.positions:
            return
        made, delivered = self._next(), list[asyncio.Future[Any]]()
        await made.begin_transaction()
        try:
            await self._send(made, batch.records, delivered)
            for future in delivered:
                await future
            # Only now: offsets that overtake records make the broker refuse some of these, to be sent again later.
            if batch.positions:
                await made.send_offsets_to_transaction(batch.positions, self._group)
        except BaseException as error:
            for future in delivered:
                future.add_done_callback(_seen)  # one error stands for them all
            await _abort(made, error)
            raise
        await made.commit_transaction()

    async def _send(
        self, made: AIOKafkaProducer, records: list[Outgoing], delivered: list[asyncio.Future[Any]]
    ) -> None:
        """Hand records over; `delivered` takes a future for each batch of them."""
        open_batches: dict[tuple[str, int], Any] = {}
        places: dict[tuple[str, bytes], tuple[str, int]] = {}
        for record in records:
            place = places.get(record[:2])
            if place is None:
                place = record.topic, await self._partition(made, record.topic, record.key)
                places[record[:2]] = place
            builder = open_batches.get(place)
            if builder is None:
                builder = open_batches[place] = made.create_batch()
            if _append(builder, record) is None:
                # Full: hand it over and go on in a new one; batches of one partition keep their order.
                delivered.append(await made.send_batch(builder, place[0], partition=place[1]))
                builder = open_batches[place] = made.create_batch()
                if _append(builder, record) is None:
                    raise RecordError("too_large", f"a record of {len(record.value)} bytes does not fit a batch")
        for (topic, partition), builder in open_batches.items():
            delivered.append(await made.send_batch(builder, topic, partition=partition))

    async def _partition(self, made: AIOKafkaProducer, topic: str, key: bytes) -> int:
        count = self._partitions.get(topic)
        if count is None:
            count = self._partitions[topic] = len(await made.partitions_for(topic))
        return partition_of(key, count)

    def _next(self) -> AIOKafkaProducer:
        if not self._producers:
            raise RuntimeError("the writer has not been started")
        self._turn = (self._turn + 1) % len(self._producers)
        return self._producers[self._turn]


def partition_of(key: bytes, count: int) -> int:
    """Give the partition of a key, as Kafka's own clients choose it."""
    return 0 if count == 1 else (_hash(key) & 0x7FFFFFFF) % count


async def committed_position(consumer: Any, partition: TopicPartition) -> int | None:
    """Give where a group goes on in a partition; asked after fencing, so that no predecessor can still move it."""
    found: int | None = await consumer.committed(partition)
    return found


def _seen(future: asyncio.Future[Any]) -> None:
    """Look at a future's error, so that it is not reported as overlooked."""
    if not future.cancelled():
        future.exception()


async def _abort(made: AIOKafkaProducer, cause: BaseException) -> None:
    try:
        await made.abort_transaction()
    except (KafkaError, AssertionError, asyncio.CancelledError) as error:
        # A fenced producer cannot even abort (aiokafka asserts so). The broker ends the transaction at the latest when
        # the next owner starts; what matters is the first cause.
        cause.add_note(f"the transaction could not be aborted here: {error!r}")


def _append(builder: Any, record: Outgoing) -> Mapping[str, Any] | None:
    appended: Mapping[str, Any] | None = builder.append(
        timestamp=None, key=record.key, value=record.value, headers=record.headers
    )
    return appended
