"""The evidence sink on real brokers: each event once, fresh, and by one writer."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import KafkaError
from evidence_samples import stories
from evidence_stores import local_store

from evidence.disk import Disk, PartitionHeld
from evidence.errors import UnavailableError
from evidence.files.local import LocalFiles
from evidence.log.commits import Lost
from evidence.parsing import parse
from evidence.store.history import commits_after
from evidence.store.live import LiveReader
from streams import kafka as clients
from streams.errors import BrokerUnavailable, LogMismatch
from streams.kafka import KafkaSettings
from streams.stages.sink import Sink, Unobserved
from streams.stages.sink_partition import RejectedRecord
from streams.topics import DEADLETTER, EVIDENCE

TOPICS = (EVIDENCE, DEADLETTER)
SUPPORT = Path(__file__).resolve().parents[1] / "support"


@pytest.fixture(params=["apache", "development"])
def broker(request):
    """Give the address of each of the two brokers in turn."""
    return request.getfixturevalue({"apache": "kafka", "development": "dev_broker"}[request.param])


async def ready(bootstrap, prefix, *, partitions=2):
    """Make the topics under a prefix of the test's own."""
    settings = KafkaSettings(bootstrap, prefix=prefix, session_timeout_ms=6000)
    await clients.create_topics(settings, partitions=partitions, replication=1, topics=TOPICS)
    return settings


async def send(settings, values, *, transactional=True, abort=False, partitions=2, batch=200):
    """Put values on the evidence topic, transaction by transaction, spread over the partitions."""
    name = f"{settings.prefix}writer" if transactional else None
    writer = clients.producer(settings, transactional_id=name)
    await writer.start()
    try:
        for begin in range(0, len(values), batch):
            if transactional:
                await writer.begin_transaction()
            sent = [
                await writer.send(settings.name(EVIDENCE), value, partition=number % partitions)
                for number, value in enumerate(values[begin : begin + batch], start=begin)
            ]
            await asyncio.gather(*sent)
            if transactional:
                await (writer.abort_transaction() if abort else writer.commit_transaction())
    finally:
        await writer.stop()


class Letters:
    """Collects dead letters."""

    def __init__(self):
        self.rejected: list[RejectedRecord] = []

    async def __call__(self, rejected):
        """Keep them."""
        self.rejected.extend(rejected)


@contextlib.asynccontextmanager
async def running(settings, root, **options):
    """Run a sink for as long as the block lasts, then cancel it and wait until it has ended."""
    store = local_store(root, "home", lock_wait_s=options.pop("lock_wait_s", 15), disk=options.pop("disk", None))
    arguments = {"log_id": "cluster", "dead_letter": Letters(), "freshness_s": 0.5, **options}
    task = asyncio.create_task(Sink(kafka=settings, store=store, **arguments).run())
    try:
        yield task
    finally:
        if not task.done():  # a test that expects a failure has seen it
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def stored(root):
    """Give every event id that readers can see."""
    live = LiveReader(LocalFiles(root)).refresh()
    return [
        event_id
        for file in live
        for event_id in pq.read_table(root / file.path, columns=["event_id"])["event_id"].to_pylist()
    ]


def commits(root, topic, partition=0):
    """Give the commits of a log."""
    return list(commits_after(LocalFiles(root), f"cluster.{topic}-{partition}", -1))


