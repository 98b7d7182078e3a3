"""Routing: default deny, fallbacks within the grant, and a waybill for every crossing."""

from __future__ import annotations

import pytest
from decisions import ENDPOINTS, TWO_HOSTED
from hypothesis import given
from hypothesis import strategies as st
from requests_made import encoded, request, table

from evidence.records import Placement
from inference.routes import RouteTable, widens
from policy.labels import DataClass
from streams.processors.routing import decide, estimate, waybill, waybills
from streams.request import RuntimeRequest, parse

NINE = ("dataClassification", "purpose", "destination", "modelRoute", "retention", "encryption", "redaction", "consent",
        "fallback")  # fmt: skip


def made(**changes) -> RuntimeRequest:
    """A request."""
    return parse(encoded(request("r1", **changes)))


@pytest.mark.parametrize(
    ("changes", "effective", "routes", "reason"),
    [
        ({}, "public", ["hosted-general", "local-small"], "hosted-general:allowed"),
        ({}, "internal", ["hosted-general", "local-small"], "hosted-general:allowed"),
        ({}, "confidential", ["local-small"], "hosted-general:class"),
        ({}, "restricted", [], "local-small:class"),
        ({"consent": None}, "public", ["local-small"], "hosted-general:no_consent"),
        ({"modelPolicy": {"placement": "local"}}, "public", ["local-small"], "hosted-general:placement"),
        ({"modelPolicy": {"placement": "hosted"}}, "public", ["hosted-general"], "hosted-general:allowed"),
        ({"modelPolicy": {"placement": "hosted"}}, "confidential", [], "local-small:placement"),
        ({"modelPolicy": {"regions": ["eu"]}}, "public", ["hosted-general"], "hosted-general:allowed"),
        ({"modelPolicy": {"regions": ["us"]}}, "public", [], "hosted-general:region"),
        ({"riskLevel": "high"}, "public", ["local-small"], "hosted-general:risk"),
        ({"budget": {"maxCostUsd": 1e-6}}, "public", ["local-small"], "hosted-general:budget"),
        ({"budget": {"maxCostUsd": 1.0}}, "public", ["hosted-general", "local-small"], "hosted-general:allowed"),
    ],
)
def test_the_table_of_decisions(changes, effective, routes, reason):
    """The first route without an objection serves, its allowed fallbacks follow, and each objection is named."""
    decision = decide(made(**changes), DataClass(effective), table())
    assert [route.name for route in decision.routes] == routes
    assert reason in decision.policy.reasons
    assert decision.policy.decision == ("allow" if routes else "deny")


@pytest.mark.parametrize(("field", "row", "reason"), [("taskType", "capabilities", "capability"),
                                                      ("purpose", "purposes", "purpose")])  # fmt: skip
def test_what_a_row_does_not_name_it_does_not_serve(field, row, reason):
    """A task type or purpose that no row names is denied."""
    only = table(TWO_HOSTED.replace(f'{row}: ["*"]', f"{row}: [known]"))
    assert decide(made(**{field: "known"}), DataClass.PUBLIC, only).routes
    denied = decide(made(**{field: "new"}), DataClass.PUBLIC, only)
    assert denied.policy.reasons == ("no_route", *(f"{route.name}:{reason}" for route in only.routes))


NAMES = ["a", "b", "c", "d"]
SOME = st.lists(st.sampled_from(["x", "y", "*"]), min_size=1, max_size=2, unique=True)


@st.composite
def tables(draw) -> RouteTable:
    """Any table of four routes; fallbacks may be named that would widen, since decisions must not rely on the check."""
    rows = []
    for name in NAMES:
        hosted = draw(st.booleans())
        rows.append({
            "name": name, "placement": "hosted" if hosted else "local", "endpoint": "hosted" if hosted else "local",
            "model": "m", "region": draw(st.sampled_from(["eu", "us"])), "capabilities": draw(SOME),
            "classes": draw(st.lists(st.sampled_from(list(DataClass)), min_size=1, max_size=4, unique=True)),
            "purposes": draw(SOME), "max_risk": draw(st.sampled_from(["low", "medium", "high"])), "max_tokens": 10,
            "timeout_s": 1, "retention_days": draw(st.integers(0, 2)),
            "price": {"input_per_million_usd": draw(st.sampled_from([0, 1, 500])), "output_per_million_usd": 0},
            "answer": {"forbid": draw(st.lists(st.sampled_from(["personal", "secret"]), unique=True)),
                       "action": draw(st.sampled_from(["mask", "drop", "refuse"]))},
            "fallback": draw(st.lists(st.sampled_from([other for other in NAMES if other != name]), unique=True)),
            "on_ambiguous": draw(st.sampled_from(["stop", "resend"])),
        })  # fmt: skip
    return RouteTable.model_validate({"version": 1, "policy_id": "any", "routes": rows})


