"""A client that sends requests and waits for their responses."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Self

import orjson
from aiokafka import TopicPartition

from bench.requests import TENANTS, token
from bench.rig import PARTITIONS, Rig
from queries.database import Evidence
from streams import envelope, topics
from streams.kafka import consumer, producer

PROMPT = (
    "Summarise the following note for a colleague in two sentences, keep the dates and leave out the pleasantries. "
    "The quarterly review moved from the ninth to the sixteenth because the figures of two regions were late; please "
    "send your slides by the twelfth, and tell the facilities desk if you need the large room."
)
EVENTS_PER_REQUEST = 7
"""Evidence events of a hosted request that is answered at the first attempt."""

_ids = count()


class Client:
    """Sends requests onto `ai.requests` and reads `ai.responses`."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._token = token(rig.key, 0, datetime.now(UTC))
        self._producer = producer(rig.kafka)
        self._consumer = consumer(rig.kafka, group=None, from_start=False)
        self.sent = 0

    async def __aenter__(self) -> Self:
        """Connect."""
        await self._producer.start()
        await self._consumer.start()
        name = self._rig.kafka.name(topics.RESPONSES)
        self._consumer.assign([TopicPartition(name, number) for number in range(PARTITIONS)])
        await self._consumer.seek_to_end()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""
        await self._producer.stop()
        await self._consumer.stop()

    async def run(self, total: int, in_flight: int) -> tuple[float, list[float]]:
        """Send `total` requests, at most `in_flight` unanswered; give the wall seconds and each one's latency."""
        room = asyncio.Semaphore(in_flight)
        begun: dict[bytes, float] = {}
        latencies: list[float] = []
        start = time.perf_counter()
        sending = asyncio.create_task(self._send(total, room, begun))
        while len(latencies) < total:
            found = await self._consumer.getmany(timeout_ms=1000)
            now = time.perf_counter()
            for records in found.values():
                for record in records:
                    if record.key in begun:
                        latencies.append(now - begun.pop(record.key))
                        room.release()
            if sending.done():
                sending.result()
        self.sent += total
        return time.perf_counter() - start, sorted(latencies)

    async def _send(self, total: int, room: asyncio.Semaphore, begun: dict[bytes, float]) -> None:
        topic = self._rig.kafka.name(topics.REQUESTS)
        for _ in range(total):
            await room.acquire()
            identity = f"bench-{next(_ids)}"
            key = identity.encode()
            value, headers = _request(identity, self._token)
            begun[key] = time.perf_counter()
            await self._producer.send(topic, key=key, value=value, headers=headers)


async def evidence_complete(rig: Rig, requests: int) -> None:
    """Wait until every event of so many requests can be queried, and check that each is there once.

    Raises:
        TimeoutError: some did not come.
        AssertionError: one is there twice.
    """
    async with asyncio.timeout(60):
        while True:
            rows, distinct = await asyncio.to_thread(_counted, rig)
            if rows >= requests * EVENTS_PER_REQUEST:
                break
            await asyncio.sleep(0.2)
    assert rows == distinct == requests * EVENTS_PER_REQUEST, (rows, distinct, requests)


def _counted(rig: Rig) -> tuple[int, int]:
    with Evidence(rig.home / "evidence") as evidence:
        query = "select count(*), count(distinct event_id) from events"
        with evidence.query(query) as result:
            (row,) = result
    return int(row[0]), int(row[1])


def _request(identity: str, signed: bytes) -> tuple[bytes, envelope.Headers]:
    now = datetime.now(UTC)
    content = {
        "contractVersion": "1.0",
        "requestId": identity,
        "timestampUtc": _z(now),
        "deadlineUtc": _z(now + timedelta(minutes=10)),
        "actor": {"id": "user-0"},
        "tenant": {"id": TENANTS[0]},
        "taskType": "summary",
        "purpose": "product-research",
        "classification": "internal",
        "input": {"messages": [{"role": "user", "content": PROMPT}]},
        "consent": {"basis": "contract"},
    }
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_type", envelope.REQUEST_TYPE.encode()),
        ("ce_source", b"/bench"),
        ("ce_id", identity.encode()),
        ("content-type", b"application/json"),
        ("authorization", signed),
    ]
    return orjson.dumps(content), headers


def _z(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
