"""Parking: a request that needs a person waits on `ai.approvals`, complete and sealed, until somebody answers."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from evidence.records import EventType
from policy.questions import Outcome
from streams.approvals import ApprovalRequest
from streams.envelope import APPROVAL_TYPE
from streams.processors.cases import from_json
from streams.processors.routing import Decision
from streams.response import Receipt
from streams.scribe import Scribe
from streams.topics import APPROVALS, Topic
from streams.work import Work

APPROVAL_S: Final = 24 * 60 * 60.0
"""How long a person has to answer, in seconds, where the request's own deadline is not earlier."""


def park(
    scribe: Scribe, work: Work, topic: Topic, decision: Decision, receipt: Receipt, *, now: datetime, expires: datetime
) -> None:
    """Write the question to a person, and the evidence that it was asked.

    Args:
        scribe: tells the request's story.
        work: what is to be released.
        topic: where it goes then.
        decision: why a person is asked.
        receipt: the receipt, should nobody approve.
        now: the time.
        expires: when it is too late for an answer.
    """
    said, policy = work.said, work.policy
    case = from_json(policy.inputs or "")
    request = ApprovalRequest(
        approval_id=work.intake_id,
        request_id=said.request_id,
        correlation_id=said.correlation_id,
        kind="override" if decision.outcome is Outcome.ESCALATE else "approval",
        authority=policy.required_approvals[0],
        identity=said.identity,
        tenant=said.tenant_ref,
        actor_ref=said.actor_ref,
        session_ref=said.session_ref,
        subject_ref=said.subject_ref,
        task_type=said.task_type,
        purpose=said.purpose,
        deadline_utc=work.deadline_utc,
        data_class=work.classification.effective,
        findings=work.classification.findings,
        redaction=policy.redaction,
        route=work.routes[0],
        action=case.facts.action,
        resource=decision.routes[0].name,
        payload_sha256=work.payload_sha256,
        decision_id=policy.decision_id or work.intake_id,
        policy_id=policy.policy_id,
        policy_version=policy.policy_version,
        reasons=policy.reasons,
        requested_at_utc=now,
        expires_at_utc=expires,
        next_sequence=scribe.story.sequence + 1,
        trace_id=work.trace_id,
        parent_span_id=work.parent_span_id,
        root_span_id=work.root_span_id,
        trace_state=work.trace_state,
        work=work.model_copy(update={"next_sequence": scribe.story.sequence + 1}).to_json().decode(),
        work_topic=topic.name,
        work_key=work.scope,
        receipt=receipt.to_json().decode(),
    )
    scribe.say(EventType.APPROVAL_REQUESTED, now, approval=request.ref(), classification=work.classification)
    scribe.write(
        APPROVALS, request.to_json(), APPROVAL_TYPE, f"{work.intake_id}/approval", now, key=request.approval_id
    )
