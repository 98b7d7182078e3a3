"""Admission as a pure function: one record in, the records that follow from it out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from evidence.canonical import sha256_hex
from evidence.errors import RecordError
from evidence.records import Classification, EventType, Failure, Outcome, Placement, Position, Stage
from inference.routes import RouteTable
from policy.labels import DataClass
from streams import envelope
from streams.processors.classification import Scanner, classify
from streams.processors.routing import Decision, Endpoint, decide, waybills
from streams.request import RuntimeRequest, parse, readable_request_id
from streams.response import Asked, DeadLetter, Receipt, Response
from streams.scribe import Scribe
from streams.story import UNREADABLE, Story, intake_id, span_id, trace_of, traceparent
from streams.topics import DEADLETTER, RESPONSES, WORK_HOSTED, WORK_LOCAL, Topic
from streams.transactions import Outgoing
from streams.work import Work

UNSIGNED: Final = "unsigned"
"""Identity that the request merely states; evidence says so."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A record as it lies on `ai.requests`."""

    position: Position
    """Where."""

    timestamp_ms: int
    """Its own time, in milliseconds since 1970."""

    value: bytes | None
    """The data."""

    headers: Sequence[tuple[str, bytes | None]]
    """CloudEvents and trace context."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What admission decides by."""

    table: RouteTable
    """Who may answer what."""

    endpoints: Mapping[str, Endpoint]
    """Where routes lead."""

    scanner: Scanner
    """Finds personal data and secrets."""

    site: str
    """Where this runs."""

    log_id: str
    """Which log the offsets belong to."""

    max_bytes: int
    """Largest request that is taken."""

    name: Callable[[Topic], str]
    """A topic's name on the broker."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """What follows from one record."""

    records: tuple[Outgoing, ...]
    """To be written, in one transaction with the position."""

    result: str
    """`admitted`, `denied` or `rejected`."""

    reason: str = ""
    """The rejection's code."""


def admit(record: Incoming, rules: Rules, now: datetime) -> Admitted:
    """Decide on one record: work to be done, a denial, or a rejection with its dead letter."""
    intake = _intake(record, rules)
    try:
        head, request = _read(record, rules, now)
    except RecordError as error:
        return refuse(record, error, rules, now)
    return _Admission(record, intake, head, request, rules, now).run()


def _read(record: Incoming, rules: Rules, now: datetime) -> tuple[envelope.Envelope, RuntimeRequest]:
    size = len(record.value or b"")
    if size > rules.max_bytes:
        raise RecordError("oversized", f"the record has {size} bytes; {rules.max_bytes} are allowed")
    head = envelope.read(record.headers)
    request = parse(record.value)
    if head.declared_class is not None and head.declared_class != request.classification:
        raise RecordError("label_conflict", "header ce_dataclassification differs from the request's classification")
    if request.deadline_utc is not None and request.deadline_utc <= now:
        raise RecordError("expired_deadline", "the deadline had passed when the request was read")
    return head, request


def refuse(record: Incoming, error: RecordError, rules: Rules, now: datetime) -> Admitted:
    """Give the dead letter, the evidence and, where the request id can be read, the response of a rejected record."""
    intake = _intake(record, rules)
    value = record.value or b""
    request_id = readable_request_id(record.value)
    parent, tracestate = envelope.trace_context(record.headers)
    trace_id, app_span = trace_of(parent, intake)
    root = span_id(intake, "request")
    digest = sha256_hex(value)
    failure = Failure(code=error.code, message=str(error)[:2000])
    subject = request_id or intake
    story = Story(
        stage=Stage.ADMISSION,
        intake=intake,
        sequence=0,
        span=root,
        request_id=request_id or UNREADABLE,
        trace_id=trace_id,
        parent_span_id=app_span,
        site=rules.site,
    )
    hop = _hop(rules, subject, traceparent(trace_id, root), tracestate)
    scribe = Scribe(story, hop, name=rules.name, key=subject)
    event = scribe.say(
        EventType.REQUEST_REJECTED,
        now,
        outcome=Outcome.REJECTED,
        failure=failure,
        source=record.position,
        input_sha256=digest,
        input_bytes=len(value),
    )
    letter = DeadLetter(
        source=record.position,
        source_timestamp_ms=record.timestamp_ms,
        request_id=request_id,
        failure=failure,
        payload_sha256=digest,
        payload_bytes=len(value),
        recorded_at_utc=now,
        stage=Stage.ADMISSION,
    )
    scribe.write(DEADLETTER, letter.to_json(), envelope.DEADLETTER_TYPE, f"{event}/deadletter", now)
    if request_id is not None:
        response = Response(request_id=request_id, outcome=Outcome.REJECTED, ended_at_utc=now, failure=failure)
        scribe.write(RESPONSES, response.to_json(), envelope.RESPONSE_TYPE, f"{event}/response", now)
    return Admitted(tuple(scribe.take()), "rejected", error.code)


