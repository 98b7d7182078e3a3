"""`waybill receipt` against a broker: which of several responses of one request id stands."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import orjson
import pytest
import typer
from command_rig import Commands, Said
from topic_rig import topics

from streams.kafka import KafkaSettings, producer
from streams.topics import RESPONSES
from waybill.cli import receipt
from waybill.cli.traffic import standing

pytestmark = pytest.mark.kafka


def response(outcome: str, code: str = "", text: str = "") -> dict[str, Any]:
    """A response of the request `order-1`, as it travels."""
    made: dict[str, Any] = {"requestId": "order-1", "outcome": outcome, "endedAtUtc": "2026-11-24T12:00:00Z"}
    if code:
        made["failure"] = {"code": code, "message": "why"}
    if text:
        made["output"] = {"text": text}
    return made


COMPLETED = response("completed", text="forty-two")
CONFLICT = response("rejected", "idempotency_conflict")
INVALID = response("rejected", "unknown_field")
DUPLICATE = {**response("duplicate", "duplicate"), "duplicateOf": "order-1"}
FAILED = response("failed", "timeout")
LATER = response("completed", text="forty-three")


@pytest.mark.parametrize(
    ("came", "stands"),
    [
        ([COMPLETED, CONFLICT, DUPLICATE, INVALID], COMPLETED),
        ([INVALID, COMPLETED, CONFLICT], COMPLETED),
        ([COMPLETED, LATER], COMPLETED),
        ([FAILED, LATER], LATER),
        ([COMPLETED, FAILED], COMPLETED),
        ([FAILED, CONFLICT, DUPLICATE], FAILED),
        ([INVALID, CONFLICT, DUPLICATE], CONFLICT),
        ([DUPLICATE], DUPLICATE),
        ([], None),
    ],
)
def test_later_arrival_never_hides_the_answer(came: list[dict[str, Any]], stands: dict[str, Any] | None) -> None:
    """The first answer stands; where there is none, the newest work, then the newest rejection, then a duplicate."""
    assert standing(came) is stands


async def written(kafka: KafkaSettings, *responses: dict[str, Any]) -> None:
    """Put responses on their topic, under their request's id."""
    writer = producer(kafka)
    await writer.start()
    try:
        for one in responses:
            await writer.send_and_wait(kafka.name(RESPONSES), orjson.dumps(one), key=one["requestId"].encode())
    finally:
        await writer.stop()


def test_receipt_shows_the_answer_and_tells_of_the_others(
    kafka: str, prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The answer comes first, a line tells of each other arrival of the id, and the JSON holds all of them."""
    settings = asyncio.run(topics(kafka, prefix))
    asyncio.run(written(settings, INVALID, COMPLETED, CONFLICT, DUPLICATE, {**COMPLETED, "requestId": "order-2"}))
    app = typer.Typer()
    app.command()(receipt.receipt)

    def said(*arguments: str) -> Said:
        return Commands(app, settings, monkeypatch, capsys)(*arguments)

    shown = said("order-1")
    assert "completed" in shown.out.partition("another request")[0]
    assert [line.strip() for line in shown.out.splitlines() if "another request with this id" in line] == [
        f"another request with this id: {told} at 2026-11-24T12:00:00Z; it changed nothing here"
        for told in ("rejected (unknown_field)", "rejected (idempotency_conflict)", "duplicate")
    ]
    assert json.loads(said("order-1", "--json").out) == {**COMPLETED, "others": [INVALID, CONFLICT, DUPLICATE]}
    assert "others" not in json.loads(said("order-2", "--json").out)
