"""The sink goes on with a topic only if it is the one that it has stored."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.errors import KafkaError
from evidence_samples import stories
from evidence_stores import local_store

from evidence.files.local import LocalFiles
from evidence.parsing import Parsed
from evidence.store.live import LiveReader
from streams import kafka as clients
from streams.errors import BrokerUnavailable, LogMismatch
from streams.kafka import KafkaSettings
from streams.stages import sink, sink_continuity
from streams.stages.sink import Sink
from streams.stages.sink_continuity import check_same_topic
from streams.stages.sink_partition import parse_records
from streams.topics import DEADLETTER, EVIDENCE

TOPICS = (EVIDENCE, DEADLETTER)
SEEDS = itertools.count()


async def forget(_):
    """Take dead letters and forget them."""


@asynccontextmanager
async def running(settings: KafkaSettings, root: Path):
    """Run a sink over a store; give its task."""
    made_of = local_store(root, "home")
    task = asyncio.create_task(
        Sink(kafka=settings, store=made_of, log_id="cluster", dead_letter=forget, freshness_s=0.5).run()
    )
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task


def rows(root: Path) -> int:
    """Give how many rows are stored."""
    return sum(added.rows for added in LiveReader(LocalFiles(root)).refresh())


async def reach(root: Path, count: int, task: asyncio.Task[None]) -> None:
    """Wait until so many rows are stored."""
    end = time.monotonic() + 40
    while rows(root) < count:
        assert time.monotonic() < end, rows(root)
        if task.done():
            task.result()
        await asyncio.sleep(0.1)


async def made(bootstrap: str, prefix: str) -> KafkaSettings:
    """Make the topics, of one partition; again, where one of that name is being deleted."""
    settings = KafkaSettings(bootstrap, prefix=prefix, session_timeout_ms=6000)
    for _ in range(100):
        with suppress(KafkaError, Exception):
            await clients.create_topics(settings, partitions=1, replication=1, topics=TOPICS)
            return settings
        await asyncio.sleep(0.2)
    raise AssertionError("the topic could not be made")


async def send(settings: KafkaSettings, values: list[bytes], *, transactional: bool = False) -> None:
    """Write records, each transaction of ten with its marker behind it."""
    maker = clients.producer(settings, transactional_id=f"{settings.prefix}test" if transactional else None)
    await maker.start()
    try:
        for start in range(0, len(values), 10):
            if transactional:
                await maker.begin_transaction()
            await asyncio.gather(
                *[await maker.send(settings.name(EVIDENCE), each, partition=0) for each in values[start : start + 10]]
            )
            if transactional:
                await maker.commit_transaction()
    finally:
        await maker.stop()


async def anew(settings: KafkaSettings) -> None:
    """Delete the topic and make it again under its name."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap)
    await admin.start()
    await admin.delete_topics([settings.name(EVIDENCE)])
    for _ in range(300):
        if settings.name(EVIDENCE) not in await admin.list_topics():
            break
        await asyncio.sleep(0.1)
    await admin.close()
    await made(settings.bootstrap, settings.prefix)


def values(count: int) -> list[bytes]:
    """Give evidence events, others at each call."""
    return [event.to_json() for event in stories(count, seed=next(SEEDS))][:count]


async def test_a_topic_that_was_made_anew_and_has_grown_past_is_noticed(kafka, prefix, tmp_path):
    """The sink stops before it stores anything of the new topic, and the error says what to do."""
    settings = await made(kafka, prefix)
    await send(settings, values(20))
    async with running(settings, tmp_path) as task:
        await reach(tmp_path, 20, task)
    await anew(settings)
    await send(settings, values(60))
    async with running(settings, tmp_path) as task:
        with pytest.raises(LogMismatch, match=r"another record.*made anew.*WAYBILL_LOG_ID"):
            await asyncio.wait_for(asyncio.shield(task), 30)
    assert rows(tmp_path) == 20