class _Admission:
    """The way of one request that could be read."""

    def __init__(
        self,
        record: Incoming,
        intake: str,
        head: envelope.Envelope,
        request: RuntimeRequest,
        rules: Rules,
        now: datetime,
    ) -> None:
        self.record, self.intake, self.request, self.rules, self.now = record, intake, request, rules, now
        self.trace_id, self.app_span = trace_of(head.traceparent, intake)
        self.tracestate = head.tracestate
        self.root = span_id(intake, "request")
        span = span_id(intake, "admission")
        story = Story(
            stage=Stage.ADMISSION,
            intake=intake,
            sequence=0,
            span=span,
            parent_span_id=self.root,
            trace_id=self.trace_id,
            **said_of(request, rules.site, UNSIGNED),
        )
        hop = _hop(rules, request.request_id, traceparent(self.trace_id, span), head.tracestate)
        self.scribe = Scribe(story, hop, name=rules.name, key=request.request_id)

    def run(self) -> Admitted:
        request, rules, value = self.request, self.rules, self.record.value or b""
        self.scribe.say(
            EventType.REQUEST_ADMITTED,
            self.now,
            span_id=self.root,
            parent_span_id=self.app_span,
            deadline_utc=request.deadline_utc,
            input_sha256=sha256_hex(value),
            input_bytes=len(value),
            source=self.record.position,
        )
        classification = classify(request.classification, request.texts(), rules.scanner)
        self.scribe.say(EventType.DATA_CLASSIFIED, self.now, classification=classification)
        effective = DataClass(classification.effective)
        decision = decide(request, effective, rules.table)
        self.scribe.say(EventType.POLICY_DECIDED, self.now, classification=classification, policy=decision.policy)
        if not decision.routes:
            return self.deny(classification, decision)
        contracts = waybills(self.intake, request, effective, decision, rules.endpoints)
        chosen = decision.routes[0]
        contract = contracts.get(chosen.name)
        self.scribe.say(
            EventType.ROUTE_SELECTED,
            self.now,
            classification=classification,
            route=chosen.ref(rules.endpoints[chosen.endpoint].provider),
            fallbacks=tuple(route.name for route in decision.routes[1:]),
            waybill_hash=contract.digest() if contract else None,
        )
        work = Work(
            intake_id=self.intake,
            scope=request.scope(),
            fingerprint=request.fingerprint(),
            identity=UNSIGNED,
            trace_id=self.trace_id,
            parent_span_id=self.root,
            root_span_id=self.app_span,
            trace_state=self.tracestate,
            admitted_at_utc=self.now,
            next_sequence=self.scribe.story.sequence,
            request=request,
            classification=classification,
            policy=decision.policy,
            routes=tuple(route.name for route in decision.routes),
            waybills=contracts,
            source=self.record.position,
        )
        topic = WORK_HOSTED if chosen.placement is Placement.HOSTED else WORK_LOCAL
        self.scribe.write(topic, work.to_json_with(value), envelope.WORK_TYPE, self.intake, self.now, key=work.scope)
        return Admitted(tuple(self.scribe.take()), "admitted")

    def deny(self, classification: Classification, decision: Decision) -> Admitted:
        told = "policy allows no route: " + ", ".join(decision.policy.reasons[1:])
        failure = Failure(code="denied", message=told[:2000])
        ended = self.scribe.say(
            EventType.REQUEST_ENDED,
            self.now,
            span_id=self.root,
            parent_span_id=self.app_span,
            outcome=Outcome.DENIED,
            failure=failure,
            classification=classification,
            policy=decision.policy,
        )
        response = Response(
            request_id=self.request.request_id,
            correlation_id=self.request.correlation_id,
            outcome=Outcome.DENIED,
            ended_at_utc=self.now,
            failure=failure,
            receipt=Receipt(
                intake_id=self.intake,
                trace_id=self.trace_id,
                asked=asked(self.request),
                identity=UNSIGNED,
                classification=classification,
                policy=decision.policy,
                left_the_site=False,
            ),
        )
        self.scribe.write(RESPONSES, response.to_json(), envelope.RESPONSE_TYPE, f"{ended}/response", self.now)
        return Admitted(tuple(self.scribe.take()), "denied")


def said_of(request: RuntimeRequest, site: str, identity: str) -> dict[str, Any]:
    """Give what every event of a request says of it."""
    return {
        "request_id": request.request_id,
        "correlation_id": request.correlation_id,
        "site": site,
        "identity": identity,
        "actor_ref": f"{request.actor.kind}:{request.actor.id}",
        "tenant_ref": request.tenant.id,
        "session_ref": request.session,
        "task_type": request.task_type,
        "purpose": request.purpose,
    }


def asked(request: RuntimeRequest) -> Asked:
    """Give a receipt's summary of what was asked for."""
    return Asked(
        task_type=request.task_type,
        purpose=request.purpose,
        placement=request.model_policy.placement,
        regions=request.model_policy.regions,
    )


def _hop(rules: Rules, subject: str, hop: str, tracestate: str) -> envelope.Hop:
    return envelope.Hop(
        source=f"/waybill/{rules.site}/admission", subject=subject, traceparent=hop, tracestate=tracestate
    )


def _intake(record: Incoming, rules: Rules) -> str:
    place = record.position
    return intake_id(rules.log_id, place.topic, place.partition, place.offset, record.timestamp_ms)
