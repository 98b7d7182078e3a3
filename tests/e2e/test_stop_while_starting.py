"""Workers that are told to stop at any moment of their start: they end, in order, and hold nobody up."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from pipeline_process import Pipeline, running_pipeline, slow
from requests_made import request

STOP_S = 15.0
"""Far more than calls of 300 ms take to end, and far less than a broker holds a join back for in these tests."""


async def begun(pipeline: Pipeline, name: str, after_s: float) -> None:
    """Start a worker, and come back so long after it has begun to start its stages."""
    seen = pipeline.home / f"{name}.log"
    size = seen.stat().st_size if seen.exists() else 0
    worker = await pipeline.start_worker(name, wait=False)
    await pipeline.until(
        lambda: not worker.running or b"health at" in seen.read_bytes()[size:], 60, "a worker that starts"
    )
    await asyncio.sleep(after_s)


@pytest.mark.kafka
async def test_workers_end_whenever_they_are_told_to(kafka, prefix, tmp_path):
    """Two workers that share their groups are stopped 0.2 to 1.4 s after they begin: each ends, nothing is in doubt."""
    async with running_pipeline(tmp_path, kafka, prefix, script=slow(300), WAYBILL_MAX_HOSTED="4") as pipeline:
        for turn in range(3):
            await pipeline.send_all(request(f"stop-{turn}-{n}", "Say hello. (latency 300)") for n in range(6))
            after_s = 0.2 + 0.6 * turn
            names = ("one", "two")
            await asyncio.gather(*(begun(pipeline, name, after_s) for name in names))
            await asyncio.gather(*(pipeline.worker(name).stop(STOP_S) for name in names))
            codes = [pipeline.worker(name).returncode for name in names]
            assert codes == [0, 0], pipeline.told([f"stopped after {after_s:.1f} s they ended with {codes}"])
        await pipeline.start_worker()
        outcomes = await pipeline.check(outcomes={"completed"})
        assert outcomes["completed"] == pipeline.call_count() == 18


@pytest.mark.kafka
@pytest.mark.parametrize(
    "moments", [(0.1, 1.3), pytest.param((0.1, 0.7, 1.3, 2.5), marks=pytest.mark.soak)], ids=["two", "four"]
)
@pytest.mark.timeout(420)  # a name that could not be taken back in time ends with its session and the group's patience
async def test_workers_end_while_their_groups_wait_for_another(kafka, prefix, tmp_path, moments):
    """A worker that stands still keeps every group waiting for a minute; one that starts then ends all the same."""
    async with running_pipeline(tmp_path, kafka, prefix, WAYBILL_KAFKA_SESSION_MS="60000") as pipeline:
        stands = await pipeline.start_worker("stands")
        os.killpg(stands.pid, signal.SIGSTOP)
        try:
            for after_s in moments:
                await begun(pipeline, "starts", after_s)
                worker = pipeline.worker("starts")
                await worker.stop(STOP_S)
                assert worker.returncode == 0, pipeline.told([f"after {after_s} s it ended with {worker.returncode}"])
        finally:
            os.killpg(stands.pid, signal.SIGCONT)
        await pipeline.send_all([request("goes-on", "Say hello.")])
        await pipeline.until_answered(300)
        outcomes = await pipeline.check(outcomes={"completed"})
        assert outcomes["completed"] == 1
