"""The end of a request whose work record cannot be served: dead letter and, as far as it can be read, all the rest.

A record of another version of this program, or one that somebody else wrote, is no work to do. What it says of its
request is enough, mostly, to end that one as `failed`, so that it has its response and its story an end.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from evidence.errors import RecordError
from evidence.records import EventType, Failure, Outcome, ShortText, Stage
from streams import envelope
from streams.readable import failure_of
from streams.response import Response
from streams.scribe import Scribe
from streams.stages.letters import Sender
from streams.story import Story, span_id, traceparent
from streams.topics import RESPONSES
from streams.transactions import Outgoing
from streams.work import LAST_SEQUENCE, Work

_LONGEST_ABOUT: Final = 400_000
"""Bytes of a work record beside what is sealed: most of them stand in its receipt again, beside the answer."""

INTERNAL: Final = RecordError("internal_error", "the program failed on this request; its log says how")
"""What is told of an error that has no sentence of its own."""


class _Loose(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", strict=True, hide_input_in_errors=True)


class _Said(_Loose):
    request_id: ShortText
    correlation_id: ShortText | None = None
    tenant_ref: ShortText | None = None


class Glimpse(_Loose):
    """What has to be readable of a work record for its request to be ended."""

    intake_id: ShortText
    """Our id of the request's arrival."""
    scope: ShortText
    """Idempotency scope."""
    said: _Said
    """What every event of it says."""
    trace_id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    """W3C trace id."""
    parent_span_id: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    """The request's own span."""
    root_span_id: Annotated[str, Field(pattern="^[0-9a-f]{16}$")] | None = None
    """The application's span."""
    next_sequence: int = Field(ge=0, le=LAST_SEQUENCE)
    """Where the story goes on."""


def read(record: Any) -> Work:
    """Read a work record.

    Raises:
        RecordError: it cannot be read, or is none.
    """
    unreadable = failure_of(record)
    if unreadable is not None:
        raise unreadable
    try:
        work = Work.model_validate_json(record.value or b"")
    except ValidationError as error:
        raise RecordError("bad_work", f"not a work record: {error.error_count()} fields are wrong") from None
    if len(record.value) - len(work.sealed) > _LONGEST_ABOUT:
        raise RecordError("bad_work", f"more than {_LONGEST_ABOUT} bytes beside what is sealed: no response has room")
    return work


def glimpse(value: bytes | None) -> Glimpse | None:
    """Return what can be read of the request that a record is about; None where that is not enough to end it."""
    try:
        return Glimpse.model_validate_json(value or b"")
    except ValidationError:
        return None


def end(record: Any, error: RecordError, sender: Sender, now: datetime, request: Glimpse | None) -> list[Outgoing]:
    """Return what ends a request that cannot be served.

    Args:
        record: its work record.
        error: what is wrong.
        sender: writes its dead letter.
        now: the time.
        request: what can be read of it; None leaves it at the dead letter.
    """
    if request is None:
        return [sender.letter(record, error, now)]
    said, failure = request.said, Failure(code=error.code, message=str(error)[:2000])
    story = Story(
        stage=Stage.DISPATCH,
        intake=request.intake_id,
        sequence=request.next_sequence,
        span=request.parent_span_id,
        parent_span_id=request.root_span_id,
        trace_id=request.trace_id,
        site=sender.site,
        request_id=said.request_id,
        correlation_id=said.correlation_id,
        tenant_ref=said.tenant_ref,
    )
    span = span_id(request.intake_id, "dispatch")
    hop = envelope.Hop(
        source=f"/waybill/{sender.site}/dispatch",
        subject=said.request_id,
        traceparent=traceparent(request.trace_id, span),
    )
    scribe = Scribe(story, hop, name=sender.name, key=said.request_id)
    last = scribe.say(EventType.REQUEST_ENDED, now, outcome=Outcome.FAILED, failure=failure)
    response = Response(
        request_id=said.request_id,
        correlation_id=said.correlation_id,
        outcome=Outcome.FAILED,
        ended_at_utc=now,
        failure=failure,
    )
    scribe.write(RESPONSES, response.to_json(), envelope.RESPONSE_TYPE, f"{last}/response", now)
    return [*scribe.take(), sender.letter(record, error, now, request_id=said.request_id)]