REQUESTS = st.builds(
    made,
    taskType=st.sampled_from(["x", "y", "z"]), purpose=st.sampled_from(["x", "y", "z"]),
    riskLevel=st.sampled_from(["low", "medium", "high"]),
    consent=st.sampled_from([None, {"basis": "contract"}, {"basis": "consent", "reference": "c-1"}]),
    budget=st.sampled_from([None, {"maxCostUsd": 0.001}]),
    modelPolicy=st.fixed_dictionaries({"placement": st.sampled_from(["any", "local", "hosted"]),
                                       "regions": st.lists(st.sampled_from(["eu", "us"]), unique=True)}),
)  # fmt: skip


@given(made_table=tables(), asked=REQUESTS, effective=st.sampled_from(list(DataClass)))
def test_a_decision_never_leaves_the_table_or_the_request(made_table, asked, effective):
    """Every chosen route allows what is asked; a fallback never widens; every crossing has nine non-empty fields."""
    decision = decide(asked, effective, made_table)
    contracts = waybills("i", asked, effective, decision, ENDPOINTS)
    for route in decision.routes:
        assert effective in route.classes
        assert asked.model_policy.placement in {"any", route.placement}
        assert not asked.model_policy.regions or route.region in asked.model_policy.regions
        assert {asked.task_type, "*"} & set(route.capabilities)
        assert {asked.purpose, "*"} & set(route.purposes)
    for other in decision.routes[1:]:
        first = decision.routes[0]
        assert widens(first, other) is None
        if other.placement is Placement.HOSTED:
            assert first.placement is Placement.HOSTED
            assert other.region == first.region
            assert other.retention_days <= first.retention_days
            assert set(other.answer.forbid) >= set(first.answer.forbid)
            assert (first.on_ambiguous, other.on_ambiguous) != ("stop", "resend")
    hosted = {route.name for route in decision.routes if route.placement is Placement.HOSTED}
    assert set(contracts) == hosted
    for contract in contracts.values():
        content = contract.model_dump(mode="json", by_alias=True)
        assert all(content[name] for name in NINE)
        assert len(contract.digest()) == 64


@given(made_table=tables(), asked=REQUESTS)
def test_a_request_without_consent_never_crosses(made_table, asked):
    """Taking consent away never adds a hosted route, and none is left."""
    without = asked.model_copy(update={"consent": None})
    for effective in DataClass:
        chosen = decide(without, effective, made_table).routes
        assert all(route.placement is Placement.LOCAL for route in chosen)


@given(asked=REQUESTS, ceilings=st.lists(st.sampled_from(list(DataClass)), min_size=4, max_size=4), made_table=tables())
def test_raising_the_class_never_adds_a_route(asked, ceilings, made_table):
    """In a table whose rows each allow up to a ceiling, a higher class leaves fewer routes that may serve."""
    rows = [
        route.model_copy(update={"classes": tuple(label for label in DataClass if label <= ceiling)})
        for route, ceiling in zip(made_table.routes, ceilings, strict=True)
    ]
    one_by_one = [
        RouteTable(version=1, policy_id="p", routes=(row.model_copy(update={"fallback": ()}),)) for row in rows
    ]
    before: set[str] | None = None
    for effective in DataClass:
        allowed = {only.routes[0].name for only in one_by_one if decide(asked, effective, only).routes}
        assert before is None or allowed <= before
        before = allowed


def test_a_waybill_says_what_may_be_tried_after_it():
    """Each contract names the routes behind its own; the last one says stop."""
    asked = made(modelPolicy={"placement": "hosted"}, consent={"basis": "consent", "reference": "c-9"})
    decision = decide(asked, DataClass.PUBLIC, table(TWO_HOSTED))
    contracts = waybills("i", asked, DataClass.PUBLIC, decision, ENDPOINTS)
    assert contracts["hosted-general"].fallback == ("hosted-second",)
    assert contracts["hosted-second"].fallback == ("stop",)
    assert contracts["hosted-second"].consent == "consent:c-9"
    assert contracts["hosted-general"].digest() != contracts["hosted-second"].digest()


def test_no_contract_is_written_without_consent():
    """The last guard: a waybill is refused where consent is missing."""
    route = table().routes[0]
    with pytest.raises(ValueError, match="without consent"):
        waybill("i", made(consent=None), DataClass.PUBLIC, route, (), ENDPOINTS["hosted"])


@given(text=st.text(min_size=1, max_size=200), turns=st.integers(1, 30))
def test_an_estimate_grows_with_all_that_crosses(text, turns):
    """An estimate counts bytes and turns: no text is priced below a third of a token a byte."""
    messages = [{"role": "user", "content": text}] * turns
    asked, route = made(input={"messages": messages}), table().routes[0]
    least = route.price.cost(turns * (len(text.encode()) // 3), route.max_tokens)
    assert estimate(route, asked) >= least
