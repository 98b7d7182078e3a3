"""Admission and dispatch on real brokers: one response and one whole story for each request, whatever happens."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby, pairwise

import pytest
from aiokafka.errors import KafkaError, ProducerFenced
from decisions import Consents, utc_now
from evidence_samples import stories
from requests_made import FORBIDDING, NAMES_WANTED, book, encoded, request
from stage_rig import Provider, Reader, Worker, asked, send, topics

from inference.backend import Completion, ModelCall
from inference.rulebook import Shelf
from inference.standin.script import Behaviour, Rule, Script
from inference.testing import ScriptedBackend, echo
from policy.detection.detectors import Finding
from policy.detection.names import DetectorDown
from streams.kafka import producer
from streams.metrics import Metrics
from streams.stages import correlation
from streams.stages.dispatch import Limits
from streams.topics import EVIDENCE, REQUESTS
from streams.transactions import Batch, Outgoing, Writer

pytestmark = [
    pytest.mark.kafka,
    # Tasks are cancelled in mid-connect on purpose, and aiokafka leaves a half-made connection to the collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def nothing_left_to_the_next_test():
    """Collect what a test cut off, while its warnings are still its own."""
    yield
    gc.collect()


SLOW = Script(rules=(Rule(do=Behaviour(latency_ms=60)),))


@pytest.fixture(params=["apache", "development"])
def broker(request):
    """Give the address of each of the two brokers in turn."""
    return request.getfixturevalue({"apache": "kafka", "development": "dev_broker"}[request.param])


async def test_two_hundred_requests_have_two_hundred_stories(broker, prefix):
    """On both brokers every request gets its one response and its whole story, and each intent one call."""
    kafka, sent = await topics(broker, prefix), asked(200)
    async with Provider() as provider, Reader(kafka) as reader, Worker(kafka, provider.backend):
        await send(kafka, sent)
        await reader.until_responses(200)
        calls = provider.calls()
    reader.check(name for name, _ in sent)
    assert reader.outcomes() == {"completed": 200}
    intents = {event["eventId"] for event in reader.events if event["eventType"] == "model.intended"}
    assert set(calls) == intents
    assert calls.total() == 150


async def test_bad_records_go_to_the_dead_letters_and_hold_nothing_up(kafka, prefix):
    """Between good requests, broken ones are refused with their position, and the largest one that fits passes."""
    settings = await topics(kafka, prefix)
    big = encoded(request("big", "x" * 740_000, modelPolicy={"placement": "local"}))
    huge = encoded(request("huge", "x" * 850_000, modelPolicy={"placement": "local"}))
    sent = [*asked(10), ("bad", b"{"), ("old", encoded(request("old", contractVersion="7.0"))), ("huge", huge),
            ("big", big), *asked(4, "after")]  # fmt: skip
    async with Provider() as provider, Reader(settings) as reader, Worker(settings, provider.backend):
        await send(settings, sent)
        await reader.until_responses(18)
    assert reader.outcomes() == {"completed": 14, "rejected": 3, "failed": 1}
    assert Counter(letter["failure"]["code"] for letter in reader.found["ai.deadletter"]) == {
        "not_json": 1, "unsupported_version": 1, "oversized": 1,
    }  # fmt: skip
    assert {letter["source"]["topic"] for letter in reader.found["ai.deadletter"]} == {settings.name(REQUESTS)}
    too_large = next(response for response in reader.responses if response["requestId"] == "big")
    assert too_large["failure"]["code"] == "answer_too_large"


@pytest.mark.parametrize("way", ["stop", "die"])
async def test_stopped_in_mid_run_and_started_again(kafka, prefix, way):
    """Workers that are stopped, or cut off without a drain, leave each request with one response in the end."""
    settings, sent = await topics(kafka, prefix), asked(160)
    async with Provider(SLOW) as provider, Reader(settings) as reader:
        await send(settings, sent)
        for part in (30, 90):
            worker = Worker(settings, provider.connect()).start()
            while len(reader.responses) < part:
                await reader.more(50)
            await getattr(worker, way)()
        async with Worker(settings, provider.backend):
            await reader.until_responses(160)
        calls = provider.calls()
    reader.check(name for name, _ in sent)
    assert set(calls.values()) == {1}
    intents = {event["eventId"] for event in reader.events if event["eventType"] == "model.intended"}
    assert set(calls) <= intents
    outcomes = reader.outcomes()
    assert set(outcomes) <= ({"completed"} if way == "stop" else {"completed", "unknown"})
    failures = [event["failure"]["code"] for event in reader.events if event["eventType"] == "model.failed"]
    assert failures == ["worker_lost"] * outcomes["unknown"]


async def test_two_workers_share_the_partitions_and_one_leaves(kafka, prefix):
    """When one of two workers leaves in mid-run the other takes over, and nothing is lost or doubled."""
    settings, sent = await topics(kafka, prefix), asked(160)
    async with Provider(SLOW) as provider, Reader(settings) as reader:
        stays = Worker(settings, provider.backend).start()
        leaves = Worker(settings, provider.connect()).start()
        while not all(len(worker.stages["dispatch"]._lanes) == 1 for worker in (stays, leaves)):
            await reader.more(50)
        await send(settings, sent)
        while len(reader.responses) < 60:
            await reader.more(50)
        await leaves.stop()
        await reader.until_responses(160)
        await stays.stop()
    reader.check(name for name, _ in sent)
    assert reader.outcomes() == {"completed": 160}


async def test_a_zombie_is_fenced_and_leaves_no_trace(kafka, prefix):
    """A writer whose identity was taken over can commit nothing, and what it had begun is never seen."""
    settings = await topics(kafka, prefix)
    old = await Writer(settings, transactional_id="waybill-dispatch-0", group="g").start()
    new = await Writer(settings, transactional_id="waybill-dispatch-0", group="g").start()
    record = Outgoing(settings.name(EVIDENCE), b"k", b'{"by": "zombie"}', [])
    good = Outgoing(settings.name(EVIDENCE), b"k", b'{"by": "owner"}', [])
    try:
        with pytest.raises(KafkaError) as caught:
            await old.write(Batch([record]))
        await new.write(Batch([good]))
        async with Reader(settings, EVIDENCE) as reader:
            while not reader.events:
                await reader.more()
        assert reader.events == [{"by": "owner"}]
    finally:
        await old.stop()
        await new.stop()
    assert isinstance(caught.value, ProducerFenced)


async def test_a_fenced_lane_ends_its_stage(kafka, prefix):
    """A worker whose lane was fenced stops with the broker's error instead of going on without it."""
    settings = await topics(kafka, prefix)
    async with Provider() as provider, Reader(settings) as reader:
        worker = Worker(settings, provider.backend).start()
        await send(settings, asked(20))
        await reader.until_responses(20)
        thieves = [await Writer(settings, transactional_id=f"waybill-dispatch-{n}", group="g").start() for n in (0, 1)]
        await send(settings, asked(4, "late"))
        done, _ = await asyncio.wait(worker.tasks, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        for thief in thieves:
            await thief.stop()
        assert [task.get_name() for task in done] == ["dispatch"]
        assert isinstance(done.pop().exception(), KafkaError)
        await worker.stop()
        async with Worker(settings, provider.connect()):
            await reader.until_responses(24)
    reader.check([name for name, _ in (*asked(20), *asked(4, "late"))])


async def test_a_key_is_remembered_across_restarts(kafka, prefix):
    """The same work under the same key is a duplicate after a restart, other work a conflict; only one call is made."""
    settings = await topics(kafka, prefix)
    async with Provider() as provider, Reader(settings) as reader:
        for number, (name, prompt) in enumerate([("one", "A"), ("two", "A"), ("three", "B")]):
            async with Worker(settings, provider.connect()):
                await send(settings, [(name, encoded(request(name, prompt, idempotencyKey="k")))])
                await reader.until_responses(number + 1)
        assert provider.calls().total() == 1
    assert [response["outcome"] for response in reader.responses] == ["completed", "duplicate", "rejected"]
    assert reader.responses[1]["duplicateOf"] == "one"
    assert reader.responses[2]["failure"]["code"] == "idempotency_conflict"
    first = next(event for event in reader.events if event["requestId"] == "one")
    assert {event["duplicateOf"] for event in reader.events if "duplicateOf" in event} == {first["intakeId"]}
    reader.check(["one", "two", "three"])


async def test_a_rulebook_that_forbids_counts_for_what_is_queued(kafka, prefix):
    """A rulebook put on the shelf while requests wait stops each of them that has not been sent, and says so."""
    settings, shelf = await topics(kafka, prefix), Shelf(book())
    hosted = [(f"h{number}", encoded(request(f"h{number}"))) for number in range(40)]
    gated = Gated()
    worker = Worker(settings, gated, limits=Limits(local=4, hosted=4, drain_s=3), shelf=shelf)
    async with Reader(settings) as reader, worker:
        await send(settings, hosted)
        async with asyncio.timeout(20):
            while gated.waiting < 4:  # noqa: ASYNC110 - a model that is asked announces nothing
                await asyncio.sleep(0.02)
        first, shelf.current = shelf.current, book(policy=FORBIDDING)
        gated.open.set()
        await reader.until_responses(40)
    reader.check(name for name, _ in hosted)
    outcomes = reader.outcomes()
    assert outcomes == {"completed": 4, "denied": 36}
    intents = [event for event in reader.events if event["eventType"] == "model.intended"]
    assert {event["policy"]["policyVersion"] for event in intents} == {first.version}
    denials = [event for event in reader.events if event.get("policy", {}).get("decision") == "deny"]
    assert {event["policy"]["policyVersion"] for event in denials} == {shelf.current.version}


class DownNames:
    """A detector of names that is down for what mentions `down`."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    async def find(self, texts: Sequence[str]) -> list[tuple[Finding, ...]]:
        """Find Anna, or fail."""
        self.asked.append(list(texts))
        if any("down" in text for text in texts):
            raise DetectorDown("exited", "the child is gone")
        return [(Finding("person", 0, 4),) if text.startswith("Anna") else () for text in texts]


@pytest.mark.parametrize("detector", ["there", "missing"])
async def test_names_are_looked_for_and_fail_closed(kafka, prefix, detector):
    """Where labels ask for names, what was found keeps a request inside; a detector that is down or missing denies."""
    settings, names = await topics(kafka, prefix), DownNames()
    by = book(labels=NAMES_WANTED)
    sent = [
        ("found", encoded(request("found", "Anna asks."))),
        ("clean", encoded(request("clean", "Nobody asks."))),
        ("down", encoded(request("down", "The detector is down."))),
        ("other", encoded(request("other", "Anna trains.", purpose="training"))),
        ("bad", encoded(request("bad", purpose=None))),
    ]
    worker = Worker(settings, ScriptedBackend(), shelf=Shelf(by), names=names if detector == "there" else None)
    async with Reader(settings) as reader, worker:
        await send(settings, sent)
        await reader.until_responses(5)
    reader.check(name for name, _ in sent)
    served = {response["requestId"]: response.get("receipt", {}).get("servedBy", {}).get("placement")
              for response in reader.responses}  # fmt: skip
    there = detector == "there"
    assert served == {"found": "local" if there else None, "clean": "hosted" if there else None, "down": None,
                      "other": "hosted", "bad": None}  # fmt: skip
    classified = {event["requestId"]: event["classification"] for event in reader.events
                  if event["eventType"] == "data.classified"}  # fmt: skip
    assert classified["down"]["detector"] == "names_failed"
    assert classified["down"]["effective"] == "restricted"
    assert classified["other"]["detector"] == "ok"
    assert sorted(text for texts in names.asked for text in texts) == sorted(
        ["Anna asks.", "Nobody asks.", "The detector is down."] if there else []
    )


async def test_queued_consent_ends_with_its_withdrawal(kafka, prefix):
    """A withdrawal while requests wait for their turn stops all of them that were not sent before it."""
    settings, gated = await topics(kafka, prefix), Gated()
    consents = Consents({("acme", "ada", "support"): "granted"})
    basis = {"consent": {"basis": "consent"}}
    sent = [(f"c{number}", encoded(request(f"c{number}", **basis))) for number in range(20)]
    worker = Worker(settings, gated, limits=Limits(hosted=2, drain_s=3), consents=consents)
    async with Reader(settings) as reader, worker:
        await send(settings, sent)
        async with asyncio.timeout(20):
            while gated.waiting < 2:  # noqa: ASYNC110 - a model that is asked announces nothing
                await asyncio.sleep(0.02)
            await asyncio.sleep(1)  # the rest is admitted meanwhile
        consents.say("withdrawn")
        gated.open.set()
        await reader.until_responses(20)
    reader.check(name for name, _ in sent)
    states = Counter(event["consent"]["state"] for event in reader.events if event["eventType"] == "model.intended")
    assert states == {"granted": 2}
    assert gated.most == 2
    assert reader.outcomes()["completed"] == 2 + sum(
        response["receipt"].get("servedBy", {}).get("placement") == "local" for response in reader.responses
    )


class Gated:
    """A local model that answers nobody until it is told to; counts who waits."""

    def __init__(self) -> None:
        self.open, self.waiting, self.most = asyncio.Event(), 0, 0

    async def complete(self, call: ModelCall) -> Completion:
        """Wait for the gate."""
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        await self.open.wait()
        self.waiting -= 1
        return echo(call)

    async def ready(self) -> str:
        """Always."""
        return "gated"

    async def close(self) -> None:
        """Nothing to give back."""


async def test_a_full_local_queue_holds_no_hosted_request_up(kafka, prefix):
    """With local work at its limit hosted requests go on, and the limit holds over all partitions."""
    settings, gated = await topics(kafka, prefix), Gated()
    local = [
        (name, encoded(request(name, modelPolicy={"placement": "local"}))) for name in map("l{}".format, range(60))
    ]
    hosted = [(name, encoded(request(name))) for name in map("h{}".format, range(40))]
    worker = Worker(settings, gated, gated, Limits(local=3, hosted=64, drain_s=3))
    async with Provider() as provider, Reader(settings) as reader:
        worker.hosted = provider.backend
        worker.start()
        await send(settings, [*local, *hosted])
        await reader.until_responses(40)
        assert {response["requestId"][0] for response in reader.responses} == {"h"}
        assert gated.most == 3
        gated.open.set()
        await reader.until_responses(100)
        await worker.stop()
    assert gated.most == 3
    reader.check(name for name, _ in (*local, *hosted))


async def test_a_restart_with_nothing_to_do_is_quick(kafka, prefix):
    """A worker that starts on finished work is at the next request within seconds."""
    settings = await topics(kafka, prefix)
    async with Provider() as provider, Reader(settings) as reader:
        async with Worker(settings, provider.backend):
            await send(settings, asked(20))
            await reader.until_responses(20)
        async with Worker(settings, provider.connect()):
            began = time.monotonic()
            await send(settings, asked(8, "next"))
            await reader.until_responses(28)
    assert time.monotonic() - began < 8


async def test_correlation_tells_each_story_once_over_a_restart(broker, prefix, monkeypatch):
    """Stopped while stories are open and started again, correlation closes each story once and none as broken."""
    monkeypatch.setattr(correlation, "_COMMIT_S", 0.1)
    settings, metrics = await topics(broker, prefix, partitions=1), Metrics()
    told = [list(group) for _, group in groupby(stories(30, seed=5), key=lambda event: event.intake_id)]
    # Each story begins before the one before it has ended.
    log = [event for before, after in pairwise([[], *told, []]) for event in (*after[:1], *before[1:])]

    def closed(complete: str) -> float:
        return metrics.registry.get_sample_value("waybill_stories_total", {"complete": complete}) or 0

    made = producer(settings)
    await made.start()
    try:
        for part in (log[: len(log) // 2], log[len(log) // 2 :]):
            task = asyncio.create_task(correlation.Correlation(settings, metrics, utc_now, None).run())
            for event in part:
                await made.send(settings.name(EVIDENCE), key=b"k", value=event.to_json())
            await made.send_and_wait(settings.name(EVIDENCE), key=b"k", value=b'{"intakeId": "foreign"}')
            ended = sum(event.outcome is not None for event in log[: log.index(part[-1]) + 1])
            async with asyncio.timeout(20):
                while closed("yes") < ended:  # noqa: ASYNC110 - a counter announces nothing
                    await asyncio.sleep(0.05)
            await asyncio.sleep(1.5)  # long enough for a commit, and for a story too many to show
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    finally:
        await made.stop()
    assert (closed("yes"), closed("no")) == (30, 0)
