"""Dispatch gives partitions back: calls in flight end and are told first, so that nothing is left in doubt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from requests_made import encoded, request
from stage_rig import PARTITIONS, Reader, Worker, asked, send, topics

from inference.backend import Completion, ModelCall
from inference.testing import echo
from streams.stages.dispatch import Limits
from streams.topics import WORK_HOSTED

pytestmark = pytest.mark.kafka

REQUESTS = 12
JOIN_S = 3.0
"""Enough for a group to assemble where nobody holds it up: its members look for that every 0.6 s."""


class Held:
    """A hosted model, shared by all workers, that answers nobody until it is told to; knows who asked how often."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.asked: list[str] = []

    async def complete(self, call: ModelCall) -> Completion:
        """Wait until it may answer."""
        self.asked.append(call.call_id)
        await self.open.wait()
        return echo(call)

    async def ready(self) -> str:
        """Always."""
        return "held"

    async def close(self) -> None:
        """Nothing to give back."""


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for something."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for announces nothing
            await asyncio.sleep(0.02)


def hosted(prefix: str) -> list[tuple[str, bytes]]:
    """Give requests for the hosted model."""
    return [(name, encoded(request(name))) for name in (f"{prefix}{number}" for number in range(REQUESTS))]


def changed(worker: Worker, change: Callable[[AIOKafkaConsumer, int, tuple[TopicPartition, ...]], None]) -> None:
    """Have something done to a worker's consumer before each of its dispatch lanes is made."""
    stage = worker.stages["dispatch"]
    make = stage._make

    def changing(reader: AIOKafkaConsumer, number: int, partitions: tuple[TopicPartition, ...]) -> Any:
        change(reader, number, partitions)
        return make(reader, number, partitions)

    stage._make = changing


@pytest.mark.parametrize("first", ["stop", "join"])
async def test_a_call_in_flight_ends_before_its_partition_changes_hands(kafka, prefix, first):
    """One worker is stopped and another one starts, in either order, amid calls: all are completed, each made once."""
    settings, sent, held = await topics(kafka, prefix), hosted("h"), Held()
    limits = Limits(hosted=4, drain_s=15)
    leaves, joins = Worker(settings, held, limits=limits), Worker(settings, held, limits=limits)
    joins.vault, joins.store = leaves.vault, leaves.store
    async with Reader(settings) as reader:
        leaves.start()
        await send(settings, sent)
        await until(lambda: len(held.asked) == 4)
        if first == "stop":
            stopping = asyncio.create_task(leaves.stop())
            await asyncio.sleep(0.1)
            joins.start()
        else:
            joins.start()
            await asyncio.sleep(1.0)  # the group has asked for the partitions by now
            stopping = asyncio.create_task(leaves.stop())
        await asyncio.sleep(JOIN_S)
        assert len(held.asked) == 4, "the other worker has begun before the calls in flight have ended"
        held.open.set()
        await stopping
        await reader.until_responses(REQUESTS)
        await joins.stop()
    reader.check(name for name, _ in sent)
    assert reader.outcomes() == {"completed": REQUESTS}
    assert len(held.asked) == len(set(held.asked)) == REQUESTS


async def test_a_lane_that_still_recovers_gives_its_partition_back_at_once(kafka, prefix):
    """A group that assembles lets nothing be read; a lane that waits for a record then does not hold the group up."""
    settings, sent, held = await topics(kafka, prefix), hosted("h"), Held()
    held.open.set()
    waits, joins = Worker(settings, held), Worker(settings, held)
    joins.vault, joins.store = waits.vault, waits.store
    async with Reader(settings) as reader, Reader(settings, WORK_HOSTED) as work:
        waits.start()
        waits.tasks.pop().cancel()  # its dispatch is started when there is work that it has to look for
        await send(settings, sent)
        while len(work.found[WORK_HOSTED.name]) < REQUESTS:
            await work.more()
        changed(waits, lambda consumer, _, partitions: consumer.pause(*partitions))
        stage = waits.stages["dispatch"]
        waits.tasks.append(asyncio.create_task(stage.run(), name="dispatch"))
        await until(lambda: len(stage._lanes) == PARTITIONS)
        await asyncio.sleep(0.5)  # it looks for the first record, which a paused consumer does not give
        joins.start()
        await until(lambda: len(joins.stages["dispatch"]._lanes) == 1, 4.0)
        await waits.stop()
        await reader.until_responses(REQUESTS)
        await joins.stop()
    assert reader.outcomes() == {"completed": REQUESTS}


async def test_a_lane_that_can_read_no_more_still_ends_what_it_has_read(kafka, prefix):
    """Reading fails while calls are in flight: they end, are told, and are never in doubt."""
    settings, sent, held = await topics(kafka, prefix), hosted("h"), Held()
    worker = Worker(settings, held, limits=Limits(hosted=REQUESTS, drain_s=15)).start()
    broken = asyncio.Event()

    def breaks(consumer: AIOKafkaConsumer, _: int, __: tuple[TopicPartition, ...]) -> None:
        read = consumer.getmany

        async def getmany(*partitions: TopicPartition, **options: Any) -> Any:
            if broken.is_set():
                raise KafkaError("the broker refuses to be read")
            return await read(*partitions, **{**options, "timeout_ms": 50})

        consumer.getmany = getmany

    changed(worker, breaks)
    async with Reader(settings) as reader:
        await send(settings, sent)
        await until(lambda: len(held.asked) == REQUESTS)
        broken.set()
        await asyncio.sleep(0.5)
        held.open.set()
        await reader.until_responses(REQUESTS)
        dispatch = worker.tasks[-1]
        await asyncio.wait({dispatch}, timeout=10)
        assert isinstance(dispatch.exception(), KafkaError)
        await worker.stop()
        async with Worker(settings, held, vault=worker.vault, store=worker.store):
            await send(settings, asked(4, "after"))
            await reader.until_responses(REQUESTS + 4)
    assert reader.outcomes() == {"completed": REQUESTS + 4}
    assert len(held.asked) == len(set(held.asked))
