"""A client that is cancelled at any step of its start leaves no connection open."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.conn import AIOKafkaConnection

from streams.kafka import KafkaSettings, consumer, producer

MOST_STEPS = 60


class CancelledAt:
    """Awaits something and cancels the task that does as it waits for the n-th time."""

    def __init__(self, awaited: Awaitable[Any], step: int) -> None:
        self._awaited = awaited
        self._step = step
        self.steps = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        inside = self._awaited.__await__()
        go_on = partial(inside.send, None)
        while True:
            try:
                waited_for = go_on()
            except StopIteration as end:
                return end.value
            self.steps += 1
            if self.steps == self._step:
                asyncio.current_task().cancel()
            try:
                go_on = partial(inside.send, (yield waited_for))
            except BaseException as error:  # noqa: BLE001 - it is handed on, whatever it is
                go_on = partial(inside.throw, error)


def open_connections() -> list[AIOKafkaConnection]:
    """Give the connections of this process that are open."""
    return [found for found in gc.get_objects() if isinstance(found, AIOKafkaConnection) and found.connected()]


def a_consumer(settings: KafkaSettings) -> tuple[Any, Callable[[], Awaitable[None]]]:
    """Give a consumer's start and stop."""
    made = consumer(settings, group=settings.group("any"))
    made.subscribe([f"{settings.prefix}none"])
    return made.start, made.stop


def a_producer(settings: KafkaSettings) -> tuple[Any, Callable[[], Awaitable[None]]]:
    """Give a transactional producer's start and stop."""
    made = producer(settings, transactional_id=f"{settings.prefix}any")
    return made.start, made.stop


def an_admin(settings: KafkaSettings) -> tuple[Any, Callable[[], Awaitable[None]]]:
    """Give an administrator's start and end."""
    made = AIOKafkaAdminClient(**settings.client_options())
    return made.start, made.close


@pytest.mark.parametrize("make", [a_consumer, a_producer, an_admin])
async def test_a_start_that_is_cancelled_at_any_step_closes_all(dev_broker, prefix, make):
    """At each step where it waits for the broker; and where what it is stopped with is cancelled in its turn."""
    settings = KafkaSettings(dev_broker, prefix=prefix, session_timeout_ms=6000)
    before = {id(found) for found in open_connections()}
    cancelled = 0
    for step in range(1, MOST_STEPS):
        for stop_step in (0, 1, 2):
            start, stop = make(settings)
            starting = CancelledAt(start(), step)
            task = asyncio.ensure_future(_awaited(starting))
            await asyncio.wait({task}, timeout=5)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            ended = starting.steps < step
            cancelled += not ended
            with suppress(asyncio.CancelledError):
                await asyncio.ensure_future(_awaited(CancelledAt(stop(), stop_step)))
            left = [found for found in open_connections() if id(found) not in before]
            assert not left, f"step {step}, stop cancelled at {stop_step}: {left}"
        if ended:
            break
    assert cancelled >= 6  # it waits at least for a socket, for the versions and for the cluster's nodes


async def _awaited(what: Awaitable[Any]) -> Any:
    return await what
