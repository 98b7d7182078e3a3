"""Routing: which routes may serve a request, in order, and why the others are passed over.

Default deny: a route serves a request only where its row allows task, purpose, region, risk and budget, where the
class of what would be sent is within the row, and where policy permits it. Whatever policy answers, it answers of
exactly the data that would go: the conversation, and those of its sources that the task requires.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from evidence.canonical import sha256_hex
from evidence.records import Placement, PolicyRef
from inference.routes import ANY, RouteConfig, risk_of
from inference.rulebook import Rulebook
from policy.contract import STOP, WAYBILL_VERSION, Destination, RetentionTerms, Waybill
from policy.engine import Held
from policy.questions import Granted, Outcome, Verdict
from policy.retention import join_answer_rules
from streams.processors.cases import Case, estimate, joined, to_json

NO_ROUTE: Final = "no_route"
"""The first reason of a denial."""

_NEEDS: Final = {"required": 0, "useful": 1, "background": 2}
_TAKES: Final = {"required": 0, "useful": 1, "all": 2}


@dataclass(frozen=True, slots=True)
class Selection:
    """What of a request would go along on a route."""

    held: Held
    """The data of it, together."""

    items: tuple[int, ...] = ()
    """Places of the sources that go along."""

    left: tuple[tuple[int, str], ...] = ()
    """Places of those that stay, each with the reason."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What may happen to a request."""

    outcome: Outcome
    """One of five."""

    reasons: tuple[str, ...]
    """Each `<route>:<code>`, the deciding ones first."""

    routes: tuple[RouteConfig, ...] = ()
    """The chosen route and then its fallbacks; empty where denied."""

    verdict: Verdict | None = None
    """What policy says of the chosen route."""

    selection: Selection | None = None
    """What would go along."""

    @property
    def waits(self) -> bool:
        """Whether a person has to say something first."""
        return self.outcome in {Outcome.REQUIRE_APPROVAL, Outcome.ESCALATE}


def decide(case: Case, book: Rulebook) -> Decision:
    """Choose the first route that may serve a request, and those that may stand in for it.

    A person is asked only where no route may serve without one.
    """
    passed: list[str] = []
    waiting: tuple[RouteConfig, Verdict, Selection] | None = None
    for route in book.table.routes:
        objection = objects(route, case)
        if objection is not None:
            passed.append(f"{route.name}:{objection}")
            continue
        selection, verdict = ask(route, case, book)
        if verdict.free:
            return _chosen(route, verdict, selection, case, book, passed)
        if verdict.outcome is not Outcome.DENY and waiting is None:
            waiting = route, verdict, selection
        passed.extend(f"{route.name}:{reason}" for reason in verdict.reasons)
    if waiting is not None:
        return _chosen(*waiting, case, book, passed)
    return Decision(Outcome.DENY, (NO_ROUTE, *passed))


def ask(route: RouteConfig, case: Case, book: Rulebook) -> tuple[Selection, Verdict]:
    """Ask policy about a route: with the sources that it takes, or else without those that are not required."""
    facts = book.facts[route.name]
    selection = select(route, case, book)
    verdict = book.engine.decide(case.facts, selection.held, facts)
    if verdict.free or all(case.items[place].need == "required" for place in selection.items):
        return selection, verdict
    less = select(route, case, book, only_required=True)
    other = book.engine.decide(case.facts, less.held, facts)
    return (less, other) if other.free or verdict.outcome is Outcome.DENY else (selection, verdict)


def _chosen(
    route: RouteConfig, verdict: Verdict, selection: Selection, case: Case, book: Rulebook, passed: list[str]
) -> Decision:
    mine = tuple(f"{route.name}:{reason}" for reason in verdict.reasons)
    others = tuple(reason for reason in passed if reason not in mine)
    routes = (route, *stand_ins(route, case, selection, verdict.granted, book))
    return Decision(verdict.outcome, (*mine, *others), routes, verdict, selection)


def stand_ins(
    chosen: RouteConfig, case: Case, selection: Selection, granted: Granted, book: Rulebook
) -> tuple[RouteConfig, ...]:
    """Give the routes that may be tried after the chosen one, with what was granted and nothing more."""
    return tuple(
        route
        for route in book.fallbacks[chosen.name]
        if objects(route, case) is None
        and (route.placement is Placement.LOCAL or _within(selection, select(route, case, book)))
        and book.engine.recheck(case.facts, selection.held, book.facts[route.name], granted).free
    )


def _within(sent: Selection, wanted: Selection) -> bool:
    """Say whether a route would be sent no more than it takes: one text is made for all that may serve a request."""
    return set(sent.items) <= set(wanted.items)


def select(route: RouteConfig, case: Case, book: Rulebook, *, only_required: bool = False) -> Selection:
    """Choose which sources of context go along: those that the route takes and that the task needs.

    A source that the task requires always counts; where its class is too high, the route cannot serve the request.

    Args:
        route: where they would go.
        case: the request.
        book: says what a route may take.
        only_required: whether policy does not allow the others.
    """
    if not case.items:
        return Selection(case.held)
    classes, most = book.facts[route.name].classes, _TAKES[route.context]
    taken: list[int] = []
    left: list[tuple[int, str]] = []
    for place, item in enumerate(case.items):
        if _NEEDS[item.need] > most:
            left.append((place, "not_required"))
        elif item.need != "required" and book.engine.residual(item.held, frozenset()).cls not in classes:
            left.append((place, "class"))
        elif item.need != "required" and only_required:
            left.append((place, "policy"))
        else:
            taken.append(place)
    held = joined(case.held, (case.items[place] for place in taken), book.labels.joined)
    return Selection(held, tuple(taken), tuple(left))


