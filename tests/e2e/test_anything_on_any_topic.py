"""Anything is written onto every topic that the pipeline reads, and a good request is answered after each of it.

The records follow from a seed, which is printed. `FUZZ_SEED` names another one, and `FUZZ_RECORDS` how many there are;
`make fuzz` sets the latter.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from approvals_made import asked
from pipeline_process import Pipeline, running_pipeline
from raw_batches import RawProducer
from requests_made import request
from topic_fuzz import Fuzz, Samples, Written

from streams.consent import ConsentEntry
from streams.kafka import KafkaSettings, consumer
from streams.topics import ALL, APPROVALS, CONSENT, EVIDENCE, LEDGER, REQUESTS
from streams.transactions import partition_of
from waybill.dev_topics import TABLE

RECORDS = int(os.environ.get("FUZZ_RECORDS", "2000"))
SEED = int(os.environ.get("FUZZ_SEED", "20261129"))
GROUP = 100
"""Batches between two looks at whether a good request is answered; every topic has its share of them."""

PARTITIONS = 2
ANSWERED_S = 60.0
AT_ONCE = 25


@pytest.mark.kafka
@pytest.mark.timeout(60 + RECORDS)
async def test_a_good_request_is_answered_whatever_lies_on_the_topics(kafka, prefix, tmp_path):
    """Noise, near misses, broken batches, odd times and bombs on every topic: the worker lives and answers."""
    print(f"FUZZ_SEED={SEED} FUZZ_RECORDS={RECORDS}")  # noqa: T201 - what a failure is repeated by
    async with running_pipeline(tmp_path, kafka, prefix, partitions=PARTITIONS) as pipeline:
        pipeline.notes.append(f"FUZZ_SEED={SEED}")
        await any_time(pipeline.kafka)
        worker = await pipeline.start_worker()
        await pipeline.send_all([request(f"sample-{number}") for number in range(6)])
        await pipeline.until_answered()
        fuzz, samples, good, taken = Fuzz(SEED, PARTITIONS), await good_records(pipeline.kafka), count(), Counter[str]()
        topics = [pipeline.kafka.name(topic) for topic in (*ALL, TABLE)]
        async with RawProducer(kafka) as raw:
            written = 0
            while written < RECORDS:
                group = [
                    fuzz.write(topics[place % len(topics)], samples[topics[place % len(topics)]])
                    for place in range(GROUP)
                ]
                written += sum(each.records for each in group)
                taken += await write(raw, group)
                await answered(pipeline, next(good), group)
        assert worker.running
        await restarted(pipeline)
        await answered(pipeline, next(good), ())
        await pipeline.healthy()
        await commands(pipeline)
        print(f"{written} records: {dict(taken)}, {len(pipeline.dead)} dead letters")  # noqa: T201 - the same
    assert taken["taken"] > RECORDS / 10
    reasons = {letter["failure"]["code"] for letter in pipeline.dead if isinstance(letter.get("failure"), dict)}
    assert {"bad_envelope", "bad_work", "bad_approval", "unreadable_record"} <= reasons


async def any_time(kafka: KafkaSettings) -> None:
    """Let topics take records of any time, as brokers did until lately."""
    admin = AIOKafkaAdminClient(**kafka.client_options())
    await admin.start()
    try:
        late = {"message.timestamp.after.max.ms": str(2**63 - 1), "message.timestamp.before.max.ms": str(2**63 - 1)}
        for topic in ALL:
            config = {**topic.settings(), **late}
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, kafka.name(topic), config)])
    finally:
        await admin.close()


async def good_records(kafka: KafkaSettings) -> Samples:
    """Give what the pipeline itself has written on each topic; of approvals and consent, what it would write."""
    found: dict[str, list[tuple[bytes | None, bytes | None, Any]]] = {kafka.name(each): [] for each in (*ALL, TABLE)}
    reader = consumer(kafka, group=None)
    await reader.start()
    try:
        reader.assign([TopicPartition(topic, number) for topic in found for number in range(PARTITIONS)])
        await reader.seek_to_beginning()
        end = time.monotonic() + 3
        while time.monotonic() < end:
            for records in (await reader.getmany(timeout_ms=200)).values():
                for record in records:
                    found[record.topic].append((record.key, record.value, record.headers))
    finally:
        await reader.stop()
    entry = ConsentEntry(
        tenant="acme", subject="sam", purpose="support", state="granted", recorded_at_utc=datetime.now(UTC),
        recorded_by="human:ann",
    )  # fmt: skip
    waits = [asked(number, seconds=seconds) for number, seconds in ((1, 3600), (2, 1))]
    found[kafka.name(CONSENT)].append((entry.scope.key.encode(), entry.to_json(), ()))
    found[kafka.name(APPROVALS)] += [(each.approval_id.encode(), each.to_json(), ()) for each in waits]
    assert all(found[kafka.name(topic)] for topic in (REQUESTS, EVIDENCE, LEDGER))
    return found


async def write(raw: RawProducer, group: Sequence[Written]) -> Counter[str]:
    """Write a group, some batches at a time; count what the broker took and what it refused."""
    taken = Counter[str]()
    for place in range(0, len(group), AT_ONCE):
        sent = [raw.send(each.topic, each.partition, each.data) for each in group[place : place + AT_ONCE]]
        for code, _ in await asyncio.gather(*sent):
            taken["refused by the broker" if code else "taken"] += 1
    return taken


async def answered(pipeline: Pipeline, number: int, group: Sequence[Written]) -> None:
    """Send a good request to each partition and wait for its answer; each stage has read what came before by then."""
    names = (f"good-{number}-{place}" for place in count())
    wanted: dict[int, str] = {}
    while len(wanted) < PARTITIONS:
        name = next(names)
        wanted.setdefault(partition_of(name.encode(), PARTITIONS), name)
    await pipeline.send_all([request(name) for name in wanted.values()])
    told = f"answers to {sorted(wanted.values())} after {Counter((each.topic, each.told) for each in group)}"
    await pipeline.until(lambda: wanted_is_there(pipeline, wanted.values()), ANSWERED_S, told)
    for name in wanted.values():
        assert [one["outcome"] for one in pipeline.responses[name]] == ["completed"], pipeline.told([name])


def wanted_is_there(pipeline: Pipeline, names: Any) -> bool:
    """Tell whether each has a response; a worker that has ended gives none any more."""
    assert pipeline.worker().running, pipeline.told(["the worker has ended"])
    return all(name in pipeline.responses for name in names)


async def restarted(pipeline: Pipeline) -> None:
    """End the worker in order and start it again: it reads ledger, consent and its tables from the beginning."""
    await pipeline.worker().stop(60)
    assert pipeline.worker().returncode == 0, pipeline.told(["the worker did not end in order"])
    await pipeline.start_worker()


async def commands(pipeline: Pipeline) -> None:
    """Run the commands that read topics: none of them fails at what lies there."""
    for arguments in (("receipt", "good-0-0"), ("approvals", "list"), ("consent", "list")):
        await pipeline.command(*arguments)