async def until(reached, *, seconds=40.0, task=None):
    """Wait until a condition holds, or until the sink fails."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, "not reached in time"
        if task is not None and task.done():
            task.result()
        await asyncio.sleep(0.05)


def samples(count):
    """Give the values of some events."""
    return [event.to_json() for event in stories(count)]


def ids(values):
    """Give the event ids that parsing finds in values."""
    numbers = list(range(len(values)))
    return parse(values, partition=0, offsets=numbers, timestamps_ms=numbers).table["event_id"].to_pylist()


async def test_each_committed_event_is_stored_once_and_aborted_ones_never(broker, prefix, tmp_path):
    """Events of aborted transactions do not appear; all others do, once, also over a restart."""
    settings = await ready(broker, prefix)
    values = samples(300)
    third = len(values) // 3
    await send(settings, values[:third])
    async with running(settings, tmp_path, max_rows=300) as task:
        await until(lambda: len(stored(tmp_path)) >= third, task=task)
        await send(settings, values[third : 2 * third], abort=True)
        await send(settings, values[2 * third :])
        await asyncio.sleep(0.2)
    async with running(settings, tmp_path, max_rows=300) as task:
        await until(lambda: len(stored(tmp_path)) >= len(values) - third, task=task)
        await asyncio.sleep(0.5)
    assert sorted(stored(tmp_path)) == sorted(ids(values[:third] + values[2 * third :]))


async def test_cancelling_writes_out_what_is_buffered(broker, prefix, tmp_path):
    """A sink that is told to stop leaves nothing that it has read for the next one to read again."""
    settings = await ready(broker, prefix, partitions=1)
    values = samples(20)
    await send(settings, values, partitions=1)
    taken = asyncio.Event()

    class Seen(Unobserved):
        def lag(self, partition, records):  # noqa: ARG002 - the protocol's
            if records <= 1:  # nothing but the transaction's marker is left
                taken.set()

    async with running(settings, tmp_path, freshness_s=3600, observe=Seen()):
        async with asyncio.timeout(30):
            await taken.wait()
        assert stored(tmp_path) == []
    assert stored(tmp_path) == ids(values)


async def test_an_event_is_readable_within_the_freshness_when_traffic_has_stopped(kafka, prefix, tmp_path):
    """Without any later record, the last event is visible within the bound, time after time."""
    settings = await ready(kafka, prefix, partitions=1)
    values = samples(4)
    async with running(settings, tmp_path, freshness_s=3.0) as task:
        await send(settings, values[:1], partitions=1)
        await until(lambda: len(stored(tmp_path)) == 1, task=task)
        for number in range(1, 4):
            await send(settings, values[number : number + 1], partitions=1)
            begun = time.monotonic()
            await until(lambda number=number: len(stored(tmp_path)) == number + 1, task=task)
            assert time.monotonic() - begun < 3.0


async def test_bad_records_go_to_the_dead_letters_before_the_file_appears(broker, prefix, tmp_path):
    """A rejected record is dead-lettered with position and reason first; then its neighbours are stored."""
    settings = await ready(broker, prefix, partitions=1)
    values = samples(3)
    bad = {2: b"nonsense", 5: b'{"evidenceVersion":"9.0"}'}
    mixed = list(values)
    for index, value in bad.items():
        mixed.insert(index, value)
    await send(settings, mixed, transactional=False, partitions=1)
    letters, seen = Letters(), []

    async def dead_letter(rejected):
        seen.append(len(stored(tmp_path)))
        await letters(rejected)

    async with running(settings, tmp_path, dead_letter=dead_letter) as task:
        await until(lambda: len(stored(tmp_path)) >= len(values), task=task)
    found = [(record.offset, record.code, record.size, record.topic) for record in letters.rejected]
    topic = settings.name(EVIDENCE)
    assert found == [(2, "not_json", 8, topic), (5, "unsupported_version", 25, topic)]
    assert seen[0] == 0
    assert stored(tmp_path) == ids(values)


async def test_nothing_is_stored_past_a_dead_letter_that_could_not_be_written(kafka, prefix, tmp_path):
    """When the dead-letter topic fails, the sink fails, and after a restart nothing is missing."""
    settings = await ready(kafka, prefix, partitions=1)
    values = samples(2)
    await send(settings, [b"bad", *values], partitions=1)

    async def broken(_rejected):
        raise KafkaError("the dead letters cannot be written")

    async with running(settings, tmp_path, dead_letter=broken) as task:
        with pytest.raises(KafkaError, match="dead letters"):
            await asyncio.wait_for(asyncio.shield(task), 30)
    assert stored(tmp_path) == []
    letters = Letters()
    async with running(settings, tmp_path, dead_letter=letters) as task:
        await until(lambda: len(stored(tmp_path)) == len(values), task=task)
    assert [record.code for record in letters.rejected] == ["not_json"]


async def test_bad_records_alone_are_not_rejected_again_after_a_restart(kafka, prefix, tmp_path):
    """A flush without a good record is remembered too."""
    settings = await ready(kafka, prefix, partitions=1)
    await send(settings, [b"bad", b"worse"], partitions=1)
    letters = Letters()
    async with running(settings, tmp_path, dead_letter=letters) as task:
        await until(lambda: letters.rejected and commits(tmp_path, settings.name(EVIDENCE))[-1].next >= 2, task=task)
    assert commits(tmp_path, settings.name(EVIDENCE))[-1].rejected == ((0, 1),)
    async with running(settings, tmp_path, dead_letter=letters) as task:
        await send(settings, samples(1), partitions=1)
        await until(lambda: stored(tmp_path), task=task)
    assert [record.offset for record in letters.rejected] == [0, 1]


async def test_a_second_sink_takes_over_or_is_told_who_holds_the_partition(kafka, prefix, tmp_path):
    """A sink in another group cannot write the same partition: it waits, and then fails with the holder's name."""
    settings = await ready(kafka, prefix, partitions=1)
    values = samples(3)
    await send(settings, values, partitions=1)
    async with running(settings, tmp_path) as first:
        await until(lambda: stored(tmp_path), task=first)
        async with running(settings, tmp_path, group=f"{prefix}other", lock_wait_s=0.5) as second:
            with pytest.raises(PartitionHeld, match=f"held by process {os.getpid()}"):
                await asyncio.wait_for(asyncio.shield(second), 30)
        assert not first.done()
    assert stored(tmp_path) == ids(values)


