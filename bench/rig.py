"""The parts that a benchmark runs on: Apache Kafka, the stand-in and workers, each a process whose CPU is counted."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil

from policy.identity.jws import SigningKey, public_set
from streams import app
from streams.brokers.apache import ApacheKafka
from streams.brokers.process import Child, free_port
from streams.kafka import KafkaSettings, create_topics
from streams.topics import DAY_MS, Topic

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "kafka"
JWKS = "jwks.json"
"""The issuer's public keys, in the worker's home."""

PARTITIONS = 2
ISSUER = "https://id.example.org"


@dataclass
class Rig:
    """What runs."""

    kafka: KafkaSettings
    home: Path
    key: SigningKey
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
        key = SigningKey.generate()
        (home / JWKS).write_text(public_set(key), encoding="utf-8")
        async with broker() as (kafka, broker_pid):
            await create_topics(kafka, partitions=PARTITIONS, replication=1)
            changelog = Topic(app.CHANGELOG, "Faust's table.", DAY_MS, compacted=True)
            await create_topics(kafka, partitions=PARTITIONS, replication=1, topics=(changelog,))
            port = free_port()
            standin = Child(
                "stand-in", [sys.executable, "-m", "inference.standin", "--port", str(port)], log=home / "standin.log"
            )
            children = [standin]
            rig = Rig(kafka, home, key, {"broker": broker_pid})
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
    argv += ["--web-port", str(web)]
    argv += ["--stages", stages] if stages else []
    environment = settings(rig.home, f"http://127.0.0.1:{standin_port}/v1")
    child = Child(f"worker-{number}", argv, log=rig.home / f"worker-{number}.log", env=environment, cwd=ROOT)
    await child.start()
    await child.wait_ready(lambda: _answers(f"http://127.0.0.1:{web}/health"), 60)
    return child


def settings(home: Path, hosted: str) -> dict[str, str]:
    """Give the environment of a worker of the sample deployment with signed identity.

    Args:
        home: where the key set lies.
        hosted: base URL of the hosted endpoint.
    """
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("WAYBILL_")},
        "WAYBILL_ENDPOINTS__HOSTED__KIND": "openai",
        "WAYBILL_ENDPOINTS__HOSTED__URL": hosted,
        "WAYBILL_ENDPOINTS__HOSTED__PROVIDER": "stand-in",
        "WAYBILL_ENDPOINTS__LOCAL__KIND": "triton",
        "WAYBILL_ENDPOINTS__LOCAL__URL": "127.0.0.1:1",
        "WAYBILL_IDENTITY__ISSUER": ISSUER,
        "WAYBILL_IDENTITY__JWKS": str(home / JWKS),
    }


def reference_us() -> float:
    """Give the CPU time of a fixed piece of work, in microseconds: it shows how far neighbours slow this machine."""
    spent = []
    for _ in range(_TURNS):
        began, found = time.process_time_ns(), dict[int, int]()
        for number in range(_STEPS):
            found[number % 97] = (number * 7 + 3) % 1013
        spent.append(time.process_time_ns() - began)
    return round(sorted(spent)[_TURNS // 2] / 1000, 1)


_STEPS = 10_000
_TURNS = 9


async def _answers(url: str) -> bool:
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as reply:
            return reply.status == 200
    except aiohttp.ClientError:
        await asyncio.sleep(0.05)
        return False
