"""The way of one request that could be read: decided, redacted, sealed, and handed on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, Protocol

import orjson

from evidence.canonical import sha256_hex
from evidence.records import (
    ConsentRef,
    ContextUse,
    EventType,
    Failure,
    Outcome,
    Placement,
    PolicyRef,
    Position,
    Redaction,
    Stage,
)
from inference.routes import risk_of
from inference.rulebook import Rulebook
from policy.detection.kinds import KINDS
from policy.identity.verify import Principal
from policy.questions import Facts
from policy.redaction import mask
from policy.vault.keys import Bucket
from policy.view import ALWAYS, Redactor
from streams import envelope
from streams.memory import Memory
from streams.processors.cases import Case, Wish
from streams.processors.classification import OK, Classified
from streams.processors.routing import Decision, decision_id, policy_ref, redactions
from streams.processors.settled import Settled, settle
from streams.request import RuntimeRequest
from streams.response import Asked, Receipt, Response
from streams.scribe import Scribe
from streams.stages.parking import APPROVAL_S, park
from streams.story import Form, Story, fragment, span_id, trace_of, traceparent
from streams.topics import RESPONSES, WORK_HOSTED, WORK_LOCAL, Topic
from streams.transactions import Outgoing
from streams.work import Said, Work

_GONE: Final = "[REMOVED]"
"""Stands for a text of which nothing is left."""

_LONGEST_ID: Final = 128
"""Characters of a source's name, as the contract of requests bounds them."""


class Sealer(Protocol):
    """Encrypts what goes on."""

    def seal(self, tenant: str, plaintext: bytes, *, now: datetime, bound_to: bytes, bucket: Bucket) -> str:
        """Give the text under the tenant's key of this period and term."""
        ...

    def hash_key(self, tenant: str) -> bytes:
        """Give the key for keyed hashes of a tenant's data."""
        ...


class Admitted(NamedTuple):
    """What follows from one record."""

    records: tuple[Outgoing, ...]
    """To be written, in one transaction with the position."""

    result: str
    """`admitted`, `parked`, `denied` or `rejected`."""

    reason: str = ""
    """The rejection's code."""


class View(NamedTuple):
    """What is left of a request once it has been redacted."""

    request: bytes
    """The request, as JSON."""

    originals: dict[str, str]
    """What its pseudonyms stand for."""

    redaction: Redaction | None
    """What was taken out; None where nothing was."""

    context: ContextUse | None
    """Which sources went along; None where there were none."""


def case_of(
    request: RuntimeRequest, principal: Principal, classified: Classified, consent: str, roles: frozenset[str]
) -> Case:
    """Give all that a decision on a request rests on."""
    policy = request.model_policy
    return Case(
        facts=Facts(
            actor=principal.actor_id,
            kind=principal.actor_kind,
            tenant=principal.tenant,
            roles=roles,
            identity=principal.method,
            action="model-call",
            purpose=request.purpose,
            task=request.task_type,
            risk=int(risk_of(request.risk_level)),
            basis=request.consent.basis if request.consent else "none",
            consent=consent,
        ),
        wish=Wish(
            placement=policy.placement,
            regions=policy.regions,
            max_tokens=policy.max_tokens,
            budget=request.budget.max_cost_usd if request.budget else None,
            size=sum(len(part) if part.isascii() else len(part.encode()) for part in classified.parts),
            turns=len(request.input.messages) + len(request.input.context) + 1,
        ),
        held=classified.held,
        items=classified.items,
    )


def said_of(request: RuntimeRequest, identity: str) -> Said:
    """Give what every event of a request says of it."""
    return Said.model_construct(**_said(request, identity))


def _said(request: RuntimeRequest, identity: str) -> dict[str, Any]:
    """Give the same as fields alone, which costs less."""
    actor, subject = request.actor, request.subject
    return {
        "request_id": request.request_id,
        "correlation_id": request.correlation_id,
        "identity": identity,
        "actor_ref": f"{actor.kind}:{actor.id}",
        "tenant_ref": request.tenant.id,
        "session_ref": request.session,
        "subject_ref": subject if subject != actor.id else None,
        "task_type": request.task_type,
        "purpose": request.purpose,
    }


def _consent_ref(basis: str, state: str, revision: str | None) -> ConsentRef:
    """Give what is known of consent; many requests of one person share it."""
    key = basis, state, revision
    return _CONSENTS.get(key) or _CONSENTS.keep(
        key, ConsentRef.model_construct(basis=basis, state=state, revision=revision)
    )


_CONSENTS: Final = Memory[tuple[str, str, str | None], ConsentRef]()
_WORK: Final = Form(Work)
_SAID: Final = Form(Said)


