"""Freshness: how old an event is when a reader sees it, by the log's own time of it, at an even rate and after it."""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench.evidence_traffic import SinkChild, Traffic
from bench.rig import PARTITIONS, broker
from evidence.files.local import LocalFiles
from evidence.store.live import LiveReader
from streams import kafka as clients
from streams.topics import EVIDENCE

A_SECOND: Final = 1_000
SECONDS: Final = 30.0
SETTINGS_S: Final = (5.0, 1.0)
"""The default, and what a demonstration uses."""

_LOOK_S: Final = 0.02


class _Reader(threading.Thread):
    """Looks for new files again and again, and reads of each row when the log took it."""

    def __init__(self, store: Path) -> None:
        super().__init__(name="reader")
        self._store = store
        self._live = LiveReader(LocalFiles(store))
        self._known: set[str] = set()
        self.over = threading.Event()
        self.seen: list[tuple[float, pa.Array]] = []
        """When a file's rows were seen, in seconds since 1970, and the log's times of them."""
        self.rows = 0

    def run(self) -> None:
        while not self.over.wait(_LOOK_S):
            for added in self._live.refresh():
                if added.path in self._known:
                    continue
                self._known.add(added.path)
                column = pq.read_table(self._store / added.path, columns=["log_timestamp"], partitioning=None)
                stamps = column.column(0).combine_chunks().cast(pa.timestamp("ms")).cast(pa.int64())
                self.seen.append((time.time(), stamps))
                self.rows += len(stamps)


async def measure(seconds: float = SECONDS) -> dict[str, Any]:
    """Measure with the sink as a process, two partitions, and a reader that looks every 20 ms."""
    found: dict[str, Any] = {"events_per_second": A_SECOND, "seconds": seconds}
    async with broker() as (settings, _):
        for set_s in SETTINGS_S:
            named = clients.KafkaSettings(bootstrap=settings.bootstrap, prefix=f"f{set_s:g}.")
            await clients.create_topics(named, partitions=PARTITIONS, replication=1, topics=(EVIDENCE,))
            found[f"freshness set to {set_s:g} s"] = await _measured(named, set_s, seconds)
    return found


async def _measured(settings: clients.KafkaSettings, set_s: float, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="waybill-bench-freshness-") as folder:
        child = SinkChild(settings, Path(folder), set_s)
        child.store.mkdir()
        reader = _Reader(child.store)
        traffic = Traffic(settings, A_SECOND)
        await child.start()
        try:
            await child.wait()
            reader.start()
            async with traffic.running():
                await asyncio.sleep(seconds)
            ended = time.time()
            async with asyncio.timeout(set_s * 4):
                while reader.rows < traffic.total:  # noqa: ASYNC110 - the files tell counts, not moments
                    await asyncio.sleep(_LOOK_S)
        finally:
            reader.over.set()
            await child.stop()
        ages = [pc.subtract(pa.scalar(round(at * 1000)), stamps) for at, stamps in reader.seen]
        after = [age for (at, _), age in zip(reader.seen, ages, strict=True) if at > ended]
        every = pa.concat_arrays(ages)
        assert len(every) == traffic.total, f"{len(every)} rows of {traffic.total} events"
        p50, p99 = pc.quantile(every, [0.5, 0.99]).to_pylist()
        return {
            "events": traffic.total,
            "files": len(ages),
            "p50_s": round(p50 / 1000, 3),
            "p99_s": round(p99 / 1000, 3),
            "max_s": round(pc.max(every).as_py() / 1000, 3),
            "seen_after_traffic_stopped": {
                "events": sum(map(len, after)),
                "max_s": round(max((pc.max(age).as_py() for age in after), default=0) / 1000, 3),
            },
        }
