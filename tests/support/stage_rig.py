"""Admission and dispatch on a real broker, hosted by tasks, with the stand-in as the hosted provider."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import orjson
from aiokafka import TopicPartition
from decisions import SCANNER, Consents, store, utc_now, vault
from requests_made import ROUTES, book, encoded, headers, request

from inference.backend import Backend
from inference.credentials import Credentials
from inference.openai import OpenAICompatibleBackend
from inference.rulebook import Shelf
from inference.standin.script import Script
from inference.standin.server import StandIn
from inference.testing import ScriptedBackend
from policy.detection.names import Names
from policy.vault.sealing import Vault
from policy.vault.store import VaultStore
from streams.kafka import KafkaSettings, consumer, create_topics, producer
from streams.metrics import Metrics
from streams.stages import admission, dispatch
from streams.stages.account import Kitchen
from streams.stages.admit import Rules
from streams.stages.dispatch import Limits
from streams.stages.lanes import LaneStage
from streams.topics import DEADLETTER, EVIDENCE, REQUESTS, RESPONSES, Topic
from waybill.parts import StoreKeeper

PARTITIONS = 2


async def topics(bootstrap: str, prefix: str, *, partitions: int = PARTITIONS) -> KafkaSettings:
    """Make the topics of one test, and give how to reach them."""
    kafka = KafkaSettings(bootstrap, prefix=prefix, session_timeout_ms=6000)
    await create_topics(kafka, partitions=partitions, replication=1)
    return kafka


async def send(kafka: KafkaSettings, values: Iterable[tuple[str, bytes]]) -> None:
    """Send requests as an application does: by request id, in CloudEvents binary mode."""
    made = producer(kafka)
    await made.start()
    try:
        sent = [
            await made.send(kafka.name(REQUESTS), key=name.encode(), value=value, headers=headers(name))
            for name, value in values
        ]
        await asyncio.gather(*sent)
    finally:
        await made.stop()


def asked(count: int, prefix: str = "r", **changes: Any) -> list[tuple[str, bytes]]:
    """Give that many requests; every fourth is for the local model."""
    local = {"modelPolicy": {"placement": "local"}}
    return [
        (f"{prefix}{number}", encoded(request(f"{prefix}{number}", **(local if number % 4 == 3 else {}), **changes)))
        for number in range(count)
    ]


@dataclass
class Worker:
    """One worker's admission and dispatch."""

    kafka: KafkaSettings
    hosted: Backend
    local: Backend = field(default_factory=ScriptedBackend)
    limits: Limits = field(default_factory=lambda: Limits(drain_s=3))
    routes: str = ROUTES
    """The table of the rulebook, unless `shelf` is given."""
    shelf: Shelf | None = None
    """The rulebook in force; what a test puts there counts from then on."""
    consents: Consents = field(default_factory=Consents)
    """What is known of consents."""
    vault: Vault = field(default_factory=vault)
    """Seals and opens; all workers of a test have to share it."""
    store: VaultStore = field(default_factory=store)
    """Where what may be kept is kept."""
    credentials: Mapping[str, Credentials] = field(default_factory=dict)
    """How endpoints are told who calls."""
    names: Names | None = None
    """Finds names, where the labels ask for that."""
    metrics: Metrics = field(default_factory=Metrics)
    stages: dict[str, LaneStage] = field(default_factory=dict)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self) -> Self:
        """Begin both stages."""
        shelf = self.shelf = self.shelf or Shelf(book(routes=self.routes))
        kitchen = Kitchen(
            shelf=shelf,
            backends={"hosted": self.hosted, "local": self.local},
            credentials=self.credentials,
            vault=self.vault,
            keeper=StoreKeeper(self.store),
            consents=self.consents,
            scanner=SCANNER,
            site="here",
            name=self.kafka.name,
            clock=utc_now,
            metrics=self.metrics,
            erased=self.store.people.when,
        )
        rules = Rules(
            shelf=shelf,
            scanner=SCANNER,
            vault=self.vault,
            consents=self.consents,
            verifier=None,
            site="here",
            log_id="log",
            max_bytes=900_000,
            name=self.kafka.name,
            erased=self.store.people.when,
        )
        self.stages = {
            "admission": admission.stage(self.kafka, rules, self.metrics, utc_now, self.names),
            "dispatch": dispatch.stage(self.kafka, kitchen, self.limits, "log"),
        }
        self.tasks = [asyncio.create_task(stage.run(), name=name) for name, stage in self.stages.items()]
        return self

    async def stop(self) -> None:
        """End in order: what is in flight is drained."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def die(self) -> None:
        """End at once: lanes are cut off where they stand, nothing is drained or committed."""
        for stage in self.stages.values():
            for _, task in stage._lanes.values():
                task.remove_done_callback(stage._lane_ended)
                task.cancel()
            await asyncio.gather(*(task for _, task in stage._lanes.values()), return_exceptions=True)
            stage._lanes.clear()
        await self.stop()

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


class Reader:
    """Reads topics from their beginning, committed records only, and keeps what it read."""

    def __init__(self, kafka: KafkaSettings, *read: Topic) -> None:
        self._kafka = kafka
        self._read = read or (RESPONSES, EVIDENCE, DEADLETTER)
        self._names = {kafka.name(topic): topic.name for topic in self._read}
        self.found: dict[str, list[dict[str, Any]]] = {topic.name: [] for topic in self._read}

    async def __aenter__(self) -> Self:
        self._consumer = consumer(self._kafka, group=None)
        await self._consumer.start()
        self._consumer.assign([TopicPartition(name, number) for name in self._names for number in range(PARTITIONS)])
        await self._consumer.seek_to_beginning()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()

    async def more(self, timeout_ms: int = 200) -> None:
        """Read what has come."""
        for partition, records in (await self._consumer.getmany(timeout_ms=timeout_ms)).items():
            self.found[self._names[partition.topic]].extend(
                orjson.loads(record.value) for record in records if _is_json(record.value)
            )

    async def until_responses(self, count: int, timeout_s: float = 30) -> None:
        """Read until so many responses are there, and then for a moment more."""
        try:
            async with asyncio.timeout(timeout_s):
                while len(self.responses) < count:
                    await self.more()
        except TimeoutError:
            raise AssertionError(f"{len(self.responses)} of {count} responses in {timeout_s} s") from None
        await self.more(500)

    @property
    def responses(self) -> list[dict[str, Any]]:
        """The responses."""
        return self.found[RESPONSES.name]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The evidence."""
        return self.found[EVIDENCE.name]

    def outcomes(self) -> Counter[str]:
        """How many requests ended in which way."""
        return Counter(response["outcome"] for response in self.responses)

    def check(self, names: Iterable[str]) -> None:
        """Each request has exactly one response and one whole story, and no event is there twice."""
        wanted = Counter(names)
        assert Counter(response["requestId"] for response in self.responses) == wanted
        ids = [event["eventId"] for event in self.events]
        assert len(set(ids)) == len(ids)
        stories: dict[str, list[dict[str, Any]]] = {}
        for event in self.events:
            stories.setdefault(event["intakeId"], []).append(event)
        assert len(stories) == wanted.total()
        for story in stories.values():
            assert [event["sequence"] for event in story] == list(range(len(story)))
            assert ["outcome" in event for event in story] == [False] * (len(story) - 1) + [True]


class Provider:
    """A stand-in and the backend that speaks to it."""

    def __init__(self, script: Script | None = None) -> None:
        self.stand_in = StandIn(script)
        self._backends: list[OpenAICompatibleBackend] = []

    async def __aenter__(self) -> Self:
        await self.stand_in.__aenter__()
        self.backend = self.connect()
        return self

    def connect(self) -> OpenAICompatibleBackend:
        """Make another backend for it, as another worker has."""
        made = OpenAICompatibleBackend(base_url=self.stand_in.base_url, provider="acme-ai")
        self._backends.append(made)
        return made

    async def __aexit__(self, *_: object) -> None:
        for backend in self._backends:
            await backend.close()
        await self.stand_in.__aexit__(None, None, None)

    def calls(self) -> Counter[str]:
        """How often each call id arrived."""
        return Counter(received.call_id for received in self.stand_in.calls)


def _is_json(value: bytes | None) -> bool:
    """Say whether a record holds JSON: tests write other things too."""
    try:
        orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return False
    return True
