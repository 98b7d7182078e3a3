"""The host of the stages: how they end."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest
from aiokafka.errors import InvalidTimestampError, KafkaError

from evidence.errors import ConfigError, StoreError
from streams import app as host
from streams.kafka import KafkaSettings
from streams.metrics import Metrics


async def test_a_stage_whose_end_fails_is_not_started_again() -> None:
    """Trouble with the broker that takes the place of the cancellation ends the stage all the same."""
    begun = 0

    async def run(ready: host.Ready) -> None:
        nonlocal begun
        begun += 1
        ready()
        try:
            await asyncio.Event().wait()
        finally:
            if begun == 1:  # once, so that a stage which did start again could be ended
                raise KafkaError("the broker has gone")

    service = host.StageService("any", run, Metrics())
    await service.start()
    await asyncio.sleep(0)
    async with asyncio.timeout(2):
        await service.stop()
    assert begun == 1


async def test_a_fault_starts_a_stage_again_and_a_permanent_error_ends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What nobody expected is told without its text, which may hold input, and the stage comes back by itself."""
    monkeypatch.setattr(host, "_FIRST_WAIT_S", 0.01)
    begun, met = 0, [ValueError("SECRET"), sqlite3.DatabaseError("SECRET"), StoreError("a person has to look")]
    service: host.StageService

    async def run(_: host.Ready) -> None:
        nonlocal begun
        begun += 1
        if begun > 1:
            assert "SECRET" not in service.condition
        raise met[begun - 1]

    service = host.StageService("any", run, Metrics())
    with pytest.raises(StoreError):
        await service._supervise()
    assert begun == len(met)


async def test_the_stages_end_before_anything_else_does(tmp_path: Path) -> None:
    """Whatever Faust still does or waits for when the end comes, the stages have been told first."""
    ended: list[str] = []

    async def run(ready: host.Ready) -> None:
        ready()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            ended.append("stage")

    async def told(*_: object, **__: object) -> None:
        ended.append("faust")

    app = host.build(
        host.HostSettings(KafkaSettings("127.0.0.1:1"), 1, tmp_path, "127.0.0.1", 0), {"any": run}, Metrics()
    )
    app.on_before_shutdown.connect(told)
    await app.stages[0].start()
    await asyncio.sleep(0)
    await app.stop()
    assert ended == ["stage", "faust"]


async def test_a_stage_that_does_not_end_is_left_behind() -> None:
    """A stage that hears no cancellation holds the process up for as long as it was given; it is not begun again."""
    freed, begun = asyncio.Event(), 0

    async def run(ready: host.Ready) -> None:
        nonlocal begun
        begun += 1
        ready()
        while not freed.is_set():
            with suppress(asyncio.CancelledError):
                await freed.wait()

    service = host.StageService("deaf", run, Metrics(), stop_seconds=0.2)
    await service.start()
    await asyncio.sleep(0)
    running = service._running
    assert running is not None
    async with asyncio.timeout(5):
        await service.stop()
    freed.set()
    async with asyncio.timeout(5):
        await running
    assert begun == 1


async def test_a_stage_that_ends_for_good_ends_the_process_in_order(tmp_path: Path) -> None:
    """The first error is kept for the program to tell, and the end is asked for once for each stage."""
    asked: list[str] = []

    async def run(ready: host.Ready) -> None:
        ready()
        raise ConfigError("the key file is empty")

    settings = host.HostSettings(KafkaSettings("127.0.0.1:1"), 1, tmp_path, "127.0.0.1", 0)
    app = host.build(settings, {"any": run}, Metrics())
    app.end = lambda: asked.append("end")
    await app.stages[0].start()
    async with asyncio.timeout(5):
        while not asked:  # noqa: ASYNC110 - the callback belongs to no loop
            await asyncio.sleep(0.01)
    assert (asked, str(app.failure), app.stages[0].condition) == (
        ["end"],
        "the key file is empty",
        "failed: the key file is empty",
    )


async def test_a_worker_that_stops_is_not_ready(tmp_path: Path) -> None:
    """From the moment that it is told to stop, while its stages still end, it does not say that it serves."""
    seen: list[dict[str, str]] = []

    async def run(ready: host.Ready) -> None:
        ready()
        try:
            await asyncio.Event().wait()
        finally:
            seen.append(app.states())

    settings = host.HostSettings(KafkaSettings("127.0.0.1:1"), 1, tmp_path, "127.0.0.1", 0)
    app = host.build(settings, {"any": run}, Metrics())
    await app.stages[0].start()
    await asyncio.sleep(0)
    assert app.states() == {"any": "running"}
    await app.on_stop()
    assert seen == [{"any": "running", "worker": "stopping"}]


def test_a_clock_that_kafka_refuses_is_told_as_that() -> None:
    """`[Error 32] InvalidTimestampError` says nothing to an operator."""
    assert "this machine's clock is far ahead" in host.sentence(InvalidTimestampError())
