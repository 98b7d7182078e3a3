"""The evidence sink alone: from a full topic to durable Parquet, events a second and CPU per event."""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.rig import PARTITIONS, broker
from evidence.log.keys import KeyRing
from evidence.records import Classification, EventType, EvidenceEvent, PolicyRef, RouteRef, Stage
from evidence.store.site import EvidenceStore
from streams import kafka as clients
from streams.stages.sink import Sink, Unobserved
from streams.stages.sink_partition import RejectedRecord
from streams.story import event_id
from streams.topics import EVIDENCE

EVENTS = 200_000
_ROUNDS = 3


class _Counter(Unobserved):
    def __init__(self) -> None:
        self.seen = 0

    def rows(self, count: int) -> None:
        self.seen += count


async def measure() -> dict[str, Any]:
    """Measure with what a worker uses: two partitions, 50,000 rows a file, zstd-1."""
    values = [_event(number).to_json() for number in range(EVENTS)]
    gc.collect()
    gc.freeze()
    rounds = []
    async with broker() as (settings, _):
        for number in range(_ROUNDS):
            named = clients.KafkaSettings(bootstrap=settings.bootstrap, prefix=f"round{number}.")
            await clients.create_topics(named, partitions=PARTITIONS, replication=1, topics=(EVIDENCE,))
            await _fill(named, values)
            rounds.append(await _drain(named))
    gc.unfreeze()
    middle = sorted(rounds, key=lambda found: found[1])[len(rounds) // 2]
    return {
        "events": EVENTS,
        "bytes_per_event": round(sum(map(len, values)) / EVENTS),
        "events_per_second": round(EVENTS / middle[0]),
        "cpu_us_per_event": round(middle[1] / EVENTS * 1e6, 2),
        "events_per_second_a_core": round(EVENTS / middle[1]),
        "rounds": [{"wall_s": round(wall, 2), "cpu_s": round(cpu, 2)} for wall, cpu in rounds],
    }


async def _drain(settings: clients.KafkaSettings) -> tuple[float, float]:
    async def none_expected(rejected: Sequence[RejectedRecord]) -> None:
        raise AssertionError(rejected[0])

    with tempfile.TemporaryDirectory(prefix="waybill-bench-sink-") as folder:
        counter = _Counter()
        store = EvidenceStore(Path(folder) / "evidence", "bench", KeyRing.create(Path(folder) / "keys", "bench"))
        sink = Sink(kafka=settings, store=store, log_id="bench", dead_letter=none_expected, observe=counter)
        wall, cpu = time.perf_counter(), time.process_time()
        running = asyncio.create_task(sink.run())
        while counter.seen < EVENTS and not running.done():  # noqa: ASYNC110 - the sink tells counts, not moments
            await asyncio.sleep(0.02)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert counter.seen == EVENTS, f"{counter.seen} of {EVENTS}: {running}"
    return wall, cpu


async def _fill(settings: clients.KafkaSettings, values: list[bytes]) -> None:
    made = clients.producer(settings)
    await made.start()
    try:
        for partition in range(PARTITIONS):
            mine = values[partition::PARTITIONS]
            place = 0
            while place < len(mine):
                batch = made.create_batch()
                while place < len(mine) and batch.append(key=None, value=mine[place], timestamp=None):
                    place += 1
                await (await made.send_batch(batch, settings.name(EVIDENCE), partition=partition))
    finally:
        await made.stop()


def _event(number: int) -> EvidenceEvent:
    intake = f"{number // 7:032x}"
    return EvidenceEvent(
        event_id=event_id(intake, number % 7),
        event_type=EventType.MODEL_INTENDED,
        request_id=f"request-{number // 7}",
        intake_id=intake,
        correlation_id=f"task-{number // 70}",
        trace_id=intake,
        span_id=f"{number:016x}",
        parent_span_id=f"{number // 7:016x}",
        sequence=number % 7,
        occurred_at_utc=datetime.now(UTC),
        stage=Stage.DISPATCH,
        site="bench",
        identity="unsigned",
        actor_ref=f"user:{number % 1000}",
        tenant_ref=f"tenant-{number % 20}",
        task_type="chat",
        purpose="benchmark",
        classification=Classification(declared="internal", effective="internal"),
        policy=PolicyRef(decision="allow", policy_id="bench", policy_version="0" * 16, reasons=("hosted:allowed",)),
        route=RouteRef(name="hosted", placement="hosted", provider="stand-in", model="gpt-bench", region="eu"),
        waybill_hash="0" * 64,
        attempt=1,
        intent_id=event_id(intake, number % 7),
    )
