"""Consent on real brokers: changes and their evidence are one, and registers see them soon or say that they cannot."""

from __future__ import annotations

import asyncio
import gc
import time
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import psutil
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from kafka_fixtures import running_kafka
from topic_rig import PARTITIONS, TopicReader, topics

from evidence.errors import UnavailableError
from streams import consent, consent_changes
from streams.consent import ConsentEntry, ConsentRegister, Scope
from streams.errors import TopicMismatch
from streams.kafka import KafkaSettings, producer
from streams.topics import CONSENT, EVIDENCE

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # aiokafka, cancelled in mid-connect
]


@pytest.fixture(autouse=True)
def nothing_left_to_the_next_test():
    """Collect what a test cut off, while its warnings are still its own."""
    yield
    gc.collect()


@pytest.fixture(params=["apache", "development"])
def broker(request):
    """Give the address of each of the two brokers in turn."""
    return request.getfixturevalue({"apache": "kafka", "development": "dev_broker"}[request.param])


def utc_now():
    """The time."""
    return datetime.now(UTC)


def entry(subject="s1", purpose="support", state="granted", **changes):
    """Give an entry of now."""
    return ConsentEntry(
        tenant="acme", subject=subject, purpose=purpose, state=state, recorded_at_utc=utc_now(),
        recorded_by="human:ann", **changes,
    )  # fmt: skip


