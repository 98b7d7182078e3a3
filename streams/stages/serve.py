"""Serving one admitted request: re-check, intent, call, filter.

The order is the promise. Policy is asked again at the moment of sending (P1); the intent is durable before the first
byte leaves (P2); a call that may have been accepted ends as `unknown` (P5); an answer is filtered before it is written
(P6).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from time import perf_counter
from typing import Final

from evidence.errors import UnavailableError
from evidence.records import ConsentRef, Failure, Outcome, Placement, Position
from inference.backend import ModelCall
from inference.credentials import Authorization, Crossing
from inference.errors import Ambiguous, BackendError, NotSent, Rejected
from inference.routes import RouteConfig
from inference.rulebook import Rulebook
from policy.vault.keys import KeyDestroyed, VaultError
from streams.errors import kind_and_place, reason
from streams.ledger import Finding, Standing
from streams.processors.cases import allowed_tokens
from streams.processors.retention import FAILED
from streams.processors.routing import still_allowed
from streams.scanning import scan
from streams.stages.account import Account, Answer, Call, Kitchen, Served
from streams.stages.opening import BadWorkError, Opened, answer_rule, assemble, before_sending, kept, open_work
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
_UNREAD: Final = Failure(
    code="withheld", message="the detectors could not finish on the answer, so that nothing of it was kept"
)
_TOO_LARGE: Final = Failure(
    code="answer_too_large", message="the answer is larger than a response may be; nothing of it was kept"
)
_EXPIRED: Final = Failure(
    code="retention_expired", message="what was asked is not kept any more: retention destroyed its key"
)
_UNSEALED: Final = Failure(
    code="bad_seal",
    message="what was sealed with this request cannot be opened: it was changed, or the vault is not ours",
)
_RESPONSE_NOT_KEPT: Final = "the response could not be kept, as the retention rules ask"
_ERASED: Final = Failure(
    code="erased", message="what is kept about the person was erased after this was asked; nothing more is done with it"
)
MAX_ANSWER_CHARS: Final = 150_000
"""Longest answer that is kept: in JSON a character has up to 6 bytes, and a record has to fit the broker's 1 MiB."""


_PASSABLE: Final = frozenset({"budget", "route_gone"})
"""Objections of a route's row alone: another route that was granted may still serve the request."""


class _Denied(Exception):  # noqa: N818 - a signal between two methods of this module, never seen outside
    """A route may not be taken any more."""

    def __init__(self, route: RouteConfig, objections: Sequence[str]) -> None:
        told = f"policy no longer allows route {route.name}: {', '.join(objections)}"
        super().__init__(told)
        self.failure = _ERASED if _ERASED.code in objections else Failure(code="denied", message=told)
        self.passable = set(objections) <= _PASSABLE


