"""What a person does at the command line, told as evidence: each deed is a story of one event that is whole at once.

A deed and the records that carry it out are one transaction: either both are there, or neither is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import uuid4

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from pydantic import ValidationError

from evidence.errors import RecordError
from evidence.records import EventType, EvidenceEvent, Outcome, Position, Stage
from streams import envelope
from streams.errors import BrokerUnavailable
from streams.kafka import KafkaSettings, producer
from streams.scribe import Scribe
from streams.story import Story, span_id, trace_of, traceparent
from streams.topics import Topic
from streams.transactions import Outgoing

UNSIGNED: Final = "unsigned"
"""Identity of an operator who merely says who they are."""

_LIMIT_S: Final = 30.0
"""Seconds after which a broker that does not answer is taken for gone; a person waits."""

_END_S: Final = 5.0
"""Seconds that ending a client may take."""


@dataclass(frozen=True, slots=True)
class Deed:
    """One thing that an operator did."""

    event_type: EventType
    """What was done."""

    request_id: str
    """The request that it is about, or an id of its own; it decides the partition."""

    actor_ref: str
    """Who did it, as `kind:id`."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    """What else the event says: fields of `EvidenceEvent`. `identity` is `unsigned` unless it is given here."""


@dataclass(frozen=True, slots=True)
class Written:
    """What is durable now."""

    event_ids: tuple[str, ...]
    """Ids of the events, in the order of the deeds."""

    places: tuple[Position, ...]
    """Where the other records lie, in their order."""


async def tell(
    kafka: KafkaSettings,
    deeds: Sequence[Deed],
    *,
    site: str,
    now: datetime,
    fresh: Callable[[], str] = lambda: uuid4().hex,
) -> tuple[str, ...]:
    """Write deeds on `ai.evidence`; when this returns, they are on all in-sync replicas.

    Args:
        kafka: how to reach the broker.
        deeds: what was done; all are written, or none.
        site: where.
        now: when.
        fresh: gives a new id, 32 hex digits.

    Returns:
        The ids of the events.

    Raises:
        RecordError: `bad_deed`: a field is none of an event's, or its value does not fit.
        BrokerUnavailable: the broker did not confirm, so that what the deeds are about must not be relied on.
    """
    return (await tell_with(kafka, deeds, (), site=site, now=now, fresh=fresh)).event_ids


async def tell_with(
    kafka: KafkaSettings,
    deeds: Sequence[Deed],
    extra: Sequence[Outgoing],
    *,
    site: str,
    now: datetime,
    fresh: Callable[[], str] = lambda: uuid4().hex,
) -> Written:
    """Write deeds, and the records that carry them out, in one transaction.

    Args:
        kafka: how to reach the broker.
        deeds: what was done.
        extra: the other records; an empty value is a tombstone.
        site: where.
        now: when.
        fresh: gives a new id, 32 hex digits.

    Raises:
        RecordError: `bad_deed`: a field is none of an event's, or its value does not fit.
        BrokerUnavailable: the broker did not confirm; look whether the records are there before you do it again.
    """
    events = [event(deed, site=site, now=now, intake=fresh(), name=kafka.name) for deed in deeds]
    # An identity that no other program has: there is nobody to fence, and nobody fences this.
    made = producer(kafka, transactional_id=f"{kafka.prefix}waybill-operator-{fresh()}")
    try:
        async with asyncio.timeout(_LIMIT_S):
            await made.start()
            placed = await _write(made, [*extra, *(record for _, record in events)])
    except (KafkaError, OSError, TimeoutError) as error:
        raise BrokerUnavailable(
            f"the broker at {kafka.bootstrap} did not confirm that this was written: {error or type(error).__name__}"
        ) from error
    finally:
        await _bounded(made.stop())
    places = [Position(topic=at.topic, partition=at.partition, offset=at.offset) for at in placed[: len(extra)]]
    return Written(tuple(identity for identity, _ in events), tuple(places))


def event(deed: Deed, *, site: str, now: datetime, intake: str, name: Callable[[Topic], str]) -> tuple[str, Outgoing]:
    """Give a deed's event: its id, and the record to be written.

    Raises:
        RecordError: `bad_deed`: a field is none of an event's, or its value does not fit.
    """
    trace_id, _ = trace_of(None, intake)
    span = span_id(intake, "operator")
    said = {"identity": UNSIGNED, **deed.fields, "request_id": deed.request_id, "actor_ref": deed.actor_ref}
    if unknown := sorted(set(said) - set(EvidenceEvent.model_fields)):
        raise RecordError("bad_deed", f"an event has no field {', '.join(unknown)}")
    story = Story(stage=Stage.OPERATOR, intake=intake, sequence=0, span=span, trace_id=trace_id, site=site)
    hop = envelope.Hop(
        source=f"/waybill/{site}/operator", subject=deed.request_id, traceparent=traceparent(trace_id, span)
    )
    scribe = Scribe(story, hop, name=name, key=deed.request_id)
    # The outcome closes the story: nothing follows a deed, and nobody has to wait for it.
    identity = scribe.say(deed.event_type, now, **{**said, "outcome": Outcome.COMPLETED})
    (record,) = scribe.take()
    try:
        EvidenceEvent.model_validate_json(record.value)
    except ValidationError as error:
        wrong = sorted({str(problem["loc"][0]) if problem["loc"] else "event" for problem in error.errors()})
        raise RecordError("bad_deed", f"these fields of a deed do not fit an event: {', '.join(wrong)}") from None
    return identity, record


async def _write(made: AIOKafkaProducer, records: Sequence[Outgoing]) -> list[Any]:
    """Write records in one transaction; give what the broker says of each."""
    await made.begin_transaction()
    try:
        sent = [
            await made.send(record.topic, key=record.key, value=record.value or None, headers=record.headers)
            for record in records
        ]
        placed = await asyncio.gather(*sent)
    except BaseException:
        # Else readers would wait for it until the broker gives it up by itself.
        await _bounded(made.abort_transaction())
        raise
    await made.commit_transaction()
    return placed


async def _bounded(ending: Coroutine[Any, Any, None]) -> None:
    """Give what ends a client a few seconds: a broker that is gone is not waited for twice."""
    with suppress(KafkaError, OSError, TimeoutError, AssertionError):  # aiokafka asserts that it was not fenced
        await asyncio.wait_for(ending, _END_S)
