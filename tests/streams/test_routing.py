"""Routing: default deny, sources by need, fallbacks within the grant, and a waybill for every crossing."""

from __future__ import annotations

from typing import Any

import pytest
from decisions import SCANNER
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from requests_made import (
    APPROVING,
    CONFIDENTIAL_HOSTED,
    FORBIDDING,
    POLICY,
    ROUTES,
    TWO_HOSTED,
    book,
    encoded,
    redacting,
    request,
    source,
    with_context,
)

from evidence.records import Placement
from inference.rulebook import Rulebook
from policy.engine import Held
from policy.identity.verify import unsigned
from policy.labels import Label
from policy.questions import NOTHING, Granted, Outcome
from streams.processors.cases import Case, Wish, estimate, from_json, to_json
from streams.processors.classification import classify
from streams.processors.routing import decide, policy_ref, select, still_allowed, waybills
from streams.request import parse
from streams.stages.admitted import case_of

NINE = ("dataClassification", "purpose", "destination", "modelRoute", "retention", "encryption", "redaction", "consent",
        "fallback")  # fmt: skip
MAIL = "anna@example.org"
CLASSES = ("public", "internal", "confidential", "restricted")


def case(by: Rulebook | None = None, known: str = "none", **changes: Any) -> Case:
    """All that a decision on a request rests on."""
    made = parse(encoded(request("r1", **changes)))
    classified = classify(made, (by or book()).labels, SCANNER)
    return case_of(made, unsigned(made.actor.id, made.actor.kind, made.tenant.id), classified, known, frozenset())


@pytest.mark.parametrize(
    ("changes", "effective", "routes", "reason"),
    [
        ({}, "public", ["hosted-general", "local-small"], "hosted-general:ordinary-work"),
        ({}, "internal", ["hosted-general", "local-small"], "hosted-general:ordinary-work"),
        ({}, "confidential", ["local-small"], "hosted-general:class"),
        ({}, "restricted", [], "local-small:class"),
        ({"consent": None}, "public", ["local-small"], "hosted-general:no_consent"),
        ({"consent": {"basis": "consent"}}, "public", ["local-small"], "hosted-general:consent_not_granted"),
        ({"modelPolicy": {"placement": "local"}}, "public", ["local-small"], "hosted-general:placement"),
        ({"modelPolicy": {"placement": "local"}}, "public", ["local-small"], "local-small:stay-inside"),
        ({"modelPolicy": {"placement": "hosted"}}, "public", ["hosted-general"], "hosted-general:ordinary-work"),
        ({"modelPolicy": {"placement": "hosted"}}, "confidential", [], "local-small:placement"),
        ({"modelPolicy": {"regions": ["eu"]}}, "public", ["hosted-general"], "hosted-general:ordinary-work"),
        ({"modelPolicy": {"regions": ["us"]}}, "public", [], "hosted-general:region"),
        ({"riskLevel": "high"}, "public", ["local-small"], "hosted-general:risk"),
        ({"budget": {"maxCostUsd": 1e-6}}, "public", ["local-small"], "hosted-general:budget"),
        ({"budget": {"maxCostUsd": 1.0}}, "public", ["hosted-general", "local-small"], "hosted-general:ordinary-work"),
        ({"dataRegulations": ["home"]}, "public", ["local-small"], "hosted-general:residency"),
        ({"dataCategories": ["health"]}, "public", [], "local-small:class"),
    ],
)
def test_the_table_of_decisions(changes, effective, routes, reason):
    """The first route without an objection serves, its allowed fallbacks follow, and each objection is named."""
    decision = decide(case(classification=effective, **changes), book())
    assert [route.name for route in decision.routes] == routes
    assert reason in decision.reasons
    assert decision.outcome is (Outcome.ALLOW if routes else Outcome.DENY)


