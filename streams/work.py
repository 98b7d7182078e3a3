"""What admission hands to dispatch, on the work topics, and what dispatch remembers of it, on `ai.ledger`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from evidence.records import Classification, Outcome, PolicyRef, Position, Record, ShortText, Utc
from policy.contract import Waybill
from streams.request import RuntimeRequest


class Work(Record):
    """An admitted request with its decision."""

    work_version: Literal["1.0"] = "1.0"
    """Version of this form."""
    intake_id: ShortText
    """Our id of this arrival of the request."""
    scope: ShortText
    """Idempotency scope."""
    fingerprint: ShortText
    """Digest of the payload."""
    identity: ShortText
    """How actor and tenant were established."""
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
    next_sequence: int = Field(ge=0)
    """Where the story goes on."""
    request: RuntimeRequest
    """The request."""
    classification: Classification
    """What the data is held to be."""
    policy: PolicyRef
    """The decision."""
    routes: tuple[ShortText, ...] = Field(min_length=1)
    """The chosen route and then its fallbacks, in order."""
    waybills: dict[str, Waybill] = Field(default_factory=dict)
    """The contract of each hosted route among them, by the route's name."""
    source: Position
    """The request's place on `ai.requests`."""

    def to_json_with(self, request: bytes) -> bytes:
        """Give the record's bytes around the request's own, as they came: it was read from these very bytes."""
        rest = self.__pydantic_serializer__.to_json(self, by_alias=True, exclude_none=True, exclude={"request"})
        return rest[:-1] + b',"request":' + request + b"}"


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
    next_sequence: int = Field(ge=0)
    """Where the story goes on."""
    attempt: int | None = Field(default=None, ge=1)
    """The attempt that was intended."""
    intent_id: ShortText | None = None
    """Its event id."""
    route: ShortText | None = None
    """Its route."""
    resent: bool = False
    """Whether the one repeat is used up that policy may allow after a lost answer."""
    outcome: Outcome | None = None
    """How it ended."""
