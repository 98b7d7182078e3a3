"""Lanes: one task for each partition that a stage owns, begun and ended by the consumer group's rebalances.

A lane is the unit of order, of fencing and of recovery. Any trouble in one ends the stage, whose host starts it again
from what is committed: there is one way back to work, and it is the one that a crash takes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from streams.errors import BrokerUnavailable
from streams.kafka import KafkaSettings, consumer

log = logging.getLogger(__name__)


class Lane(Protocol):
    """The work on one partition number, over all topics of its stage."""

    async def run(self) -> None:
        """Fence, go to the committed position, and work until `stop`; returns only after that."""
        ...

    async def stop(self) -> None:
        """Take nothing new, end what is under way within the drain time, and let `run` return."""
        ...


MakeLane = Callable[[AIOKafkaConsumer, int, tuple[TopicPartition, ...]], Lane]


class LaneStage(ConsumerRebalanceListener):  # type: ignore[misc] # the library is untyped
    """Runs a lane for each partition number that the group assigns to this worker."""

    def __init__(self, kafka: KafkaSettings, *, group: str, topics: Iterable[str], make: MakeLane) -> None:
        self._kafka = kafka
        self._group = group
        self._topics = tuple(topics)
        self._make = make
        self._consumer: AIOKafkaConsumer | None = None
        self._lanes: dict[int, tuple[Lane, asyncio.Task[None]]] = {}
        self._failed: asyncio.Future[None] | None = None
        self._ending = False
        self._ready: Callable[[], None] = lambda: None

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Work until cancelled; `ready` is called when the group has said which partitions are ours.

        Raises:
            BrokerUnavailable: no broker answers at the start.
            KafkaError: the broker failed or fenced a lane; run again.
            Exception: whatever else ended a lane.
        """
        self._failed, self._ready = asyncio.get_running_loop().create_future(), ready
        self._ending = False
        made = self._consumer = consumer(self._kafka, group=self._group)
        try:
            await made.start()
        except (KafkaError, OSError) as error:
            await made.stop()
            raise BrokerUnavailable(f"no broker answers at {self._kafka.bootstrap}: {error}") from error
        except BaseException:
            await made.stop()
            raise
        try:
            made.subscribe(self._topics, listener=self)
            await self._failed
        finally:
            self._ending = True
            try:
                await self._end_lanes()
            finally:
                await made.stop()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Begin a lane for each partition number; a failure ends `run`, because the consumer would swallow it here."""
        if self._ending:
            return  # the group was still assembling when this stage was told to end: nobody would end these lanes
        try:
            self._begin_lanes(assigned)
        except Exception as error:  # noqa: BLE001 - run() raises it
            if self._failed is not None and not self._failed.done():
                self._failed.set_exception(error)
        else:
            self._ready()

    def _begin_lanes(self, assigned: Iterable[TopicPartition]) -> None:
        by_number: dict[int, list[TopicPartition]] = {}
        for partition in sorted(assigned):
            by_number.setdefault(partition.partition, []).append(partition)
        for number, partitions in by_number.items():
            lane = self._make(self._consumer, number, tuple(partitions))
            task = asyncio.create_task(lane.run(), name=f"{self._group}-{number}")
            task.add_done_callback(self._lane_ended)
            self._lanes[number] = (lane, task)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """End all lanes: the group hands out everything anew."""
        del revoked
        await self._end_lanes()

    async def _end_lanes(self) -> None:
        lanes, self._lanes = self._lanes, {}
        for lane, task in lanes.values():
            task.remove_done_callback(self._lane_ended)
            del lane
        ended = await asyncio.gather(*(_end(lane, task) for lane, task in lanes.values()), return_exceptions=True)
        for error in ended:
            if isinstance(error, BaseException) and not isinstance(error, asyncio.CancelledError):
                log.warning("%s: a lane ended with %r", self._group, error)

    def _lane_ended(self, task: asyncio.Task[Any]) -> None:
        failed = self._failed
        if failed is None or failed.done():
            return
        # Nobody but this stage ends a lane, and it looks away before it does: any end that is seen here is a failure.
        error = None if task.cancelled() else task.exception()
        failed.set_exception(error or RuntimeError(f"{task.get_name()} ended by itself"))


async def _end(lane: Lane, task: asyncio.Task[None]) -> None:
    await lane.stop()
    await task
