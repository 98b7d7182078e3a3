"""The topic of the workers, on real brokers: who may run, whatever else lies there."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from shutil import which

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from evidence.errors import ConfigError
from streams.conditions import Conditions
from streams.kafka import KafkaSettings
from streams.registry import Registry, RosterReader, adopt, broker_time, roster_of
from streams.topics import WORKERS
from streams.workers import Facts, SiteVault, Worker
from waybill.dev_topics import make_topics

A, B = "a" * 32, "b" * 32
pytestmark = pytest.mark.parametrize("broker", [pytest.param("kafka", marks=pytest.mark.kafka), "dev_broker"])


def now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


@pytest.fixture
def bootstrap(broker: str, request: pytest.FixtureRequest) -> str:
    """The broker's address; started here, outside of any event loop."""
    return str(request.getfixturevalue(broker))


@pytest.fixture
async def settings(bootstrap: str, prefix: str) -> KafkaSettings:
    """Topics of this test alone."""
    made = KafkaSettings(bootstrap, prefix=prefix)
    await make_topics(made, partitions=2, replication=1)
    return made


def registry(
    kafka: KafkaSettings, name: str, facts: Facts, *, present: Collection[str] | None = None, ahead_s: float = 0
) -> Registry:
    """Make a worker's registration; its vault has all marks unless told otherwise."""
    marks = present if present is not None else ["1" * 32, "2" * 32, "3" * 32]
    worker = Worker(worker=name * 32, host="node", pid=int(name), started=now(), facts=facts)
    return Registry(kafka, worker, present=lambda: marks, clock=lambda: now() + timedelta(seconds=ahead_s))


@asynccontextmanager
async def living(made: Registry, facts: Facts) -> AsyncIterator[None]:
    """Keep a registration for the length of a block."""
    await made.register()
    ready = asyncio.Event()
    keeping = asyncio.create_task(made.keep(lambda: facts, Conditions(), ready.set))
    try:
        async with asyncio.timeout(20):
            await ready.wait()
        yield
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


def unreadable(kafka: KafkaSettings, topic: str) -> None:
    """Write a record with a header whose name is not UTF-8, which aiokafka reads as an error of its own."""
    if which("kcat") is None:
        return  # the other records are enough to find out whether reading goes on
    where = [b"-b", kafka.bootstrap.encode(), b"-t", topic.encode(), b"-p", b"0"]
    record = [b"-k", b"worker/" + b"8" * 32, b"-H", b"\xff\xfe=y"]
    subprocess.run([b"kcat", b"-P", *where, *record], input=b"{}", check=True, timeout=30)


async def test_whatever_lies_on_the_topic_a_worker_starts(settings: KafkaSettings):
    """Records without a key, without sense, with headers that cannot be read, large or many: they are skipped."""
    made = AIOKafkaProducer(**settings.client_options(), max_request_size=1_000_000)
    await made.start()
    topic = settings.name(WORKERS)
    try:
        for key, value in (
            (None, b"\x00\xff"),
            (b"worker/" + b"9" * 32, b"not json"),
            (b"vault/9", b'{"vault": 7}'),
            (b"\xff", None),
            (b"x", b"y" * 900_000),
        ):
            with suppress(KafkaError):  # a broker that refuses it has none of it
                await made.send_and_wait(topic, value, key=key, partition=0)
        for _ in range(500):
            await made.send(topic, b"{}", key=b"worker/", partition=0)
        await made.flush()
        await asyncio.to_thread(unreadable, settings, topic)
    finally:
        await made.stop()
    async with asyncio.timeout(60):
        found = await registry(settings, "1", Facts(vault=A)).register()
    assert found.roster.unreadable >= 500
    assert found.roster.vault.vault.vault == A


async def test_of_workers_that_start_at_once_the_first_record_wins(settings: KafkaSettings):
    """Five with vaults of their own: one runs, four are told whose vault is the site's."""
    names = ("1", "2", "3", "4", "5")
    found = await asyncio.gather(
        *(registry(settings, name, Facts(vault=name * 32)).register() for name in names), return_exceptions=True
    )
    (first,) = [one for one in found if not isinstance(one, BaseException)]
    errors = [one for one in found if isinstance(one, BaseException)]
    assert [type(error) for error in errors] == [ConfigError] * 4
    winner = first.roster.vault.vault
    assert all(f"not the site's, {winner.vault[:12]}" in str(error) for error in errors)
    roster, _ = await roster_of(settings)
    assert [claim.vault.vault for claim in roster.claims.values()] == [winner.vault]  # the others took theirs back


async def test_a_worker_that_differs_from_one_that_lives_is_refused(settings: KafkaSettings):
    """It takes a sign of life; who has ended keeps nobody from starting, and neither does one that died."""
    real, stand_in = Facts(vault=A, hosted="real"), Facts(vault=A, hosted="stand-in")
    first = registry(settings, "1", real)
    async with living(first, real):
        async with asyncio.timeout(15):
            with pytest.raises(ConfigError, match=r"hosted provider stand-in is not real, .* worker node:1"):
                await registry(settings, "2", stand_in).register()
            await registry(settings, "3", real).register()
    async with RosterReader(settings) as reader:
        roster = await reader.to_end()
    assert {seen.worker.worker[0] for seen in roster.workers.values()} == {"3"}  # the two others have said good-bye


async def test_a_worker_waits_for_one_that_died_and_then_runs(settings: KafkaSettings):
    """A record without a sign of life after it is waited for, and counts no more once it is old."""
    await registry(settings, "1", Facts(vault=A, identity="jwt")).register()  # and dies before it runs
    began = asyncio.get_running_loop().time()
    async with asyncio.timeout(45):
        await registry(settings, "2", Facts(vault=A, identity="unsigned")).register()
    assert asyncio.get_running_loop().time() - began > 10


async def test_a_copy_of_a_vault_is_refused_beside_the_vault(settings: KafkaSettings):
    """The same id and no mark of the other worker: another folder."""
    facts = Facts(vault=A)
    async with living(registry(settings, "1", facts), facts):
        with pytest.raises(ConfigError, match="is a copy"):
            await registry(settings, "2", facts, present=["2" * 32]).register()


async def test_a_clock_far_ahead_is_told_as_what_it_is(settings: KafkaSettings):
    """Kafka would refuse such a worker's records one by one; behind is no reason not to start."""
    with pytest.raises(ConfigError, match=r"this machine's clock is 2\.0 h ahead of the broker's: set it"):
        await registry(settings, "1", Facts(vault=A), ahead_s=7200).register()
    found = await registry(settings, "1", Facts(vault=A), ahead_s=-7200).register()
    assert found.ahead_s == pytest.approx(-7200, abs=5)
    assert abs((await broker_time(settings) - now()).total_seconds()) < 5


async def test_another_vault_can_be_put_in_the_place_of_one_that_is_gone(settings: KafkaSettings):
    """After `adopt` the new one is the site's, and the old one is refused."""
    await registry(settings, "1", Facts(vault=A)).register()
    roster, _ = await roster_of(settings)
    await adopt(settings, tuple(roster.claims.values()), SiteVault(vault=B, host="h", pid=1), "9" * 32)
    await registry(settings, "2", Facts(vault=B)).register()
    with pytest.raises(ConfigError, match="is not the site's"):
        await registry(settings, "3", Facts(vault=A)).register()
