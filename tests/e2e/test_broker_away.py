"""Kafka goes away and comes back: `/health` and `doctor` say so within seconds, and the log stays small."""

from __future__ import annotations

import asyncio
import re
import time

import aiohttp
import pytest
from dev_run import waybill
from kafka_fixtures import running_kafka
from pipeline_process import Pipeline, running_pipeline
from requests_made import request

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(420)]

AWAY_S = 60.0
NOTICED_S = 12.0
"""Ten seconds, and what a busy machine adds."""

LOG_BYTES = 16_000
"""One minute of two workers wrote 6 MB before lines were counted."""


async def look(pipeline: Pipeline, path: str = "/health") -> tuple[int, dict[str, object]]:
    """Ask the worker; give status and content."""
    timeout = aiohttp.ClientTimeout(total=5)
    async with aiohttp.ClientSession(timeout=timeout) as session, session.get(pipeline.web + path) as answer:
        return answer.status, await answer.json()


async def until_status(pipeline: Pipeline, wanted: int, seconds: float) -> tuple[float, dict[str, object]]:
    """Wait until `/health` has a status; give after how many seconds, and what it says."""
    began = time.monotonic()
    while True:
        status, content = await look(pipeline)
        taken = time.monotonic() - began
        if status == wanted:
            return taken, content
        assert taken < seconds, pipeline.told([f"/health still says {status} after {taken:.0f} s: {content}"])
        await asyncio.sleep(0.2)


@pytest.fixture
def broker():
    """A broker that the test may kill."""
    with running_kafka() as running:
        yield running


async def test_health_and_log_while_kafka_is_away(broker, prefix, tmp_path):
    """503 with a sentence within seconds, alive all the time, a few kB of log, 200 and answers soon after."""
    async with running_pipeline(tmp_path, broker.bootstrap, prefix) as pipeline:
        await pipeline.start_worker()
        await pipeline.send_all([request("before", "Say hello.")])
        await pipeline.until_answered()
        log = tmp_path / "worker.log"
        size = log.stat().st_size
        broker.kill_node(1)
        taken, content = await until_status(pipeline, 503, NOTICED_S)
        pipeline.notes.append(f"503 after {taken:.1f} s")
        assert f"waiting: no answer from {broker.bootstrap}" in content["stages"]["broker"]
        assert (await look(pipeline, "/livez"))[0] == 200
        assert [(await look(pipeline, path))[0] for path in ("/readyz", "/healthz")] == [503, 503]
        doctor = await asyncio.to_thread(
            waybill, "doctor", **pipeline.environment, WAYBILL_WEB_PORT=pipeline.web.rpartition(":")[2]
        )
        said = " ".join(doctor.stdout.split())
        assert re.search(r"✗ worker: a worker answers .* broker waiting: no answer from", said), said
        await asyncio.sleep(AWAY_S)
        written = log.stat().st_size - size
        assert written < LOG_BYTES, pipeline.told([f"{written} bytes in about {AWAY_S:g} s"])
        assert b"times more in the last" in log.read_bytes()[size:]
        await broker.start_node(1)
        await until_status(pipeline, 200, 45)
        await pipeline.send_all([request("after", "Say hello.")])
        await pipeline.until_answered(120)
        assert {told[0]["outcome"] for told in pipeline.responses.values()} == {"completed"}
