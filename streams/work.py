"""What admission hands to dispatch, on the work topics, and what dispatch remembers of it, on `ai.ledger`."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field

from evidence.records import (
    ApprovalRef,
    Classification,
    ConsentRef,
    ContextUse,
    Outcome,
    PolicyRef,
    Position,
    Record,
    Redaction,
    ShortText,
    Utc,
)
from policy.contract import Waybill

LAST_SEQUENCE: Final = 1_000_000
"""More events than any story has; what goes on from there still fits evidence."""


def person_of(subject_ref: str | None, actor_ref: str) -> str:
    """Give the person whom data is about: the one that a request names, else whoever asks."""
    return subject_ref or actor_ref.partition(":")[2]


class Said(Record):
    """What every event of a request says of it; never anything of its texts."""

    request_id: ShortText
    """The application's id."""
    correlation_id: ShortText | None = None
    """The larger task."""
    identity: ShortText
    """How actor and tenant were established."""
    actor_ref: ShortText
    """On whose behalf: `<kind>:<id>`."""
    tenant_ref: ShortText
    """For which tenant."""
    session_ref: ShortText | None = None
    """In which session."""
    subject_ref: ShortText | None = None
    """The person whom the data is about, where that is not the actor."""
    task_type: ShortText
    """What kind of work."""
    purpose: ShortText
    """What the data may be used for."""

    @property
    def person(self) -> str:
        """The person whom the data is about."""
        return person_of(self.subject_ref, self.actor_ref)

    def fields(self) -> dict[str, Any]:
        """Give them by the names of an evidence event's fields."""
        return dict(self)


class Work(Record):
    """An admitted request with its decision."""

    work_version: Literal["1.1"] = "1.1"
    """Version of this form."""
    intake_id: ShortText
    """Our id of this arrival of the request."""
    scope: ShortText
    """Idempotency scope."""
    fingerprint: ShortText
    """Digest of the payload."""
    said: Said
    """What every event of it says."""
    deadline_utc: Utc | None = None
    """When an answer is of no more use."""
    trace_id: ShortText
    """W3C trace id."""
    parent_span_id: ShortText
    """The request's own span."""
    root_span_id: ShortText | None = None
    """The application's span, where it sent one."""
    trace_state: str = ""
    """W3C tracestate, handed on unchanged."""
    admitted_at_utc: Utc
    """When it was admitted."""
    next_sequence: int = Field(ge=0, le=LAST_SEQUENCE)
    """Where the story goes on."""
    sealed: str
    """The redacted view of the request, and what its pseudonyms stand for: encrypted, and bound to the intake."""
    payload_sha256: ShortText
    """Digest of what is sealed: what an approval binds."""
    classification: Classification
    """What the data is held to be."""
    consent: ConsentRef
    """What was known of consent."""
    policy: PolicyRef
    """The decision; its inputs are the case that is decided again before anything is sent."""
    routes: tuple[ShortText, ...] = Field(min_length=1)
    """The chosen route and then its fallbacks, in order."""
    sources: tuple[int, ...] = ()
    """Places of the request's sources that go along."""
    context: ContextUse | None = None
    """The same, by name, with those that stayed."""
    redaction: Redaction | None = None
    """What was taken out."""
    approval: ApprovalRef | None = None
    """The approval that it rests on."""
    waybills: dict[str, Waybill] = Field(default_factory=dict)
    """The contract of each hosted route among them, by the route's name."""
    source: Position
    """The request's place on `ai.requests`."""


class LedgerEntry(Record):
    """How far the work of one idempotency scope has come."""

    request_id: ShortText
    """The request that holds the scope."""
    intake_id: ShortText
    """The arrival that holds it."""
    fingerprint: ShortText
    """Digest of its payload."""
    state: Literal["intended", "ended"]
    """`intended`: a hosted call may have been made. `ended`: a response was written."""
    work: Position
    """Where its work record lies."""
    recorded_at_utc: Utc
    """When."""
    next_sequence: int = Field(ge=0, le=LAST_SEQUENCE)
    """Where the story goes on."""
    attempt: int | None = Field(default=None, ge=1, le=LAST_SEQUENCE)
    """The attempt that was intended."""
    intent_id: ShortText | None = None
    """Its event id."""
    route: ShortText | None = None
    """Its route."""
    resent: bool = False
    """Whether the one repeat is used up that policy may allow after a lost answer."""
    outcome: Outcome | None = None
    """How it ended."""
