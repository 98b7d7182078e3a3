"""Lanes: one task for each partition that a stage owns, begun and ended by the consumer group's rebalances.

A lane is the unit of order, of fencing and of recovery. Any trouble in one ends the stage, whose host starts it again
from what is committed: there is one way back to work, and it is the one that a crash takes.

A partition changes hands only when its lane has ended. Whoever asks for that, the group or the end of this stage, waits
for every lane that was told to end, by whomever: a worker is often told to stop while its group assembles, and a group
that goes on before a call has ended gives the partition to another worker, which fences this one and leaves the call in
doubt.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
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

    def __init__(
        self, kafka: KafkaSettings, *, group: str, topics: Iterable[str], make: MakeLane, drain_s: float = 0
    ) -> None:
        """Describe the stage; nothing is opened yet.

        Args:
            kafka: how to reach the broker.
            group: consumer group.
            topics: what it reads.
            make: makes the lane of a partition number.
            drain_s: seconds that a lane may take to end; the group waits for longer than that.
        """
        self._kafka = kafka
        self._drain_s = drain_s
        self._group = group
        self._topics = tuple(topics)
        self._make = make
        self._consumer: AIOKafkaConsumer | None = None
        self._lanes: dict[int, tuple[Lane, asyncio.Task[None]]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
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
        made = self._consumer = consumer(self._kafka, group=self._group, drain_s=self._drain_s)
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
            # A stage that ends because of a failure may be told to stop meanwhile: what is in flight ends all the same.
            await _to_the_end(self._close(made))

    async def _close(self, made: AIOKafkaConsumer) -> None:
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
        """End all lanes: the group hands out everything anew, and waits until this returns."""
        del revoked
        await self._end_lanes()

    async def _end_lanes(self) -> None:
        """Tell the lanes to end, and wait for them and for those that somebody else has told."""
        lanes, self._lanes = self._lanes, {}
        for lane, task in lanes.values():
            task.remove_done_callback(self._lane_ended)
            leaving = asyncio.create_task(_end(lane, task))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._lane_left)
        if self._leaving:
            await asyncio.wait(self._leaving)  # unlike a gathering, it takes none of them along when it is cancelled

    def _lane_left(self, task: asyncio.Task[None]) -> None:
        self._leaving.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
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


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Do some work to its end, which has bounds of its own, and only then give way to a cancellation."""
    task, cancelled = asyncio.ensure_future(work), None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    task.result()
