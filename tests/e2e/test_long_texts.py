"""A worker that is sent texts made to be much work: its pages answer and good requests are served all the while."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest
from pipeline_process import HOSTED, Pipeline, running_pipeline
from requests_made import request
from scan_cost import repeated

LONG = 250_000
PATIENCE_S = 5.0
"""Seconds in which a page has to answer, on a machine that does much else."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("count", [6, pytest.param(40, marks=pytest.mark.soak)])
async def test_hostile_texts_leave_a_worker_healthy(dev_broker, prefix, tmp_path, count):
    """While requests of 250 kB of `fe80::` are scanned, `/health` answers, and each good request is completed."""
    bad = [request(f"bad{number}", repeated("fe80::", LONG)) for number in range(count)]
    good = [request(f"good{number}", "Say hello.") for number in range(count // 2)]
    async with running_pipeline(tmp_path, dev_broker, prefix, routes=HOSTED) as pipeline:
        await pipeline.start_worker()
        watching = asyncio.create_task(_watch(pipeline))
        await pipeline.send_all([one for n in range(count // 2) for one in (*bad[2 * n : 2 * n + 2], good[n])])
        await pipeline.until_answered(500)
        waits = await watching
    assert {pipeline.responses[str(made["requestId"])][0]["outcome"] for made in good} == {"completed"}
    assert len(waits) > 5
    assert max(waits) < PATIENCE_S, sorted(waits)[-5:]


async def _watch(pipeline: Pipeline) -> list[float]:
    """Return how long `/health` took, in seconds, each time that it was asked until all was answered."""
    waits: list[float] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE_S)) as session:
        while not pipeline.sent or pipeline.responses.keys() < pipeline.sent.keys():
            began = time.monotonic()
            async with session.get(f"{pipeline.web}/health") as answer:
                assert answer.status == 200, await answer.text()
            waits.append(time.monotonic() - began)
            await asyncio.sleep(0.1)
    return waits
