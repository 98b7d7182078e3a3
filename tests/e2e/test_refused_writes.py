"""The disk of the home folder takes nothing for a while: the worker waits, and goes on by itself."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pipeline_process import running_pipeline
from requests_made import request

REFUSED_S = 20.0


@contextmanager
def refused_writes(pid: int) -> Iterator[None]:
    """Have the kernel refuse every byte that a process would write to a file; sockets and pipes are none."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@pytest.mark.timeout(240)
async def test_a_worker_whose_writes_are_refused_goes_on_afterwards(dev_broker, prefix, tmp_path):
    """Before the first key of the vault, the first file of evidence, and in mid-run: nobody starts it again."""
    async with running_pipeline(tmp_path, dev_broker, prefix) as pipeline:
        worker = await pipeline.start_worker()
        for part in ("first", "later"):
            with refused_writes(worker.pid):
                await pipeline.send_all([request(f"{part}-{number}") for number in range(30)])
                await asyncio.sleep(REFUSED_S)
                assert worker.running, pipeline.told(["the worker ended while its writes were refused"])
            await pipeline.until_answered(60)
            assert worker.running, pipeline.told(["the worker ended after its writes were taken again"])
        outcomes = await pipeline.check(outcomes={"completed"})
        assert outcomes["completed"] == 60
        await pipeline.healthy()
