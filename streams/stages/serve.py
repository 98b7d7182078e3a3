"""Serving one admitted request: re-check, intent, call, filter, and the records that follow from it.

The order is the promise. Policy is asked again at the moment of sending (P1); the intent is durable before the first
byte leaves (P2); a call that may have been accepted ends as `unknown` (P5); an answer is filtered before it is written
(P6).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from time import perf_counter
from typing import Any

from evidence.canonical import sha256_hex
from evidence.records import (
    EventType,
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
from inference.backend import Backend, Completion, Message, ModelCall
from inference.errors import Ambiguous, BackendError, NotSent, Rejected
from inference.routes import RouteConfig, RouteTable
from policy.contract import Waybill
from policy.labels import DataClass
from streams import envelope
from streams.ledger import Finding, Standing
from streams.metrics import Metrics
from streams.processors.classification import Scanner
from streams.processors.retention import keep
from streams.processors.routing import Endpoint, allowed_tokens, estimate, objects
from streams.request import RuntimeRequest
from streams.response import Attempt, Output, Receipt, Response
from streams.stages.admit import asked, outgoing, said_of
from streams.story import Story, event_id, span_id, traceparent
from streams.topics import EVIDENCE, LEDGER, RESPONSES, Topic
from streams.transactions import Outgoing
from streams.work import LedgerEntry, Work

log = logging.getLogger(__name__)

Commit = Callable[[Sequence[Outgoing]], Awaitable[None]]
"""Makes records durable; returns only then."""


@dataclass(frozen=True, slots=True)
class Kitchen:
    """What serving needs, made once."""

    table: RouteTable
    """Who may answer what, as it is now."""

    endpoints: Mapping[str, Endpoint]
    """Where routes lead."""

    backends: Mapping[str, Backend]
    """Who answers, by endpoint."""

    scanner: Scanner
    """Finds what retention forbids."""

    site: str
    """Where this runs."""

    name: Callable[[Topic], str]
    """A topic's name on the broker."""

    clock: Callable[[], datetime]
    """The time, in UTC."""

    metrics: Metrics
    """Counts."""


@dataclass(slots=True)
class Served:
    """How a request ended, to be committed together with its position."""

    records: list[Outgoing]
    """Response, evidence and ledger entry."""

    entry: LedgerEntry | None
    """The ledger entry among them, where there is one."""

    outcome: Outcome
    """How it ended."""

    placement: str
    """Where it was answered: `local`, `hosted` or `none`."""


@dataclass(slots=True)
class _Answer:
    """What a good call gave."""

    route: RouteRef
    completion: Completion
    text: str
    retained: Retained
    withheld: bool


