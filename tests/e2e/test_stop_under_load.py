"""A rolling deployment: of two workers that share the load, one after the other is stopped and started anew."""

from __future__ import annotations

import asyncio
import time

import pytest
from pipeline_process import Pipeline, running_pipeline, slow
from requests_made import request

LATENCIES = (50, 200, 800)
PER_SECOND = 10.0
NAMES = ("one", "two")
STOP_S = 15.0
DELAY_S = 15.0
"""A handover takes a heartbeat (0.6 s here), the longest call of either worker, and half a second to begin anew.
The rest is for a busy machine; one in which the group waits in vain for somebody takes more than 20 s."""


class Load:
    """Sends at a rate, and knows how long each request took to be answered."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._sent: dict[str, float] = {}
        self.took: dict[str, float] = {}
        self.stop = asyncio.Event()

    async def send(self) -> None:
        """Send until told to stop."""
        waiting = []
        while not self.stop.is_set():
            number = len(self._sent)
            name = f"roll-{number:05d}"
            self._sent[name] = time.monotonic()
            made = request(name, f"Say hello. (latency {LATENCIES[number % len(LATENCIES)]})")
            waiting.append(await self._pipeline.send(made))
            await asyncio.sleep(1 / PER_SECOND)
        for delivered in waiting:
            await delivered

    async def watch(self) -> None:
        """Note when each answer comes, until cancelled."""
        while True:
            now = time.monotonic()
            for name in self._pipeline.responses.keys() - self.took.keys():
                self.took[name] = now - self._sent[name]
            await asyncio.sleep(0.02)


@pytest.mark.kafka
async def test_a_rolling_deployment_leaves_nothing_in_doubt_and_holds_nobody_up(kafka, prefix, tmp_path):
    """Each of two workers is stopped and started anew amid traffic: all is completed, within seconds."""
    async with running_pipeline(tmp_path, kafka, prefix, script=slow(*LATENCIES), partitions=4) as pipeline:
        for name in NAMES:
            await pipeline.start_worker(name)
        load = Load(pipeline)
        tasks = [asyncio.create_task(load.send()), asyncio.create_task(load.watch())]
        try:
            for name in NAMES:
                await asyncio.sleep(3)
                began = time.monotonic()
                await pipeline.worker(name).stop(STOP_S)
                code = pipeline.worker(name).returncode
                assert code == 0, pipeline.told([f"{name} ended with {code}"])
                pipeline.notes.append(f"{name} stopped in {time.monotonic() - began:.1f} s")
                await asyncio.sleep(2)
                await pipeline.start_worker(name)
            await asyncio.sleep(2)
            load.stop.set()
            await tasks[0]
            outcomes = await pipeline.check(outcomes={"completed"})
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert outcomes.total() == pipeline.call_count() == len(pipeline.sent)
        late = sorted(load.took.values())
        told = f"{len(late)} answers, half within {late[len(late) // 2]:.2f} s, the last after {late[-1]:.2f} s"
        print(told, pipeline.notes)  # noqa: T201 - what was measured
        assert late[-1] < DELAY_S, pipeline.told([told])
