"""The host of the stages: how they end."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiokafka.errors import KafkaError

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