async def test_two_sinks_of_one_group_share_the_partitions(kafka, prefix, tmp_path):
    """A second member takes over some partitions, a leaving one gives them back, and each event is stored once."""
    settings = await ready(kafka, prefix, partitions=4)
    values = samples(400)
    half = len(values) // 2
    async with running(settings, tmp_path, max_rows=100) as first:
        await send(settings, values[:half], partitions=4)
        async with running(settings, tmp_path, max_rows=100) as second:
            await send(settings, values[half:], partitions=4)
            await until(lambda: len(stored(tmp_path)) >= len(values), task=first)
            assert not second.done()
    assert sorted(stored(tmp_path)) == sorted(ids(values))


async def test_a_store_ahead_of_its_topic_is_a_mismatch(kafka, prefix, tmp_path):
    """When the topic was made anew under the same log id, the sink says so instead of skipping events."""
    settings = await ready(kafka, prefix, partitions=1)
    await send(settings, samples(1), partitions=1)
    values = samples(1)
    numbers = list(range(1000, 1000 + len(values)))
    table = parse(values, partition=0, offsets=numbers, timestamps_ms=numbers).table
    with local_store(tmp_path, "home").open("cluster", settings.name(EVIDENCE), 0) as writer:
        writer.append(table, end=numbers[-1])
    async with running(settings, tmp_path) as task:
        with pytest.raises(LogMismatch, match="ahead of the topic"):
            await asyncio.wait_for(asyncio.shield(task), 30)


async def test_offsets_that_expired_unread_are_named_as_lost(kafka, prefix, tmp_path):
    """When retention passed the stored position, a signed commit names the offsets, and what is there is stored."""
    settings = await ready(kafka, prefix, partitions=1)
    values = samples(10)
    await send(settings, values[:20], partitions=1, transactional=False)
    async with running(settings, tmp_path) as task:
        await until(lambda: len(stored(tmp_path)) == 20, task=task)
    await send(settings, values[20:40], partitions=1, transactional=False)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(settings.name(EVIDENCE), 0): RecordsToDelete(before_offset=30)})
    finally:
        await admin.close()
    told = []

    class Seen(Unobserved):
        def lost(self, partition, offsets):
            told.append((partition, offsets))

    async with running(settings, tmp_path, observe=Seen()) as task:
        await until(lambda: len(stored(tmp_path)) == 30, task=task)
    assert told == [(0, 10)]
    lost = [lost for commit in commits(tmp_path, settings.name(EVIDENCE)) for lost in commit.lost]
    assert lost == [Lost(((20, 29),), "expired")]
    assert stored(tmp_path) == ids(values[:20] + values[30:40])


async def test_silence_is_committed(kafka, prefix, tmp_path):
    """Where nothing comes, commits without rows say until when nothing came, and each is signed as any other."""
    settings = await ready(kafka, prefix, partitions=1)
    async with running(settings, tmp_path, idle_s=0.3) as task:
        await until((tmp_path / "logs").exists, task=task)
        await until(lambda: len(commits(tmp_path, settings.name(EVIDENCE))) >= 4, task=task)
    said = commits(tmp_path, settings.name(EVIDENCE))
    assert {(commit.size, commit.next, commit.add) for commit in said} == {(0, 0, ())}
    assert all(after.time > before.time for before, after in itertools.pairwise(said))


async def test_no_broker_is_a_retryable_error(tmp_path):
    """The host may start the sink again when no broker answers."""
    store = local_store(tmp_path, "home")
    sink = Sink(kafka=KafkaSettings("127.0.0.1:1"), store=store, log_id="cluster", dead_letter=Letters())
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1"):
        await sink.run()