async def test_a_marker_in_the_place_of_the_last_record_is_noticed(kafka, prefix, tmp_path):
    """Where the new topic has no record at that offset, that is another topic, too."""
    settings = await made(kafka, prefix)
    await send(settings, values(11))
    async with running(settings, tmp_path) as task:
        await reach(tmp_path, 11, task)
    await anew(settings)
    await send(settings, values(10), transactional=True)
    async with running(settings, tmp_path) as task:
        with pytest.raises(LogMismatch, match="holds nothing"):
            await asyncio.wait_for(asyncio.shield(task), 30)


async def test_the_same_topic_goes_on(kafka, prefix, tmp_path):
    """Markers behind the last row are no mismatch, and each restart stores what came since."""
    settings = await made(kafka, prefix)
    for count in (20, 40, 60):
        await send(settings, values(20), transactional=True)
        async with running(settings, tmp_path) as task:
            await reach(tmp_path, count, task)


async def test_a_last_record_that_retention_removed_cannot_be_compared(kafka, prefix, tmp_path, caplog):
    """Where the topic holds it no more, the sink says so and goes on; what was lost with it is in the log."""
    settings = await made(kafka, prefix)
    await send(settings, values(20))
    async with running(settings, tmp_path) as task:
        await reach(tmp_path, 20, task)
    await send(settings, values(20))
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.delete_records({TopicPartition(settings.name(EVIDENCE), 0): RecordsToDelete(before_offset=20)})
    await admin.close()
    async with running(settings, tmp_path) as task:
        await reach(tmp_path, 40, task)
    assert "record 19, of the last row, is gone" in caplog.text


@pytest.mark.parametrize("act", ["refuse", "change"])
async def test_a_row_that_another_version_made_is_no_other_topic(kafka, prefix, tmp_path, monkeypatch, caplog, act):
    """Where the record is the last row's, but would become another row today, or none, the sink says so and goes on."""
    settings = await made(kafka, prefix)
    sent = values(40)
    await send(settings, sent[:20])
    async with running(settings, tmp_path) as task:
        await reach(tmp_path, 20, task)

    def today(records, partition):
        parsed = parse_records(records, partition)
        table = parsed.table.slice(1) if act == "refuse" else parse_records(records, partition + 1).table
        return Parsed(table, parsed.rejects)

    monkeypatch.setattr(sink_continuity, "parse_records", today)
    await send(settings, sent[20:])
    async with running(settings, tmp_path) as task:
        await reach(tmp_path, 40, task)
    assert "record 19 is the one of the last row" in caplog.text


async def test_partitions_are_compared_side_by_side(kafka, prefix, tmp_path, monkeypatch):
    """A slow broker costs one wait and not one for each partition: the group hears nothing meanwhile."""
    settings = KafkaSettings(kafka, prefix=prefix, session_timeout_ms=6000)
    await clients.create_topics(settings, partitions=6, replication=1, topics=TOPICS)
    at_once, most = 0, 0

    async def slow(*given):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(1)
        await check_same_topic(*given)
        at_once -= 1

    monkeypatch.setattr(sink, "check_same_topic", slow)
    ready = asyncio.Event()
    made_of = local_store(tmp_path, "home")
    task = asyncio.create_task(
        Sink(kafka=settings, store=made_of, log_id="cluster", dead_letter=forget).run(ready.set),
    )
    try:
        await asyncio.wait_for(ready.wait(), 20)
    finally:
        task.cancel()
        await asyncio.wait({task})
    assert most == 6


async def test_a_record_that_cannot_be_read_stops_the_sink(kafka, prefix, tmp_path, monkeypatch):
    """Where the broker does not give it in time nothing is stored, and the sink may be started again."""
    settings = await made(kafka, prefix)
    await send(settings, values(20))
    async with running(settings, tmp_path) as task:
        await reach(tmp_path, 20, task)
    monkeypatch.setattr(sink_continuity, "_LIMIT_S", 0.001)
    async with running(settings, tmp_path) as task:
        with pytest.raises(BrokerUnavailable, match="still the one that is stored"):
            await asyncio.wait_for(asyncio.shield(task), 30)
