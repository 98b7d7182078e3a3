"""Events of which every value says where it stands, so that one that is where it must not be is recognised."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from evidence_samples import NOON

from evidence.federation.columns import PATHS
from evidence.records import (
    ApprovalRef,
    Classification,
    ConsentRef,
    ContextUse,
    CredentialRef,
    EventType,
    EvidenceEvent,
    Failure,
    Outcome,
    Placement,
    PolicyRef,
    Position,
    Redaction,
    Retained,
    RouteRef,
    Stage,
    Usage,
)

FREE = frozenset({"classification.effective", "classification.regulations", "purpose"})
"""Columns whose values are given, and say nothing of where they stand."""

CLOSED = frozenset({"outcome", "route.placement", "failure.retryable", "approval.override", "log_timestamp"})
"""Columns whose values cannot be made up; whether they are null is all that can be looked at."""

MARKED = PATHS - FREE - CLOSED
"""Columns whose values are marks."""


def mark(path: str, number: int) -> str:
    """Give the value that the n-th event has in a column."""
    return f"~{path}~{number:06d}~"


def figure(path: str, number: int) -> int:
    """Give the number that the n-th event has in a column."""
    return 10_000_000 * (1 + sorted(PATHS).index(path)) + number


def event(
    number: int, *, request: str, cls: str | None, regulations: Sequence[str] = (), purpose: str | None = "support"
) -> EvidenceEvent:
    """Make an event with every column filled; without a class it has no classification."""

    def text(path: str) -> str:
        return mark(path, number)

    def some(path: str) -> tuple[str, ...]:
        return (mark(path, number),)

    moment = NOON + timedelta(seconds=number)
    return EvidenceEvent(
        event_id=text("event_id"),
        event_type=EventType.MODEL_COMPLETED,
        request_id=request,
        intake_id=text("intake_id"),
        correlation_id=text("correlation_id"),
        trace_id=text("trace_id"),
        span_id=text("span_id"),
        parent_span_id=text("parent_span_id"),
        sequence=0,
        occurred_at_utc=moment,
        stage=Stage.DISPATCH,
        site="edge-1",
        identity=text("identity"),
        actor_ref=text("actor_ref"),
        tenant_ref=text("tenant_ref"),
        session_ref=text("session_ref"),
        task_type=text("task_type"),
        purpose=purpose,
        deadline_utc=NOON + timedelta(days=1000, microseconds=figure("deadline", number)),
        classification=None
        if cls is None
        else Classification(
            declared=text("classification.declared"),
            detected=text("classification.detected"),
            effective=cls,
            findings=some("classification.findings"),
            detector=text("classification.detector"),
            categories=some("classification.categories"),
            regulations=tuple(regulations),
        ),
        policy=PolicyRef(
            decision=text("policy.decision"),
            policy_id=text("policy.policy_id"),
            policy_version=text("policy.policy_version"),
            reasons=some("policy.reasons"),
            decision_id=text("policy.decision_id"),
            scope=text("policy.scope"),
            inputs=text("policy.inputs"),
            required_approvals=some("policy.required_approvals"),
            approval_id=text("policy.approval_id"),
            expires_at_utc=NOON + timedelta(days=2000, microseconds=figure("policy.expires_at", number)),
            overrides=text("policy.overrides"),
            redaction=some("policy.redaction"),
            review_path=text("policy.review_path"),
        ),
        route=RouteRef(
            name=text("route.name"),
            placement=Placement.HOSTED,
            provider=text("route.provider"),
            model=text("route.model"),
            region=text("route.region"),
        ),
        fallbacks=some("fallbacks"),
        waybill_hash=text("waybill_hash"),
        attempt=figure("attempt", number),
        intent_id=text("intent_id"),
        usage=Usage(
            input_tokens=figure("usage.input_tokens", number),
            output_tokens=figure("usage.output_tokens", number),
            cost_usd=float(figure("usage.cost_usd", number)),
        ),
        retained=Retained(action=text("retained.action"), removed=some("retained.removed")),
        outcome=Outcome.COMPLETED,
        failure=Failure(code=text("failure.code"), message=text("failure.message"), retryable=True),
        duplicate_of=text("duplicate_of"),
        response_id=text("response_id"),
        input_sha256=text("input_sha256"),
        input_bytes=figure("input_bytes", number),
        output_sha256=text("output_sha256"),
        output_bytes=figure("output_bytes", number),
        duration_ms=float(figure("duration_ms", number)),
        first_chunk_ms=float(figure("first_chunk_ms", number)),
        source=Position(
            topic=text("source.topic"),
            partition=figure("source.partition", number),
            offset=figure("source.offset", number),
        ),
        subject_ref=text("subject_ref"),
        redaction=Redaction(applied=some("redaction.applied"), removed=some("redaction.removed")),
        context=ContextUse(selected=some("context.selected"), left=some("context.left")),
        consent=ConsentRef(basis=text("consent.basis"), state=text("consent.state"), revision=text("consent.revision")),
        approval=ApprovalRef(
            approval_id=text("approval.approval_id"),
            authority=text("approval.authority"),
            approver=text("approval.approver"),
            payload_sha256=text("approval.payload_sha256"),
            expires_at_utc=NOON + timedelta(days=3000, microseconds=figure("approval.expires_at", number)),
            override=True,
            note=text("approval.note"),
        ),
        credential=CredentialRef(
            method=text("credential.method"),
            token_id=text("credential.token_id"),
            audience=text("credential.audience"),
            scope=text("credential.scope"),
            expires_at_utc=NOON + timedelta(days=4000, microseconds=figure("credential.expires_at", number)),
        ),
        detail=text("detail"),
    )
