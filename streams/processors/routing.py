"""Routing: which routes the table allows for a request, in order, and why the others are passed over.

Default deny: a route serves a request only where its row allows class, purpose, task type, region, risk and budget,
and, where it is hosted, where all nine fields of a waybill can be written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from evidence.records import Placement, PolicyRef
from inference.routes import ANY, RouteConfig, RouteTable, risk_of, widens
from policy.contract import STOP, Destination, Encryption, RetentionTerms, Waybill
from policy.labels import DataClass
from streams.request import RuntimeRequest

BYTES_PER_TOKEN: Final = 3
"""For estimating a cost before it is known: fewer bytes of UTF-8 a token than most texts have, to err upward."""

TOKENS_PER_TURN: Final = 8
"""What a chat template adds to each turn at most."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What routing must know of an endpoint."""

    name: str
    """Its name in the settings."""

    provider: str
    """Who runs it."""

    encryption: Encryption
    """How the way to it is protected."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What may happen to a request."""

    policy: PolicyRef
    """Allow or deny, with the reasons."""

    routes: tuple[RouteConfig, ...]
    """The chosen route and then its fallbacks; empty where denied."""


def decide(request: RuntimeRequest, effective: DataClass, table: RouteTable) -> Decision:
    """Choose the first route that the table allows, and those of its fallbacks that are allowed too."""
    reasons: list[str] = []
    for route in table.routes:
        objection = objects(route, request, effective)
        if objection is None:
            fallbacks = _fallbacks(route, request, effective, table)
            policy = _policy(table, "allow", (f"{route.name}:allowed", *reasons))
            return Decision(policy, (route, *fallbacks))
        reasons.append(f"{route.name}:{objection}")
    return Decision(_policy(table, "deny", ("no_route", *reasons)), ())


def objects(route: RouteConfig, request: RuntimeRequest, effective: DataClass) -> str | None:
    """Name the first reason why a route may not serve a request, or None where it may."""
    wanted = request.model_policy
    if effective not in route.classes:
        return "class"
    if wanted.placement not in {"any", route.placement.value}:
        return "placement"
    if not _serves(route.capabilities, request.task_type):
        return "capability"
    if not _serves(route.purposes, request.purpose):
        return "purpose"
    if wanted.regions and route.region not in wanted.regions:
        return "region"
    if risk_of(request.risk_level) > risk_of(route.max_risk):
        return "risk"
    if route.placement is Placement.HOSTED and request.consent is None:
        return "no_consent"
    if request.budget is not None and estimate(route, request) > request.budget.max_cost_usd:
        return "budget"
    return None


def estimate(route: RouteConfig, request: RuntimeRequest) -> float:
    """Give an estimate of one call's price that errs upward, in US dollars."""
    turns = len(request.input.messages) + len(request.input.context) + 1
    tokens = len(request.texts().encode()) // BYTES_PER_TOKEN + turns * TOKENS_PER_TURN
    return route.price.cost(tokens, allowed_tokens(route, request))


def allowed_tokens(route: RouteConfig, request: RuntimeRequest) -> int:
    """Give how many tokens may be generated: the lower of the route's bound and the application's."""
    return min(route.max_tokens, request.model_policy.max_tokens or route.max_tokens)


def waybills(
    intake: str, request: RuntimeRequest, effective: DataClass, decision: Decision, endpoints: Mapping[str, Endpoint]
) -> dict[str, Waybill]:
    """Write the contract of every hosted route among a decision's routes, by the route's name."""
    return {
        route.name: waybill(intake, request, effective, route, decision.routes[place + 1 :], endpoints[route.endpoint])
        for place, route in enumerate(decision.routes)
        if route.placement is Placement.HOSTED
    }


def waybill(
    intake: str,
    request: RuntimeRequest,
    effective: DataClass,
    route: RouteConfig,
    rest: tuple[RouteConfig, ...],
    endpoint: Endpoint,
) -> Waybill:
    """Write the contract for one crossing; `rest` are the routes that may be tried after it.

    Raises:
        ValueError: the request has no consent; `objects` refuses such a crossing before this is asked.
    """
    if request.consent is None:
        raise ValueError("a crossing without consent has no waybill")
    basis, reference = request.consent.basis, request.consent.reference
    return Waybill(
        intake_id=intake,
        data_classification=effective,
        purpose=request.purpose,
        destination=Destination(provider=endpoint.provider, endpoint=endpoint.name, region=route.region),
        model_route=f"{route.name}/{route.model}",
        retention=RetentionTerms(
            destination_days=route.retention_days,
            forbidden_in_answer=route.answer.forbid,
            action=route.answer.action,
        ),
        encryption=endpoint.encryption,
        redaction="none",
        consent=f"{basis}:{reference}" if reference else basis,
        fallback=tuple(other.name for other in rest) or (STOP,),
    )


def _fallbacks(
    chosen: RouteConfig, request: RuntimeRequest, effective: DataClass, table: RouteTable
) -> tuple[RouteConfig, ...]:
    named = (table.by_name[name] for name in chosen.fallback)
    return tuple(
        route for route in named if widens(chosen, route) is None and objects(route, request, effective) is None
    )


def _serves(names: tuple[str, ...], asked: str) -> bool:
    return asked in names or ANY in names


def _policy(table: RouteTable, decision: str, reasons: tuple[str, ...]) -> PolicyRef:
    return PolicyRef(decision=decision, policy_id=table.policy_id, policy_version=table.policy_version, reasons=reasons)
