"""Evidence as the pipeline writes it: whole stories of admitted requests, with the fields that each event really has.

Of a hundred requests, 52 go to a hosted model and 20 to the local one; 12 hold personal data that is taken out first,
4 bring sources along, of 4 the answer is filtered, 4 need a second route, and 4 are denied. That makes 6.9 events a
request, of eleven types.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from evidence.records import (
    Classification,
    ConsentRef,
    ContextUse,
    CredentialRef,
    EventType,
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
from streams.story import Story, Told, event_id, span_id

SHARES: Final = {"hosted": 52, "local": 20, "personal": 12, "sources": 4, "filtered": 4, "second": 4, "denied": 4}
"""Of a hundred requests."""

TENANTS: Final = ("acme", "globex", "initech")
PROVIDERS: Final = ("stand-in", "northwind", "contoso")
_SORTS: Final = (
    ("question", "product-research", "public"),
    ("drafting", "internal-productivity", "internal"),
    ("summary", "customer-support", "internal"),
)
_LOCAL: Final = RouteRef(
    name="local-small", placement=Placement.LOCAL, provider="triton", model="smollm2-135m", region="on-premises"
)
_HOSTED: Final = tuple(
    RouteRef(name=f"hosted-{place}", placement=Placement.HOSTED, provider=provider, model=f"large-{place}", region="eu")
    for place, provider in enumerate(PROVIDERS)
)
_POLICY: Final = {"policy_id": "sample-policy", "policy_version": "a7006cba583a3144"}
_CREDENTIAL: Final = CredentialRef(method="key")
_CONSENT: Final = ConsentRef(basis="contract", state="none")
_KEPT: Final = Retained(action="keep")
_PERSONAL: Final = Redaction(applied=("personal:pseudonym",), removed=("email:1", "phone:1"))
_NOT_REACHED: Final = Failure(code="http_503", message="the destination answered 503", retryable=True)
_DENIED: Final = Failure(code="no_route", message="policy allows no route for this request")


def stories(count: int, begin: datetime, *, seed: int = 1) -> Iterator[list[bytes]]:
    """Give the events of so many requests, 37 ms apart, each request's in order; the same ones for the same seed."""
    rng = random.Random(seed)  # noqa: S311 - made-up evidence, no secret
    sorts = [name for name, share in SHARES.items() for _ in range(share)]
    for number in range(count):
        yield _Request(number, rng, begin + timedelta(milliseconds=37 * number)).told(rng.choice(sorts))


def values(count: int, *, seed: int = 1) -> list[bytes]:
    """Give so many events, those of 50 requests mixed among one another, as they come from work that is in flight."""
    told: list[bytes] = []
    waiting: list[list[bytes]] = []
    rng = random.Random(seed)  # noqa: S311 - made-up evidence, no secret
    for story in stories(count, datetime.now(UTC), seed=seed):
        waiting.append(story[::-1])
        while len(waiting) >= 50:
            place = rng.randrange(len(waiting))
            told.append(waiting[place].pop())
            if not waiting[place]:
                waiting.pop(place)
        if len(told) >= count:
            break
    return told[:count]


