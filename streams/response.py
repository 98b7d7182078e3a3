"""The response with its route receipt, on `ai.responses`, and the dead letter, on `ai.deadletter`."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from evidence.records import (
    ApprovalRef,
    Classification,
    ConsentRef,
    ContextUse,
    Failure,
    Outcome,
    PolicyRef,
    Position,
    Record,
    Redaction,
    Retained,
    RouteRef,
    ShortText,
    Usage,
    Utc,
)
from policy.contract import Waybill

RESPONSE_VERSION: Final = "1.0"
"""Version of the response's form."""


class Attempt(Record):
    """One call to one model."""

    attempt: int = Field(ge=1)
    """Which one, from 1."""
    route: RouteRef
    """Where it went; the provider is who answered."""
    outcome: ShortText
    """`completed`, `refused`, or the failure's code."""
    intent_id: ShortText | None = None
    """Event id of the intent that was durable before the call; None for a local call, which needs none."""
    started_at_utc: Utc
    """When the call began."""
    duration_ms: float = Field(ge=0)
    """How long it took, in milliseconds."""
    usage: Usage | None = None
    """What it cost, where the destination counted it; also where its answer was of no use."""


class Asked(Record):
    """What was asked for."""

    task_type: ShortText
    """What kind of work."""
    purpose: ShortText
    """What the data may be used for."""
    placement: ShortText
    """Which side of the boundary the application allows."""
    regions: tuple[ShortText, ...] = ()
    """Regions that the application allows; empty leaves it to policy."""


class Receipt(Record):
    """What was asked, what served it, where, after which attempts, why, under which contract, at what cost (P10)."""

    receipt_version: ShortText = RESPONSE_VERSION
    """Version of this form."""
    intake_id: ShortText
    """Our id of this arrival of the request."""
    trace_id: ShortText
    """W3C trace id."""
    asked: Asked
    """What was asked for."""
    identity: ShortText
    """How actor and tenant were established."""
    classification: Classification
    """What the data was held to be."""
    policy: PolicyRef
    """The decision, with its reasons."""
    consent: ConsentRef | None = None
    """What was known of consent at the last decision."""
    redaction: Redaction | None = None
    """What was taken out of the request before it went on."""
    context: ContextUse | None = None
    """Which of the request's sources went along."""
    approval: ApprovalRef | None = None
    """The approval that it rests on."""
    served_by: RouteRef | None = None
    """The route that answered; None where none did."""
    left_the_site: bool
    """Whether any attempt crossed to a hosted destination."""
    attempts: tuple[Attempt, ...] = ()
    """Every call, in order."""
    waybill: Waybill | None = None
    """The contract of the last crossing."""
    waybill_hash: ShortText | None = None
    """Its SHA-256, the same as in the intent and in evidence."""
    retained: Retained | None = None
    """What the retention filter did to the answer."""
    cost_usd: float = Field(default=0.0, ge=0)
    """Price of all attempts, in US dollars."""


class Provenance(Record):
    """Where an answer comes from, and under which terms it was given."""

    route: RouteRef
    """Who answered."""
    classification: ShortText
    """Class of the request that it answers: it is no less sensitive."""
    purpose: ShortText
    """What it may be used for."""
    policy_version: ShortText
    """By which rulebook it was decided."""
    decision_id: ShortText | None = None
    """By which decision."""
    waybill_hash: ShortText | None = None
    """The contract under which the request crossed; None where it did not."""
    intent_id: ShortText | None = None
    """The evidence of that crossing."""


class Output(Record):
    """The answer."""

    text: str
    """What the model said, after the retention filter."""
    finish_reason: ShortText
    """Why generation ended."""
    provenance: Provenance
    """Where it comes from and under which terms: what has to stay with the text wherever it goes next."""


class Response(Record):
    """One response; every request gets exactly one."""

    response_version: ShortText = RESPONSE_VERSION
    """Version of this form."""
    request_id: ShortText
    """The application's id of the request."""
    correlation_id: ShortText | None = None
    """The application's id of the larger task."""
    outcome: Outcome
    """How the request ended."""
    ended_at_utc: Utc
    """When."""
    output: Output | None = None
    """The answer, where there is one."""
    failure: Failure | None = None
    """Why there is none."""
    duplicate_of: ShortText | None = None
    """Request id of the work whose response stands for this one."""
    receipt: Receipt | None = None
    """The way that it went; None only where the request was rejected before anything was decided on it."""


class DeadLetter(Record):
    """A record that broke its contract. Its payload stays where it is: this says where that is, and why."""

    source: Position
    """Where the record lies."""
    source_timestamp_ms: int
    """The record's own time, in milliseconds since 1970."""
    request_id: ShortText | None = None
    """The application's id, where one could be read."""
    failure: Failure
    """Why."""
    payload_sha256: ShortText
    """Hash of the record's value."""
    payload_bytes: int = Field(ge=0)
    """Size of the record's value."""
    recorded_at_utc: Utc
    """When it was found."""
    stage: Annotated[str, Field(max_length=64)]
    """Which stage found it."""
