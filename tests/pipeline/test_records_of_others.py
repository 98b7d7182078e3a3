"""Records that nobody here would write, on the topics of the stages: each has its end, and the rest goes on."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from decisions import utc_now
from raw_batches import Raw, RawProducer, batch, compress, record, seal
from requests_made import encoded, headers, request
from stage_rig import Provider, Reader, Worker, asked, send, topics

from streams.kafka import KafkaSettings, producer
from streams.metrics import Metrics
from streams.stages.correlation import Correlation
from streams.topics import DEADLETTER, EVIDENCE, LEDGER, REQUESTS, RESPONSES, WORK_HOSTED, Topic

pytestmark = [
    pytest.mark.kafka,
    # Tasks are cancelled in mid-connect on purpose.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CODECS = ["gzip", "snappy", "lz4", "zstd"]
EVERYTHING = (RESPONSES, EVIDENCE, DEADLETTER, WORK_HOSTED)


async def put(kafka: KafkaSettings, topic: Topic, *values: tuple[bytes | None, bytes | None]) -> None:
    """Put keys and values on a topic."""
    made = producer(kafka)
    await made.start()
    try:
        for key, value in values:
            await made.send_and_wait(kafka.name(topic), value, key=key, partition=0)
    finally:
        await made.stop()


def letters(reader: Reader) -> Counter[str]:
    """Count the dead letters by code."""
    return Counter(letter["failure"]["code"] for letter in reader.found["ai.deadletter"])


def ended(reader: Reader) -> dict[str, str]:
    """Give how each request ended, by its response."""
    return {response["requestId"]: response["outcome"] for response in reader.responses}


@pytest.mark.parametrize("codec", CODECS)
async def test_each_codec_of_producers_and_of_topics_is_read(kafka, prefix, codec):
    """Requests that a producer has compressed, and those that the broker compresses by the topic's setting."""
    settings = await topics(kafka, prefix)
    admin = AIOKafkaAdminClient(**settings.client_options())
    await admin.start()
    for topic in (WORK_HOSTED, EVIDENCE):
        config = {**topic.settings(), "compression.type": codec}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, settings.name(topic), config)])
    await admin.close()
    async with Provider() as provider, Reader(settings) as reader, Worker(settings, provider.backend):
        async with AIOKafkaProducer(**settings.client_options(), compression_type=codec) as made:
            for name in ("one", "two"):
                await made.send_and_wait(settings.name(REQUESTS), encoded(request(name)), headers=headers(name))
        await reader.until_responses(2)
    assert ended(reader) == {"one": "completed", "two": "completed"}
    reader.check(["one", "two"])


async def test_what_cannot_be_read_is_a_dead_letter_with_its_place(kafka, prefix):
    """Of a header's name alone the request is still answered, as rejected; of a bomb there is only the place."""
    settings = await topics(kafka, prefix)
    good, named = encoded(request("good")), [(name.encode(), text) for name, text in headers("good")]
    bad = Raw(encoded(request("bad")), b"bad", [*((n.encode(), t) for n, t in headers("bad")), (b"x-\xff\xfe", b"1")])
    bomb = seal(4, compress(record(Raw(bytes(40 * 2**20)), 0), 4), count=1, first_ms=1, newest_ms=1)
    async with Provider() as provider, Reader(settings) as reader, Worker(settings, provider.backend):
        async with RawProducer(kafka) as raw:
            sent = [batch(bad, Raw(good, b"good", named)), bomb]
            places = [await raw.send(settings.name(REQUESTS), 0, data) for data in sent]
            assert [code for code, _ in places] == [0, 0]
        await send(settings, asked(4))
        await reader.until_responses(6)
    assert ended(reader) == {
        "bad": "rejected",
        "good": "completed",
        **{f"r{number}": "completed" for number in range(4)},
    }
    assert letters(reader) == {"bad_envelope": 1, "unreadable_record": 1}
    found = {letter["failure"]["code"]: letter["source"]["offset"] for letter in reader.found["ai.deadletter"]}
    assert found == {"bad_envelope": places[0][1], "unreadable_record": places[1][1]}


