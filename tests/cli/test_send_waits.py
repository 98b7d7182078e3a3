"""How long `waybill send` waits, on a real broker whose answers a test writes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from itertools import count

import orjson
import pytest
from topic_rig import topics

from streams.kafka import KafkaSettings, producer
from streams.topics import RESPONSES
from waybill.cli.lines import Line, parse_lines
from waybill.cli.traffic import Traffic, find_response

PAUSE_S, TIMEOUT_S, COUNT = 0.8, 2.0, 5


@pytest.fixture
async def broker(dev_broker, prefix) -> KafkaSettings:
    """A broker with topics of this test's own."""
    return await topics(dev_broker, prefix, partitions=1)


def lines_of(number: int) -> tuple[Line, ...]:
    """Give so many requests, `id-1` and on."""
    ids = count(1)
    asked = {
        "contractVersion": "1.0", "actor": {"id": "ana"}, "tenant": {"id": "acme"}, "taskType": "question",
        "purpose": "support", "classification": "public", "input": {"messages": [{"role": "user", "content": "?"}]},
    }  # fmt: skip
    return parse_lines(orjson.dumps([asked] * number), "x", datetime.now(UTC), lambda: f"id-{next(ids)}")


async def respond(kafka: KafkaSettings, *ends: tuple[str, str], pause_s: float = 0) -> None:
    """Write responses, one after the other."""
    made = producer(kafka)
    await made.start()
    try:
        for number, (request_id, outcome) in enumerate(ends):
            value = {"requestId": request_id, "outcome": outcome, "number": number}
            await made.send_and_wait(kafka.name(RESPONSES), orjson.dumps(value), key=request_id.encode())
            await asyncio.sleep(pause_s)
    finally:
        await made.stop()


async def test_the_time_limit_counts_from_the_last_answer(broker):
    """A batch that takes longer than the limit ends well as long as answers keep coming."""
    ends = [(f"id-{number}", "completed") for number in range(1, COUNT + 1)]
    async with Traffic(broker, lines_of(COUNT)) as traffic:
        await traffic.send(lambda _: None)
        answering = asyncio.create_task(respond(broker, *ends, pause_s=PAUSE_S))
        assert await traffic.follow(lambda _: None, TIMEOUT_S)
        await answering
    assert PAUSE_S * (COUNT - 1) > TIMEOUT_S
    assert traffic.progress.ended == COUNT


async def test_it_ends_where_nothing_comes(broker):
    """Where no answer comes for the length of the limit, waiting ends, and what came is kept."""
    async with Traffic(broker, lines_of(2)) as traffic:
        await traffic.send(lambda _: None)
        await respond(broker, ("id-1", "completed"))
        assert not await traffic.follow(lambda _: None, TIMEOUT_S)
    assert traffic.progress.responses.keys() == {"id-1"}


@pytest.mark.parametrize(
    ("ends", "shown"),
    [
        (["completed", "rejected"], 0),
        (["completed", "duplicate", "rejected", "denied"], 0),
        (["failed", "completed", "duplicate"], 1),
        (["completed", "completed"], 0),  # as docs/requests.md says, the first counts
        (["duplicate", "failed"], 1),
        (["duplicate"], 0),
    ],
)
async def test_a_later_arrival_does_not_hide_an_answer(ends, shown, broker):
    """The answer that stands is found, whatever another arrival under the same id came to."""
    await respond(broker, *(("id-1", outcome) for outcome in ends))
    found = await find_response(broker, "id-1", 20)
    assert found is not None
    assert found["number"] == shown
    assert await find_response(broker, "id-2", 20) is None
