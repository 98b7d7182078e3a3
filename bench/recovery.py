"""Recovery: the sink is killed (SIGKILL) under steady traffic and started again at once, again and again."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench.evidence_traffic import SinkChild, Traffic
from bench.rig import PARTITIONS, broker
from bench.sink_process import CAUGHT_UP, READY
from evidence.files.local import LocalFiles
from evidence.store.live import LiveReader
from streams import kafka as clients
from streams.brokers.members import evict_members
from streams.topics import EVIDENCE

A_SECOND: Final = 5_000
KILLS: Final = 5
_CASES: Final = (
    ("session of 30 s, the default", 30_000, False),
    ("session of 6 s, the shortest", 6_000, False),
    ("dead member removed at once", 30_000, True),
)
"""For as long as a session lasts, the broker keeps the dead sink's place in its group, and the new one waits for it."""

_RUN_S: Final = 4.0
_WITHIN_S: Final = 90.0


async def measure(kills: int = KILLS) -> dict[str, Any]:
    """Measure from the new process's start; freshness as the default has it."""
    found: dict[str, Any] = {"events_per_second": A_SECOND}
    async with broker() as (settings, _):
        for number, (name, session_ms, evict) in enumerate(_CASES):
            named = clients.KafkaSettings(
                bootstrap=settings.bootstrap, prefix=f"r{number}.", session_timeout_ms=session_ms
            )
            await clients.create_topics(named, partitions=PARTITIONS, replication=1, topics=(EVIDENCE,))
            found[name] = await _measured(named, kills, evict=evict)
    return found


async def _measured(settings: clients.KafkaSettings, kills: int, *, evict: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="waybill-bench-recovery-") as folder:
        child = SinkChild(settings, Path(folder))
        child.store.mkdir()
        live = LiveReader(LocalFiles(child.store))
        traffic = Traffic(settings, A_SECOND)
        times: dict[str, list[float]] = {READY: [], "first new rows": [], CAUGHT_UP: []}
        await child.start()
        try:
            await child.wait()
            async with traffic.running():
                for _ in range(kills):
                    await child.wait(CAUGHT_UP)
                    await asyncio.sleep(_RUN_S)
                    await child.kill()
                    known = len(await asyncio.to_thread(live.refresh))
                    if evict:
                        assert await evict_members(settings.bootstrap, [settings.group("sink")]) == 1
                    begun = await child.start()
                    times["first new rows"].append(await _more_files(live, known) - begun)
                    for what in (READY, CAUGHT_UP):
                        times[what].append(await child.wait(what) - begun)
            async with asyncio.timeout(_WITHIN_S):
                while (rows := await asyncio.to_thread(_rows, live)) < traffic.total:  # noqa: ASYNC110 - files tell counts
                    await asyncio.sleep(0.2)
        finally:
            await child.stop()
        assert rows == traffic.total, f"{rows} rows of {traffic.total} events"
        _each_once(child.store, live, traffic.sent)
        return {
            "kills": kills,
            "events": traffic.total,
            "lost": 0,
            "twice": 0,
            **{
                f"{what.replace(' ', '_')}_s": {
                    "p50": round(sorted(found)[len(found) // 2], 2),
                    "max": round(max(found), 2),
                }
                for what, found in times.items()
            },
        }


async def _more_files(live: LiveReader, known: int) -> float:
    async with asyncio.timeout(_WITHIN_S):
        while len(await asyncio.to_thread(live.refresh)) <= known:  # noqa: ASYNC110 - files tell counts
            await asyncio.sleep(0.01)
    return time.perf_counter()


def _rows(live: LiveReader) -> int:
    return sum(added.rows for added in live.refresh())


def _each_once(store: Path, live: LiveReader, sent: list[int]) -> None:
    """See that each partition's offsets are there, each once; a topic without transactions has no others."""
    offsets: dict[int, list[int]] = {partition: [] for partition in range(len(sent))}
    for added in live.refresh():
        table = pq.read_table(store / added.path, columns=["log_partition", "log_offset"], partitioning=None)
        [partition] = pc.unique(table.column("log_partition")).to_pylist()
        offsets[partition] += table.column("log_offset").to_pylist()
    for partition, found in offsets.items():
        assert sorted(found) == list(range(sent[partition])), f"partition {partition}: offsets are lost or there twice"
