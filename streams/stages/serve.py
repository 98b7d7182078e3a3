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
from inference.errors import Ambiguous, BackendError, Rejected
from inference.routes import RouteConfig
from policy.labels import DataClass
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


class Serving:
    """The way of one work record through dispatch."""

    def __init__(self, kitchen: Kitchen, work: Work, place: Position, commit: Commit) -> None:
        self._kitchen = kitchen
        self._work = work
        self._commit = commit
        self._account = Account(kitchen, work, place)

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
                return self._account.end(Outcome.DUPLICATE, failure=_DUPLICATE, duplicate_of=holder, ledger=False)
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
        routes = self._routes()
        place = next((at for at, route in enumerate(routes) if route.name == entry.route), None)
        if place is None or routes[place].on_ambiguous == "stop":
            return self._account.end(Outcome.UNKNOWN, failure=failure)
        return await self._try(routes[place:])

    async def _try(self, routes: list[RouteConfig]) -> Served:
        account, failure, outcome = self._account, _NO_ROUTE, Outcome.DENIED
        queue, resent = list(routes), False
        while queue:
            route = queue.pop(0)
            if self._late():
                return account.end(Outcome.FAILED if account.attempts else Outcome.EXPIRED, failure=_LATE)
            objection = self._objection(route)
            if objection is not None:
                failure = Failure(code="denied", message=f"policy no longer allows route {route.name}: {objection}")
                account.denied(route, objection)
                continue
            outcome = Outcome.FAILED
            try:
                answer = await self._attempt(route)
            except Rejected as error:
                return account.end(outcome, failure=_told(error))
            except Ambiguous as error:
                failure = _told(error)
                if route.placement is Placement.LOCAL:
                    continue  # nothing was disclosed, so nothing is in doubt
                if route.on_ambiguous == "stop" or resent:
                    return account.end(Outcome.UNKNOWN, failure=failure)
                resent = True
                queue.insert(0, route)
            except BackendError as error:
                failure = _told(error)
            else:
                return self._answered(answer)
        return account.end(outcome, failure=failure)

    async def _attempt(self, route: RouteConfig) -> Answer:
        kitchen, work, account = self._kitchen, self._work, self._account
        call = account.begin(route)
        if call.hosted:
            began = perf_counter()
            await self._commit(account.take())
            kitchen.metrics.stage_seconds.labels("intent").observe(perf_counter() - began)
        model_call = ModelCall(
            call_id=call.call_id,
            model=route.model,
            messages=assemble(work.request),
            max_tokens=allowed_tokens(route, work.request),
            timeout_s=self._time_left(route),
            temperature=work.request.model_policy.temperature,
            traceparent=call.traceparent,
        )
        call.started_at, began = kitchen.clock(), perf_counter()
        try:
            completion = await kitchen.backends[route.endpoint].complete(model_call)
        except BackendError as error:
            call.seconds = perf_counter() - began
            account.failed(call, error)
            raise
        except Exception as error:
            log.exception("backend %s failed outside its contract", route.endpoint)
            call.seconds = perf_counter() - began
            fault = Ambiguous("internal_error", f"the backend failed outside its contract: {type(error).__name__}")
            account.failed(call, fault)
            raise fault from error
        call.seconds = perf_counter() - began
        kitchen.metrics.stage_seconds.labels("model").observe(call.seconds)
        return account.completed(call, completion)

    def _answered(self, answer: Answer) -> Served:
        if answer.kept.withheld:
            return self._account.end(Outcome.WITHHELD, answer=answer, failure=_WITHHELD)
        outcome = Outcome.REFUSED if answer.completion.refused else Outcome.COMPLETED
        return self._account.end(outcome, answer=answer)

    def _objection(self, route: RouteConfig) -> str | None:
        """Ask policy again, as it is now."""
        request = self._work.request
        objection = objects(route, request, DataClass(self._work.classification.effective))
        if objection is not None:
            return objection
        spent = self._account.cost_usd
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
