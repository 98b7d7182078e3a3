"""Serving one admitted request: re-check, intent, call, filter.

The order is the promise. Policy is asked again at the moment of sending (P1); the intent is durable before the first
byte leaves (P2); a call that may have been accepted ends as `unknown` (P5); an answer is filtered before it is written
(P6).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import Final

from evidence.records import Failure, Outcome, Placement, Position
from inference.backend import Message, ModelCall
from inference.errors import Ambiguous, BackendError, NotSent, Rejected
from inference.routes import RouteConfig
from policy.labels import DataClass
from streams.errors import kind_and_place
from streams.ledger import Finding, Standing
from streams.processors.routing import allowed_tokens, estimate, objects
from streams.request import RuntimeRequest
from streams.stages.account import Account, Answer, Kitchen, Served
from streams.transactions import Outgoing
from streams.work import Work

log = logging.getLogger(__name__)

Commit = Callable[[Sequence[Outgoing]], Awaitable[None]]
"""Makes records durable; returns only then."""

_NO_ROUTE: Final = Failure(
    code="no_route", message="none of the routes that were chosen is in the route table any more"
)
_CONFLICT: Final = Failure(
    code="idempotency_conflict", message="another request with a different payload holds this idempotency key"
)
_DUPLICATE: Final = Failure(
    code="duplicate", message="the same work was taken before; the response of that request stands"
)
_LATE: Final = Failure(code="expired_deadline", message="the deadline passed before a model answered")
_WITHHELD: Final = Failure(code="withheld", message="the answer held what retention forbids; nothing of it was kept")
_TOO_LARGE: Final = Failure(
    code="answer_too_large", message="the answer is larger than a response may be; nothing of it was kept"
)
MAX_ANSWER_CHARS: Final = 150_000
"""Longest answer that is kept: in JSON a character has up to 6 bytes, and a record has to fit the broker's 1 MiB."""


