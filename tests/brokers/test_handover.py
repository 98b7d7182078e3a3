"""Partitions that change hands: a lane keeps its partition until it has ended, whoever told it to."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.kafka import KafkaSettings, create_topics
from streams.stages.lanes import LaneStage
from streams.topics import EVIDENCE

pytestmark = pytest.mark.kafka

SESSION_MS = 6000
"""The least that a broker takes; a member looks ten times in it whether its group assembles."""

SOON_S = 4.0
"""Enough for a group to assemble where nobody holds it up, and less than a session."""


class Busy:
    """A lane with something under way, which ends when the test lets it."""

    def __init__(self, owner: str, held: list[str]) -> None:
        self._owner, self._held = owner, held
        self.told = asyncio.Event()
        self.may_end = asyncio.Event()
        self.fails: Exception | None = None
        self.ended = ""

    async def run(self) -> None:
        """Hold the partition."""
        self._held.append(self._owner)
        try:
            await self.told.wait()
            if self.fails is not None:
                raise self.fails
            await self.may_end.wait()
            self.ended = "in order"
        except asyncio.CancelledError:
            self.ended = "cut off"
            raise
        finally:
            self._held.remove(self._owner)

    async def stop(self) -> None:
        """Begin to end."""
        self.told.set()


class Workers:
    """Stages that share a group; `held` names who holds a partition, once for each."""

    def __init__(self, settings: KafkaSettings, drain_s: float) -> None:
        self._settings, self._drain_s = settings, drain_s
        self.held: list[str] = []
        self.lanes: dict[str, list[Busy]] = {}
        self.running: dict[str, asyncio.Task[None]] = {}
        self.stages: dict[str, LaneStage] = {}

    def start(self, name: str) -> asyncio.Task[None]:
        """Start one."""
        lanes = self.lanes.setdefault(name, [])

        def make(_: AIOKafkaConsumer, __: int, ___: tuple[TopicPartition, ...]) -> Busy:
            lanes.append(Busy(name, self.held))
            return lanes[-1]

        topics = [self._settings.name(EVIDENCE)]
        group = self._settings.group("hands-over")
        stage = LaneStage(self._settings, group=group, topics=topics, make=make, drain_s=self._drain_s)
        self.stages[name] = stage
        self.running[name] = asyncio.create_task(stage.run(), name=name)
        return self.running[name]

    async def until(self, condition: Callable[[], object], seconds: float = 20.0) -> float:
        """Wait for something; give how long that took."""
        began = time.monotonic()
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - what is waited for announces nothing
                await asyncio.sleep(0.02)
        return time.monotonic() - began

    async def close(self) -> None:
        """End everything at once."""
        for lanes in self.lanes.values():
            for lane in lanes:
                lane.may_end.set()
        for task in self.running.values():
            task.cancel()
        await asyncio.gather(*self.running.values(), return_exceptions=True)


@pytest.fixture
async def workers(kafka: str, prefix: str) -> AsyncIterator[Callable[[float], Awaitable[Workers]]]:
    """Workers of a topic of this test's own, with so many seconds to give their partitions back."""
    made: list[Workers] = []

    async def make(drain_s: float) -> Workers:
        settings = KafkaSettings(kafka, prefix=prefix, session_timeout_ms=SESSION_MS)
        await create_topics(settings, partitions=2, replication=1, topics=(EVIDENCE,))
        made.append(Workers(settings, drain_s))
        return made[-1]

    yield make
    for each in made:
        await each.close()


@asynccontextmanager
async def nobody_else(workers: Workers, name: str) -> AsyncIterator[None]:
    """While this lasts, no other worker may hold a partition; it is looked for all the time."""
    others: set[str] = set()

    async def look() -> None:
        while True:
            others.update(set(workers.held) - {name})
            await asyncio.sleep(0.02)

    looking = asyncio.create_task(look())
    try:
        yield
    finally:
        looking.cancel()
    assert not others, f"{others} began while {name} had not ended"