async def test_bad_work_ends_its_own_request(kafka, prefix):
    """Work of a newer version, and work whose case lacks a field: both requests fail, those beside them are served."""
    settings = await topics(kafka, prefix)
    async with Provider() as provider, Reader(settings, *EVERYTHING) as reader, Worker(settings, provider.backend):
        await send(settings, [("model", encoded(request("model")))])
        await reader.until_responses(1)
        (work,) = [one for one in reader.found["ai.work.hosted"] if one["said"]["requestId"] == "model"]
        newer = changed(work, "newer", 1, workVersion="9.9", another={"field": 1})
        poison = changed(work, "poison", 2, policy={**work["policy"], "inputs": '{"turns":1}'})
        noise: list[tuple[bytes | None, bytes | None]] = [(b"", None), (b"\xff", b"\xff\xfe"), (b"k" * 9000, b"[]")]
        await put(settings, WORK_HOSTED, (b"a", newer), (b"b", poison), *noise)
        await send(settings, asked(6))
        await reader.until_responses(9)
    assert ended(reader)["newer"] == ended(reader)["poison"] == "failed"
    assert Counter(ended(reader).values()) == {"completed": 7, "failed": 2}
    assert letters(reader) == {"bad_work": 4, "internal_error": 1}
    for name, code in (("newer", "bad_work"), ("poison", "internal_error")):
        (last,) = [event for event in reader.events if event["requestId"] == name]
        assert (last["eventType"], last["failure"]["code"]) == ("request.ended", code)


def changed(work: dict[str, Any], name: str, number: int, **changes: Any) -> bytes:
    """Give a work record of another request."""
    said = {**work["said"], "requestId": name}
    return orjson.dumps({**work, "intakeId": f"{number:032x}", "scope": f"acme/{name}", "said": said, **changes})


async def test_a_ledger_with_records_of_others_is_read(kafka, prefix, caplog):
    """They are skipped, counted and told once; a worker that starts with them serves."""
    settings = await topics(kafka, prefix, partitions=1)
    bad = [(b"\xff\xfe", b"{}"), (b"scope", b"not json"), (b"scope", b'{"requestId": 1}'), (b"k" * 500, b"[1]")]
    await put(settings, LEDGER, *bad)
    async with RawProducer(kafka) as raw:
        code, _ = await raw.send(settings.name(LEDGER), 0, batch(Raw(b"{}", b"k", [(b"\xff", b"")])))
        assert code == 0
    with caplog.at_level(logging.ERROR, "streams.ledger"):
        async with Provider() as provider, Reader(settings) as reader:
            worker = Worker(settings, provider.backend)
            async with worker:
                await send(settings, asked(4))
                await reader.until_responses(4)
    assert set(ended(reader).values()) == {"completed"}
    assert worker.metrics.registry.get_sample_value("waybill_ledger_skipped_total") == 5
    assert [entry.name for entry in caplog.records].count("streams.ledger") == 1


ODD_EVENTS: list[dict[str, Any]] = [
    {"deadlineUtc": "9999-12-31T23:59:59Z"},
    {"occurredAtUtc": "9999-12-31T23:59:59.999999Z"},
    {"occurredAtUtc": "0001-01-01T00:00:00Z"},
    {"occurredAtUtc": "0001-01-01T00:00:00+14:00"},
    {"occurredAtUtc": 17},
    {"intakeId": ["a", "list"]},
    {"intakeId": {"an": "object"}},
    {"sequence": "first"},
    {"eventType": "approval.requested", "approval": {"expiresAtUtc": "9999-12-31T23:59:59Z"}},
    {"eventType": "approval.requested", "approval": None},
    {"outcome": 1, "stage": 2},
    {"outcome": "completed"},
]


async def test_no_event_ends_correlation(kafka, prefix):
    """Whatever lies on the evidence topic, a story that follows it is told; what is none is counted."""
    settings = await topics(kafka, prefix, partitions=1)
    plain = {
        "intakeId": "i",
        "sequence": 0,
        "occurredAtUtc": "2026-11-29T12:00:00Z",
        "eventType": "x",
        "stage": "admission",
    }
    odd = [orjson.dumps({**plain, "intakeId": f"i{number}", **change}) for number, change in enumerate(ODD_EVENTS)]
    noise = [None, b"", b"[]", b"null", b"\xff", b"[" * 100_000, b"1e400", b'"\\ud800"']
    metrics = Metrics()
    stage = Correlation(settings, metrics, utc_now, None)
    running = asyncio.create_task(stage.run())
    try:
        await put(settings, EVIDENCE, *((b"k", value) for value in (*odd, *noise)))
        async with RawProducer(kafka) as raw:
            await raw.send(settings.name(EVIDENCE), 0, batch(Raw(b"{}", b"k", [(b"\xff", b"")])))
        last = {**plain, "intakeId": "good", "outcome": "completed"}
        await put(settings, EVIDENCE, (b"k", orjson.dumps(last)))
        async with asyncio.timeout(30):
            while not metrics.registry.get_sample_value("waybill_stories_total", {"complete": "yes"}):
                assert not running.done(), running
                await asyncio.sleep(0.1)
        await asyncio.sleep(2.5)  # it looks for overdue stories every two seconds
        assert not running.done()
        assert metrics.registry.get_sample_value("waybill_uncorrelated_events_total") >= len(noise)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
