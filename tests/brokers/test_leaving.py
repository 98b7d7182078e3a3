"""Consumers that are closed while their group assembles: they end at once, and nobody waits for them afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from streams.kafka import KafkaSettings, consumer, create_topics
from streams.stages.lanes import LaneStage
from streams.topics import EVIDENCE

pytestmark = pytest.mark.kafka

GROUP = "assembles"
SESSION_MS = 10_000
SOON_S = 4.0
"""Well below the session, for so long the broker holds a join back for a member which does not come."""


class Holding(ConsumerRebalanceListener):
    """A member that has its partitions, and keeps everybody waiting when it is asked to give them back."""

    def __init__(self) -> None:
        self.has = asyncio.Event()
        self.asked = asyncio.Event()
        self.may_go = asyncio.Event()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Have them."""
        del assigned
        self.has.set()

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Keep them until told otherwise; the first call, which takes nothing, passes."""
        if revoked:
            self.asked.set()
            await self.may_go.wait()


@pytest.fixture
async def settings(kafka: str, prefix: str) -> KafkaSettings:
    """A topic of this test's own."""
    made = KafkaSettings(kafka, prefix=prefix, session_timeout_ms=SESSION_MS)
    await create_topics(made, partitions=2, replication=1, topics=(EVIDENCE,))
    return made


@asynccontextmanager
async def held(settings: KafkaSettings) -> AsyncIterator[Holding]:
    """A group in which every join is held back until the test lets the first member go on."""
    holding, member = Holding(), consumer(settings, group=settings.group(GROUP))
    await member.start()
    try:
        member.subscribe([settings.name(EVIDENCE)], listener=holding)
        await asyncio.wait_for(holding.has.wait(), 20)
        yield holding
    finally:
        holding.may_go.set()
        await member.stop()


async def joining(settings: KafkaSettings, holding: Holding) -> AIOKafkaConsumer:
    """A consumer whose join the broker holds back."""
    made = consumer(settings, group=settings.group(GROUP))
    await made.start()
    made.subscribe([settings.name(EVIDENCE)])
    await asyncio.wait_for(holding.asked.wait(), 20)
    return made


async def member_count(settings: KafkaSettings) -> int:
    """How many members the broker knows."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap)
    await admin.start()
    try:
        (answer,) = await admin.describe_consumer_groups([settings.group(GROUP)])
        return len(answer.groups[0][-1])
    finally:
        await admin.close()


async def test_a_consumer_whose_join_is_held_back_is_closed_at_once(settings: KafkaSettings) -> None:
    """It does not wait for the group, and the broker has forgotten its name when it is closed."""
    async with held(settings) as holding:
        made = await joining(settings, holding)
        began = time.monotonic()
        await made.stop()
        assert time.monotonic() - began < SOON_S
        assert await member_count(settings) == 1


async def test_a_stage_that_is_stopped_while_its_group_assembles_ends_at_once(settings: KafkaSettings) -> None:
    """It ends without its partitions, and begins no lane when they come after that."""
    made: list[int] = []

    def make(_: AIOKafkaConsumer, number: int, __: tuple[TopicPartition, ...]) -> None:
        made.append(number)

    async with held(settings) as holding:
        stage = LaneStage(settings, group=settings.group(GROUP), topics=[settings.name(EVIDENCE)], make=make)
        running = asyncio.create_task(stage.run())
        await asyncio.wait_for(holding.asked.wait(), 20)
        began = time.monotonic()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert time.monotonic() - began < SOON_S
    await stage.on_partitions_assigned([TopicPartition(settings.name(EVIDENCE), 0)])
    assert not made