@dataclass(slots=True)
class Serving:
    """The way of one work record through dispatch."""

    kitchen: Kitchen
    work: Work
    place: Position
    commit: Commit
    _story: Story = field(init=False)
    _pending: list[Outgoing] = field(init=False, default_factory=list)
    _attempts: list[Attempt] = field(init=False, default_factory=list)
    _waybill: Waybill | None = field(init=False, default=None)
    _waybill_hash: str | None = field(init=False, default=None)
    _crossed: bool = field(init=False, default=False)
    _number: int = field(init=False, default=0)
    _cost: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        work = self.work
        span = span_id(work.intake_id, "dispatch")
        self._story = Story(
            stage=Stage.DISPATCH,
            intake=work.intake_id,
            sequence=work.next_sequence,
            span=span,
            parent_span_id=work.parent_span_id,
            trace_id=work.trace_id,
            **said_of(work.request, self.kitchen.site, work.identity),
        )

    async def run(self, finding: Finding, holder: str | None) -> Served | None:
        """Serve it; None where there is nothing left to do.

        Args:
            finding: what the ledger says of it.
            holder: the request id that holds its scope, for a duplicate.
        """
        match finding.standing:
            case Standing.ENDED:
                return None
            case Standing.DUPLICATE:
                return self._duplicate(holder or self.work.request.request_id)
            case Standing.CONFLICT:
                failure = Failure(
                    code="idempotency_conflict",
                    message="another request with a different payload holds this idempotency key",
                )
                return self._end(Outcome.REJECTED, failure=failure, ledger=False)
            case Standing.INTERRUPTED:
                return await self._resume(finding)
            case Standing.NEW:
                return await self._try(self._routes())

    def _routes(self) -> list[RouteConfig]:
        table = self.kitchen.table.by_name
        return [table[name] for name in self.work.routes if name in table]

    async def _resume(self, finding: Finding) -> Served:
        entry = finding.entry
        if entry is None or entry.route is None or entry.attempt is None:
            raise RuntimeError(f"the ledger holds no intent for interrupted work {self.work.intake_id}")
        self._story.sequence = entry.next_sequence
        self._number = entry.attempt
        self._crossed = True
        self._waybill = self.work.waybills.get(entry.route)
        self._waybill_hash = self._waybill.digest() if self._waybill else None
        route = self.kitchen.table.by_name.get(entry.route)
        failure = Failure(
            code="worker_lost",
            message="the worker ended between the intent and the answer; the call may have been made",
        )
        contract = self._waybill
        ref = RouteRef(
            name=entry.route,
            placement=Placement.HOSTED,
            provider=contract.destination.provider if contract else "unknown",
            model=contract.model_route.partition("/")[2] if contract else "unknown",
            region=contract.destination.region if contract else "unknown",
        )
        now = self.kitchen.clock()
        self._say(
            EventType.MODEL_FAILED, now, route=ref, attempt=entry.attempt, intent_id=entry.intent_id, failure=failure
        )
        self._attempts.append(
            Attempt(
                attempt=entry.attempt,
                route=ref,
                outcome=failure.code,
                intent_id=entry.intent_id,
                started_at_utc=entry.recorded_at_utc,
                duration_ms=0,
            )
        )
        if route is not None and route.on_ambiguous == "resend":
            routes = self._routes()
            return await self._try(routes[routes.index(route) :] if route in routes else [route])
        return self._end(Outcome.UNKNOWN, failure=failure)

    async def _try(self, routes: list[RouteConfig]) -> Served:
        failure = Failure(code="no_route", message="none of the routes that were chosen is in the route table any more")
        outcome = Outcome.DENIED
        queue = list(routes)
        resent = False
        while queue:
            route = queue.pop(0)
            now = self.kitchen.clock()
            deadline = self.work.request.deadline_utc
            if deadline is not None and deadline <= now:
                late = Failure(code="expired_deadline", message="the deadline passed before a model was asked")
                return self._end(Outcome.FAILED if self._attempts else Outcome.EXPIRED, failure=late)
            objection = self._objection(route)
            if objection is not None:
                failure = Failure(code="denied", message=f"policy no longer allows route {route.name}: {objection}")
                self._say(EventType.POLICY_DECIDED, now, policy=self._policy("deny", f"{route.name}:{objection}"))
                continue
            try:
                answer = await self._attempt(route)
            except BackendError as error:
                failure = Failure(code=error.code, message=str(error)[:2000], retryable=not isinstance(error, Rejected))
                outcome = Outcome.FAILED
                if isinstance(error, Rejected):
                    break
                if isinstance(error, Ambiguous) and route.placement is Placement.HOSTED:
                    if route.on_ambiguous == "stop" or resent:
                        return self._end(Outcome.UNKNOWN, failure=failure)
                    resent = True
                    queue.insert(0, route)
                continue
            return self._answered(answer)
        return self._end(outcome, failure=failure)

    def _objection(self, route: RouteConfig) -> str | None:
        request = self.work.request
        objection = objects(route, request, DataClass(self.work.classification.effective))
        if objection is None and request.budget and self._cost + estimate(route, request) > request.budget.max_cost_usd:
            return "budget"
        if objection is None and route.placement is Placement.HOSTED and route.name not in self.work.waybills:
            return "no_waybill"
        return objection

    async def _attempt(self, route: RouteConfig) -> _Answer:
        kitchen, work = self.kitchen, self.work
        self._number += 1
        span = span_id(work.intake_id, f"attempt-{self._number}")
        ref = route.ref(kitchen.endpoints[route.endpoint].provider)
        call_id = event_id(work.intake_id, self._story.sequence)
        about: dict[str, Any] = {"attempt": self._number, "span_id": span, "parent_span_id": work.parent_span_id}
        if route.placement is Placement.HOSTED:
            about["intent_id"] = call_id
            await self._intend(route, ref, call_id, about)
        call = ModelCall(
            call_id=call_id,
            model=route.model,
            messages=assemble(work.request),
            max_tokens=allowed_tokens(route, work.request),
            timeout_s=self._time_left(route),
            temperature=work.request.model_policy.temperature,
            traceparent=traceparent(work.trace_id, span),
        )
        started, began = kitchen.clock(), perf_counter()
        try:
            completion = await kitchen.backends[route.endpoint].complete(call)
        except BackendError as error:
            self._crossed |= route.placement is Placement.HOSTED and not isinstance(error, NotSent)
            self._failed(error, ref, about, started, perf_counter() - began)
            raise
        except Exception as error:
            log.exception("backend %s failed outside its contract", route.endpoint)
            self._crossed |= route.placement is Placement.HOSTED
            fault = Ambiguous("internal_error", f"the backend failed outside its contract: {type(error).__name__}")
            self._failed(fault, ref, about, started, perf_counter() - began)
            raise fault from error
        seconds = perf_counter() - began
        self._crossed |= route.placement is Placement.HOSTED
        kitchen.metrics.stage_seconds.labels("model").observe(seconds)
        return self._completed(route, completion, about, started, seconds)

    async def _intend(self, route: RouteConfig, ref: RouteRef, intent: str, about: dict[str, Any]) -> None:
        """Make the intent durable: evidence and ledger, before the first byte leaves."""
        work, now = self.work, self.kitchen.clock()
        self._waybill = contract = work.waybills[route.name]
        self._waybill_hash = contract.digest()
        self._say(
            EventType.MODEL_INTENDED,
            now,
            route=ref,
            waybill_hash=self._waybill_hash,
            policy=self._policy("allow", f"{route.name}:allowed"),
            classification=work.classification,
            **about,
        )
        entry = LedgerEntry(
            request_id=work.request.request_id,
            intake_id=work.intake_id,
            fingerprint=work.fingerprint,
            state="intended",
            work=self.place,
            recorded_at_utc=now,
            next_sequence=self._story.sequence,
            attempt=self._number,
            intent_id=intent,
            route=route.name,
        )
        self._write(LEDGER, work.scope.encode(), entry.to_json(), envelope.LEDGER_TYPE, intent, now)
        records, self._pending = self._pending, []
        began = perf_counter()
        await self.commit(records)
        self.kitchen.metrics.stage_seconds.labels("intent").observe(perf_counter() - began)

    def _completed(
        self, route: RouteConfig, completion: Completion, about: dict[str, Any], started: datetime, seconds: float
    ) -> _Answer:
        metrics, now = self.kitchen.metrics, self.kitchen.clock()
        ref = RouteRef(
            name=route.name,
            placement=route.placement,
            provider=completion.provider,
            model=completion.model,
            region=route.region,
        )
        usage = Usage(
            input_tokens=completion.input_tokens,
            output_tokens=completion.output_tokens,
            cost_usd=route.price.cost(completion.input_tokens, completion.output_tokens),
        )
        kept = keep(completion.text, route.answer, self.kitchen.scanner)
        result = "refused" if completion.refused else "completed"
        self._cost += usage.cost_usd
        first = completion.first_chunk_s
        self._say(
            EventType.MODEL_COMPLETED,
            now,
            route=ref,
            usage=usage,
            response_id=completion.response_id or None,
            duration_ms=seconds * 1000,
            first_chunk_ms=None if first is None else first * 1000,
            output_sha256=sha256_hex(kept.text.encode()),
            output_bytes=len(kept.text.encode()),
            **about,
        )
        if kept.retained.action != "keep":
            self._say(EventType.RESPONSE_FILTERED, now, route=ref, retained=kept.retained, **about)
        self._attempts.append(
            Attempt(
                attempt=self._number,
                route=ref,
                outcome=result,
                intent_id=about.get("intent_id"),
                started_at_utc=started,
                duration_ms=seconds * 1000,
                usage=usage,
            )
        )
        metrics.attempts.labels(route.name, ref.provider, result).inc()
        metrics.tokens.labels(route.name, "input").inc(usage.input_tokens)
        metrics.tokens.labels(route.name, "output").inc(usage.output_tokens)
        metrics.cost.labels(route.name).inc(usage.cost_usd)
        return _Answer(ref, completion, kept.text, kept.retained, kept.withheld)

    def _failed(
        self, error: BackendError, ref: RouteRef, about: dict[str, Any], started: datetime, seconds: float
    ) -> None:
        if error.provider:
            ref = ref.model_copy(update={"provider": error.provider})
        failure = Failure(code=error.code, message=str(error)[:2000], retryable=not isinstance(error, Rejected))
        self._say(
            EventType.MODEL_FAILED,
            self.kitchen.clock(),
            route=ref,
            failure=failure,
            duration_ms=seconds * 1000,
            **about,
        )
        self._attempts.append(
            Attempt(
                attempt=self._number,
                route=ref,
                outcome=error.code,
                intent_id=about.get("intent_id"),
                started_at_utc=started,
                duration_ms=seconds * 1000,
            )
        )
        self.kitchen.metrics.attempts.labels(ref.name, ref.provider, error.code).inc()

    def _answered(self, answer: _Answer) -> Served:
        if answer.withheld:
            failure = Failure(code="withheld", message="the answer held what retention forbids; nothing of it was kept")
            return self._end(Outcome.WITHHELD, answer=answer, failure=failure)
        return self._end(Outcome.REFUSED if answer.completion.refused else Outcome.COMPLETED, answer=answer)

    def _duplicate(self, holder: str) -> Served:
        failure = Failure(
            code="duplicate", message="the same work was taken before; the response of that request stands"
        )
        return self._end(Outcome.DUPLICATE, failure=failure, duplicate_of=holder, ledger=False)

    def _end(
        self,
        outcome: Outcome,
        *,
        answer: _Answer | None = None,
        failure: Failure | None = None,
        duplicate_of: str | None = None,
        ledger: bool = True,
    ) -> Served:
        work, now = self.work, self.kitchen.clock()
        retained = answer.retained if answer else None
        spent = (now - work.admitted_at_utc).total_seconds()
        self._say(
            EventType.REQUEST_ENDED,
            now,
            span_id=work.parent_span_id,
            parent_span_id=work.root_span_id,
            outcome=outcome,
            failure=failure,
            classification=work.classification,
            route=answer.route if answer else None,
            retained=retained,
            duplicate_of=duplicate_of,
            duration_ms=max(0.0, spent * 1000),
            usage=_total(self._attempts),
        )
        last = event_id(work.intake_id, self._story.sequence - 1)
        response = Response(
            request_id=work.request.request_id,
            correlation_id=work.request.correlation_id,
            outcome=outcome,
            ended_at_utc=now,
            output=None
            if answer is None or answer.withheld
            else Output(text=answer.text, finish_reason=answer.completion.finish_reason),
            failure=failure,
            duplicate_of=duplicate_of,
            receipt=self._receipt(answer),
        )
        self._write(RESPONSES, work.request.request_id.encode(), response.to_json(), envelope.RESPONSE_TYPE, last, now)
        entry = None
        if ledger:
            entry = LedgerEntry(
                request_id=work.request.request_id,
                intake_id=work.intake_id,
                fingerprint=work.fingerprint,
                state="ended",
                work=self.place,
                recorded_at_utc=now,
                next_sequence=self._story.sequence,
                outcome=outcome,
            )
            self._write(LEDGER, work.scope.encode(), entry.to_json(), envelope.LEDGER_TYPE, last, now)
        placement = answer.route.placement.value if answer else "none"
        return Served(self._pending, entry, outcome, placement)

    def _receipt(self, answer: _Answer | None) -> Receipt:
        work, contract = self.work, self._waybill
        return Receipt(
            intake_id=work.intake_id,
            trace_id=work.trace_id,
            asked=asked(work.request),
            identity=work.identity,
            classification=work.classification,
            policy=work.policy,
            served_by=answer.route if answer else None,
            left_the_site=self._crossed,
            attempts=tuple(self._attempts),
            waybill=contract,
            waybill_hash=self._waybill_hash,
            retained=answer.retained if answer else None,
            cost_usd=self._cost,
        )

    def _time_left(self, route: RouteConfig) -> float:
        deadline = self.work.request.deadline_utc
        if deadline is None:
            return route.timeout_s
        return max(0.001, min(route.timeout_s, (deadline - self.kitchen.clock()).total_seconds()))

    def _policy(self, decision: str, reason: str) -> PolicyRef:
        table = self.kitchen.table
        return PolicyRef(
            decision=decision, policy_id=table.policy_id, policy_version=table.policy_version, reasons=(reason,)
        )

    def _say(self, event_type: EventType, at: datetime, **fields: Any) -> None:
        event = self._story.event(event_type, at, **fields)
        key = self.work.request.request_id.encode()
        self._write(EVIDENCE, key, event.to_json(), envelope.EVIDENCE_TYPE, event.event_id, at)

    def _write(self, topic: Topic, key: bytes, value: bytes, ce_type: str, identity: str, at: datetime) -> None:
        work = self.work
        self._pending.append(
            outgoing(
                self.kitchen.name(topic),
                key,
                value,
                ce_type,
                identity,
                f"/waybill/{self.kitchen.site}/dispatch",
                at,
                work.request.request_id,
                traceparent(work.trace_id, self._story.span),
                work.trace_state,
            )
        )


def assemble(request: RuntimeRequest) -> tuple[Message, ...]:
    """Give what the model is told: the context's sources as one system turn, then the conversation."""
    turns = tuple(Message(turn.role, turn.content) for turn in request.input.messages)
    if not request.input.context:
        return turns
    sources = "\n\n".join(f"[{item.source_id}]\n{item.content}" for item in request.input.context)
    return (Message("system", f"Use these sources:\n\n{sources}"), *turns)


def _total(attempts: Sequence[Attempt]) -> Usage | None:
    used = [attempt.usage for attempt in attempts if attempt.usage is not None]
    if not used:
        return None
    return Usage(
        input_tokens=sum(usage.input_tokens for usage in used),
        output_tokens=sum(usage.output_tokens for usage in used),
        cost_usd=sum(usage.cost_usd for usage in used),
    )
