"""`kill -9` of a worker, again and again, at moments that nobody chose: every promise must hold afterwards."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pipeline_process import Pipeline, running_pipeline, slow
from requests_made import request

from streams.brokers.members import evict_members

LATENCIES = (5, 10, 15, 20, 30)
SEED = "KILL_SEED"  # not WAYBILL_…: those are settings, and an unknown one is an error


@pytest.fixture
def seed() -> int:
    """What decides the moments; every failure prints it, and the variable sets it."""
    return int(os.environ.get(SEED) or random.SystemRandom().randrange(1_000_000))


def moments(seed: int) -> random.Random:
    """Give what chooses the moments."""
    return random.Random(seed)  # noqa: S311 - nothing is kept secret by it


def endless(chance: random.Random, name: str) -> Iterator[dict[str, Any]]:
    """Give requests without end, each with a latency of its own."""
    number = 0
    while True:
        number += 1
        yield request(f"{name}-{number:05d}", f"Say hello. (latency {chance.choice(LATENCIES)})")


async def flow(pipeline: Pipeline, chance: random.Random, per_second: float, stop: asyncio.Event) -> None:
    """Send requests at a rate until told to stop."""
    waiting = []
    for made in endless(chance, "kill"):
        if stop.is_set():
            break
        waiting.append(await pipeline.send(made))
        await asyncio.sleep(1 / per_second)
    for delivered in waiting:
        await delivered


async def moment(pipeline: Pipeline, chance: random.Random, kind: str | None = None) -> str:
    """Wait for a moment to kill at: while it starts, amid a heap of work, or some time later."""
    kind = kind or chance.choices(("start", "busy", "later"), (2, 5, 3))[0]
    if kind == "start":
        seconds = chance.uniform(0, 3)
    else:
        before = pipeline.ended()
        await pipeline.until(lambda: pipeline.ended() > before, 60, "an answer after a kill")
        seconds = chance.uniform(0, 0.25 if kind == "busy" else 1.5)
    await asyncio.sleep(seconds)
    return f"{kind} + {seconds:.3f} s"


@pytest.mark.kafka
@pytest.mark.parametrize("kills", [4, pytest.param(10, marks=pytest.mark.soak)])
async def test_kills_lose_and_double_nothing(kafka, prefix, tmp_path, seed, kills):
    """After some `kill -9`: sent = responded = told, once each, and no hosted call without a durable intent."""
    chance, stop = moments(seed), asyncio.Event()
    async with running_pipeline(
        tmp_path, kafka, prefix, script=slow(*LATENCIES), WAYBILL_MAX_HOSTED="8", WAYBILL_SINK_ROWS="200"
    ) as pipeline:
        pipeline.notes.append(f"{SEED}={seed}")
        sending = asyncio.create_task(flow(pipeline, chance, 25, stop))
        try:
            for number in range(1, kills + 1):
                worker = await pipeline.start_worker(wait=False)
                # Two of them amid a heap of work, so that some call is in flight.
                when = await moment(pipeline, chance, "busy" if number <= 2 else None)
                pipeline.notes.append(f"kill {number} at {when}: {pipeline.ended()} of {len(pipeline.sent)} answered")
                assert worker.running, pipeline.told([f"the worker ended by itself before kill {number}"])
                worker.kill()
                await pipeline.evict()
            await pipeline.start_worker()
        finally:
            stop.set()
            await sending
        outcomes = await pipeline.check(outcomes={"completed", "unknown"})
        print(f"{SEED}={seed}: {len(pipeline.sent)} requests, {dict(outcomes)}")  # noqa: T201 - to run it again
        assert outcomes["completed"] > 0, pipeline.told(["nothing was answered"])
        assert outcomes["unknown"] > 0, pipeline.told(["no kill met a call in flight: the test proved too little"])


@pytest.mark.kafka
@pytest.mark.parametrize("kills", [2, pytest.param(5, marks=pytest.mark.soak)])
async def test_killed_sinks_store_each_event_once(kafka, prefix, tmp_path, seed, kills):
    """A sink of its own is killed again and again while the other stages go on: each row is there, and once."""
    chance, stop = moments(seed), asyncio.Event()
    settings = {"WAYBILL_MAX_HOSTED": "32", "WAYBILL_SINK_ROWS": "50"}
    async with running_pipeline(tmp_path, kafka, prefix, script=slow(*LATENCIES), **settings) as pipeline:
        pipeline.notes.append(f"{SEED}={seed}")
        await pipeline.start_worker("stages", "admission,dispatch,correlation")
        sending = asyncio.create_task(flow(pipeline, chance, 50, stop))
        try:
            for number in range(1, kills + 1):
                sink = await pipeline.start_worker("sink", "sink", wait=False)
                before = len(rows(pipeline))
                if chance.random() < 0.8:
                    await pipeline.until(lambda before=before: len(rows(pipeline)) > before, 60, "a file of the sink")
                await asyncio.sleep(chance.uniform(0, 1.0))
                pipeline.notes.append(f"kill {number} with {len(rows(pipeline))} files")
                assert sink.running, pipeline.told([f"the sink ended by itself before kill {number}"])
                sink.kill()
                await evict_members(kafka, [pipeline.kafka.group("sink")])
            await pipeline.start_worker("sink", "sink")
        finally:
            stop.set()
            await sending
        outcomes = await pipeline.check(outcomes={"completed"})
        print(f"{SEED}={seed}: {len(pipeline.sent)} requests, {dict(outcomes)}, {len(rows(pipeline))} files")  # noqa: T201 - the same
        assert pipeline.worker("stages").running


def rows(pipeline: Pipeline) -> list[Path]:
    """Give the files that the sink has published."""
    return list((pipeline.home / "evidence" / "events").glob("site=*/date=*/*.parquet"))


@pytest.mark.kafka
@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_a_hundred_kills_of_two_workers(kafka, prefix, tmp_path, seed):
    """Two workers share the partitions and are killed in turn, a hundred times; the broker alone notices."""
    chance, stop = moments(seed), asyncio.Event()
    names = ("one", "two")
    settings = {"WAYBILL_MAX_HOSTED": "8", "WAYBILL_SINK_ROWS": "500"}
    async with running_pipeline(tmp_path, kafka, prefix, script=slow(*LATENCIES), partitions=4, **settings) as pipeline:
        pipeline.notes.append(f"{SEED}={seed}")
        for name in names:
            await pipeline.start_worker(name)
        sending = asyncio.create_task(flow(pipeline, chance, 10, stop))
        try:
            for number in range(1, 101):
                name = names[number % 2]
                when = await moment(pipeline, chance)
                pipeline.notes.append(f"kill {number} of {name} at {when}: {pipeline.ended()} answered")
                for each in names:
                    assert pipeline.worker(each).running, pipeline.told([f"{each} ended by itself before {number}"])
                pipeline.worker(name).kill()
                await pipeline.start_worker(name, wait=chance.random() < 0.5)
            for name in names:
                await pipeline.healthy(name)
        finally:
            stop.set()
            await sending
        outcomes = await pipeline.check(outcomes={"completed", "unknown"})
        print(f"{SEED}={seed}: {len(pipeline.sent)} requests, {dict(outcomes)}")  # noqa: T201 - the same
        assert outcomes["unknown"] > 0, pipeline.told(["no kill met a call in flight: the test proved too little"])
