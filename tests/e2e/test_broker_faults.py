"""Nodes of a cluster of three are killed in mid-run: three copies, of which two must have each record."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from pipeline_process import Pipeline, running_pipeline, slow
from requests_made import request

from streams.brokers.apache import ApacheKafka

NODES = (1, 2, 3)
SETTLE_S = 1.0
"""After the nodes have gone, what they had acknowledged before is still on its way to the stand-in."""
WATCH_S = 4.0


def many(count: int) -> list[dict[str, Any]]:
    """Give so many requests that the stand-in takes 40 ms for."""
    return [request(f"fault-{number:04d}", "Say hello. (latency 40)") for number in range(count)]


async def amid_calls(pipeline: Pipeline, count: int) -> None:
    """Start a worker, send so many requests, and return when the first calls have been made."""
    await pipeline.start_worker()
    await pipeline.send_all(many(count))
    await pipeline.until(lambda: pipeline.call_count() >= 20, 60, "the first calls")


def lose(cluster: ApacheKafka, nodes: list[int], pipeline: Pipeline) -> None:
    """Kill nodes at once."""
    pipeline.notes.append(f"killed nodes {nodes} after {pipeline.call_count()} calls")
    for node in nodes:
        cluster.kill_node(node)


@pytest.mark.kafka
async def test_the_loss_of_one_node_changes_nothing(kafka3, prefix, tmp_path):
    """`kill -9` of any one node of three in mid-run: every request ends, once, while the node is away."""
    node = random.SystemRandom().choice(NODES)
    settings = {"WAYBILL_MAX_HOSTED": "8"}
    async with running_pipeline(
        tmp_path, kafka3.bootstrap, prefix, script=slow(40), replication=3, **settings
    ) as pipeline:
        await amid_calls(pipeline, 400)
        lose(kafka3, [node], pipeline)
        try:
            outcomes = await pipeline.check(outcomes={"completed", "unknown"})
        finally:
            await kafka3.start_node(node)
        assert outcomes["unknown"] <= 8, pipeline.told(["more requests are in doubt than were in flight"])


@pytest.mark.kafka
async def test_no_call_leaves_while_two_of_three_nodes_are_gone(kafka3, prefix, tmp_path):
    """With one copy left no intent is durable, so no hosted call is made; when the nodes are back, all ends, once."""
    nodes = random.SystemRandom().sample(NODES, 2)
    settings = {"WAYBILL_MAX_HOSTED": "8"}
    async with running_pipeline(
        tmp_path, kafka3.bootstrap, prefix, script=slow(40), replication=3, **settings
    ) as pipeline:
        await amid_calls(pipeline, 400)
        lose(kafka3, nodes, pipeline)
        try:
            await asyncio.sleep(SETTLE_S)
            before = pipeline.call_count()
            await asyncio.sleep(WATCH_S)
            assert pipeline.call_count() == before, pipeline.told(["calls were made without a durable intent"])
            assert before < len(pipeline.sent), pipeline.told(["all calls had been made: the test proved nothing"])
        finally:
            await asyncio.gather(*(kafka3.start_node(node) for node in nodes))
        outcomes = await pipeline.check(outcomes={"completed", "unknown"})
        assert outcomes["unknown"] <= 8, pipeline.told(["more requests are in doubt than were in flight"])