def redact(value: bytes, request: RuntimeRequest, classified: Classified, decision: Decision, key: bytes) -> View:
    """Make the one view of a request that everybody after admission gets.

    Args:
        value: the request as it came.
        request: the same, read.
        classified: what was found in it, and where.
        decision: what is to be taken out, and which sources stay.
        key: for keyed hashes.
    """
    selection = decision.selection
    found = any(classified.findings)
    left = dict(selection.left) if selection else {}
    if not found and not request.input.context:
        return View(value, {}, None, None)
    redactor = Redactor(dict(decision.verdict.styles) if decision.verdict else {}, key)
    turns = len(request.input.messages)
    texts = [
        redactor.take_out(part, findings) for part, findings in zip(classified.parts, classified.findings, strict=True)
    ]
    sources = [
        (_name(texts[turns + 2 * place]), texts[turns + 2 * place + 1]) for place in range(len(request.input.context))
    ]
    context = None
    if sources:
        # Evidence gets no finding in a source's name, whatever the model gets.
        names = [
            source
            if all(finding.category in redactor.styles for finding in findings)
            else _name(mask(item.source_id, findings))
            for (source, _), item, findings in zip(
                sources, request.input.context, classified.findings[turns::2], strict=True
            )
        ]
        context = ContextUse(
            selected=tuple(name for place, name in enumerate(names) if place not in left),
            left=tuple(f"{names[place]}:{reason}" for place, reason in left.items()),
        )
    if not redactor.removed and not left:
        return View(value, {}, None, context)
    content = orjson.loads(value)
    for turn, text in zip(content["input"]["messages"], texts, strict=False):
        turn["content"] = text or _GONE
    if sources:
        content["input"]["context"] = [
            {**item, "sourceId": source, "content": text or _GONE}
            for place, (item, (source, text)) in enumerate(zip(content["input"]["context"], sources, strict=True))
            if place not in left
        ]
    return View(orjson.dumps(content), redactor.originals, _redaction(redactor, decision), context)


def _name(text: str) -> str:
    """Give a source's name as the contract wants it, whatever was taken out of it."""
    return text.strip()[:_LONGEST_ID].strip() or _GONE


def _redaction(redactor: Redactor, decision: Decision) -> Redaction | None:
    if not redactor.removed:
        return None
    wanted = set(redactions(decision.verdict)) if decision.verdict else set()
    held = {KINDS[kind].category for kind in redactor.removed}
    always = {f"{category}:{style}" for category, style in ALWAYS.items() if category in held}
    return Redaction(
        applied=tuple(sorted(wanted | always)),
        removed=tuple(f"{kind}:{count}" for kind, count in sorted(redactor.removed.items())),
    )


def packed(view: View) -> bytes:
    """Give what is sealed: the request, and what its pseudonyms stand for."""
    if not view.originals:
        return b'{"request":' + view.request + b"}"
    return b'{"originals":' + orjson.dumps(view.originals) + b',"request":' + view.request + b"}"


