"""Evidence as the pipeline writes it: whole stories of made-up requests, the same ones for the same seed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from evidence.records import (
    Classification,
    EventType,
    EvidenceEvent,
    Failure,
    Outcome,
    Placement,
    PolicyRef,
    Position,
    Retained,
    RouteRef,
    Stage,
    Usage,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
"""When the first made-up request is admitted, unless told otherwise."""

ROUTES = {
    "local-small": RouteRef(
        name="local-small", placement=Placement.LOCAL, provider="triton", model="smollm2-135m", region="on-premises"
    ),
    "hosted-eu": RouteRef(
        name="hosted-eu", placement=Placement.HOSTED, provider="stand-in", model="large-1", region="eu-central-1"
    ),
    "hosted-us": RouteRef(
        name="hosted-us", placement=Placement.HOSTED, provider="stand-in", model="large-2", region="us-east-1"
    ),
}
"""The routes that made-up requests take."""

TENANTS = ("acme", "globex", "initech")
"""The tenants on whose behalf they run."""

KINDS = ("email", "iban", "phone")
"""What detectors find in them."""


class Story:
    """Writes the events of one intake, one after the other."""

    def __init__(self, number: int, begin: datetime, rng: random.Random) -> None:
        self.rng = rng
        self.now = begin
        self.number = number
        self.intake = hashlib.sha256(f"{number}/{begin.isoformat()}".encode()).hexdigest()[:32]
        self.trace = hashlib.sha256(self.intake.encode()).hexdigest()[:32]
        self.tenant = rng.choice(TENANTS)
        self.task = rng.choice(("summarise", "extract", "chat"))
        self.sequence = 0
        self.events: list[EvidenceEvent] = []

    def say(self, kind: EventType, stage: Stage, **fields: Any) -> EvidenceEvent:
        """Add the next event, a few milliseconds after the one before."""
        self.now += timedelta(microseconds=self.rng.randrange(200, 90_000))
        event = EvidenceEvent(
            event_id=f"{self.intake}-{self.sequence}",
            event_type=kind,
            request_id=f"req-{self.number:08d}",
            intake_id=self.intake,
            correlation_id=f"job-{self.number // 10:06d}",
            trace_id=self.trace,
            span_id=hashlib.sha256(f"{self.intake}{self.sequence}".encode()).hexdigest()[:16],
            sequence=self.sequence,
            occurred_at_utc=self.now,
            stage=stage,
            site="home",
            identity="unsigned",
            actor_ref=f"user-{self.number % 17}",
            tenant_ref=self.tenant,
            task_type=self.task,
            purpose="support",
            deadline_utc=self.now + timedelta(minutes=5),
            source=Position(topic="ai.requests", partition=self.number % 4, offset=self.number),
            **fields,
        )
        self.sequence += 1
        self.events.append(event)
        return event


def story(number: int, *, seed: int = 1, begin: datetime = NOON) -> list[EvidenceEvent]:
    """Give every event of one made-up request, in order."""
    rng = random.Random(f"{seed}/{number}")  # noqa: S311 - the same stories every time, not secrets
    told = Story(number, begin + timedelta(milliseconds=37 * number), rng)
    digest = hashlib.sha256(f"input {number}".encode()).hexdigest()
    admitted = {"input_sha256": digest, "input_bytes": rng.randrange(40, 4000)}
    if rng.random() < 0.05:
        failure = Failure(
            code=rng.choice(("unknown_label", "unknown_field")), message="The request broke its contract."
        )
        told.say(EventType.REQUEST_REJECTED, Stage.ADMISSION, outcome=Outcome.REJECTED, failure=failure, **admitted)
        return told.events
    told.say(EventType.REQUEST_ADMITTED, Stage.ADMISSION, **admitted)
    findings = tuple(sorted(rng.sample(KINDS, k=rng.choice((0, 0, 0, 1, 2)))))
    classification = Classification(
        declared=rng.choice(("public", "internal")),
        detected="confidential" if findings else None,
        effective="confidential" if findings else "internal",
        findings=findings,
    )
    told.say(EventType.DATA_CLASSIFIED, Stage.ADMISSION, classification=classification, duration_ms=rng.random())
    if rng.random() < 0.05:
        denied = PolicyRef(decision="deny", policy_id="routes", policy_version="0" * 64, reasons=("no_route",))
        told.say(EventType.POLICY_DECIDED, Stage.ADMISSION, classification=classification, policy=denied)
        told.say(EventType.REQUEST_ENDED, Stage.ADMISSION, outcome=Outcome.DENIED, policy=denied)
        return told.events
    allowed = PolicyRef(decision="allow", policy_id="routes", policy_version="0" * 64, reasons=("class_allowed",))
    told.say(EventType.POLICY_DECIDED, Stage.ADMISSION, classification=classification, policy=allowed)
    names = ["local-small"] if findings else rng.sample(("hosted-eu", "hosted-us"), k=2)
    told.say(
        EventType.ROUTE_SELECTED,
        Stage.ADMISSION,
        route=ROUTES[names[0]],
        fallbacks=tuple(names[1:]),
        waybill_hash=digest,
    )
    _attempts(told, names, rng, classification)
    return told.events


def _attempts(told: Story, names: list[str], rng: random.Random, classification: Classification) -> None:
    for attempt, name in enumerate(names, start=1):
        route, ms = ROUTES[name], rng.random() * 900
        intent = told.say(
            EventType.MODEL_INTENDED,
            Stage.DISPATCH,
            route=route,
            attempt=attempt,
            waybill_hash="a" * 64,
            classification=classification,
        )
        common = {"route": route, "attempt": attempt, "intent_id": intent.event_id, "duration_ms": ms}
        chance = rng.random()
        if chance < 0.1:
            failure = Failure(code="http_503", message="The destination answered 503.", retryable=True)
            told.say(EventType.MODEL_FAILED, Stage.DISPATCH, failure=failure, **common)
            continue
        if chance < 0.15 and route.placement is Placement.HOSTED:
            failure = Failure(code="timeout", message="The call may have been accepted; its answer is lost.")
            told.say(EventType.MODEL_FAILED, Stage.DISPATCH, failure=failure, **common)
            told.say(EventType.REQUEST_ENDED, Stage.DISPATCH, outcome=Outcome.UNKNOWN, route=route, failure=failure)
            return
        tokens_in, tokens_out = rng.randrange(20, 900), rng.randrange(1, 400)
        usage = Usage(input_tokens=tokens_in, output_tokens=tokens_out, cost_usd=tokens_in * 1e-6 + tokens_out * 3e-6)
        told.say(EventType.MODEL_COMPLETED, Stage.DISPATCH, usage=usage, first_chunk_ms=ms / 3, **common)
        outcome = Outcome.REFUSED if chance > 0.95 else Outcome.COMPLETED
        told.say(EventType.RESPONSE_FILTERED, Stage.DISPATCH, route=route, retained=Retained(action="keep"))
        told.say(
            EventType.REQUEST_ENDED,
            Stage.DISPATCH,
            outcome=outcome,
            route=route,
            usage=usage,
            attempt=attempt,
            output_sha256=hashlib.sha256(told.intake.encode()).hexdigest(),
            output_bytes=tokens_out * 4,
            duration_ms=ms + 5,
        )
        return
    failure = Failure(code="no_route_left", message="Every allowed attempt failed.", retryable=True)
    told.say(EventType.REQUEST_ENDED, Stage.DISPATCH, outcome=Outcome.FAILED, failure=failure, attempt=len(names))


def stories(count: int, *, seed: int = 1, begin: datetime = NOON) -> Iterator[EvidenceEvent]:
    """Give the events of many requests, request after request."""
    for number in range(count):
        yield from story(number, seed=seed, begin=begin)
