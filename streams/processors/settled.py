"""What is settled: decisions that many requests share, and what follows from them, ready to be written.

A decision rests on less than a request says: two requests that differ in nothing that a route's row or a policy reads
get the same one. It is remembered by exactly that, together with the fixed parts of the decision record and of the
contracts; what differs is filled in for each request.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import orjson

from evidence.canonical import sha256_hex
from evidence.records import RouteRef
from inference.rulebook import Rulebook
from streams.memory import Memory
from streams.processors.cases import Case, estimate, to_json
from streams.processors.routing import Decision, decide, policy_ref, waybills

_BLANK: Final = "-"
"""Stands in a form for what each request fills in."""


class Contract(NamedTuple):
    """The waybill of one request and route."""

    text: orjson.Fragment
    """Its JSON."""

    digest: str
    """Its SHA-256 (`Record.digest`)."""


class Settled:
    """A decision, with all that requests share that get it."""

    def __init__(self, decision: Decision, case: Case, book: Rulebook) -> None:
        self.decision = decision
        self.book = book
        self.route: RouteRef | None = None
        if decision.routes:
            chosen = decision.routes[0]
            self.route = chosen.ref(book.endpoints[chosen.endpoint].provider)
        self.fallbacks = tuple(route.name for route in decision.routes[1:])
        self._case = case
        self._policy: dict[str, Any] = orjson.loads(policy_ref(decision, case, book, identity=_BLANK).to_json())
        self._contracts: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}

    def policy(self, case: Case, identity: str) -> orjson.Fragment:
        """Give the JSON of one request's decision record, as `policy_ref` makes it.

        Raises:
            RecordError: `case_too_large`; the case is too long for one.
        """
        inputs = to_json(case)
        return orjson.Fragment(orjson.dumps({**self._policy, "decisionId": identity, "inputs": inputs}))

    def contracts(self, intake: str, consent: str, taken_out: tuple[str, ...]) -> dict[str, Contract]:
        """Give the contract of every hosted route by its name, as `waybills` makes them."""
        forms = self._contracts.get(taken_out)
        if forms is None:
            made = waybills(_BLANK, self._case, self.decision, _BLANK, taken_out, self.book)
            forms = self._contracts[taken_out] = {name: orjson.loads(one.to_json()) for name, one in made.items()}
        found = {}
        for name, form in forms.items():
            content = {**form, "intakeId": intake, "consent": consent}
            digest = sha256_hex(orjson.dumps(content, option=orjson.OPT_SORT_KEYS))
            found[name] = Contract(orjson.Fragment(orjson.dumps(content)), digest)
        return found


_SETTLED: Final = Memory[Any, Settled]()


def settle(case: Case, book: Rulebook) -> Settled:
    """Decide (`routing.decide`), or remember what was decided of such a case by this rulebook."""
    facts, wish = case.facts, case.wish
    over: tuple[bool, ...] = ()
    if wish.budget is not None:
        over = tuple(estimate(route, wish) > wish.budget for route in book.table.routes)
    key = (
        id(book),
        book.engine.key(facts),
        facts.task,
        facts.purpose,
        facts.risk,
        wish.placement,
        wish.regions,
        over,
        case.held,
        case.items,
    )
    return _SETTLED.get(key) or _SETTLED.keep(key, Settled(decide(case, book), case, book))
