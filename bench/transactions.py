"""Admission both ways: one transaction for each batch, or at least once with deterministic ids and a plain commit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka import TopicPartition

from bench.rig import PARTITIONS, broker
from streams import kafka as clients
from streams.topics import EVIDENCE, REQUESTS, WORK_HOSTED, Topic
from streams.transactions import Batch, Outgoing, Writer, partition_of

_COUNTS = {1: 300, 128: 60}
"""Batches measured, by requests in a batch."""

_EVENTS = 4
_TOPICS = (REQUESTS, EVIDENCE, WORK_HOSTED)


async def measure() -> dict[str, Any]:
    """Write what admission writes for a batch of requests, in turns, so that noise falls on both alike."""
    async with broker() as (settings, _):
        await clients.create_topics(settings, partitions=PARTITIONS, replication=1, topics=_TOPICS)
        position = TopicPartition(settings.name(REQUESTS), 0)
        reader = clients.consumer(settings, group="bench-admission")
        await reader.start()
        reader.assign([position])
        plain = clients.producer(settings)
        await plain.start()
        writer = await Writer(settings, transactional_id="bench-admission", group="bench-admission").start()

        async def transactional(records: list[Outgoing], offset: int) -> None:
            await writer.write(Batch(records, {position: offset}))

        async def at_least_once(records: list[Outgoing], offset: int) -> None:
            waiting = [
                await plain.send(
                    record.topic,
                    key=record.key,
                    value=record.value,
                    headers=record.headers,
                    partition=partition_of(record.key, PARTITIONS),
                )
                for record in records
            ]
            await asyncio.gather(*waiting)
            await reader.commit({position: offset})

        ways = {"transactional": transactional, "at_least_once": at_least_once}
        try:
            return {str(size): await _compare(settings, ways, size, batches) for size, batches in _COUNTS.items()}
        finally:
            await writer.stop()
            await plain.stop()
            await reader.stop()


Way = Callable[[list[Outgoing], int], Awaitable[None]]


async def _compare(
    settings: clients.KafkaSettings, ways: dict[str, Way], size: int, batches: int
) -> dict[str, dict[str, float]]:
    found: dict[str, list[float]] = {name: [] for name in ways}
    cpu = dict.fromkeys(ways, 0.0)
    for turn in range(6):
        for name, way in ways.items():
            before = time.process_time()
            for number in range(batches // 6):
                records = _records(settings, size, number)
                began = time.perf_counter()
                await way(records, number)
                if turn:  # the first turn warms up
                    found[name].append(time.perf_counter() - began)
            if turn:
                cpu[name] += time.process_time() - before
    return {
        name: {
            "p50_ms": round(sorted(times)[len(times) // 2] * 1e3, 2),
            "p99_ms": round(sorted(times)[int(len(times) * 0.99)] * 1e3, 2),
            "cpu_us_per_request": round(cpu[name] / (len(times) * size) * 1e6, 1),
        }
        for name, times in found.items()
    }


def _records(settings: clients.KafkaSettings, size: int, number: int) -> list[Outgoing]:
    def record(topic: Topic, key: str, length: int) -> Outgoing:
        return Outgoing(settings.name(topic), key.encode(), b"x" * length, [("ce_id", key.encode())])

    return [
        record(topic, f"request-{number}-{place}", length)
        for place in range(size)
        for topic, length in [(EVIDENCE, 700)] * _EVENTS + [(WORK_HOSTED, 2500)]
    ]