@pytest.mark.parametrize(
    ("basis", "state", "crosses"),
    [
        ("consent", "granted", True),
        ("consent", "withdrawn", False),
        ("consent", "none", False),
        ("consent", "unknown", False),
        ("legitimate-interest", "none", True),
        ("legitimate-interest", "withdrawn", False),
        ("legitimate-interest", "unknown", False),
        ("contract", "withdrawn", True),
    ],
)
def test_what_consent_the_built_in_policies_ask_for(basis, state, crosses):
    """Consent must be granted where it is the basis, and must not be withdrawn where interest is; whatever permits."""
    decision = decide(case(known=state, consent={"basis": basis}), book())
    assert (decision.routes[0].placement is Placement.HOSTED) is crosses


def test_without_a_permit_nothing_happens():
    """Where no policy permits, the answer is no, and the reason says that nothing else did."""
    by = book(policy='@id("only-training") permit(principal, action, resource) when {context.purpose=='
                     'Purpose::"training"};')  # fmt: skip
    assert decide(case(), by).reasons == ("no_route", "hosted-general:default-deny", "local-small:default-deny")
    assert decide(case(purpose="training"), by).outcome is Outcome.ALLOW


def test_a_forbid_wins_and_is_named():
    """A forbid stands above every permit, and the route behind it serves."""
    decision = decide(case(), book(policy=FORBIDDING))
    assert [route.name for route in decision.routes] == ["local-small"]
    assert "hosted-general:nothing-crosses" in decision.reasons


def test_a_decision_to_take_something_out_says_how():
    """What a permit wants out is granted, named with its style, and the class of the contract is that of the rest."""
    by, asked = book(policy=redacting("hash")), case(prompt=f"Write to {MAIL} now")
    decision = decide(asked, by)
    assert (decision.outcome, decision.routes[0].name) == (Outcome.TRANSFORM, "hosted-general")
    assert decision.verdict.granted == Granted(redacted=frozenset({"personal"}))
    ref = policy_ref(decision, asked, by, identity="d-1")
    assert (ref.decision, ref.redaction, ref.scope) == ("transform", ("personal:hash",), "model-call:hosted-general")
    contract = waybills("i", asked, decision, "contract", ref.redaction, by)["hosted-general"]
    assert (contract.data_classification, contract.redaction) == ("public", ("personal:hash",))


def test_what_was_taken_out_may_be_answered_inside_too():
    """The local route, which may have all of it, stands in for a redacted request."""
    decision = decide(case(prompt=f"Write to {MAIL} now"), book(policy=redacting()))
    assert [route.name for route in decision.routes] == ["hosted-general", "local-small"]


def test_another_hosted_route_needs_a_permit_of_its_own_for_what_is_left():
    """What was taken out for one destination is no grant for another one whose permits do not speak of it."""
    permit = redacting().removeprefix(POLICY)
    policy = POLICY + permit.replace("resource)", 'resource == Route::"hosted-general")')
    asked = case(prompt=f"Write to {MAIL} now")
    both = decide(asked, book(routes=TWO_HOSTED, policy=redacting()))
    assert [route.name for route in both.routes] == ["hosted-general", "hosted-second", "local-small"]
    one = decide(asked, book(routes=TWO_HOSTED, policy=policy))
    assert [route.name for route in one.routes] == ["hosted-general", "local-small"]


def test_a_person_is_asked_only_where_no_route_serves_without():
    """With a local route that serves, nobody is asked; without one, the request waits, and says whose word it needs."""
    by = book(routes=CONFIDENTIAL_HOSTED, policy=APPROVING)
    assert decide(case(by, classification="confidential"), by).outcome is Outcome.ALLOW
    asked = case(by, classification="confidential", modelPolicy={"placement": "hosted"})
    decision = decide(asked, by)
    assert (decision.outcome, decision.waits) == (Outcome.REQUIRE_APPROVAL, True)
    assert [route.name for route in decision.routes] == ["hosted-general"]
    assert policy_ref(decision, asked, by, identity="d").required_approvals == ("privacy-office",)


