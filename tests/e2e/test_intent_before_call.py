"""Evidence before data: no call is made while its intent cannot be made durable; an orderly end leaves no doubt."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest
from kafka_fixtures import running_kafka
from pipeline_process import Pipeline, running_pipeline, slow
from requests_made import request

from streams.brokers.apache import ApacheKafka

SETTLE_S = 1.0
"""After the broker has stopped, what it had acknowledged before is still on its way to the stand-in."""
WATCH_S = 3.0


@pytest.fixture(scope="module")
def own_kafka() -> Iterator[ApacheKafka]:
    """A node of Apache Kafka that nobody else is disturbed by."""
    with running_kafka() as broker:
        yield broker


def many(count: int, latency_ms: int) -> list[dict]:
    """Give so many requests that the stand-in answers after so long."""
    return [request(f"intent-{number:04d}", f"Say hello. (latency {latency_ms})") for number in range(count)]


async def silence(pipeline: Pipeline) -> int:
    """Wait until what was acknowledged has arrived, watch for a while, and give how many calls there are."""
    await asyncio.sleep(SETTLE_S)
    before = pipeline.call_count()
    await asyncio.sleep(WATCH_S)
    assert pipeline.call_count() == before, pipeline.told([f"{pipeline.call_count() - before} calls without an intent"])
    assert before < len(pipeline.sent), pipeline.told(["all calls had been made already: the test proved nothing"])
    return before


@pytest.mark.kafka
async def test_no_call_leaves_while_the_broker_stands_still(own_kafka, prefix, tmp_path):
    """With the broker stopped in mid-run the stand-in hears nothing more; when it goes on, so does everything."""
    settings = {"WAYBILL_MAX_HOSTED": "8"}
    async with running_pipeline(tmp_path, own_kafka.bootstrap, prefix, script=slow(40), **settings) as pipeline:
        await pipeline.start_worker()
        await pipeline.send_all(many(400, 40))
        await pipeline.until(lambda: pipeline.call_count() >= 20, 60, "the first calls")
        pid = own_kafka.pid()
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            stood_at = await silence(pipeline)
        finally:
            os.kill(pid, signal.SIGCONT)
        outcomes = await pipeline.check(outcomes={"completed"})
        assert outcomes["completed"] == 400
        assert pipeline.call_count() == 400 > stood_at


# Under `make soak`: half a minute of waiting for one node; the suite stops the broker in other ways.
@pytest.mark.soak
@pytest.mark.kafka
async def test_no_call_leaves_while_the_broker_is_gone(own_kafka, prefix, tmp_path):
    """`kill -9` of the only node in mid-run: no call until it is back, and then every request ends, once."""
    settings = {"WAYBILL_MAX_HOSTED": "8"}
    async with running_pipeline(tmp_path, own_kafka.bootstrap, prefix, script=slow(40), **settings) as pipeline:
        await pipeline.start_worker()
        await pipeline.send_all(many(400, 40))
        await pipeline.until(lambda: pipeline.call_count() >= 20, 60, "the first calls")
        own_kafka.kill_node(1)
        try:
            await silence(pipeline)
        finally:
            await own_kafka.start_node(1)
        outcomes = await pipeline.check(outcomes={"completed", "unknown"})
        assert outcomes["unknown"] <= 8, pipeline.told(["more requests are in doubt than were in flight"])


@pytest.mark.kafka
async def test_an_orderly_stop_leaves_nothing_in_doubt(own_kafka, prefix, tmp_path):
    """SIGTERM amid calls of a second: each call in flight is awaited, none ends as unknown, the rest waits its turn."""
    settings = {"WAYBILL_MAX_HOSTED": "16"}
    async with running_pipeline(tmp_path, own_kafka.bootstrap, prefix, script=slow(1000), **settings) as pipeline:
        worker = await pipeline.start_worker()
        await pipeline.send_all(many(64, 1000))
        for _ in range(2):
            before = pipeline.call_count()
            await pipeline.until(lambda before=before: pipeline.call_count() >= before + 8, 60, "calls in flight")
            await worker.stop(30)
            assert worker.returncode == 0, pipeline.told([f"the worker ended with {worker.returncode}"])
            made = pipeline.call_count()
            await pipeline.until(lambda made=made: pipeline.ended() == made, 10, "an answer to each call, and no more")
            worker = await pipeline.start_worker()
        outcomes = await pipeline.check(outcomes={"completed"})
        assert outcomes["completed"] == pipeline.call_count() == 64
