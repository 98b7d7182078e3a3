"""Changes of consent: the entry and the evidence of it, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from evidence.records import ConsentRef, EventType, Position
from streams import envelope
from streams.consent import ConsentEntry, Scope
from streams.envelope import CONSENT_TYPE
from streams.kafka import KafkaSettings
from streams.operator import Deed, tell_with
from streams.story import span_id, traceparent
from streams.topics import CONSENT
from streams.transactions import Outgoing


@dataclass(frozen=True, slots=True)
class Change:
    """A change that is durable."""

    scope: Scope
    """What it is about."""

    revision: str
    """Where the topic says so: `<partition>:<offset>`."""

    event_id: str
    """The evidence of it."""


async def record(kafka: KafkaSettings, entry: ConsentEntry, *, site: str) -> Change:
    """Write an entry; when this returns it is durable, and registers see it within a fetch.

    Raises:
        BrokerUnavailable: the broker did not confirm; look whether it is there before you do it again.
    """
    digest = entry.digest()
    said = {"change": entry.state, "entrySha256": digest, "reference": entry.reference}
    deed = _deed(entry.scope, entry.recorded_by, entry.state, said, basis=entry.reference)
    made = _outgoing(kafka, entry.scope, entry.to_json(), digest[:32], site, entry.recorded_at_utc)
    (change,) = await _write(kafka, [entry.scope], [deed], [made], site, entry.recorded_at_utc)
    return change


async def forget(
    kafka: KafkaSettings, scopes: Sequence[Scope], *, by: str, site: str, now: datetime
) -> tuple[Change, ...]:
    """Write tombstones, which erase entries from the topic; the evidence that they were there stays.

    Args:
        kafka: how to reach the broker.
        scopes: what is to be forgotten; all of it, or nothing.
        by: who does it, as `kind:id`.
        site: where.
        now: when.

    Raises:
        BrokerUnavailable: the broker did not confirm; look whether it is there before you do it again.
    """
    deeds = [_deed(scope, by, "none", {"change": "forgotten"}, basis=None) for scope in scopes]
    stamp = now.isoformat()
    made = [_outgoing(kafka, scope, b"", span_id(scope.key, stamp) * 2, site, now) for scope in scopes]
    return await _write(kafka, scopes, deeds, made, site, now)


def _deed(scope: Scope, by: str, state: str, said: Mapping[str, Any], *, basis: str | None) -> Deed:
    told = {name: value for name, value in said.items() if value is not None}
    return Deed(
        EventType.CONSENT_CHANGED,
        f"consent:{span_id(scope.key, 'consent')}",  # the same for each change of one scope, so that they have an order
        by,
        {
            "tenant_ref": scope.tenant,
            "subject_ref": scope.subject,
            "purpose": scope.purpose,
            "consent": ConsentRef(basis=basis or "none", state=state),
            "detail": orjson.dumps(told).decode(),
        },
    )


def _outgoing(kafka: KafkaSettings, scope: Scope, value: bytes, identity: str, site: str, now: datetime) -> Outgoing:
    subject = span_id(scope.key, "consent")
    hop = envelope.Hop(
        source=f"/waybill/{site}/operator", subject=subject, traceparent=traceparent(identity, identity[:16])
    )
    return Outgoing(kafka.name(CONSENT), scope.key.encode(), value, hop.headers(CONSENT_TYPE, identity, now))


async def _write(
    kafka: KafkaSettings,
    scopes: Sequence[Scope],
    deeds: Sequence[Deed],
    made: Sequence[Outgoing],
    site: str,
    now: datetime,
) -> tuple[Change, ...]:
    written = await tell_with(kafka, deeds, made, site=site, now=now)
    told = zip(scopes, written.places, written.event_ids, strict=True)
    return tuple(Change(scope, _revision(place), event_id) for scope, place, event_id in told)


def _revision(place: Position) -> str:
    return f"{place.partition}:{place.offset}"
