"""Topics of one test on a real broker, and a reader of what lies on them."""

from __future__ import annotations

import asyncio
from typing import Any, Self

import orjson
from aiokafka import TopicPartition

from streams.kafka import KafkaSettings, consumer, create_topics, partition_counts
from streams.topics import ALL, EVIDENCE, Topic

PARTITIONS = 2


async def topics(bootstrap: str, prefix: str, *, partitions: int = PARTITIONS) -> KafkaSettings:
    """Make the topics of one test, and give how to reach them."""
    kafka = KafkaSettings(bootstrap, prefix=prefix, session_timeout_ms=6000)
    await create_topics(kafka, partitions=partitions, replication=1)
    async with asyncio.timeout(20):
        # The broker says that it has created a topic before it knows of it itself.
        while len(await partition_counts(kafka)) < len(ALL):  # noqa: ASYNC110 - a broker announces nothing
            await asyncio.sleep(0.05)
    return kafka


class TopicReader:
    """Reads topics from their beginning, committed records only, and keeps what it read."""

    def __init__(self, kafka: KafkaSettings, *read: Topic, partitions: int = PARTITIONS) -> None:
        self._kafka = kafka
        self._names = {kafka.name(topic): topic.name for topic in read or (EVIDENCE,)}
        self._partitions = [TopicPartition(name, number) for name in self._names for number in range(partitions)]
        self.found: dict[str, list[dict[str, Any]]] = {name: [] for name in self._names.values()}

    async def __aenter__(self) -> Self:
        self._consumer = consumer(self._kafka, group=None)
        await self._consumer.start()
        self._consumer.assign(self._partitions)
        await self._consumer.seek_to_beginning()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()

    async def more(self, timeout_ms: int = 200) -> None:
        """Read what has come; a tombstone or what is no JSON is None."""
        for partition, records in (await self._consumer.getmany(timeout_ms=timeout_ms)).items():
            self.found[self._names[partition.topic]].extend(_json(record.value) for record in records)

    async def until(self, topic: Topic, count: int, timeout_s: float = 30) -> list[dict[str, Any]]:
        """Read until so many records are on a topic, and then for a moment more; give them."""
        left = timeout_s
        while len(self.on(topic)) < count and left > 0:
            await self.more()
            left -= 0.2
        assert len(self.on(topic)) >= count, f"{len(self.on(topic))} of {count} on {topic.name} in {timeout_s} s"
        await self.more(500)
        return self.on(topic)

    def on(self, topic: Topic) -> list[dict[str, Any]]:
        """Give what was read of a topic."""
        return self.found[topic.name]


def _json(value: bytes | None) -> Any:
    try:
        return orjson.loads(value or b"null")
    except orjson.JSONDecodeError:
        return None
