"""What follows from an answer on a request that waited: pure, from the request to the records to be written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from evidence.records import ApprovalRef, EventType, Failure, Outcome, PolicyRef, Stage
from streams import envelope
from streams.approvals import ApprovalClosed, ApprovalRequest, ApprovalVerdict, Approver, released
from streams.envelope import APPROVAL_TYPE
from streams.response import Response
from streams.scribe import Scribe
from streams.story import Story, event_id, span_id, traceparent
from streams.topics import APPROVALS, RESPONSES, WORK_HOSTED, WORK_LOCAL, Topic
from streams.transactions import Outgoing

_WORK: Final = {topic.name: topic for topic in (WORK_LOCAL, WORK_HOSTED)}


@dataclass(frozen=True, slots=True)
class Answer:
    """What follows, to be written in one transaction."""

    records: tuple[Outgoing, ...]
    """In order."""

    marker: ApprovalClosed
    """The one among them that says that it was done."""

    outcome: Outcome | None
    """How the request ended; None where it goes on."""


class Answering:
    """Writes the answer on one request.

    Args:
        request: what waited.
        site: where this runs.
        name: a topic's name on the broker.
        now: the time.
    """

    def __init__(self, request: ApprovalRequest, *, site: str, name: Callable[[Topic], str], now: datetime) -> None:
        self._request = request
        self._now = now
        span = span_id(request.approval_id, "approval")
        story = Story(
            stage=Stage.APPROVALS,
            intake=request.approval_id,
            sequence=request.next_sequence,
            span=span,
            parent_span_id=request.parent_span_id,
            trace_id=request.trace_id,
            request_id=request.request_id,
            correlation_id=request.correlation_id,
            site=site,
            identity=request.identity,
            actor_ref=request.actor_ref,
            tenant_ref=request.tenant,
            session_ref=request.session_ref,
            subject_ref=request.subject_ref,
            task_type=request.task_type,
            purpose=request.purpose,
        )
        hop = envelope.Hop(
            source=f"/waybill/{site}/approvals",
            subject=request.request_id,
            traceparent=traceparent(request.trace_id, span),
            tracestate=request.trace_state,
        )
        self._scribe = Scribe(story, hop, name=name, key=request.request_id)

    def approved(self, approver: Approver, note: str) -> Answer:
        """Let the request go on to its work topic."""
        request, scribe = self._request, self._scribe
        ref = request.ref(approver=approver.id, note=note)
        event = scribe.say(
            EventType.APPROVAL_APPROVED, self._now, identity=approver.method, approval=ref, policy=self._override()
        )
        work = released(request.work, next_sequence=scribe.story.sequence, approval=ref)
        topic = _WORK[request.work_topic]
        scribe.write(topic, work, envelope.WORK_TYPE, request.approval_id, self._now, key=request.work_key)
        return self._close("approved", event, approver.id, None)

    def denied(self, approver: Approver, note: str) -> Answer:
        """End the request: a person refused it."""
        told = f"{self._request.authority} refused it" + (f": {note}" if note else "")
        failure = Failure(code="approval_denied", message=told)
        ref = self._request.ref(approver=approver.id, note=note)
        event = self._scribe.say(
            EventType.APPROVAL_DENIED, self._now, identity=approver.method, approval=ref, failure=failure
        )
        return self._end("denied", event, Outcome.DENIED, failure, ref)

    def expired(self) -> Answer:
        """End the request: nobody answered in time."""
        failure = Failure(
            code="approval_expired",
            message=f"nobody with the role {self._request.authority} answered in time",
            retryable=True,
        )
        ref = self._request.ref()
        event = self._scribe.say(EventType.APPROVAL_EXPIRED, self._now, approval=ref, failure=failure)
        return self._end("expired", event, Outcome.EXPIRED, failure, ref)

    def erased(self) -> Answer:
        """End the request: the person whom it is about was erased while it waited."""
        failure = Failure(code="erased", message="what is kept about the person was erased while this waited")
        ref = self._request.ref()
        event = self._scribe.say(EventType.APPROVAL_EXPIRED, self._now, approval=ref, failure=failure)
        return self._end("expired", event, Outcome.EXPIRED, failure, ref)

    def _override(self) -> PolicyRef | None:
        """Give the new decision of an override; the one that it overrides stays as it was."""
        request = self._request
        if request.kind != "override":
            return None
        return PolicyRef(
            decision="allow",
            policy_id=request.policy_id,
            policy_version=request.policy_version,
            reasons=(f"{request.route}:override",),
            decision_id=event_id(request.approval_id, self._scribe.story.sequence),
            scope=f"{request.action}:{request.route}"[:256],
            approval_id=request.approval_id,
            expires_at_utc=request.expires_at,
            overrides=request.decision_id,
        )

    def _end(self, result: str, event: str, outcome: Outcome, failure: Failure, ref: ApprovalRef) -> Answer:
        request, scribe, now = self._request, self._scribe, self._now
        ended = scribe.say(
            EventType.REQUEST_ENDED,
            now,
            span_id=request.parent_span_id,
            parent_span_id=request.root_span_id,
            outcome=outcome,
            failure=failure,
            approval=ref,
        )
        response = Response(
            request_id=request.request_id,
            correlation_id=request.correlation_id,
            outcome=outcome,
            ended_at_utc=now,
            failure=failure,
        )
        value = response.to_json()
        if request.receipt is not None:
            # As admission wrote it: what has waited for days may be of an older version than this program.
            value = value[:-1] + b',"receipt":' + request.receipt.encode() + b"}"
        scribe.write(RESPONSES, value, envelope.RESPONSE_TYPE, f"{ended}/response", now)
        return self._close(result, event, ref.approver, outcome)

    def _close(self, result: str, event: str, approver: str | None, outcome: Outcome | None) -> Answer:
        request = self._request
        marker = ApprovalClosed.model_validate(
            {
                "approval_id": request.approval_id,
                "request_id": request.request_id,
                "result": result,
                "approver": approver,
                "event_id": event,
                "closed_at_utc": self._now,
            }
        )
        identity = f"{event}/closed"
        self._scribe.write(APPROVALS, marker.to_json(), APPROVAL_TYPE, identity, self._now, key=request.approval_id)
        return Answer(tuple(self._scribe.take()), marker, outcome)


def note_of(verdict: ApprovalVerdict, mask: Callable[[str], str]) -> str:
    """Give an approver's note with what detectors find masked, no longer than evidence takes."""
    return mask(verdict.note)[:512] if verdict.note else ""
