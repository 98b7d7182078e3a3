"""The whole pipeline as processes, to be broken: workers to kill, a stand-in that writes each call down, a client.

Topics, groups and transactions have a prefix of the test's own, so that tests share a broker. Whatever is broken on the
way, `Pipeline.check` then asks the three witnesses, which know nothing of each other: the responses on the topic, the
evidence in Parquet, and the stand-in's own log.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from sys import executable
from typing import Any

import aiohttp
import orjson
from deployment import UNSIGNED, write
from dev_run import ROOT, environment, waybill
from requests_made import encoded, headers
from stories_told import Call, Story, problems

from evidence.log.keys import KeyRing
from evidence.verify import Report, verify
from queries.database import Evidence
from streams.app import APP
from streams.brokers.members import evict_members
from streams.brokers.process import Child, free_port
from streams.envelope import Headers, content
from streams.kafka import KafkaSettings, producer
from streams.topics import DEADLETTER, REQUESTS, RESPONSES, Topic
from waybill.cli.reading import tail
from waybill.dev_company import STAGES
from waybill.dev_topics import make_topics

HOSTED = """
version: 1
policy_id: end-to-end
routes:
  - name: hosted-general
    placement: hosted
    endpoint: hosted
    model: gpt-test
    region: eu
    capabilities: ["*"]
    classes: [public, internal]
    purposes: ["*"]
    max_tokens: 64
    timeout_s: 60
    contract: "1.1"
    price: {input_per_million_usd: 1.0, output_per_million_usd: 2.0}
    answer: {forbid: [personal, financial, secret], action: mask}
"""
"""A route table with one hosted route and nothing to fall back on: what is not answered there is not answered."""

LOCAL = """
  - name: local-small
    placement: local
    endpoint: local
    model: smollm2
    region: on-site
    capabilities: ["*"]
    classes: [public, internal, confidential, restricted]
    purposes: ["*"]
    max_tokens: 8
    timeout_s: 120
    price: {input_per_million_usd: 0, output_per_million_usd: 0}
