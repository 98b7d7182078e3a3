"""Waiting after empty fetches on the development broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
from aiokafka import TopicPartition

from streams.brokers.patience import wait_after_empty_fetches
from streams.kafka import KafkaSettings, consumer, create_topics, producer
from streams.topics import RESPONSES


@pytest.fixture
def patient() -> Iterator[None]:
    """Wait 20 ms after empty fetches, in this test alone."""
    wait_after_empty_fetches(0.02)
    yield
    wait_after_empty_fetches(0)


async def _idle_cpu(settings: KafkaSettings) -> float:
    reader = consumer(settings, group=None)
    await reader.start()
    try:
        reader.assign([TopicPartition(settings.name(RESPONSES), 0)])
        await reader.getmany(timeout_ms=200)
        before = time.process_time()
        await reader.getmany(timeout_ms=1000)
        return time.process_time() - before
    finally:
        await reader.stop()


async def test_an_idle_consumer_rests(dev_broker: str, prefix: str, patient: None) -> None:
    """An idle consumer of the development broker uses less than a fifth of a core."""
    settings = KafkaSettings(bootstrap=dev_broker, prefix=prefix)
    await create_topics(settings, partitions=1, replication=1, topics=(RESPONSES,))

    assert await _idle_cpu(settings) < 0.2


async def test_records_still_come(dev_broker: str, prefix: str, patient: None) -> None:
    """A record that is written while a consumer waits is read within a second."""
    settings = KafkaSettings(bootstrap=dev_broker, prefix=prefix)
    await create_topics(settings, partitions=1, replication=1, topics=(RESPONSES,))
    reader, writer = consumer(settings, group=None), producer(settings)
    await reader.start()
    await writer.start()
    try:
        reader.assign([TopicPartition(settings.name(RESPONSES), 0)])
        waiting = asyncio.ensure_future(reader.getmany(timeout_ms=5000))
        await asyncio.sleep(0.2)
        began = time.monotonic()
        await writer.send_and_wait(settings.name(RESPONSES), value=b"here")
        found = await waiting

        assert [record.value for records in found.values() for record in records] == [b"here"]
        assert time.monotonic() - began < 3
    finally:
        await reader.stop()
        await writer.stop()