@pytest.mark.parametrize(("field", "row", "reason"), [("taskType", "capabilities", "capability"),
                                                      ("purpose", "purposes", "purpose")])  # fmt: skip
def test_what_a_row_does_not_name_it_does_not_serve(field, row, reason):
    """A task type or purpose that no row names is denied."""
    only = book(routes=TWO_HOSTED.replace(f'{row}: ["*"]', f"{row}: [known]"))
    assert decide(case(**{field: "known"}), only).routes
    denied = decide(case(**{field: "new"}), only)
    assert denied.reasons == ("no_route", *(f"{route.name}:{reason}" for route in only.table.routes))


def test_another_version_of_the_waybill_stops_the_crossing():
    """A hosted route that goes by another version of the contract than this program is passed over."""
    decision = decide(case(), book(routes=ROUTES.replace('contract: "1.1"', 'contract: "1.0"')))
    assert decision.reasons[-1] == "hosted-general:contract_version"
    assert [route.name for route in decision.routes] == ["local-small"]


THREE = (
    source("needed", "a"), source("nice", "b", "useful"), source("more", "c", "background"),
    source("high", "d", "useful", "confidential"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("level", "went", "left"),
    [
        ("required", (0,), ((1, "not_required"), (2, "not_required"), (3, "not_required"))),
        ("useful", (0, 1), ((2, "not_required"), (3, "class"))),
        ("all", (0, 1, 2), ((3, "class"),)),
    ],
)
def test_only_what_a_route_takes_and_may_have_goes_along(level, went, left):
    """Of the sources those go along that the route takes; one whose class is too high stays, and each has a reason."""
    routes = ROUTES.replace('contract: "1.1"', f'contract: "1.1"\n    context: {level}')
    by = book(routes=routes)
    asked = case(by, input=with_context("x", *THREE))
    decision = decide(asked, by)
    assert decision.routes[0].name == "hosted-general"
    assert (decision.selection.items, decision.selection.left) == (went, left)
    assert decision.selection.held.declared.cls == "public"


def test_a_source_that_the_task_requires_is_never_left_behind():
    """Where a required source is too high for a route, the route cannot serve; another takes all of it, or nobody."""
    asked = case(input=with_context("x", source("high", "d", "required", "confidential")))
    decision = decide(asked, book())
    assert decision.routes[0].name == "local-small"
    assert (decision.selection.items, decision.selection.left) == ((0,), ())
    assert "hosted-general:class" in decision.reasons
    highest = case(input=with_context("x", source("top", "d", "required", "restricted")))
    assert decide(highest, book()).outcome is Outcome.DENY


def test_what_is_chosen_for_one_route_is_no_more_than_its_fallback_takes():
    """One text is made for all routes: a fallback that would be sent more than it takes is none."""
    routes = TWO_HOSTED.replace('contract: "1.1"', 'contract: "1.1"\n    context: useful', 1)
    by = book(routes=routes)
    with_more = decide(case(by, input=with_context("x", source("nice", "b", "useful"))), by)
    assert [route.name for route in with_more.routes] == ["hosted-general", "local-small"]
    without = decide(case(by), by)
    assert [route.name for route in without.routes] == ["hosted-general", "hosted-second", "local-small"]


SOME = st.lists(st.sampled_from(["x", "y", "*"]), min_size=1, max_size=2, unique=True)
NAMES = ("a", "b", "c", "d")


@st.composite
def tables(draw) -> str:
    """Any table of four routes that may be loaded, as text; fallbacks are computed."""
    rows = []
    for name in NAMES:
        hosted = draw(st.booleans())
        ceiling = draw(st.integers(1, 4))
        side = 'hosted\n    endpoint: hosted\n    contract: "1.1"' if hosted else "local\n    endpoint: local"
        rows.append(f"""
  - name: {name}
    placement: {side}
    model: m
    region: {draw(st.sampled_from(["eu", "us", "on-premises"]))}
    capabilities: {draw(SOME)}
    classes: {list(CLASSES[:ceiling])}
    purposes: {draw(SOME)}
    max_risk: {draw(st.sampled_from(["low", "medium", "high"]))}
    max_tokens: 10
    timeout_s: 1
    retention_days: {draw(st.sampled_from([0, 0, 30])) if hosted else 0}
    context: {draw(st.sampled_from(["required", "useful", "all"]))}
    price: {{input_per_million_usd: {draw(st.sampled_from([0, 1, 500]))}, output_per_million_usd: 0}}
    answer: {{forbid: {draw(st.lists(st.sampled_from(["personal", "secret"]), unique=True))},
             action: {draw(st.sampled_from(["mask", "drop", "refuse"]))}}}
    on_ambiguous: {draw(st.sampled_from(["stop", "resend"]))}""")
    return "version: 1\npolicy_id: any\nroutes:" + "".join(rows)


KEEPING = """
version: 1
classes:
  - {name: public, handling: {destination_days: 30}}
  - {name: internal, handling: {destination_days: 30}}
  - {name: confidential}
  - {name: restricted, handling: {hosted: false}}
categories:
  personal: {implies: confidential, regulations: [gdpr]}
  financial: {implies: confidential}
  secret: {implies: restricted}
regulations: {gdpr: {regions: [eu, on-premises]}}
"""
"""Labels under which a destination may keep what is harmless."""

LARGE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For tests that compile a rulebook for each example, which takes milliseconds, and more on a busy machine."""

SOURCES = st.lists(
    st.builds(source, st.just("s"), st.sampled_from(["text", MAIL]),
              st.sampled_from(["required", "useful", "background"]), st.none() | st.sampled_from(CLASSES)),
    max_size=2,
)  # fmt: skip
CASES = st.builds(
    case,
    known=st.sampled_from(["none", "granted", "withdrawn", "unknown"]),
    consent=st.sampled_from([None, {"basis": "contract"}, {"basis": "consent"}, {"basis": "legitimate-interest"}]),
    classification=st.sampled_from(CLASSES),
    taskType=st.sampled_from(["x", "y", "z"]), purpose=st.sampled_from(["x", "y", "z"]),
    riskLevel=st.sampled_from(["low", "medium", "high"]),
    budget=st.sampled_from([None, {"maxCostUsd": 0.001}]),
    modelPolicy=st.fixed_dictionaries({"placement": st.sampled_from(["any", "local", "hosted"]),
                                       "regions": st.lists(st.sampled_from(["eu", "us"]), unique=True)}),
    input=st.builds(lambda prompt, sources: with_context(prompt, *sources),
                    st.sampled_from(["hello", f"to {MAIL} now"]), SOURCES),
)  # fmt: skip


@LARGE
@given(text=tables(), asked=CASES, policy=st.sampled_from([POLICY, redacting(), FORBIDDING]))
def test_a_decision_never_leaves_the_table_or_the_request(text, asked, policy):
    """Every chosen route allows what is asked; a fallback widens in nothing; every crossing has nine full fields."""
    by = book(labels=KEEPING, routes=text, policy=policy)
    decision = decide(asked, by)
    contracts = waybills("i", asked, decision, "contract", (), by)
    for route in decision.routes:
        label = by.engine.residual(decision.selection.held, decision.verdict.granted.redacted)
        assert label.cls in route.classes
        assert asked.wish.placement in {"any", route.placement}
        assert not asked.wish.regions or route.region in asked.wish.regions
        assert {asked.facts.task, "*"} & set(route.capabilities)
        assert {asked.facts.purpose, "*"} & set(route.purposes)
        if route.placement is Placement.HOSTED:
            assert label.cls in {"public", "internal"}
            assert policy != FORBIDDING
            assert not label.regulations or route.region == "eu"
    first = decision.routes[0] if decision.routes else None
    for other in decision.routes[1:]:
        if other.placement is Placement.HOSTED:
            assert first.placement is Placement.HOSTED
            assert other.region == first.region
            assert other.retention_days <= first.retention_days
            assert set(other.answer.forbid) >= set(first.answer.forbid)
            assert set(other.classes) <= set(first.classes)
            assert set(other.purposes) <= set(first.purposes) or "*" in first.purposes
            assert (first.on_ambiguous, other.on_ambiguous) != ("stop", "resend")
            assert set(select(other, asked, by).items) >= set(decision.selection.items)
    hosted = {route.name for route in decision.routes if route.placement is Placement.HOSTED}
    assert set(contracts) == hosted
    for contract in contracts.values():
        content = contract.model_dump(mode="json", by_alias=True)
        assert all(content[name] for name in NINE)
        assert len(contract.digest()) == 64


@LARGE
@given(text=tables(), asked=CASES)
def test_a_request_without_a_basis_never_crosses(text, asked):
    """Without a basis no hosted route is left, whatever the class and the table."""
    without = asked._replace(facts=asked.facts._replace(basis="none"))
    for cls in CLASSES:
        held = Held(Label(cls), asked.held.kinds)
        chosen = decide(without._replace(held=held), book(labels=KEEPING, routes=text)).routes
        assert all(route.placement is Placement.LOCAL for route in chosen)


@LARGE
@given(text=tables(), asked=CASES)
def test_raising_the_class_never_adds_a_route(text, asked):
    """A higher class leaves fewer routes that may be taken on nothing but the request."""
    by = book(labels=KEEPING, routes=text)
    before: set[str] | None = None
    for cls in CLASSES:
        held = Held(Label(cls))
        allowed = {
            route.name for route in by.table.routes if not still_allowed(asked, route, held, NOTHING, by, spent=0)
        }
        assert before is None or allowed <= before
        before = allowed


@LARGE
@given(text=tables(), asked=CASES, policy=st.sampled_from([POLICY, redacting()]))
def test_what_was_decided_is_allowed_again_where_nothing_changed(text, asked, policy):
    """Asked again a moment later with the same rulebook and case, each chosen route may still be taken."""
    by = book(labels=KEEPING, routes=text, policy=policy)
    decision = decide(asked, by)
    for route in decision.routes:
        found = still_allowed(asked, route, decision.selection.held, decision.verdict.granted, by, spent=0)
        assert found == ()


@given(asked=CASES)
def test_a_case_survives_in_evidence(asked):
    """What a decision rests on is read back from its evidence as it was, and no text of the request is in it."""
    assert from_json(to_json(asked)) == asked
    assert MAIL not in to_json(asked)


def test_a_waybill_says_what_may_be_tried_after_it():
    """Each contract names the routes behind its own; the last one says stop."""
    by = book(routes=TWO_HOSTED)
    asked = case(by, "granted", modelPolicy={"placement": "hosted"}, consent={"basis": "consent", "reference": "c-9"})
    contracts = waybills("i", asked, decide(asked, by), "consent:c-9", (), by)
    assert contracts["hosted-general"].fallback == ("hosted-second",)
    assert contracts["hosted-second"].fallback == ("stop",)
    assert contracts["hosted-second"].consent == "consent:c-9"
    assert contracts["hosted-general"].redaction == ("none",)
    assert contracts["hosted-general"].digest() != contracts["hosted-second"].digest()


@given(text=st.text(min_size=1, max_size=200), turns=st.integers(1, 30))
def test_an_estimate_grows_with_all_that_crosses(text, turns):
    """An estimate counts bytes and turns: no text is priced below a third of a token a byte."""
    wish: Wish = case(input={"messages": [{"role": "user", "content": text}] * turns}).wish
    route = book().table.routes[0]
    least = route.price.cost(turns * (len(text.encode()) // 3), route.max_tokens)
    assert estimate(route, wish) >= least