"""
"""A local route, to stand below `HOSTED`."""

_READY_S = 90.0
_STOP_S = 40.0
_TAIL = 12


def slow(*latencies_ms: int) -> dict[str, Any]:
    """Give a script that makes the stand-in wait as long as a prompt says: "(latency 20)" is 20 ms."""
    return {"rules": [{"contains": f"(latency {ms})", "do": {"latency_ms": ms}} for ms in latencies_ms]}


class Pipeline:
    """What runs; made by `running_pipeline`."""

    def __init__(self, home: Path, kafka: KafkaSettings, changes: Mapping[str, str], log: Path) -> None:
        self.home = home
        self.log = log
        """Where the stand-in writes its calls."""
        self.kafka = kafka
        self.sent: dict[str, dict[str, Any]] = {}
        self.responses: dict[str, list[dict[str, Any]]] = {}
        self.dead: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self._changes = dict(changes)
        self._workers: dict[str, Child] = {}
        self._web: dict[str, int] = {}
        self._producer = producer(kafka)

    @property
    def web(self) -> str:
        """Where the first worker serves its pages."""
        return f"http://127.0.0.1:{next(iter(self._web.values()))}"

    @property
    def environment(self) -> dict[str, str]:
        """What a command of this pipeline has to be told."""
        return {
            "WAYBILL_HOME": str(self.home),
            "WAYBILL_KAFKA": self.kafka.bootstrap,
            "WAYBILL_KAFKA_PREFIX": self.kafka.prefix,
            **self._changes,
        }

    def calls(self) -> list[Call]:
        """Give the calls that reached the stand-in, from its own log."""
        if not self.log.exists():
            return []
        complete = self.log.read_bytes().rpartition(b"\n")[0]
        return [Call.read(orjson.loads(line)) for line in complete.splitlines()]

    def call_count(self) -> int:
        """Count them."""
        return self.log.read_bytes().count(b"\n") if self.log.exists() else 0

    def ended(self) -> int:
        """Count the requests that have a response."""
        return len(self.responses)

    def worker(self, name: str = "worker") -> Child:
        """Give a worker."""
        return self._workers[name]

    async def start_worker(self, name: str = "worker", stages: str = "", *, wait: bool = True, **changes: str) -> Child:
        """Start a worker that runs some stages ("" is all); `wait` until it is healthy, or only until it runs.

        `changes` are settings of this worker alone.
        """
        web = self._web.setdefault(name, free_port())
        argv = [executable, "-m", "waybill", "worker", *(["--stages", stages] if stages else [])]
        variables = {
            "WAYBILL_KAFKA_SESSION_MS": "6000",
            "WAYBILL_FRESHNESS_SECONDS": "0.5",
            "WAYBILL_WEB_PORT": str(web),
            **self.environment,
            **changes,
        }
        child = Child(name, argv, log=self.home / f"{name}.log", env=environment(**variables), cwd=ROOT)
        self._workers[name] = child
        await child.start()
        if wait:
            await self.healthy(name)
        return child

    async def healthy(self, name: str = "worker") -> None:
        """Wait until a worker says that its stages run."""
        url = f"http://127.0.0.1:{self._web[name]}/health"
        await self._workers[name].wait_ready(lambda: _answers(url), _READY_S)

    async def evict(self) -> None:
        """Make dead members leave at once, as `waybill dev` does; call it when no worker runs."""
        groups = [*(self.kafka.group(stage) for stage in STAGES), self.kafka.prefix + APP]
        await evict_members(self.kafka.bootstrap, groups)

    async def send(self, request: dict[str, Any]) -> asyncio.Future[Any]:
        """Put a request on its topic; the future is done when the broker has it."""
        identity = str(request["requestId"])
        self.sent[identity] = request
        return await self.put(encoded(request), identity.encode(), headers(identity))

    async def put(self, value: bytes, key: bytes, given: Headers, topic: Topic = REQUESTS) -> asyncio.Future[Any]:
        """Put any record on a topic; the future is done when the broker has it."""
        delivered: asyncio.Future[Any] = await self._producer.send(
            self.kafka.name(topic), value, key=key, headers=given
        )
        return delivered

    async def send_all(self, requests: Iterable[dict[str, Any]], *, per_second: float | None = None) -> None:
        """Put requests on their topic, at this rate or at once, and wait until the broker has them all."""
        waiting = []
        for request in requests:
            waiting.append(await self.send(request))
            if per_second is not None:
                await asyncio.sleep(1 / per_second)
        for delivered in waiting:
            await delivered

    async def until(self, condition: Callable[[], object], seconds: float, what: str) -> None:
        """Wait for something; fails with all that is known where it does not come."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.told([f"waited {seconds:g} s in vain for {what}"])
            await asyncio.sleep(0.02)

    async def until_answered(self, seconds: float = 60) -> None:
        """Wait until each request that was sent has a response."""
        await self.until(lambda: self.responses.keys() >= self.sent.keys(), seconds, "a response to each request")

    async def until_told(self, seconds: float = 30) -> None:
        """Wait until evidence holds the end of each request that was sent."""
        query = "select count(distinct request_id) from events where event_type in ('request.ended','request.rejected')"
        end = time.monotonic() + seconds
        while (await asyncio.to_thread(self.ask, query))[0][0] < len(self.sent):
            assert time.monotonic() < end, self.told([f"evidence was not complete after {seconds:g} s"])
            await asyncio.sleep(0.2)

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the evidence by SQL."""
        with Evidence(self.home / "evidence") as evidence, evidence.query(query) as rows:
            return list(rows)

    async def command(self, *arguments: str) -> str:
        """Run one of the program's commands on this pipeline; give what it printed."""
        done = await asyncio.to_thread(waybill, *arguments, **self.environment)
        assert done.returncode == 0, self.told([f"waybill {' '.join(arguments)}: {done.stdout}{done.stderr}"])
        return done.stdout

    async def check(self, *, outcomes: Iterable[str]) -> Counter[str]:
        """Compare responses, evidence and the stand-in's calls, prove the evidence, and count the outcomes.

        Args:
            outcomes: those that may occur.
        """
        await self.until_answered()
        await self.until_told()
        await asyncio.sleep(0.7)  # long enough for a second response or a second row, were there one, to arrive
        events = await asyncio.to_thread(self.ask, Story.QUERY)
        stories = Story.read(events)
        found = problems(self.sent, self.responses, stories, self.calls(), allowed=frozenset(outcomes))
        assert not found, self.told(found)
        proof = await asyncio.to_thread(self.proof)
        assert proof.ok, self.told([proof.to_text()])
        return Counter(story.outcome for story in stories)

    def proof(self) -> Report:
        """Check the evidence as a stranger would, with the files and a public key."""
        keys = KeyRing(self.home / "keys", "local").vkeys
        return verify(self.home / "evidence", keys, jobs=1, pause_s=1)

    def told(self, found: Sequence[str]) -> str:
        """Give a text that is enough to go on with: what is wrong, the notes, and the ends of all logs."""
        lines = [*found[:_TAIL], f"({len(found)} in all)", *self.notes]
        lines.append(f"sent {len(self.sent)}, answered {self.ended()}, calls {self.call_count()}, home {self.home}")
        for child in self._workers.values():
            state = "runs" if child.running else f"ended with {child.returncode}"
            lines += [f"--- {child.name} {state}; its last lines:", child.tail(_TAIL)]
        return "\n".join(lines)

    async def stop(self) -> None:
        """End every worker."""
        await asyncio.gather(*(child.stop(_STOP_S) for child in self._workers.values()))

    async def _open(self, partitions: int, replication: int) -> None:
        await make_topics(self.kafka, partitions=partitions, replication=replication)
        await self._producer.start()

    async def _follow(self) -> None:
        reader = await tail(self.kafka, (RESPONSES, DEADLETTER), from_start=True)
        try:
            while True:
                for partition, records in (await reader.getmany(timeout_ms=200)).items():
                    for record in records:
                        value = content(record.value)
                        if value is None:
                            continue  # a test that writes anything anywhere may have written it
                        if partition.topic != self.kafka.name(RESPONSES):
                            self.dead.append(value)
                        elif isinstance(value.get("requestId"), str):
                            self.responses.setdefault(value["requestId"], []).append(value)
        finally:
            await reader.stop()