class Admission:
    """The way of one request that could be read."""

    def __init__(
        self,
        *,
        intake: str,
        position: Position,
        value: bytes,
        head: envelope.Envelope,
        request: RuntimeRequest,
        principal: Principal,
        classified: Classified,
        consent_state: str,
        consent_revision: str | None,
        book: Rulebook,
        vault: Sealer,
        site: str,
        name: Callable[[Topic], str],
        now: datetime,
    ) -> None:
        self.intake, self.value, self.request = intake, value, request
        self.classified, self.book, self.vault, self.now = classified, book, vault, now
        basis = request.consent.basis if request.consent else "none"
        self.source = orjson.Fragment(position.to_json())
        self.classification = fragment(classified.classification)
        self.consent = _consent_ref(basis, consent_state, consent_revision)
        self.case = case_of(request, principal, classified, consent_state, principal.roles)
        self._said = _said(request, principal.method)
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
            site=site,
            **self._said,
        )
        hop = envelope.Hop(
            source=f"/waybill/{site}/admission",
            subject=request.request_id,
            traceparent=traceparent(self.trace_id, span),
            tracestate=head.tracestate,
        )
        self.scribe = Scribe(story, hop, name=name, key=request.request_id)

    def run(self) -> Admitted:
        """Give what follows."""
        request, scribe, classification = self.request, self.scribe, self.classification
        scribe.say(
            EventType.REQUEST_ADMITTED,
            self.now,
            span_id=self.root,
            parent_span_id=self.app_span,
            deadline_utc=request.deadline_utc,
            input_sha256=sha256_hex(self.value),
            input_bytes=len(self.value),
            source=self.source,
        )
        scribe.say(EventType.DATA_CLASSIFIED, self.now, classification=classification)
        settled = settle(self.case, self.book)
        decision = settled.decision
        policy = settled.policy(self.case, decision_id(self.intake, "admission"))
        scribe.say(
            EventType.POLICY_DECIDED, self.now, classification=classification, policy=policy, consent=self.consent
        )
        if not decision.routes:
            return self._deny(self._policy_ref(decision))
        key = self.vault.hash_key(request.tenant.id) if any(self.classified.findings) else b""
        view = redact(self.value, request, self.classified, decision, key)
        if view.context is not None:
            scribe.say(EventType.CONTEXT_SELECTED, self.now, context=view.context)
        if view.redaction is not None:
            scribe.say(EventType.DATA_REDACTED, self.now, redaction=view.redaction)
        return self._hand_on(settled, policy, view)

    def _hand_on(self, settled: Settled, policy: orjson.Fragment, view: View) -> Admitted:
        request, scribe, book, decision = self.request, self.scribe, self.book, settled.decision
        chosen = decision.routes[0]
        taken_out = (
            view.redaction.applied if view.redaction else redactions(decision.verdict) if decision.verdict else ()
        )
        contracts = settled.contracts(self.intake, _consent(request), taken_out)
        if not decision.waits:
            scribe.say(
                EventType.ROUTE_SELECTED,
                self.now,
                classification=self.classification,
                route=settled.route,
                fallbacks=settled.fallbacks,
                waybill_hash=contracts[chosen.name].digest if chosen.name in contracts else None,
            )
        plaintext, scope = packed(view), request.scope()
        # Like an event, a work record is written straight from its fields; the form is that of `Work` all the same.
        fields: dict[str, Any] = {
            "work_version": "1.1",
            "intake_id": self.intake,
            "scope": scope,
            "fingerprint": request.fingerprint(),
            "said": _SAID.named(self._said),
            "deadline_utc": request.deadline_utc,
            "trace_id": self.trace_id,
            "parent_span_id": self.root,
            "root_span_id": self.app_span,
            "trace_state": self.tracestate,
            "admitted_at_utc": self.now,
            "next_sequence": scribe.story.sequence,
            "sealed": self.vault.seal(
                request.tenant.id, plaintext, now=self.now, bound_to=self.intake.encode(), bucket=book.retention.transit
            ),
            "payload_sha256": sha256_hex(plaintext),
            "classification": self.classification,
            "consent": self.consent,
            "policy": policy,
            "routes": (chosen.name, *settled.fallbacks),
            "sources": decision.selection.items if decision.selection else (),
            "context": view.context,
            "redaction": view.redaction,
            "waybills": {name: contract.text for name, contract in contracts.items()},
            "source": self.source,
        }
        topic = WORK_HOSTED if chosen.placement is Placement.HOSTED else WORK_LOCAL
        if decision.waits:
            return self._park(Work.model_validate_json(_WORK.json(fields)), topic, decision)
        scribe.write(topic, _WORK.json(fields), envelope.WORK_TYPE, self.intake, self.now, key=scope)
        return Admitted(tuple(scribe.take()), "admitted")

    def _policy_ref(self, decision: Decision) -> PolicyRef:
        return policy_ref(decision, self.case, self.book, identity=decision_id(self.intake, "admission"))

    def _park(self, work: Work, topic: Topic, decision: Decision) -> Admitted:
        """Ask a person: the work waits on `ai.approvals` until somebody says something, or time runs out."""
        until = self.now + timedelta(seconds=APPROVAL_S)
        deadline = self.request.deadline_utc
        expires = until if deadline is None else min(until, deadline)
        park(self.scribe, work, topic, decision, self.receipt(work.policy), now=self.now, expires=expires)
        return Admitted(tuple(self.scribe.take()), "parked")

    def _deny(self, policy: Any) -> Admitted:
        told = "policy allows no route: " + ", ".join(policy.reasons[1:])
        if self.classified.classification.detector != OK:
            told = f"the detectors could not finish, so that the data counts as the highest class; {told}"
        failure = Failure(code="denied", message=told[:2000])
        ended = self.scribe.say(
            EventType.REQUEST_ENDED,
            self.now,
            span_id=self.root,
            parent_span_id=self.app_span,
            outcome=Outcome.DENIED,
            failure=failure,
            classification=self.classification,
        )
        response = Response(
            request_id=self.request.request_id,
            correlation_id=self.request.correlation_id,
            outcome=Outcome.DENIED,
            ended_at_utc=self.now,
            failure=failure,
            receipt=self.receipt(policy),
        )
        self.scribe.write(RESPONSES, response.to_json(), envelope.RESPONSE_TYPE, f"{ended}/response", self.now)
        return Admitted(tuple(self.scribe.take()), "denied")

    def receipt(self, policy: Any) -> Receipt:
        """Give the receipt of a request that nothing has served."""
        return Receipt(
            intake_id=self.intake,
            trace_id=self.trace_id,
            asked=asked(said_of(self.request, self._said["identity"]), self.case.wish),
            identity=self._said["identity"],
            classification=self.classified.classification,
            policy=policy,
            consent=self.consent,
            left_the_site=False,
        )


def asked(said: Said, wish: Wish) -> Asked:
    """Give a receipt's summary of what was asked for."""
    return Asked(task_type=said.task_type, purpose=said.purpose, placement=wish.placement, regions=wish.regions)


def _consent(request: RuntimeRequest) -> str:
    """Give the consent field of a waybill; a request without a basis crosses nothing, and has none."""
    if request.consent is None:
        return "none"
    basis, reference = request.consent.basis, request.consent.reference
    return f"{basis}:{reference}" if reference else basis
