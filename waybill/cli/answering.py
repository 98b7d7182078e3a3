"""Reads what waits for a person from `ai.approvals`, and sends answers there."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import uuid4

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from evidence.errors import RecordError
from policy.identity.verify import HEADER
from streams import envelope
from streams.approvals import ApprovalClosed, ApprovalRequest, ApprovalVerdict, read
from streams.envelope import APPROVAL_TYPE
from streams.errors import BrokerUnavailable
from streams.kafka import KafkaSettings, producer
from streams.story import traceparent
from streams.topics import APPROVALS, DEADLETTER
from waybill.cli.reading import read_through, tail

_POLL_MS: Final = 200


@dataclass(slots=True)
class Item:
    """A request for approval, and how it was closed, where it was."""

    request: ApprovalRequest
    """What waits, or waited."""

    closed: ApprovalClosed | None = None
    """How it was closed."""

    def waits(self, now: datetime) -> bool:
        """Say whether an answer can still count."""
        return self.closed is None and self.request.expires_at > now

    def state(self, now: datetime) -> str:
        """Name its state."""
        if self.closed is not None:
            return self.closed.result
        return "waiting" if self.waits(now) else "expired"


async def items(kafka: KafkaSettings, timeout_s: float) -> tuple[list[Item], int]:
    """Give every request for approval that the topic still holds, the oldest first, and how many records are broken.

    Raises:
        BrokerUnavailable: no broker answers, or not in time.
        TopicMismatch: the topic is not there.
    """
    found: dict[str, Item] = {}
    closed: dict[str, ApprovalClosed] = {}
    bad = 0

    def take(record: Any) -> None:
        nonlocal bad
        try:
            said = read(record.key, record.value)
        except RecordError:
            bad += 1
            return
        if isinstance(said, ApprovalRequest):
            found.setdefault(said.approval_id, Item(said))
        elif isinstance(said, ApprovalClosed):
            closed[said.approval_id] = said

    await read_through(kafka, APPROVALS, take, timeout_s)
    for item in found.values():
        item.closed = closed.get(item.request.approval_id)
    return sorted(found.values(), key=lambda item: item.request.requested_at_utc), bad


async def send(
    kafka: KafkaSettings,
    request: ApprovalRequest,
    verdict: ApprovalVerdict,
    token: str | None,
    *,
    site: str,
    wait_s: float,
) -> ApprovalClosed | None:
    """Send an answer and wait for what becomes of it; None where nobody took it in time.

    Raises:
        RecordError: the stage refused it, with the code.
        BrokerUnavailable: the broker did not take it.
    """
    reader = await tail(kafka, (APPROVALS, DEADLETTER))
    made = producer(kafka)
    try:
        await made.start()
        hop = envelope.Hop(
            source=f"/waybill/{site}/operator",
            subject=request.request_id,
            traceparent=traceparent(request.trace_id, uuid4().hex[:16]),
        )
        headers = hop.headers(APPROVAL_TYPE, uuid4().hex, verdict.decided_at_utc)
        if token is not None:
            headers.append((HEADER, f"Bearer {token}".encode()))
        place = await made.send_and_wait(
            kafka.name(APPROVALS), key=verdict.approval_id.encode(), value=verdict.to_json(), headers=headers
        )
        return await _follow(reader, verdict.approval_id, (place.topic, place.partition, place.offset), wait_s)
    except (KafkaError, OSError) as error:
        raise BrokerUnavailable(f"the broker at {kafka.bootstrap} did not take the answer: {error}") from error
    finally:
        await asyncio.gather(made.stop(), reader.stop(), return_exceptions=True)


async def _follow(
    reader: AIOKafkaConsumer, approval_id: str, place: tuple[str, int, int], wait_s: float
) -> ApprovalClosed | None:
    loop = asyncio.get_running_loop()
    end = loop.time() + wait_s
    while loop.time() < end:
        for records in (await reader.getmany(timeout_ms=_POLL_MS)).values():
            for record in records:
                if record.topic != place[0]:
                    _check_refused(record, place)
                elif (closed := _closed(record, approval_id)) is not None:
                    return closed
    return None


def _closed(record: Any, approval_id: str) -> ApprovalClosed | None:
    if record.key != approval_id.encode():
        return None
    try:
        said = read(record.key, record.value)
    except RecordError:
        return None
    return said if isinstance(said, ApprovalClosed) else None


def _check_refused(record: Any, place: tuple[str, int, int]) -> None:
    letter = envelope.content(record.value, objects=("source", "failure"))
    if letter is None:
        return
    source, failure = letter["source"], letter["failure"]
    if tuple(source.get(name) for name in ("topic", "partition", "offset")) == place:
        raise RecordError(str(failure.get("code")), str(failure.get("message")))