class Serving:
    """The way of one work record through dispatch."""

    def __init__(self, kitchen: Kitchen, work: Work, place: Position, commit: Commit) -> None:
        self._kitchen = kitchen
        self._work = work
        self._commit = commit
        self._account = Account(kitchen, work, place)
        self._resent = False

    async def run(self, finding: Finding) -> Served | None:
        """Serve it; None where there is nothing left to do.

        Args:
            finding: what the ledger says of it.
        """
        match finding.standing:
            case Standing.ENDED:
                return None
            case Standing.DUPLICATE:
                return self._account.end(
                    Outcome.DUPLICATE, failure=_DUPLICATE, duplicate_of=finding.holder, ledger=False
                )
            case Standing.CONFLICT:
                return self._account.end(Outcome.REJECTED, failure=_CONFLICT, ledger=False)
            case Standing.INTERRUPTED:
                return await self._resume(finding)
            case Standing.NEW:
                return await self._try(self._routes())

    def _routes(self) -> list[RouteConfig]:
        table = self._kitchen.table.by_name
        return [table[name] for name in self._work.routes if name in table]

    async def _resume(self, finding: Finding) -> Served:
        entry = finding.entry
        if entry is None:
            raise RuntimeError(f"work {self._work.intake_id} was interrupted, and the ledger holds nothing of it")
        failure = self._account.interrupted(entry)
        self._resent = entry.resent
        routes = self._routes()
        place = next((at for at, route in enumerate(routes) if route.name == entry.route), None)
        if place is None or not self._may_resend(routes[place]):
            return self._account.end(Outcome.UNKNOWN, failure=failure)
        return await self._try(self._resend(routes[place], routes[place + 1 :]))

    def _may_resend(self, route: RouteConfig) -> bool:
        return route.on_ambiguous == "resend" and not self._resent

    def _resend(self, route: RouteConfig, rest: Sequence[RouteConfig]) -> list[RouteConfig]:
        """Use up the one repeat: a second disclosure to the same destination, and none to another one after it."""
        self._resent = True
        return [route, *(other for other in rest if other.placement is Placement.LOCAL)]

    async def _try(self, routes: list[RouteConfig]) -> Served:
        account, failure, outcome = self._account, _NO_ROUTE, Outcome.DENIED
        while routes:
            route, *routes = routes
            if self._late():
                return self._unanswered(Outcome.FAILED if account.attempts else Outcome.EXPIRED, _LATE)
            objection = self._objection(route)
            if objection is not None:
                failure = Failure(code="denied", message=f"policy no longer allows route {route.name}: {objection}")
                account.denied(route, objection)
                continue
            outcome = Outcome.FAILED
            try:
                answer = await self._attempt(route)
            except Rejected as error:
                return self._unanswered(outcome, _told(error))
            except BackendError as error:
                failure = _told(error)
                # A local call that was lost disclosed nothing, so that nothing is in doubt.
                if isinstance(error, Ambiguous) and route.placement is Placement.HOSTED:
                    if not self._may_resend(route):
                        break
                    routes = self._resend(route, routes)
            else:
                return self._answered(answer)
        return self._unanswered(outcome, failure)

    async def _attempt(self, route: RouteConfig) -> Answer:
        kitchen, work, account = self._kitchen, self._work, self._account
        call = account.begin(route, resent=self._resent)
        if call.hosted:
            began = perf_counter()
            await self._commit(account.take())
            kitchen.metrics.stage_seconds.labels("intent").observe(perf_counter() - began)
        call.started_at, began = kitchen.clock(), perf_counter()
        if self._late():
            late = NotSent(_LATE.code, "the deadline passed before the call was made; nothing was sent")
            account.failed(call, late)
            raise late
        try:
            completion = await kitchen.backends[route.endpoint].complete(
                ModelCall(
                    call_id=call.call_id,
                    model=route.model,
                    messages=assemble(work.request),
                    max_tokens=allowed_tokens(route, work.request),
                    timeout_s=self._time_left(route),
                    temperature=work.request.model_policy.temperature,
                    traceparent=call.traceparent,
                )
            )
            call.seconds = perf_counter() - began
            kitchen.metrics.stage_seconds.labels("model").observe(call.seconds)
            return account.completed(call, completion)
        except BackendError as error:
            call.seconds = perf_counter() - began
            account.failed(call, error)
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was, a call has been made
            # Without the error's own text, which may hold what was asked or answered.
            told = kind_and_place(error)
            log.error("endpoint %s failed outside its contract: %s", route.endpoint, told)  # noqa: TRY400 - see above
            call.seconds = perf_counter() - began
            fault = Ambiguous("internal_error", f"the call failed outside its contract: {type(error).__name__}")
            account.failed(call, fault)
            raise fault from None

    def _answered(self, answer: Answer) -> Served:
        if answer.kept.withheld:
            return self._account.end(Outcome.WITHHELD, answer=answer, failure=_WITHHELD)
        if len(answer.kept.text) > MAX_ANSWER_CHARS:
            return self._account.end(Outcome.FAILED, failure=_TOO_LARGE)
        outcome = Outcome.REFUSED if answer.completion.refused else Outcome.COMPLETED
        return self._account.end(outcome, answer=answer)

    def _unanswered(self, outcome: Outcome, failure: Failure) -> Served:
        """End without an answer; while a call may have been accepted, that is `unknown` and nothing else (P5)."""
        return self._account.end(Outcome.UNKNOWN if self._account.in_doubt else outcome, failure=failure)

    def _objection(self, route: RouteConfig) -> str | None:
        """Ask policy again, as it is now."""
        request = self._work.request
        objection = objects(route, request, DataClass(self._work.classification.effective))
        if objection is not None:
            return objection
        spent = self._account.cost_usd + self._account.at_risk_usd
        if request.budget is not None and spent + estimate(route, request) > request.budget.max_cost_usd:
            return "budget"
        if route.placement is Placement.HOSTED and route.name not in self._work.waybills:
            return "no_waybill"
        return None

    def _late(self) -> bool:
        deadline = self._work.request.deadline_utc
        return deadline is not None and deadline <= self._kitchen.clock()

    def _time_left(self, route: RouteConfig) -> float:
        deadline = self._work.request.deadline_utc
        if deadline is None:
            return route.timeout_s
        return max(0.001, min(route.timeout_s, (deadline - self._kitchen.clock()).total_seconds()))


def assemble(request: RuntimeRequest) -> tuple[Message, ...]:
    """Give what the model is told: the context's sources as one system turn, then the conversation."""
    turns = tuple(Message(turn.role, turn.content) for turn in request.input.messages)
    if not request.input.context:
        return turns
    sources = "\n\n".join(f"[{item.source_id}]\n{item.content}" for item in request.input.context)
    return (Message("system", f"Use these sources:\n\n{sources}"), *turns)


def _told(error: BackendError) -> Failure:
    return Failure(code=error.code, message=str(error)[:2000], retryable=not isinstance(error, Rejected))
