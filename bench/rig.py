"""The parts that a benchmark runs on: Apache Kafka, the stand-in and workers, each a process whose CPU is counted."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil

from streams import app
from streams.brokers.apache import ApacheKafka
from streams.brokers.process import Child, free_port
from streams.kafka import KafkaSettings, create_topics
from streams.topics import DAY_MS, Topic

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "kafka"
PARTITIONS = 2

ROUTES = """
version: 1
policy_id: bench
routes:
  - name: hosted-general
    placement: hosted
    endpoint: hosted
    model: gpt-bench
    region: eu
    capabilities: ["*"]
    classes: [public, internal]
    purposes: ["*"]
    max_tokens: 64
    timeout_s: 30
    price: {input_per_million_usd: 1.0, output_per_million_usd: 2.0}
    answer: {forbid: [personal, financial, secret], action: mask}
"""


@dataclass
class Rig:
    """What runs."""

    kafka: KafkaSettings
    home: Path
    pids: dict[str, int] = field(default_factory=dict)

    def cpu(self) -> dict[str, float]:
        """Seconds of CPU that each process has used so far."""
        used = {name: sum(psutil.Process(pid).cpu_times()[:2]) for name, pid in self.pids.items()}
        return {**used, "client": sum(psutil.Process().cpu_times()[:2])}

    def spent(self, before: dict[str, float], count: int) -> dict[str, float]:
        """CPU microseconds per unit since `before`, by process."""
        return {name: round((now - before[name]) / count * 1e6, 1) for name, now in self.cpu().items()}


@asynccontextmanager
async def broker() -> AsyncIterator[tuple[KafkaSettings, int]]:
    """One node of Apache Kafka with its data in memory-backed or temporary storage, as the system has it."""
    with tempfile.TemporaryDirectory(prefix="waybill-bench-") as folder:
        kafka = ApacheKafka(Path(folder), cache=CACHE, heap_mb=1024)
        bootstrap = await kafka.start()
        try:
            yield KafkaSettings(bootstrap=bootstrap), kafka.pid() or 0
        finally:
            await kafka.stop()


@asynccontextmanager
async def pipeline(workers: Sequence[str] = ("",)) -> AsyncIterator[Rig]:
    """The whole pipeline; each of `workers` names the stages of one worker process ("" is all)."""
    with tempfile.TemporaryDirectory(prefix="waybill-bench-home-") as folder:
        home = Path(folder)
        (home / "routes.yaml").write_text(ROUTES, encoding="utf-8")
        async with broker() as (kafka, broker_pid):
            await create_topics(kafka, partitions=PARTITIONS, replication=1)
            changelog = Topic(app.CHANGELOG, "Faust's table.", DAY_MS, compacted=True)
            await create_topics(kafka, partitions=PARTITIONS, replication=1, topics=(changelog,))
            port = free_port()
            standin = Child(
                "stand-in", [sys.executable, "-m", "inference.standin", "--port", str(port)], log=home / "standin.log"
            )
            children = [standin]
            rig = Rig(kafka, home, {"broker": broker_pid})
            try:
                await standin.start()
                await standin.wait_ready(lambda: _answers(f"http://127.0.0.1:{port}/healthz"), 20)
                rig.pids["stand-in"] = standin.pid or 0
                for number, stages in enumerate(workers):
                    child = await _worker(rig, number, stages, port)
                    children.append(child)
                    rig.pids[f"worker {stages}".strip()] = child.pid or 0
                yield rig
            finally:
                for child in reversed(children):
                    await child.stop()


async def _worker(rig: Rig, number: int, stages: str, standin_port: int) -> Child:
    web = free_port()
    argv = [sys.executable, "-m", "waybill", "worker", "--home", str(rig.home), "--kafka", rig.kafka.bootstrap]
    argv += ["--routes", str(rig.home / "routes.yaml"), "--web-port", str(web)]
    argv += ["--stages", stages] if stages else []
    environment = {
        **os.environ,
        "WAYBILL_ENDPOINTS__HOSTED__KIND": "openai",
        "WAYBILL_ENDPOINTS__HOSTED__URL": f"http://127.0.0.1:{standin_port}/v1",
        "WAYBILL_ENDPOINTS__HOSTED__PROVIDER": "stand-in",
    }
    child = Child(f"worker-{number}", argv, log=rig.home / f"worker-{number}.log", env=environment, cwd=ROOT)
    await child.start()
    await child.wait_ready(lambda: _answers(f"http://127.0.0.1:{web}/health"), 60)
    return child


async def _answers(url: str) -> bool:
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as reply:
            return reply.status == 200
    except aiohttp.ClientError:
        await asyncio.sleep(0.05)
        return False
