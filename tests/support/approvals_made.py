"""Requests that wait for approval, and verdicts on them, as admission and people write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from evidence.records import EventType, Outcome, Stage
from streams import envelope
from streams.approvals import ApprovalRequest, ApprovalVerdict
from streams.envelope import APPROVAL_TYPE
from streams.scribe import Scribe
from streams.story import Story, span_id, traceparent
from streams.topics import APPROVALS

SECRET = "SECRET-MARKER-1b8f"  # noqa: S105 - a text that must not be shown anywhere
"""Stands in the sealed work of every request made here."""

WORK = (
    '{"workVersion":"1.1","intakeId":"%s","nextSequence":3,"big":12345678901234567890123,"half": 1.50,'
    '"request":{"nextSequence":99,"text":"\\"nextSequence\\":7, %s {}"}}'
)


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


def asked(number: int = 1, *, now: datetime | None = None, seconds: float = 3600, **changes: Any) -> ApprovalRequest:
    """Give a request that waits for a data steward."""
    intake = f"{number:032x}"
    begin = now or utc_now()
    fields: dict[str, Any] = {
        "approval_id": intake,
        "request_id": f"r{number}",
        "kind": "approval",
        "authority": "data-steward",
        "identity": "jwt",
        "tenant": "acme",
        "actor_ref": "user:ann",
        "task_type": "summarise",
        "purpose": "support",
        "data_class": "confidential",
        "findings": ("email",),
        "redaction": ("personal:mask",),
        "route": "hosted-eu",
        "action": "cross",
        "resource": "hosted-eu",
        "payload_sha256": f"{number:064x}",
        "decision_id": f"decision-{number}",
        "policy_id": "rules",
        "policy_version": "v1",
        "reasons": ("hosted-eu:needs-a-steward",),
        "requested_at_utc": begin,
        "expires_at_utc": begin + timedelta(seconds=seconds),
        "next_sequence": 3,
        "trace_id": f"{number + 1:032x}",
        "parent_span_id": span_id(intake, "request"),
        "work": WORK % (intake, SECRET),
        "work_topic": "ai.work.hosted",
        "work_key": f"acme/{number}",
        "receipt": '{"receiptVersion":"1.0","leftTheSite":false}',
    }
    return ApprovalRequest(**{**fields, **changes})


def verdict(request: ApprovalRequest, answer: str = "approved", **changes: Any) -> ApprovalVerdict:
    """Give a data steward's verdict on a request."""
    fields: dict[str, Any] = {
        "approval_id": request.approval_id,
        "verdict": answer,
        "override": request.kind == "override" and answer == "approved",
        "approver": "user:bob",
        "roles": ("data-steward",),
        "note": "as agreed",
        "payload_sha256": request.payload_sha256,
        "decided_at_utc": utc_now(),
    }
    return ApprovalVerdict(**{**fields, **changes})


def parked(request: ApprovalRequest, name: Any) -> list[Any]:
    """Give what admission writes about it: the beginning of its story, and the request."""
    story = Story(
        stage=Stage.ADMISSION, intake=request.approval_id, sequence=0, span=request.parent_span_id,
        trace_id=request.trace_id, request_id=request.request_id, site="here",
    )  # fmt: skip
    hop = envelope.Hop(
        source="/waybill/here/admission", subject=request.request_id,
        traceparent=traceparent(request.trace_id, request.parent_span_id),
    )  # fmt: skip
    scribe = Scribe(story, hop, name=name, key=request.request_id)
    for kind in (EventType.REQUEST_ADMITTED, EventType.POLICY_DECIDED, EventType.APPROVAL_REQUESTED):
        scribe.say(kind, request.requested_at_utc)
    scribe.write(
        APPROVALS, request.to_json(), APPROVAL_TYPE, request.approval_id, request.requested_at_utc,
        key=request.approval_id,
    )  # fmt: skip
    return scribe.take()


def check_once(
    requests: list[ApprovalRequest], events: list[dict[str, Any]], work: list[dict[str, Any]],
    responses: list[dict[str, Any]], results: dict[str, str],
) -> None:  # fmt: skip
    """Each request was answered as it should be, exactly once, in evidence, on the work topic and in responses."""
    ids = [event["eventId"] for event in events]
    assert len(set(ids)) == len(ids)
    for request in requests:
        mine = [event for event in events if event["intakeId"] == request.approval_id]
        result = results[request.request_id]
        kinds = [event["eventType"] for event in mine][3:]
        went = [one for one in work if one["intakeId"] == request.approval_id]
        said = [one for one in responses if one["requestId"] == request.request_id]
        assert [event["sequence"] for event in mine] == list(range(len(mine)))
        if result == "approved":
            assert kinds == ["approval.approved"]
            assert [(one["nextSequence"], one["approval"]["approvalId"]) for one in went] == [(4, request.approval_id)]
            assert not said
        else:
            assert kinds == [f"approval.{result}", "request.ended"]
            assert [one["outcome"] for one in said] == [Outcome(result)]
            assert not went


def as_json(value: bytes) -> Any:
    """Read a value."""
    return orjson.loads(value)
