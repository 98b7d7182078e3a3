"""The search for leaks as one run: the real worker, broker, models and collector, and afterwards all that they left."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pyarrow.parquet as pq
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from careless_provider import CarelessProvider
from collector import Collector
from dev_run import waybill
from leak_cases import ACTOR, OFFICE, POLICIES, ROUTES, TENANT, Case, book, each_answered
from markers import Marker, Markers, Place
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pipeline_process import Pipeline, running_pipeline

from policy.identity.jws import SigningKey, public_set
from streams.kafka import partition_counts
from streams.topics import ALL, LEDGER, REQUESTS, WORKERS
from waybill.dev_topics import TABLE

ISSUER = "https://id.example.org"
PAGES = ("/metrics", "/deadletters", "/health")


@dataclass
class Left:
    """What a run left."""

    cases: list[Case]
    """What was sent."""
    markers: list[Marker]
    """What was planted."""
    responses: dict[str, list[dict[str, Any]]]
    """What came back, by request id."""
    dead: list[dict[str, Any]]
    """The dead letters."""
    topics: list[Place] = field(default_factory=list)
    """Every record of every topic but those of `ai.requests`: value, key and headers."""
    files: list[Place] = field(default_factory=list)
    """Every file of the home, Parquet decoded too."""
    spans: list[Place] = field(default_factory=list)
    """Every span."""
    said: list[Place] = field(default_factory=list)
    """Pages of the worker, and what commands printed."""
    received: list[Place] = field(default_factory=list)
    """What the providers were sent."""
    planted: list[Place] = field(default_factory=list)
    """A second look, after one marker was put into a file, a record and a span on purpose."""
    planted_marker: Marker | None = None
    """That marker."""


class Signer:
    """Signs requests, and takes note of every token."""

    def __init__(self, folder: Path, markers: Markers) -> None:
        folder.mkdir(parents=True)
        self._key, self._markers, self._number = SigningKey.generate(), markers, 0
        self.jwks = folder / "jwks.json"
        self.jwks.write_text(public_set(self._key))

    def token(self, who: str, sub: str = ACTOR, roles: tuple[str, ...] = ()) -> str:
        """Give a token that holds for ten minutes."""
        now, self._number = int(time.time()), self._number + 1
        claims = {"iss": ISSUER, "sub": sub, "aud": "waybill", "iat": now, "exp": now + 600, "tenant": TENANT}
        made = self._key.sign({**claims, "actor_kind": "user", "roles": list(roles), "jti": f"token-{self._number}"})
        self._markers.taken(made.rpartition(".")[2], f"signature of the token of {who}")
        return made


async def run(folder: Path, bootstrap: str, prefix: str, triton: str, seed: int) -> Left:
    """Send everything, wait for every end, stop the worker, and gather what there is."""
    markers = Markers(seed)
    signer = Signer(folder / "issuer", markers)
    made = book(markers)
    async with Collector() as collector, CarelessProvider(made.words) as careless:
        settings = {
            "WAYBILL_IDENTITY__ISSUER": ISSUER,
            "WAYBILL_IDENTITY__JWKS": str(signer.jwks),
            "WAYBILL_OTLP_ENDPOINT": collector.url,
            "WAYBILL_ENDPOINTS__CARELESS__KIND": "openai",
            "WAYBILL_ENDPOINTS__CARELESS__URL": careless.url,
            "WAYBILL_ENDPOINTS__CARELESS__PROVIDER": "careless",
            "WAYBILL_ENDPOINTS__CARELESS__KEY": markers.key("the key of a provider"),
        }
        async with running_pipeline(
            folder / "home", bootstrap, prefix, routes=ROUTES, script={"rules": made.rules}, triton=triton,
            outside=folder / "stand-in", policies={"policies": POLICIES}, **settings,
        ) as pipeline:  # fmt: skip
            left = Left(made.cases, markers.made, pipeline.responses, pipeline.dead)
            await pipeline.start_worker()
            await _send(pipeline, made.cases, signer)
            left.said += await _people(pipeline, signer, folder, markers)
            wanted = {case.name for case in each_answered(made.cases)}
            letters = 1 + sum(case.outcome == "rejected" and case.code != "idempotency_conflict" for case in made.cases)
            await pipeline.until(
                lambda: pipeline.responses.keys() >= wanted and len(pipeline.dead) >= letters,
                60,
                "the ends of " + ", ".join(sorted(wanted - pipeline.responses.keys())),
            )
            left.said += [place async for place in _pages(pipeline)]
            await pipeline.stop()
            left.topics = [place async for place in _topics(pipeline)]
            left.files = list(_files(pipeline.home))
            left.spans = _spans(collector)
            calls = pipeline.log.read_text().splitlines()
            left.received = [Place("what the stand-in received", json.loads(line)["body"].encode()) for line in calls]
            left.received += [Place("what the careless provider received", body) for body in careless.received]
            await _plant(pipeline, collector, left)
    return left


async def _send(pipeline: Pipeline, cases: list[Case], signer: Signer) -> None:
    waiting = []
    for case in cases:
        token = case.token or f"Bearer {signer.token(case.name)}"
        given = [*case.headers, ("authorization", token.encode())]
        waiting.append(await pipeline.put(case.value, case.key or case.name.encode(), given))
        if case.name == "first":  # the next has to find it taken
            await asyncio.gather(*waiting)
            await pipeline.until(lambda: "first" in pipeline.responses, 30, "the first of three")
    await asyncio.gather(*waiting)


async def _people(pipeline: Pipeline, signer: Signer, folder: Path, markers: Markers) -> list[Place]:
    """Answer what waits for a person, with notes that say too much; give what the commands printed."""
    token = folder / "issuer" / "officer.jwt"
    token.write_text(signer.token("the officer", "otto", (OFFICE,)))
    said = []

    async def command(*arguments: str, code: int = 0) -> str:
        done = await asyncio.to_thread(waybill, *arguments, **pipeline.environment)
        said.append(Place(f"waybill {' '.join(arguments[:2])}", (done.stdout + done.stderr).encode()))
        assert done.returncode == code, done.stderr
        return done.stdout

    end = time.monotonic() + 30
    waiting: dict[str, str] = {}
    while len(waiting) < 3:
        assert time.monotonic() < end, f"not all three requests wait for a person: {sorted(waiting)}"
        listed = json.loads(await command("approvals", "list", "--json"))
        waiting = {one["requestId"]: one["approvalId"] for one in listed}
    for verb, name in (("approve", "approve-me"), ("deny", "deny-me")):
        note = f"{name}, says {markers.email(f'note to {verb}')} with {markers.key(f'note to {verb}')}"
        await command("approvals", verb, waiting[name], "--note", note, "--token-file", str(token))
    # Nobody's word alone counts where identity is signed, whatever role it claims.
    claims = ("--role", OFFICE, "--by", "user:mallory", "--note", "trust me")
    await command("approvals", "approve", waiting["leave-me"], *claims, code=1)
    await command("approvals", "show", waiting["leave-me"])
    return said


async def _pages(pipeline: Pipeline) -> Any:
    async with aiohttp.ClientSession() as session:
        for page in PAGES:
            async with session.get(pipeline.web + page) as reply:
                yield Place(page, await reply.read())


async def _topics(pipeline: Pipeline) -> Any:
    """Give every record, also of transactions that were given up: they lie on the disk like the others."""
    kafka, known = pipeline.kafka, (*ALL, TABLE, WORKERS)
    counts = await partition_counts(kafka, known)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    listed = [name for name in await admin.list_topics() if name.startswith(kafka.prefix)]
    await admin.close()
    assert set(listed) <= {kafka.name(topic) for topic in known}, f"there are topics that nobody named: {listed}"
    found = [
        TopicPartition(kafka.name(topic), number)
        for topic in known
        if topic is not REQUESTS
        for number in range(counts[topic.name])
    ]
    reader = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, group_id=None, isolation_level="read_uncommitted")
    await reader.start()
    try:
        reader.assign(found)
        ends = await reader.end_offsets(found)
        for one in found:
            reader.seek(one, 0)
        while any([await reader.position(one) < ends[one] for one in found]):
            for partition, records in (await reader.getmany(timeout_ms=200)).items():
                topic = partition.topic.removeprefix(pipeline.kafka.prefix)
                for record in records:
                    where = f"{topic}[{partition.partition}] {record.offset}"
                    yield Place(f"{where}, value", record.value or b"")
                    yield Place(f"{where}, key", record.key or b"")
                    for name, value in record.headers:
                        yield Place(f"{where}, header {name}", name.encode() + b": " + (value or b""))
    finally:
        await reader.stop()


def _files(home: Path) -> Iterator[Place]:
    """Give every file; a Parquet file as it is, and decoded with its metadata. The deployment is the test's own."""
    for path in sorted(home.rglob("*")):
        name = str(path.relative_to(home))
        if not path.is_file() or name.startswith("deployment/"):
            continue
        yield Place(name, name.encode() + b"\n" + path.read_bytes())
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            rows = "\n".join(json.dumps(row, default=str) for row in table.to_pylist())
            yield Place(f"{name}, decoded", f"{rows}\n{table.schema.metadata}".encode())


def _spans(collector: Collector) -> list[Place]:
    return [Place(f"span {name}", content) for name, content in collector.spans()]


async def _plant(pipeline: Pipeline, collector: Collector, left: Left) -> None:
    """Put one marker where none may be, in a form that is not the plain one, and look again."""
    marker = next(one for one in left.markers if one.family == "personal")
    quoted = json.dumps({"inner": json.dumps({"text": marker.text.replace("@", "\\u0040")})})
    (pipeline.home / "planted.log").write_text(quoted)
    await (await pipeline.put(quoted.encode(), b"planted", [("x", b"y")], LEDGER))
    asked = ExportTraceServiceRequest()
    span = asked.resource_spans.add().scope_spans.add().spans.add()
    span.name = "planted"
    attribute = span.attributes.add()
    attribute.key, attribute.value.string_value = "note", f"see {marker.text}"
    async with (
        aiohttp.ClientSession() as session,
        session.post(collector.url + "/v1/traces", data=asked.SerializeToString()) as reply,
    ):
        assert reply.status == 200
    left.planted_marker = marker
    left.planted = [place async for place in _topics(pipeline)] + list(_files(pipeline.home)) + _spans(collector)