async def test_a_full_disk_stops_the_sink_and_costs_nothing(kafka, prefix, tmp_path):
    """When the disk fails the sink fails with a retryable error; with space again everything is stored once."""
    settings = await ready(kafka, prefix, partitions=1)
    values = samples(5)
    await send(settings, values, partitions=1)

    class FullDisk(Disk):
        def write(self, path, data):
            super().write(path, data[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    async with running(settings, tmp_path, disk=FullDisk()) as task:
        with pytest.raises(UnavailableError, match="No space left on device"):
            await asyncio.wait_for(asyncio.shield(task), 30)
    assert stored(tmp_path) == []
    async with running(settings, tmp_path) as task:
        await until(lambda: len(stored(tmp_path)) == len(values), task=task)
    assert stored(tmp_path) == ids(values)


class SlowDisk(Disk):
    """Takes its time to make things durable."""

    def sync(self, path):
        """Wait, then do it."""
        time.sleep(0.05)
        super().sync(path)


async def test_a_slow_disk_makes_evidence_late_and_costs_nothing(kafka, prefix, tmp_path):
    """While a flush takes seconds, what waits is told in seconds, and in the end each event is there once."""
    settings = await ready(kafka, prefix, partitions=1)
    values = samples(150)
    waited = []

    class Seen(Unobserved):
        def waiting(self, seconds):
            waited.append(seconds)

    await send(settings, values, partitions=1)
    async with running(settings, tmp_path, disk=SlowDisk(), max_rows=200, observe=Seen()) as task:
        await until(lambda: len(stored(tmp_path)) == len(values), task=task)
        await until(lambda: waited[-1] == 0, task=task)
    assert max(waited) > 0.5
    assert stored(tmp_path) == ids(values)


async def test_a_rebalance_in_the_middle_of_a_write_costs_nothing(kafka, prefix, tmp_path):
    """A second member joins while the first one writes slowly: the flush ends or is fenced, and nothing is lost."""
    settings = await ready(kafka, prefix, partitions=2)
    values = samples(300)
    await send(settings, values, partitions=2)
    async with running(settings, tmp_path, disk=SlowDisk(), max_rows=100, freshness_s=5.0) as first:
        await until(lambda: list((tmp_path / "tmp").glob("*")) and stored(tmp_path), task=first)
        async with running(settings, tmp_path, disk=SlowDisk(), max_rows=100) as second:
            await until(lambda: len(stored(tmp_path)) >= len(values), task=first)
            assert not second.done()
    assert sorted(stored(tmp_path)) == sorted(ids(values))


async def test_killing_the_sink_again_and_again_loses_nothing_and_doubles_nothing(kafka, prefix, tmp_path):
    """After kill -9 at random moments, under traffic with aborted transactions, each event is stored exactly once."""
    settings = await ready(kafka, prefix)
    values = samples(2500)
    aborted = [value.replace(b'"eventId":"', b'"eventId":"aborted-') for value in values[:400]]
    rng = random.Random(20260301)  # noqa: S311 - the same moments every time
    program = [sys.executable, str(SUPPORT / "sink_process.py"), kafka, prefix, str(tmp_path), "400"]
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT.parents[1])}

    async def traffic():
        for begin in range(0, len(values), 800):
            await send(settings, values[begin : begin + 800], batch=100)
            await send(settings, aborted[begin // 8 : begin // 8 + 100], abort=True)
            await asyncio.sleep(0.3)

    sending = asyncio.create_task(traffic())
    kills = 0
    expected = sorted(ids(values))
    deadline = time.monotonic() + 120
    while True:
        assert time.monotonic() < deadline
        child = subprocess.Popen(program, env=environment, stdout=subprocess.PIPE)  # noqa: ASYNC220 - it must outlive the loop's hiccups
        try:
            if kills < 4:
                before = len(stored(tmp_path))
                while len(stored(tmp_path)) == before and not (sending.done() and before >= len(values)):
                    await asyncio.sleep(0.02)
                    assert time.monotonic() < deadline
                await asyncio.sleep(rng.random() * 0.4)
                child.send_signal(signal.SIGKILL)
                kills += 1
                continue
            await sending
            assert await asyncio.to_thread(child.stdout.readline) == b"running\n"
            await until(lambda: len(stored(tmp_path)) >= len(values), seconds=60)
            await asyncio.sleep(1)
            child.terminate()
            assert await asyncio.to_thread(child.wait, 20) == 0
            break
        finally:
            if child.poll() is None:
                child.kill()
            child.wait()
            child.stdout.close()
    assert sorted(stored(tmp_path)) == expected