async def test_a_stage_that_ends_keeps_its_partitions_while_another_one_joins(workers) -> None:
    """The group assembles while a stopped stage still works: nobody begins on its partitions before it has ended."""
    both = await workers(20)
    leaves = both.start("leaves")
    await both.until(lambda: both.held == ["leaves"] * 2)
    leaves.cancel()
    await both.until(lambda: all(lane.told.is_set() for lane in both.lanes["leaves"]))
    async with nobody_else(both, "leaves"):
        both.start("joins")
        await asyncio.sleep(SOON_S)
        assert both.held == ["leaves"] * 2
    for lane in both.lanes["leaves"]:
        lane.may_end.set()
    assert await both.until(lambda: both.held == ["joins"] * 2) < SOON_S
    assert [lane.ended for lane in both.lanes["leaves"]] == ["in order"] * 2


async def test_a_stage_that_is_stopped_while_it_gives_partitions_back_ends_them_in_order(workers) -> None:
    """The group has asked for the partitions, and then the worker is told to stop: what is under way still ends."""
    both = await workers(20)
    leaves = both.start("leaves")
    await both.until(lambda: both.held == ["leaves"] * 2)
    both.start("joins")
    await both.until(lambda: all(lane.told.is_set() for lane in both.lanes["leaves"]))
    async with nobody_else(both, "leaves"):
        leaves.cancel()
        await asyncio.sleep(1)
        assert not leaves.done()
    for lane in both.lanes["leaves"]:
        lane.may_end.set()
    assert await both.until(lambda: both.held == ["joins"] * 2) < SOON_S
    assert leaves.cancelled()
    assert [lane.ended for lane in both.lanes["leaves"]] == ["in order"] * 2


async def test_a_group_waits_longer_than_a_session_for_what_is_under_way(workers) -> None:
    """A lane that takes more than a session to end, and less than its drain time, is waited for."""
    both = await workers(15)
    both.start("works")
    await both.until(lambda: both.held == ["works"] * 2)
    both.start("joins")
    await both.until(lambda: all(lane.told.is_set() for lane in both.lanes["works"]))
    async with nobody_else(both, "works"):
        await asyncio.sleep(SESSION_MS / 1000 + 3)
    for lane in both.lanes["works"]:
        lane.may_end.set()
    await both.until(lambda: sorted(lane._owner for lane in both.lanes["joins"]) == ["joins"], SOON_S)
    assert [lane.ended for lane in both.lanes["works"][:2]] == ["in order"] * 2


async def test_a_stage_that_fails_and_is_told_to_stop_lets_the_other_lanes_end(workers) -> None:
    """One lane fails, the stage ends because of it, and is cancelled meanwhile: the healthy lane is not cut off."""
    one = await workers(20)
    running = one.start("fails")
    await one.until(lambda: one.held == ["fails"] * 2)
    broken, healthy = one.lanes["fails"]
    broken.fails = OSError("the disk is gone")
    broken.told.set()
    await one.until(healthy.told.is_set)
    running.cancel()
    await asyncio.sleep(0.5)
    assert healthy.ended == ""
    healthy.may_end.set()
    await asyncio.wait({running}, timeout=SOON_S)
    assert running.cancelled()
    assert healthy.ended == "in order"


async def test_a_worker_that_had_no_partition_for_long_takes_over(workers) -> None:
    """More workers than partitions: one that has read nothing for an hour begins when another one ends."""
    three = await workers(20)
    for name in ("one", "two", "three"):
        three.start(name)

    def owners() -> set[str]:
        for lane in itertools.chain(*three.lanes.values()):
            lane.may_end.set()
        return set(three.held)

    await three.until(lambda: len(three.held) == len(owners()) == 2)
    ((spare, stage),) = [item for item in three.stages.items() if item[0] not in owners()]
    stage._consumer._subscription._last_fetch_ended -= 3600
    await asyncio.sleep(SESSION_MS / 1000 / 5)  # it looks with each heartbeat whether it has been idle for too long
    three.running[owners().pop()].cancel()
    await three.until(lambda: spare in owners())