def objects(route: RouteConfig, case: Case) -> str | None:
    """Name the first reason why a route's row does not serve a request, or None where it does."""
    facts, wish = case.facts, case.wish
    if wish.placement not in {"any", route.placement.value}:
        return "placement"
    if not _serves(route.capabilities, facts.task):
        return "capability"
    if not _serves(route.purposes, facts.purpose):
        return "purpose"
    if wish.regions and route.region not in wish.regions:
        return "region"
    if facts.risk > risk_of(route.max_risk):
        return "risk"
    if route.placement is Placement.HOSTED and route.contract != WAYBILL_VERSION:
        return "contract_version"
    if wish.budget is not None and estimate(route, wish) > wish.budget:
        return "budget"
    return None


def policy_ref(decision: Decision, case: Case, book: Rulebook, *, identity: str) -> PolicyRef:
    """Give the decision record.

    Args:
        decision: what was decided.
        case: what it rests on.
        book: by what.
        identity: the decision's own id.
    """
    verdict = decision.verdict
    chosen = decision.routes[0] if decision.routes else None
    return PolicyRef(
        decision=decision.outcome,
        policy_id=book.table.policy_id,
        policy_version=book.version,
        reasons=decision.reasons,
        decision_id=identity,
        scope=scope_of(case, chosen),
        inputs=to_json(case),
        required_approvals=verdict.authorities if verdict else (),
        redaction=redactions(verdict) if verdict else (),
        review_path=book.table.review_path,
    )


def scope_of(case: Case, route: RouteConfig | None) -> str:
    """Give what a decision is about: `<action>:<route>`."""
    action = case.facts.action if route is None or route.placement is Placement.HOSTED else "local-call"
    return f"{action}:{route.name}" if route else action


def redactions(verdict: Verdict) -> tuple[str, ...]:
    """Give what a verdict wants taken out, each `<category>:<style>`."""
    return tuple(f"{category}:{style}" for category, style in verdict.styles)


def decision_id(intake: str, step: str) -> str:
    """Give the id of a decision: 32 hex digits."""
    return sha256_hex(f"{intake}/decision/{step}".encode())[:32]


def waybills(
    intake: str, case: Case, decision: Decision, consent: str, taken_out: tuple[str, ...], book: Rulebook
) -> dict[str, Waybill]:
    """Write the contract of every hosted route among a decision's routes, by the route's name.

    Args:
        intake: the request that it travels with.
        case: what the decision rests on.
        decision: the decision.
        consent: the basis, as `<basis>` or `<basis>:<reference>`.
        taken_out: what was taken out of the text, each `<category>:<style>`.
        book: by what it was decided.
    """
    selection = decision.selection
    if selection is None or not decision.routes:
        return {}
    granted = decision.verdict.granted if decision.verdict else Granted()
    cls = book.engine.residual(selection.held, granted.redacted).cls
    original = book.engine.residual(selection.held, frozenset()).cls
    kept = book.retention.rule_for(original, case.facts.purpose).answer
    found: dict[str, Waybill] = {}
    for place, route in enumerate(decision.routes):
        if route.placement is not Placement.HOSTED:
            continue
        endpoint = book.endpoints[route.endpoint]
        rule = join_answer_rules(join_answer_rules(route.answer, decision.routes[0].answer), kept)
        found[route.name] = Waybill(
            transition="model-call",
            intake_id=intake,
            data_classification=cls,
            purpose=case.facts.purpose,
            destination=Destination(provider=endpoint.provider, endpoint=endpoint.name, region=route.region),
            model_route=f"{route.name}/{route.model}",
            retention=RetentionTerms(
                destination_days=route.retention_days, forbidden_in_answer=rule.forbid, action=rule.action
            ),
            encryption=endpoint.encryption,
            redaction=taken_out or ("none",),
            consent=consent,
            fallback=tuple(other.name for other in decision.routes[place + 1 :]) or (STOP,),
        )
    return found


def still_allowed(
    case: Case, route: RouteConfig, held: Held, granted: Granted, book: Rulebook, *, spent: float
) -> tuple[str, ...]:
    """Ask again, at the moment of sending, whether a route may be taken; give what objects, nothing where it may.

    Args:
        case: what is known now.
        route: where it is about to go.
        held: the data of what is about to go.
        granted: what was granted, and still holds.
        book: the rulebook in force now.
        spent: what earlier attempts have cost or may have cost, in US dollars.
    """
    objection = objects(route, case)
    if objection is None and case.wish.budget is not None and spent + estimate(route, case.wish) > case.wish.budget:
        objection = "budget"
    if objection is not None:
        return (objection,)
    verdict = book.engine.recheck(case.facts, held, book.facts[route.name], granted)
    return () if verdict.free else verdict.reasons


def _serves(names: tuple[str, ...], asked: str) -> bool:
    return asked in names or ANY in names