@asynccontextmanager
async def running_pipeline(
    home: Path,
    bootstrap: str,
    prefix: str,
    *,
    routes: str = HOSTED,
    script: Mapping[str, Any] | None = None,
    triton: str | None = None,
    partitions: int = 2,
    replication: int = 1,
    outside: Path | None = None,
    policies: Mapping[str, str] | None = None,
    reviewed: Sequence[Path] = (),
    **changes: str,
) -> AsyncIterator[Pipeline]:
    """Make topics, start a stand-in and a reader of responses; workers are the test's to start.

    Args:
        home: everything is written here.
        bootstrap: the broker.
        prefix: of topics, groups and transactions.
        routes: the route table.
        script: what the stand-in does with which request.
        triton: where Triton is, for a route to the endpoint `local`.
        partitions: of each topic.
        replication: of each topic.
        outside: the stand-in's files are written here, whole prompts among them; to `home`, and without, if None.
        policies: files of the policy folder that are others than the sample's (`deployment.policy_files`).
        reviewed: further policy folders that the routes may run under.
        **changes: settings of the workers.
    """
    home.mkdir(parents=True, exist_ok=True)
    theirs = outside or home
    theirs.mkdir(parents=True, exist_ok=True)
    rules, log, port = theirs / "standin.json", theirs / "stand-in-calls.jsonl", free_port()
    identity = {} if "WAYBILL_IDENTITY__JWKS" in changes else UNSIGNED
    changes = {**write(home / "deployment", routes, *reviewed, **(policies or {})), **identity, **changes}
    rules.write_text(json.dumps(script or {"rules": []}))
    endpoints = {"HOSTED": {"KIND": "openai", "URL": f"http://127.0.0.1:{port}/v1", "PROVIDER": "stand-in"}}
    if triton is not None:
        endpoints["LOCAL"] = {"KIND": "triton", "URL": triton, "PROVIDER": "triton"}
    for name, fields in endpoints.items():
        changes |= {f"WAYBILL_ENDPOINTS__{name}__{field}": value for field, value in fields.items()}
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a broker that is broken on purpose fills pages
    made = Pipeline(home, KafkaSettings(bootstrap, prefix=prefix), changes, log)
    argv = [executable, "-m", "inference.standin", "--port", str(port), "--script", str(rules), "--log", str(log)]
    argv += ["--keep-prompts"] if outside else []
    stand_in = Child("stand-in", argv, log=home / "stand-in.log", cwd=ROOT)
    following: asyncio.Task[None] | None = None
    try:
        await stand_in.start()
        await stand_in.wait_ready(lambda: _answers(f"http://127.0.0.1:{port}/healthz"), _READY_S)
        await made._open(partitions, replication)
        following = asyncio.create_task(made._follow())
        yield made
    finally:
        await made.stop()
        await stand_in.stop()
        if following is not None:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following
        await made._producer.stop()


async def _answers(url: str) -> bool:
    timeout = aiohttp.ClientTimeout(total=2)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as reply:
            return reply.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


__all__ = ["HOSTED", "LOCAL", "Pipeline", "running_pipeline", "slow"]