@asynccontextmanager
async def following(settings, **options):
    """Give a register that has caught up."""
    register, ready = ConsentRegister(settings, clock=utc_now, **options), asyncio.Event()
    task = asyncio.create_task(register.run(ready.set))
    try:
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({waiting, task}, timeout=30, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        assert ready.is_set()
        yield register
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(register, state, subject="s1", purpose="support", seconds=10.0):
    """Wait until the register says so; give its whole answer."""
    async with asyncio.timeout(seconds):
        while (answer := register.state("acme", subject, purpose, utc_now())).state != state:  # noqa: ASYNC110 - it announces nothing
            await asyncio.sleep(0.001)
    return answer


async def test_what_people_say_is_seen_where_it_was_said(broker, prefix):
    """Grant, withdrawal and forgetting reach a register that follows, with the revision that the writer was told."""
    settings = await topics(broker, prefix)
    async with following(settings) as register:
        assert register.state("acme", "s1", "support", utc_now()).state == "none"
        granted = await consent_changes.record(settings, entry(reference="form 7"), site="here")
        assert await until(register, "granted") == ("granted", granted.revision)
        withdrawn = await consent_changes.record(settings, entry(state="withdrawn"), site="here")
        assert await until(register, "withdrawn") == ("withdrawn", withdrawn.revision)
        await consent_changes.forget(
            settings, [Scope("acme", "s1", "support")], by="human:ann", site="here", now=utc_now()
        )
        assert await until(register, "none") == ("none", None)


async def test_a_register_that_starts_reads_everything_first(broker, prefix):
    """What was said before the start is known when `run` says that it is ready, over all partitions."""
    settings = await topics(broker, prefix)
    for number in range(12):
        await consent_changes.record(
            settings, entry(f"s{number}", state="withdrawn" if number % 3 else "granted"), site="here"
        )
    async with following(settings) as register:
        told = [register.state("acme", f"s{number}", "support", utc_now()) for number in range(12)]
    assert [answer.state for answer in told] == ["withdrawn" if number % 3 else "granted" for number in range(12)]
    assert len({answer.revision[0] for answer in told}) == PARTITIONS


async def test_each_change_has_its_evidence(kafka, prefix):
    """Grant, withdrawal and forgetting are told as `consent.changed`, with subject, purpose and the entry's digest."""
    settings = await topics(kafka, prefix)
    given = entry(reference="form 7")
    changes = [
        await consent_changes.record(settings, given, site="here"),
        await consent_changes.record(settings, entry(state="withdrawn"), site="here"),
        *await consent_changes.forget(settings, [given.scope], by="human:bob", site="here", now=utc_now()),
    ]
    async with TopicReader(settings) as reader:
        told = await reader.until(EVIDENCE, 3)
    assert [event["eventId"] for event in told] == [change.event_id for change in changes]
    assert [event["consent"]["state"] for event in told] == ["granted", "withdrawn", "none"]
    assert {(event["eventType"], event["subjectRef"], event["purpose"]) for event in told} == {
        ("consent.changed", "s1", "support")
    }
    assert given.digest() in told[0]["detail"]


async def test_broken_records_fail_closed_and_stop_nobody(kafka, prefix):
    """A record that cannot be read makes its own scope unknown, others stay as they are, and the register lives on."""
    settings = await topics(kafka, prefix)
    async with following(settings) as register:
        for subject in ("s1", "s2"):
            await consent_changes.record(settings, entry(subject), site="here")
        await until(register, "granted", "s2")
        made = producer(settings)
        await made.start()
        await made.send_and_wait(settings.name(CONSENT), key=b"acme/s1/support", value=b"\xff{")
        await made.send_and_wait(settings.name(CONSENT), key=b"junk", value=b"{}")
        await made.stop()
        await until(register, "unknown", "s1")
        assert register.state("acme", "s2", "support", utc_now()).state == "granted"
        await consent_changes.record(settings, entry(state="withdrawn"), site="here")
        await until(register, "withdrawn", "s1")
        assert register.bad == 2


async def test_an_idle_topic_is_not_taken_for_a_dead_broker(kafka, prefix):
    """With nothing written for longer than it may be deaf, a register still proves itself and answers."""
    settings = await topics(kafka, prefix)
    await consent_changes.record(settings, entry(), site="here")
    async with following(settings, deaf_after_s=2.5) as register:
        end, answers = time.monotonic() + 6, set()
        while time.monotonic() < end:
            answers.add(register.state("acme", "s1", "support", utc_now()).state)
            await asyncio.sleep(0.02)
    assert answers == {"granted"}


@pytest.fixture
def own_kafka():
    """Give an Apache Kafka that nobody else uses, to be stopped."""
    with running_kafka() as broker:
        yield broker


async def test_a_broker_that_falls_silent_makes_everything_unknown(own_kafka):
    """Once its broker is stopped a register says unknown within its limit, and knows again when it goes on."""
    settings = KafkaSettings(own_kafka.bootstrap, session_timeout_ms=6000)
    await topics(own_kafka.bootstrap, "")
    await consent_changes.record(settings, entry(), site="here")
    async with following(settings, deaf_after_s=2.5) as register:
        await until(register, "granted")
        process = psutil.Process(next(iter(own_kafka._children.values())).pid)
        process.suspend()
        began = time.monotonic()
        await until(register, "unknown", seconds=6)
        silent = time.monotonic() - began
        process.resume()
        await until(register, "granted", seconds=30)
    assert silent < 3.5


async def test_a_topic_that_has_grown_is_read_anew(kafka, prefix, monkeypatch):
    """Partitions that were added end the run, so that the next one reads them too."""
    monkeypatch.setattr(consent, "_COUNT_EVERY_S", 0.5)
    settings = await topics(kafka, prefix)
    register, ready = ConsentRegister(settings, clock=utc_now), asyncio.Event()
    running = asyncio.create_task(register.run(ready.set))
    await asyncio.wait_for(ready.wait(), 20)
    admin = AIOKafkaAdminClient(**settings.client_options())
    await admin.start()
    await admin.create_partitions({settings.name(CONSENT): NewPartitions(PARTITIONS + 1)})
    await admin.close()
    with pytest.raises(UnavailableError, match="partitions"):
        await asyncio.wait_for(running, 20)
    assert register.state("acme", "s1", "support", utc_now()).state == "unknown"


async def test_without_its_topic_it_does_not_start(kafka, prefix):
    """A missing topic is an error that says what to do, and no register without entries."""
    with pytest.raises(TopicMismatch, match="waybill topics create"):
        await ConsentRegister(KafkaSettings(kafka, prefix=prefix), clock=utc_now).run()


async def test_close_ends_the_run(kafka, prefix):
    """`close` lets `run` return, and nothing is answered afterwards."""
    settings = await topics(kafka, prefix)
    register, ready = ConsentRegister(settings, clock=utc_now), asyncio.Event()
    task = asyncio.create_task(register.run(ready.set))
    await asyncio.wait_for(ready.wait(), 20)
    await register.close()
    await asyncio.wait_for(task, 5)
    assert register.state("acme", "s1", "support", utc_now()).state == "unknown"
