"""Admission alone, everything on: CPU of a worker that runs no other stage, per request, on Apache Kafka."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import orjson
import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition

from bench import requests
from bench.rig import JWKS, PARTITIONS, ROOT, broker, reference_us, settings
from policy.identity.jws import SigningKey, public_set
from streams import app, topics
from streams import kafka as clients
from streams.brokers.process import Child, free_port
from streams.kafka import KafkaSettings
from streams.stages.admission import NAME

REQUESTS: Final = 5_000
"""Requests of one round."""

_ROUNDS: Final = 9
"""Rounds in which is counted, one after the other."""

_WARM_UP: Final = 2
"""Rounds that come before."""

_LOOK_S: Final = 0.1
_WITHIN_S: Final = 120.0


async def measure() -> dict[str, Any]:
    """Measure with the sample rulebook, signed identity, a consent register, redaction, sealing and transactions.

    All requests lie on the topic before the worker starts, so that its batches are full. Where two cores are threads of
    one, the broker slows the worker; a fixed piece of work shows how much: its time before the rounds and between them.
    """
    alone = reference_us()
    total = REQUESTS * (_ROUNDS + _WARM_UP)
    with tempfile.TemporaryDirectory(prefix="waybill-bench-admission-") as folder:
        home = Path(folder)
        key = SigningKey.generate()
        (home / JWKS).write_text(public_set(key), encoding="utf-8")
        async with broker() as (kafka, _):
            await clients.create_topics(kafka, partitions=PARTITIONS, replication=1)
            changelog = topics.Topic(app.CHANGELOG, "Faust's table.", topics.DAY_MS, compacted=True)
            await clients.create_topics(kafka, partitions=PARTITIONS, replication=1, topics=(changelog,))
            size = await _fill(kafka, key, total)
            async with _worker(kafka, home) as process:
                rounds = await _rounds(kafka, process)
            work, redacted = await _written(kafka, total)
    cpu = sorted(spent for spent, _, _ in rounds)
    middle = cpu[len(cpu) // 2]
    return {
        "requests": REQUESTS * _ROUNDS,
        "made_of": requests.source(),
        "bytes_per_request": size,
        "work_records": work,
        "redacted": round(redacted / work, 3),
        "cpu_us_per_request": round(middle, 1),
        "cpu_us_per_request_least_and_most": [round(cpu[0], 1), round(cpu[-1], 1)],
        "requests_per_second_a_core": round(1e6 / middle),
        "requests_per_second": round(REQUESTS / sorted(wall for _, wall, _ in rounds)[len(rounds) // 2]),
        "reference_us_before_and_between": [alone, sorted(reference for _, _, reference in rounds)[len(rounds) // 2]],
    }


async def _rounds(kafka: KafkaSettings, process: psutil.Process) -> list[tuple[float, float, float]]:
    """Give CPU microseconds per request, wall seconds, and those of the fixed piece of work, of each round."""
    group = clients.consumer(kafka, group=kafka.group(NAME))
    await group.start()
    marks: list[tuple[int, float, float, float]] = []
    try:
        async with asyncio.timeout(_WITHIN_S):
            for number in range(_WARM_UP, _WARM_UP + _ROUNDS + 1):
                while (done := await _done(group, kafka)) < REQUESTS * number:  # noqa: ASYNC110 - the broker is asked
                    await asyncio.sleep(_LOOK_S)
                marks.append((done, sum(process.cpu_times()[:2]), time.perf_counter(), reference_us()))
    finally:
        await group.stop()
    return [
        ((cpu - cpu_before) / (done - before) * 1e6, wall - wall_before, reference)
        for (before, cpu_before, wall_before, _), (done, cpu, wall, reference) in pairwise(marks)
    ]


async def _done(group: AIOKafkaConsumer, kafka: KafkaSettings) -> int:
    name = kafka.name(topics.REQUESTS)
    places = [await group.committed(TopicPartition(name, number)) for number in range(PARTITIONS)]
    return sum(place or 0 for place in places)


async def _fill(kafka: KafkaSettings, key: SigningKey, total: int) -> int:
    """Put requests and consents on their topics; give the mean size of a request in bytes."""
    made = clients.producer(kafka)
    await made.start()
    size, now = 0, datetime.now(UTC)
    try:
        for entry in requests.consents(now):
            key_of_entry = entry.scope.key.encode()
            await made.send_and_wait(kafka.name(topics.CONSENT), key=key_of_entry, value=entry.to_json())
        waiting = []
        for sent in requests.requests(total, key, now):
            size += len(sent.value)
            waiting.append(
                await made.send(kafka.name(topics.REQUESTS), key=sent.key, value=sent.value, headers=sent.headers)
            )
        await asyncio.gather(*waiting)
    finally:
        await made.stop()
    return round(size / total)


async def _written(kafka: KafkaSettings, total: int) -> tuple[int, int]:
    """Give how many work records there are and how many of them are redacted: what was measured did what it should."""
    reader = clients.consumer(kafka, group=None)
    await reader.start()
    names = [kafka.name(topic) for topic in (topics.WORK_HOSTED, topics.WORK_LOCAL)]
    work = redacted = 0
    try:
        reader.assign([TopicPartition(name, number) for name in names for number in range(PARTITIONS)])
        await reader.seek_to_beginning()
        while work < total and (found := await reader.getmany(timeout_ms=2000)):
            for record in (record for records in found.values() for record in records):
                work += 1
                redacted += "redaction" in orjson.loads(record.value)
    finally:
        await reader.stop()
    if work != total:
        raise AssertionError(f"{work} of {total} requests were admitted")
    return work, redacted


@asynccontextmanager
async def _worker(kafka: KafkaSettings, home: Path) -> AsyncIterator[psutil.Process]:
    """A worker with admission alone, on the sample deployment."""
    argv = [sys.executable, "-m", "waybill", "worker", "--home", str(home), "--kafka", kafka.bootstrap]
    argv += ["--web-port", str(free_port()), "--stages", NAME]
    environment = settings(home, "http://127.0.0.1:1/v1")
    log = home / "worker.log"
    child = Child("admission", argv, log=log, env=environment, cwd=ROOT)
    await child.start()
    try:
        yield psutil.Process(child.pid)
    except BaseException as error:
        error.add_note(log.read_text(encoding="utf-8", errors="replace")[-2000:])
        raise
    finally:
        await child.stop()
