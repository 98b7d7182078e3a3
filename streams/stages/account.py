"""What is told of one admitted request on its way through dispatch: events, ledger entries, and at last its response.

Nothing is decided here and nothing is sent: the account gathers records, and whoever serves the request commits them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from evidence.canonical import sha256_hex
from evidence.records import (
    ConsentRef,
    CredentialRef,
    EventType,
    Failure,
    Outcome,
    Placement,
    PolicyRef,
    Position,
    RouteRef,
    Stage,
    Usage,
)
from inference.backend import Backend, Completion
from inference.credentials import Credentials
from inference.errors import Ambiguous, BackendError, Malformed, NotSent, Rejected
from inference.routes import RouteConfig
from inference.rulebook import Rulebook, Shelf
from policy.contract import Waybill
from policy.detection.detectors import ScanResult
from policy.retention import AnswerRule
from policy.vault.erased import Erased
from policy.vault.sealing import Vault
from streams import envelope
from streams.ledger import Claim
from streams.metrics import Metrics
from streams.processors.cases import Case, estimate, from_json
from streams.processors.classification import Scanner
from streams.processors.retention import Kept, keep
from streams.processors.routing import decision_id
from streams.response import Attempt, Output, Provenance, Receipt, Response
from streams.scribe import Scribe
from streams.stages.admit import Consents
from streams.stages.admitted import asked
from streams.stages.opening import Keeper
from streams.stages.usage import priced, stated, total
from streams.story import Story, event_id, span_id, traceparent
from streams.topics import LEDGER, RESPONSES, Topic
from streams.transactions import Outgoing
from streams.work import LedgerEntry, Work

_LONGEST_NAME: Final = 256
"""What a provider says of itself is cut to what evidence takes (`ShortText`)."""

_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9._:/+-]{1,256}")
"""Names of models and ids of answers: no blank, and no `@`."""

_NEVER_NAMES: Final = frozenset({"secret", "financial"})
_LIKE_IDS: Final = frozenset({"vendor_token"})
"""Kinds whose look an id of an answer has by its nature."""


@dataclass(frozen=True, slots=True)
class Kitchen:
    """What serving needs, made once."""

    shelf: Shelf
    """The rulebook in force."""

    backends: Mapping[str, Backend]
    """Who answers, by endpoint."""

    credentials: Mapping[str, Credentials]
    """How hosted endpoints are told who calls, by endpoint."""

    vault: Vault
    """Opens what admission sealed."""

    keeper: Keeper
    """Keeps what may be kept."""

    consents: Consents
    """Knows who has consented to what."""

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

    erased: Erased
    """Says who was erased, and when."""


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


@dataclass(frozen=True, slots=True)
class Answer:
    """What a good call gave."""

    route: RouteRef
    """Who answered."""

    completion: Completion
    """The answer as it came; its text is never written."""

    kept: Kept
    """What may be written of it."""

    intent_id: str | None
    """The intent of the call, where it crossed."""


@dataclass(slots=True)
class Call:
    """One attempt, while it is under way."""

    route: RouteConfig
    """Where it goes."""

    ref: RouteRef
    """The same, as evidence names it."""

    call_id: str
    """Its id; for a hosted call the event id of its intent."""

    traceparent: str
    """Trace context of its hop."""

    about: dict[str, Any]
    """What every event of it says."""

    started_at: datetime
    """When it began."""

    seconds: float = 0.0
    """How long it took."""

    @property
    def hosted(self) -> bool:
        """Whether it crosses."""
        return self.route.placement is Placement.HOSTED


class Account:
    """Gathers the records of one work record.

    Attributes:
        attempts: every call so far.
        cost_usd: price of the answers whose tokens are known, those of no use among them.
        at_risk_usd: estimate of what calls may have cost whose tokens are not known.
        in_doubt: whether a hosted call may have been accepted whose answer is lost.
    """

    def __init__(self, kitchen: Kitchen, work: Work, place: Position) -> None:
        self.attempts: list[Attempt] = []
        self.cost_usd = 0.0
        self.at_risk_usd = 0.0
        self.in_doubt = False
        self._kitchen = kitchen
        self._work = work
        self._place = place
        self._book = kitchen.shelf.current
        self._case: Case = from_json(work.policy.inputs or "")
        self._consent: ConsentRef = work.consent
        self._waybill: Waybill | None = None
        self._waybill_hash: str | None = None
        self._crossed = False
        self._intended: Call | None = None
        self._number = 0
        span = span_id(work.intake_id, "dispatch")
        self._story = Story(
            stage=Stage.DISPATCH,
            intake=work.intake_id,
            sequence=work.next_sequence,
            span=span,
            parent_span_id=work.parent_span_id,
            trace_id=work.trace_id,
            site=kitchen.site,
            **work.said.fields(),
        )
        hop = envelope.Hop(
            source=f"/waybill/{kitchen.site}/dispatch",
            subject=work.said.request_id,
            traceparent=traceparent(work.trace_id, span),
            tracestate=work.trace_state,
        )
        self._scribe = Scribe(self._story, hop, name=kitchen.name, key=work.said.request_id)

    def take(self) -> list[Outgoing]:
        """Give what has gathered, and begin anew."""
        return self._scribe.take()

    @property
    def next_call_id(self) -> str:
        """The id that the next call will have."""
        return event_id(self._work.intake_id, self._story.sequence)

    def asked_again(self, book: Rulebook, consent: ConsentRef) -> None:
        """Take note by which rulebook, and on which consent, policy was asked again."""
        self._book, self._consent = book, consent

    def denied(self, route: RouteConfig, objections: Sequence[str]) -> None:
        """Say that policy no longer allows a route."""
        reasons = tuple(f"{route.name}:{objection}" for objection in objections)
        policy = self._policy("deny", reasons, f"denied-{self._story.sequence}")
        self._scribe.say(EventType.POLICY_DECIDED, self._kitchen.clock(), policy=policy, consent=self._consent)

    def begin(
        self, route: RouteConfig, *, resent: bool = False, credential: CredentialRef | None = None, intend: bool = True
    ) -> Call:
        """Open an attempt; for a hosted one, this says the intent, which must be durable before the call is made.

        Args:
            route: where it goes.
            resent: whether the one repeat is used up that policy may allow after a lost answer.
            credential: how the destination will be told who calls.
            intend: whether it is to be made at all; else it is opened only to say that it failed before that.
        """
        kitchen, work = self._kitchen, self._work
        self._number += 1
        span = span_id(work.intake_id, f"attempt-{self._number}")
        call = Call(
            route=route,
            ref=route.ref(self._book.endpoints[route.endpoint].provider),
            call_id=self.next_call_id,
            traceparent=traceparent(work.trace_id, span),
            about={"attempt": self._number, "span_id": span, "parent_span_id": work.parent_span_id},
            started_at=kitchen.clock(),
        )
        if call.hosted and intend:
            call.about["intent_id"] = call.call_id
            self._intended = call
            self._intend(call, resent=resent, credential=credential)
        return call

    def contract(self, route: str) -> str:
        """Take the waybill of a route, and give its hash."""
        self._take_waybill(route)
        return self._waybill_hash or ""

    def _intend(self, call: Call, *, resent: bool, credential: CredentialRef | None) -> None:
        work, now, name = self._work, call.started_at, call.route.name
        contract = self._take_waybill(name)
        # What crosses may be less sensitive than what came: something was taken out, or stayed behind.
        crossing = work.classification.model_copy(update={"effective": contract.data_classification})
        self._scribe.say(
            EventType.MODEL_INTENDED,
            now,
            route=call.ref,
            waybill_hash=self._waybill_hash,
            policy=self._policy(self._again, (f"{name}:allowed",), call.call_id),
            classification=crossing,
            redaction=work.redaction,
            context=work.context,
            consent=self._consent,
            approval=work.approval,
            credential=credential,
            **call.about,
        )
        entry = self._entry("intended", now, attempt=self._number, intent_id=call.call_id, route=name, resent=resent)
        identity = f"{call.call_id}/ledger"
        self._scribe.write(LEDGER, entry.to_json(), envelope.LEDGER_TYPE, identity, now, key=work.scope)

    def interrupted(self, entry: LedgerEntry) -> Failure:
        """Say that a call was intended before a crash and that its end is not known."""
        if entry.route is None or entry.attempt is None:
            raise RuntimeError(f"the ledger holds no intent for interrupted work {self._work.intake_id}")
        self._story.sequence = entry.next_sequence
        self._number = entry.attempt
        self._crossed = self.in_doubt = True
        route = self._book.table.by_name.get(entry.route)
        if route is not None:
            self.at_risk_usd += estimate(route, self._case.wish)
        contract = self._take_waybill(entry.route)
        ref = RouteRef(
            name=entry.route,
            placement=Placement.HOSTED,
            provider=contract.destination.provider,
            model=contract.model_route.partition("/")[2],
            region=contract.destination.region,
        )
        failure = Failure(
            code="worker_lost",
            message="the worker ended between the intent and the answer; the call may have been made",
        )
        self._scribe.say(
            EventType.MODEL_FAILED,
            self._kitchen.clock(),
            route=ref,
            failure=failure,
            attempt=entry.attempt,
            intent_id=entry.intent_id,
            span_id=span_id(self._work.intake_id, f"attempt-{entry.attempt}"),
        )
        self.attempts.append(
            Attempt(
                attempt=entry.attempt,
                route=ref,
                outcome=failure.code,
                intent_id=entry.intent_id,
                started_at_utc=entry.recorded_at_utc,
                duration_ms=0,
            )
        )
        return failure

    @property
    def crossed(self) -> bool:
        """Whether a hosted call was intended."""
        return self._crossed or self._intended is not None

    def lost(self, failure: Failure) -> None:
        """Say of a hosted call that was intended and has no end that nobody knows what became of it."""
        if self._intended is not None:
            self.failed(self._intended, Ambiguous(failure.code, failure.message))

    def failed(self, call: Call, error: BackendError) -> Failure:
        """Say that an attempt failed."""
        self._crossed |= call.hosted and not isinstance(error, NotSent)
        usage = priced(call.route, error.tokens)
        if call.hosted and isinstance(error, Ambiguous | Malformed):
            self.in_doubt |= isinstance(error, Ambiguous)
            if usage is None:
                self.at_risk_usd += estimate(call.route, self._case.wish)
        ref = call.ref.model_copy(update={"provider": error.provider}) if error.provider else call.ref
        failure = Failure(code=error.code, message=str(error)[:2000], retryable=not isinstance(error, Rejected))
        self._scribe.say(
            EventType.MODEL_FAILED,
            self._kitchen.clock(),
            route=ref,
            failure=failure,
            usage=usage,
            duration_ms=call.seconds * 1000,
            **call.about,
        )
        self._attempted(call, ref, error.code, usage)
        return failure

    def completed(self, call: Call, completion: Completion, rule: AnswerRule, scanned: ScanResult) -> Answer:
        """Filter an answer in memory and say what came; only what may be kept is ever in a record.

        Args:
            call: the call that it answers.
            completion: what came.
            rule: what may not be kept of it.
            scanned: what was found in its text.
        """
        route = call.route
        self._crossed |= call.hosted
        ref = RouteRef(
            name=route.name,
            placement=route.placement,
            provider=completion.provider[:_LONGEST_NAME] or call.ref.provider,
            model=self._harmless(completion.model) or route.model,
            region=route.region,
        )
        usage = priced(route, completion.tokens)
        kept = keep(completion.text, rule, scanned)
        encoded, first, now = kept.text.encode(), completion.first_chunk_s, self._kitchen.clock()
        self._scribe.say(
            EventType.MODEL_COMPLETED,
            now,
            route=ref,
            usage=usage,
            response_id=self._harmless(completion.response_id) or None,
            duration_ms=call.seconds * 1000,
            first_chunk_ms=None if first is None else first * 1000,
            output_sha256=sha256_hex(encoded),
            output_bytes=len(encoded),
            detail=stated(completion),
            **call.about,
        )
        if kept.retained.action != "keep":
            self._scribe.say(EventType.RESPONSE_FILTERED, now, route=ref, retained=kept.retained, **call.about)
        if usage is None and call.hosted:
            self.at_risk_usd += estimate(route, self._case.wish)
        self._attempted(call, ref, "refused" if completion.refused else "completed", usage)
        return Answer(ref, completion, kept, call.about.get("intent_id"))

    def _spend(self, route: str, usage: Usage) -> None:
        """Count what an answer cost."""
        self.cost_usd += usage.cost_usd
        metrics = self._kitchen.metrics
        metrics.tokens.labels(route, "input").inc(usage.input_tokens)
        metrics.tokens.labels(route, "output").inc(usage.output_tokens)
        metrics.cost.labels(route).inc(usage.cost_usd)

    def _harmless(self, name: str) -> str:
        """Give a name that a provider chose, or nothing where it may be something that the provider repeats."""
        if not _PLAIN_NAME.fullmatch(name):
            return ""
        result = self._kitchen.scanner.scan_closed(name)
        kinds = {finding.kind for finding in result.findings if finding.category in _NEVER_NAMES}
        held = not kinds <= _LIKE_IDS
        return "" if held or result.failed else name

    def end(
        self,
        outcome: Outcome,
        *,
        answer: Answer | None = None,
        failure: Failure | None = None,
        duplicate_of: Claim | None = None,
        ledger: bool = True,
        detail: str | None = None,
    ) -> Served:
        """Say how the request ended, and give all that is still to be committed.

        Args:
            outcome: how.
            answer: what answered it.
            failure: why nothing did.
            duplicate_of: who holds the scope, where that response stands for this one.
            ledger: whether this request holds its idempotency scope.
            detail: what else evidence has to say.
        """
        work, now = self._work, self._kitchen.clock()
        last = self._scribe.say(
            EventType.REQUEST_ENDED,
            now,
            span_id=work.parent_span_id,
            parent_span_id=work.root_span_id,
            outcome=outcome,
            failure=failure,
            classification=work.classification,
            route=answer.route if answer else None,
            retained=answer.kept.retained if answer else None,
            detail=detail,
            duplicate_of=duplicate_of.intake_id if duplicate_of else None,
            duration_ms=max(0.0, (now - work.admitted_at_utc).total_seconds() * 1000),
            usage=total(self.attempts),
        )
        written = answer is not None and not answer.kept.withheld
        response = Response(
            request_id=work.said.request_id,
            correlation_id=work.said.correlation_id,
            outcome=outcome,
            ended_at_utc=now,
            output=self._output(answer) if answer and written else None,
            failure=failure,
            duplicate_of=duplicate_of.request_id if duplicate_of else None,
            receipt=self._receipt(answer),
        )
        self._scribe.write(RESPONSES, response.to_json(), envelope.RESPONSE_TYPE, f"{last}/response", now)
        entry = None
        if ledger:
            entry = self._entry("ended", now, outcome=outcome)
            self._scribe.write(LEDGER, entry.to_json(), envelope.LEDGER_TYPE, f"{last}/ledger", now, key=work.scope)
        return Served(self.take(), entry, outcome, answer.route.placement.value if answer else "none")

    def _output(self, answer: Answer) -> Output:
        work = self._work
        return Output(
            text=answer.kept.text,
            finish_reason=answer.completion.finish_reason,
            provenance=Provenance(
                route=answer.route,
                classification=work.classification.effective,
                purpose=work.said.purpose,
                policy_version=self._book.version,
                decision_id=work.policy.decision_id,
                waybill_hash=self._waybill_hash if answer.intent_id else None,
                intent_id=answer.intent_id,
            ),
        )

    def _receipt(self, answer: Answer | None) -> Receipt:
        work = self._work
        return Receipt(
            intake_id=work.intake_id,
            trace_id=work.trace_id,
            asked=asked(work.said, self._case.wish),
            identity=work.said.identity,
            classification=work.classification,
            policy=work.policy,
            consent=self._consent,
            redaction=work.redaction,
            context=work.context,
            approval=work.approval,
            served_by=answer.route if answer else None,
            left_the_site=self._crossed,
            attempts=tuple(self.attempts),
            waybill=self._waybill,
            waybill_hash=self._waybill_hash,
            retained=answer.kept.retained if answer else None,
            cost_usd=self.cost_usd,
        )

    def _attempted(self, call: Call, ref: RouteRef, outcome: str, usage: Usage | None = None) -> None:
        self._intended = None
        self.attempts.append(
            Attempt(
                attempt=self._number,
                route=ref,
                outcome=outcome,
                intent_id=call.about.get("intent_id"),
                started_at_utc=call.started_at,
                duration_ms=call.seconds * 1000,
                usage=usage,
            )
        )
        if usage is not None:
            self._spend(ref.name, usage)
        self._kitchen.metrics.attempts.labels(ref.name, ref.provider, outcome).inc()

    def _take_waybill(self, route: str) -> Waybill:
        self._waybill = contract = self._work.waybills[route]
        self._waybill_hash = contract.digest()
        return contract

    @property
    def _again(self) -> str:
        """What the answer to the second question is called where it allows."""
        return "transform" if self._work.policy.redaction else "allow"

    def _policy(self, decision: str, reasons: tuple[str, ...], step: str) -> PolicyRef:
        work, book = self._work, self._book
        return PolicyRef(
            decision=decision,
            policy_id=book.table.policy_id,
            policy_version=book.version,
            reasons=reasons,
            decision_id=decision_id(work.intake_id, step),
            redaction=work.policy.redaction,
            approval_id=work.approval.approval_id if work.approval else None,
            overrides=work.policy.decision_id if work.approval and work.approval.override else None,
        )

    def _entry(self, state: Literal["intended", "ended"], at: datetime, **fields: Any) -> LedgerEntry:
        work = self._work
        return LedgerEntry(
            request_id=work.said.request_id,
            intake_id=work.intake_id,
            fingerprint=work.fingerprint,
            state=state,
            work=self._place,
            recorded_at_utc=at,
            next_sequence=self._story.sequence,
            **fields,
        )