class Serving:
    """The way of one work record through dispatch."""

    def __init__(self, kitchen: Kitchen, work: Work, place: Position, commit: Commit) -> None:
        self._kitchen = kitchen
        self._work = work
        self._commit = commit
        self._account = Account(kitchen, work, place)
        self._book = kitchen.shelf.current
        self._opened: Opened | None = None
        self._stored = False
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
                return await self._serve(self._routes())

    @property
    def crossed(self) -> bool:
        """Whether a call may have been made, or its intent is durable."""
        return self._account.crossed

    def broken(self, failure: Failure) -> Served:
        """End it where the program itself failed on it: a call that was intended and has no end is in doubt."""
        self._account.lost(failure)
        return self._unanswered(Outcome.FAILED, failure)

    def _routes(self) -> list[RouteConfig]:
        table = self._book.table.by_name
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
        return await self._serve(self._resend(routes[place], routes[place + 1 :]))

    def _may_resend(self, route: RouteConfig) -> bool:
        return route.on_ambiguous == "resend" and not self._resent

    def _resend(self, route: RouteConfig, rest: Sequence[RouteConfig]) -> list[RouteConfig]:
        """Use up the one repeat: a second disclosure to the same destination, and none to another one after it."""
        self._resent = True
        return [route, *(other for other in rest if other.placement is Placement.LOCAL)]

    async def _serve(self, routes: list[RouteConfig]) -> Served:
        try:
            opened = self._opened = open_work(self._work, self._kitchen.vault, self._book)
        except KeyDestroyed:
            return self._unanswered(Outcome.EXPIRED, _EXPIRED)
        except (VaultError, BadWorkError):
            return self._unanswered(Outcome.FAILED, _UNSEALED)
        return await self._try(opened, routes)

    async def _try(self, opened: Opened, routes: list[RouteConfig]) -> Served:
        account, failure = self._account, _NO_ROUTE
        while routes:
            route, *routes = routes
            if self._late():
                return self._unanswered(Outcome.FAILED if account.attempts else Outcome.EXPIRED, _LATE)
            try:
                return await self._answered(await self._attempt(opened, route))
            except _Denied as denied:
                failure = denied.failure
                if not denied.passable:
                    break  # what policy forbids now is not routed around
            except Rejected as error:
                failure = _told(error)
                break
            except BackendError as error:
                failure = _told(error)
                # A local call that was lost disclosed nothing, so that nothing is in doubt.
                if isinstance(error, Ambiguous) and route.placement is Placement.HOSTED:
                    if not self._may_resend(route):
                        break
                    routes = self._resend(route, routes)
        return self._unanswered(Outcome.FAILED if account.attempts else Outcome.DENIED, failure)

    async def _attempt(self, opened: Opened, route: RouteConfig) -> Answer:
        kitchen, account = self._kitchen, self._account
        hosted = route.placement is Placement.HOSTED
        self._check(opened, route)
        authorization = await self._prepare(opened, route)
        if hosted:
            self._check(opened, route)  # that took time, in which consent or policy may have changed
        call = account.begin(route, resent=self._resent, credential=authorization.ref if authorization else None)
        if hosted:
            began = perf_counter()
            await self._commit(account.take())
            kitchen.metrics.stage_seconds.labels("intent").observe(perf_counter() - began)
        call.started_at = kitchen.clock()
        if self._late():
            late = NotSent(_LATE.code, "the deadline passed before the call was made; nothing was sent")
            account.failed(call, late)
            raise late
        if self._erased():  # while what must be kept, or the intent, was being written
            account.failed(
                call, NotSent(_ERASED.code, "the person was erased before the call was made; nothing was sent")
            )
            raise _Denied(route, (_ERASED.code,))
        return await self._call(opened, call, authorization)

    def _check(self, opened: Opened, route: RouteConfig) -> None:
        """Ask policy again.

        Raises:
            _Denied: it does not allow the route any more; evidence says so.
        """
        objections = self._objections(opened, route)
        if objections:
            self._account.denied(route, objections)
            raise _Denied(route, objections)

    async def _prepare(self, opened: Opened, route: RouteConfig) -> Authorization | None:
        """Do what must be done before a call: keep what must be kept and, for a hosted one, get a credential.

        Raises:
            NotSent: one of both cannot be done.
        """
        kitchen, work, account = self._kitchen, self._work, self._account
        try:
            if not self._stored:
                await kitchen.keeper.keep(before_sending(work, opened, kitchen.vault, self._book, kitchen.clock()))
                self._stored = True
            credentials = kitchen.credentials.get(route.endpoint)
            if credentials is None or route.placement is Placement.LOCAL:
                return None
            endpoint = self._book.endpoints[route.endpoint]
            return await credentials.authorize(
                Crossing(
                    call_id=account.next_call_id,
                    route=route.name,
                    audience=endpoint.audience or endpoint.name,
                    tenant=work.said.tenant_ref,
                    actor_ref=work.said.actor_ref,
                    waybill_hash=account.contract(route.name),
                    site=kitchen.site,
                    now=kitchen.clock(),
                )
            )
        except (UnavailableError, VaultError) as error:
            failure = NotSent("not_kept", f"what must be kept could not be: {reason(error)}; nothing was sent")
            account.failed(account.begin(route, intend=False), failure)
            raise failure from None
        except BackendError as error:
            account.failed(account.begin(route, intend=False), error)
            raise

    async def _call(self, opened: Opened, call: Call, authorization: Authorization | None) -> Answer:
        kitchen, account, route = self._kitchen, self._account, call.route
        began = perf_counter()
        try:
            completion = await kitchen.backends[route.endpoint].complete(
                ModelCall(
                    call_id=call.call_id,
                    model=route.model,
                    messages=assemble(opened.request),
                    max_tokens=allowed_tokens(route, opened.case.wish),
                    timeout_s=self._time_left(route),
                    temperature=opened.request.model_policy.temperature,
                    traceparent=call.traceparent,
                    authorization=authorization.header if authorization else None,
                )
            )
            call.seconds = perf_counter() - began
            kitchen.metrics.stage_seconds.labels("model").observe(call.seconds)
            scanned = await scan(kitchen.scanner, completion.text)
            return account.completed(call, completion, answer_rule(self._work, route, self._book), scanned)
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

    async def _answered(self, answer: Answer) -> Served:
        if answer.kept.withheld:
            unread = FAILED in answer.kept.retained.removed
            return self._account.end(Outcome.WITHHELD, answer=answer, failure=_UNREAD if unread else _WITHHELD)
        if len(answer.kept.text) > MAX_ANSWER_CHARS:
            return self._account.end(Outcome.FAILED, failure=_TOO_LARGE)
        outcome = Outcome.REFUSED if answer.completion.refused else Outcome.COMPLETED
        detail = await self._keep_answer(answer)
        if self._erased():  # while the call was in the air, or the answer was being kept
            return self._account.end(Outcome.WITHHELD, failure=_ERASED)
        return self._account.end(outcome, answer=answer, detail=detail)

    async def _keep_answer(self, answer: Answer) -> str | None:
        """Keep the answer where the rules let it be kept; give what evidence has to say where that failed."""
        kitchen, now = self._kitchen, self._kitchen.clock()
        try:
            response = answer.kept.text.encode()
            items = kept(self._work, kitchen.vault, self._book, now, response=response)
            if items:
                await kitchen.keeper.keep(items)
        except (UnavailableError, VaultError):
            return _RESPONSE_NOT_KEPT
        return None

    def _unanswered(self, outcome: Outcome, failure: Failure) -> Served:
        """End without an answer; while a call may have been accepted, that is `unknown` and nothing else (P5)."""
        return self._account.end(Outcome.UNKNOWN if self._account.in_doubt else outcome, failure=failure)

    def _objections(self, opened: Opened, route: RouteConfig) -> tuple[str, ...]:
        """Ask policy again, as it is now, with consent and approval as they are now."""
        kitchen, work, account = self._kitchen, self._work, self._account
        book, now = kitchen.shelf.current, kitchen.clock()
        if route.name not in book.table.by_name:
            return ("route_gone",)
        said = work.said
        consent = kitchen.consents.state(said.tenant_ref, said.person, said.purpose, now)
        account.asked_again(book, ConsentRef(basis=work.consent.basis, state=consent.state, revision=consent.revision))
        self._book = book
        objection = _ERASED.code if self._erased() else _approval_objects(work, now)
        if objection is not None:
            return (objection,)
        case = opened.case._replace(facts=opened.case.facts._replace(consent=consent.state))
        granted = opened.granted
        if work.approval is not None:
            granted = granted._replace(approved=True, overridden=work.approval.override)
        spent = account.cost_usd + account.at_risk_usd
        current = book.table.by_name[route.name]
        found = still_allowed(case, current, opened.held, granted, book, spent=spent)
        if not found and route.placement is Placement.HOSTED:
            found = _contract_objects(work, current, book)
        return found

    def _erased(self) -> bool:
        """Say whether the person was erased after this was asked."""
        at = self._kitchen.erased(self._work.said.tenant_ref, self._work.said.person)
        return at is not None and self._work.admitted_at_utc <= at

    def _late(self) -> bool:
        deadline = self._work.deadline_utc
        return deadline is not None and deadline <= self._kitchen.clock()

    def _time_left(self, route: RouteConfig) -> float:
        deadline = self._work.deadline_utc
        if deadline is None:
            return route.timeout_s
        return max(0.001, min(route.timeout_s, (deadline - self._kitchen.clock()).total_seconds()))


def _approval_objects(work: Work, now: datetime) -> str | None:
    """Say why the approval that a request rests on does not hold, if it rests on one."""
    approval = work.approval
    if work.policy.required_approvals and approval is None:
        return "no_approval"
    if approval is None:
        return None
    if approval.payload_sha256 != work.payload_sha256:
        return "approval_of_another_payload"
    if approval.expires_at_utc is not None and approval.expires_at_utc <= now:
        return "approval_expired"
    return None


def _contract_objects(work: Work, route: RouteConfig, book: Rulebook) -> tuple[str, ...]:
    """Say why a route's contract does not cover a crossing as the route is now."""
    contract = work.waybills.get(route.name)
    if contract is None:
        return ("no_waybill",)
    endpoint = book.endpoints[route.endpoint]
    there = (contract.destination.provider, contract.destination.region, contract.model_route, contract.encryption)
    now = (endpoint.provider, route.region, f"{route.name}/{route.model}", endpoint.encryption)
    if there != now or route.retention_days > contract.retention.destination_days:
        return ("waybill_outdated",)
    return ()


def _told(error: BackendError) -> Failure:
    return Failure(code=error.code, message=str(error)[:2000], retryable=not isinstance(error, Rejected))
