"""The evidence sink alone: from a full topic to signed commits, events a second and CPU per event, and its parts.

The parts are measured in the same run, each alone on the very records that the sink read: what consuming, parsing and
writing cost without proof is what the sink is held against.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from aiokafka import TopicPartition

from bench import stories
from bench.rig import PARTITIONS, broker, reference_us
from evidence.files.local import LocalFiles
from evidence.log.keys import KeyRing
from evidence.log.merkle import Tree
from evidence.records import Classification, EventType, EvidenceEvent, PolicyRef, RouteRef, Stage
from evidence.rows import leaf_hashes
from evidence.store.encoding import encode
from evidence.store.site import EvidenceStore
from streams import kafka as clients
from streams.stages.sink import Sink, Unobserved
from streams.stages.sink_partition import RejectedRecord, parse_records
from streams.story import event_id
from streams.topics import EVIDENCE

EVENTS: Final = 200_000
FILE_ROWS: Final = 50_000
"""As the worker's own setting has it."""

TARGET_A_CORE: Final = 60_000
TARGET_RATIO: Final = 1.6
_ROUNDS: Final = 3


class _Counter(Unobserved):
    def __init__(self) -> None:
        self.seen = 0

    def rows(self, count: int) -> None:
        self.seen += count


class Spent:
    """CPU seconds of this process, by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def on(self, part: str) -> Iterator[None]:
        """Count what is done inside for a part."""
        begun = time.process_time()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.process_time() - begun


async def measure(events: int = EVENTS) -> dict[str, Any]:
    """Measure with what a worker uses: two partitions, 50,000 rows a file, zstd-1, hashing and signed commits on."""
    before = reference_us()
    made: dict[str, Callable[[int], list[bytes]]] = {"stories": stories.values, "one_event_type": _uniform}
    calm_collector()
    found: dict[str, Any] = {"events": events}
    async with broker() as (settings, _):
        for name, make in made.items():
            found[name] = await _measured(settings, name, make(events))
    gc.unfreeze()
    return {
        **found,
        "target_events_per_second_a_core": TARGET_A_CORE,
        "target_ratio_to_sum": TARGET_RATIO,
        "reference_us_before_and_after": [before, reference_us()],
    }


def calm_collector() -> None:
    """Have the collector work as it does in a worker."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 50, 1000)


async def _measured(settings: clients.KafkaSettings, name: str, values: list[bytes]) -> dict[str, Any]:
    events, rounds = len(values), []
    for number in range(_ROUNDS):
        named = clients.KafkaSettings(bootstrap=settings.bootstrap, prefix=f"{name}{number}.")
        await clients.create_topics(named, partitions=PARTITIONS, replication=1, topics=(EVIDENCE,))
        await fill(named, values)
        wall, cpu = await _drain(named, events)
        rounds.append((cpu, wall, await _parts(named, events)))
    rounds.sort(key=lambda found: found[0])
    cpu, wall, parts = rounds[len(rounds) // 2]
    parted = sum(parts[part] for part in ("consume", "parse", "write"))
    return {
        "bytes_per_event": round(sum(map(len, values)) / events),
        "events_per_second": round(events / wall),
        "cpu_us_per_event": round(cpu / events * 1e6, 2),
        "events_per_second_a_core": round(events / cpu),
        "parts_alone_cpu_us": {part: round(seconds / events * 1e6, 2) for part, seconds in parts.items()},
        "sum_of_consume_parse_write_cpu_us": round(parted / events * 1e6, 2),
        "ratio_to_sum": round(cpu / parted, 2),
        "ratios_of_all_rounds": [
            round(cpu / sum(parts[part] for part in ("consume", "parse", "write")), 2) for cpu, _, parts in rounds
        ],
        "rounds": [{"wall_s": round(wall, 2), "cpu_s": round(cpu, 2)} for cpu, wall, _ in rounds],
    }


async def _drain(settings: clients.KafkaSettings, events: int) -> tuple[float, float]:
    async def none_expected(rejected: Sequence[RejectedRecord]) -> None:
        raise AssertionError(rejected[0])

    with tempfile.TemporaryDirectory(prefix="waybill-bench-sink-") as folder:
        counter = _Counter()
        store = EvidenceStore(Path(folder) / "evidence", "bench", KeyRing.create(Path(folder) / "keys", "bench"))
        sink = Sink(
            kafka=settings,
            store=store,
            log_id="bench",
            dead_letter=none_expected,
            max_rows=FILE_ROWS,
            observe=counter,
        )
        wall, cpu = time.perf_counter(), time.process_time()
        running = asyncio.create_task(sink.run())
        while counter.seen < events and not running.done():  # noqa: ASYNC110 - the sink tells counts, not moments
            await asyncio.sleep(0.02)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert counter.seen == events, f"{counter.seen} of {events}: {running}"
    return wall, cpu


async def _parts(settings: clients.KafkaSettings, events: int) -> dict[str, float]:
    """Give the CPU seconds of each part alone, on the records that the sink read, in batches as large as its own."""
    spent = Spent()
    records = await _consume(settings, events, spent)
    with tempfile.TemporaryDirectory(prefix="waybill-bench-parts-") as folder:
        files = LocalFiles(Path(folder))
        for partition, mine in records.items():
            tree = Tree.EMPTY
            while mine:
                batch = [mine.pop() for _ in range(min(FILE_ROWS, len(mine)))]
                with spent.on("parse"):
                    table = parse_records(batch[::-1], partition).table
                with spent.on("write"):
                    _write(files, table)
                with spent.on("hash"):
                    leaves = leaf_hashes(table)
                with spent.on("tree"):
                    tree, tiles = tree.extend(leaves)
                    files.replace_many((f"logs/{partition}/{tile.ref.path}", tile.data) for tile in tiles)
    return spent.seconds


async def _consume(settings: clients.KafkaSettings, events: int, spent: Spent) -> dict[int, list[Any]]:
    """Read all records, as the sink would; those of each partition come back last first."""
    records: dict[int, list[Any]] = {partition: [] for partition in range(PARTITIONS)}
    with spent.on("consume"):
        consumer = clients.consumer(settings, group=None, follower=True)
        consumer.assign([TopicPartition(settings.name(EVIDENCE), partition) for partition in records])
        await consumer.start()
        left = events
        while left:
            for tp, batch in (await consumer.getmany(timeout_ms=200)).items():
                records[tp.partition].extend(batch)
                left -= len(batch)
        await consumer.stop()
    return {partition: batch[::-1] for partition, batch in records.items()}


def _write(files: LocalFiles, table: pa.Table) -> None:
    """Make a durable Parquet file, with nothing that proves it."""
    data = encode(table, {}, level=1).data
    files.create(f"events/{hashlib.sha256(str(id(table)).encode()).hexdigest()}.parquet", memoryview(data))


async def fill(settings: clients.KafkaSettings, values: Sequence[bytes]) -> None:
    """Write records to the evidence topic, in turns to its partitions, in large batches."""
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


def _uniform(count: int) -> list[bytes]:
    """Give events of one type; the figures of earlier versions are of these."""
    return [_event(number).to_json() for number in range(count)]


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