class _Request:
    """One made-up request."""

    def __init__(self, number: int, rng: random.Random, begin: datetime) -> None:
        self.number, self.rng, self.now = number, rng, begin
        self.identity = _uuid(rng)
        self.intake = f"{rng.getrandbits(128):032x}"
        self.task, self.purpose, self.cls = rng.choice(_SORTS)
        self.user, self.tenant = f"user-{rng.randrange(1000)}", rng.choice(TENANTS)
        self.root = span_id(self.intake, "request")
        self.span = span_id(self.intake, "admission")
        self.events: list[Told] = []
        self.story = self._story(Stage.ADMISSION, 0, self.span)

    def told(self, sort: str) -> list[bytes]:
        """Give its events."""
        personal = sort in {"personal", "filtered"}
        found = Classification(
            declared=self.cls,
            detected="confidential" if personal else None,
            effective="confidential" if personal else self.cls,
            findings=("email", "phone") if personal else (),
            categories=("personal",) if personal else (),
            regulations=("gdpr",) if personal else (),
        )
        routes = [_LOCAL] if sort == "local" else self.rng.sample(_HOSTED, k=2)
        self._admit(sort, found, routes)
        if sort != "denied":
            self._dispatch(sort, found, routes)
        return [event.value for event in self.events]

    def _admit(self, sort: str, found: Classification, routes: list[RouteRef]) -> None:
        said = {"span_id": self.root, "parent_span_id": f"{self.rng.getrandbits(64):016x}"}
        self._say(
            EventType.REQUEST_ADMITTED,
            **said,
            deadline_utc=self.now + timedelta(minutes=2),
            input_sha256=self._digest("input"),
            input_bytes=self.rng.randrange(300, 4000),
            source=Position(topic="ai.requests", partition=self.number % 2, offset=self.number // 2),
        )
        self._say(EventType.DATA_CLASSIFIED, classification=found)
        self._say(EventType.POLICY_DECIDED, classification=found, policy=self._decision(sort, routes), consent=_CONSENT)
        if sort == "denied":
            self._say(EventType.REQUEST_ENDED, **said, outcome=Outcome.DENIED, failure=_DENIED, classification=found)
            return
        if sort == "sources":
            context = ContextUse(selected=("handbook-3", "wiki-17"), left=("crm-4:purpose",))
            self._say(EventType.CONTEXT_SELECTED, context=context)
        if sort == "personal":
            self._say(EventType.DATA_REDACTED, redaction=_PERSONAL)
        self._say(
            EventType.ROUTE_SELECTED,
            classification=found,
            route=routes[0],
            fallbacks=tuple(route.name for route in routes[1:]),
            waybill_hash=self._digest("waybill") if routes[0] is not _LOCAL else None,
        )

    def _dispatch(self, sort: str, found: Classification, routes: list[RouteRef]) -> None:
        attempts = routes if sort == "second" else routes[:1]
        usage = Usage(input_tokens=self.rng.randrange(9, 900), output_tokens=self.rng.randrange(1, 400))
        usage = usage.model_copy(update={"cost_usd": usage.input_tokens * 1.5e-7 + usage.output_tokens * 6e-7})
        begun, self.story = self.now, self._story(Stage.DISPATCH, self.story.sequence, self.span)
        for attempt, route in enumerate(attempts, start=1):
            about: dict[str, Any] = {"attempt": attempt, "span_id": span_id(self.intake, f"attempt-{attempt}")}
            self.now += timedelta(microseconds=self.rng.randrange(200, 20_000))
            if route is not _LOCAL:
                about["intent_id"] = event_id(self.intake, self.story.sequence)
                self._intend(sort, found, route, about)
            took = self.rng.lognormvariate(6, 0.6)
            self.now += timedelta(milliseconds=took)
            if route is not attempts[-1]:
                self._say(EventType.MODEL_FAILED, route=route, failure=_NOT_REACHED, duration_ms=took, **about)
                continue
            self._say(
                EventType.MODEL_COMPLETED,
                route=route,
                usage=usage,
                response_id=f"chatcmpl-{self.rng.getrandbits(96):024x}",
                duration_ms=took,
                first_chunk_ms=took * self.rng.random(),
                output_sha256=self._digest("output"),
                output_bytes=self.rng.randrange(20, 3000),
                **about,
            )
            kept = Retained(action="mask", removed=("email",)) if sort == "filtered" else _KEPT
            if sort == "filtered":
                self._say(EventType.RESPONSE_FILTERED, route=route, retained=kept, **about)
            self._say(
                EventType.REQUEST_ENDED,
                span_id=self.root,
                outcome=Outcome.COMPLETED,
                classification=found,
                route=route,
                retained=kept,
                duration_ms=(self.now - begun) / timedelta(milliseconds=1),
                usage=usage,
            )

    def _intend(self, sort: str, found: Classification, route: RouteRef, about: dict[str, Any]) -> None:
        crossing = found.model_copy(update={"effective": self.cls})
        again = PolicyRef(
            **_POLICY, decision="allow", reasons=(f"{route.name}:allowed",), decision_id=self._digest("again")[:32]
        )
        self._say(
            EventType.MODEL_INTENDED,
            route=route,
            waybill_hash=self._digest("waybill"),
            policy=again,
            classification=crossing,
            redaction=_PERSONAL if sort == "personal" else None,
            consent=_CONSENT,
            credential=_CREDENTIAL,
            **about,
        )

    def _decision(self, sort: str, routes: list[RouteRef]) -> PolicyRef:
        inputs = (
            f'{{"actor":"{self.user}","kind":"user","tenant":"{self.tenant}","identity":"signed",'
            f'"action":"model-call","purpose":"{self.purpose}","task":"{self.task}","risk":0,"basis":"contract",'
            f'"consent":"none","class":"{self.cls}","bytes":{self.rng.randrange(300, 4000)},"turns":2,"maxTokens":256}}'
        )
        return PolicyRef(
            **_POLICY,
            decision={"denied": "deny", "personal": "transform"}.get(sort, "allow"),
            reasons=tuple(f"{route.name}:ordinary-work" for route in routes),
            decision_id=self._digest("decision")[:32],
            scope=f"model-call:{routes[0].name}",
            inputs=inputs,
            redaction=("personal:pseudonym",) if sort == "personal" else (),
            review_path="privacy@example.org",
        )

    def _story(self, stage: Stage, sequence: int, span: str) -> Story:
        return Story(
            stage=stage,
            intake=self.intake,
            sequence=sequence,
            span=span,
            parent_span_id=self.root,
            trace_id=hashlib.sha256(f"{self.intake}/trace".encode()).hexdigest()[:32],
            site="bench",
            request_id=self.identity,
            correlation_id=f"task-{self.number // 10}",
            identity="jwt",
            actor_ref=f"user:{self.user}",
            tenant_ref=self.tenant,
            task_type=self.task,
            purpose=self.purpose,
        )

    def _say(self, kind: EventType, **fields: Any) -> None:
        self.events.append(self.story.tell(kind, self.now, **fields))

    def _digest(self, what: str) -> str:
        return hashlib.sha256(f"{self.intake}/{what}".encode()).hexdigest()


def _uuid(rng: random.Random) -> str:
    text = f"{rng.getrandbits(128):032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
