"""What holds for any request, route table and policies: nothing crosses above its grant, and nothing adds to it."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from made_policies import (
    CLASSES,
    Deployment,
    cases,
    deployments,
    facts,
    forbids,
    helds,
    raises,
)

from evidence.records import Placement
from inference.routes import ANY, risk_of
from inference.rulebook import Rulebook
from policy.contract import WAYBILL_VERSION
from policy.engine import Engine
from policy.questions import NOTHING, Granted, Outcome, Verdict
from policy.view import ALWAYS
from streams.processors.cases import Case, estimate, from_json, to_json
from streams.processors.routing import decide, objects, redactions, select, still_allowed, waybills

SEVERITY = ("mask", "drop", "refuse")
LEVELS = ("required", "useful", "all")
NINE = ("data_classification", "purpose", "destination", "model_route", "retention", "encryption", "redaction",
        "consent", "fallback")  # fmt: skip
PER_DEPLOYMENT = 6

few = settings(max_examples=max(25, settings().max_examples // 2), deadline=None)
"""Each example compiles a rulebook and asks it several times; `make fuzz` raises this with the profile."""

many_cases = st.lists(cases(), min_size=1, max_size=PER_DEPLOYMENT)


def verdicts(case: Case, book: Rulebook) -> dict[str, Verdict]:
    """What policy says of every hosted route whose row serves a request."""
    return {
        route.name: book.engine.decide(case.facts, select(route, case, book).held, book.facts[route.name])
        for route in book.table.routes
        if route.placement is Placement.HOSTED and objects(route, case) is None
    }


def free(case: Case, book: Rulebook) -> set[str]:
    """The hosted routes that may be taken without a person."""
    return {name for name, verdict in verdicts(case, book).items() if verdict.free}


def open_to(case: Case, book: Rulebook) -> set[str]:
    """The hosted routes that may be taken, with or without a person."""
    return {name for name, verdict in verdicts(case, book).items() if verdict.outcome is not Outcome.DENY}


REACHED_SOON = {"allow": 0, "transform": 2, "require-approval": 1, "escalate": 25, "deny": 0}
"""Seeds from which a search finds each outcome soon; without them it takes hundreds of examples for the rarest."""


@pytest.mark.parametrize("outcome", Outcome)
def test_what_is_generated_has_every_outcome(outcome):
    """The properties speak of something: each of the five outcomes is among what is generated, for a hosted route."""

    def reached(made: tuple[Deployment, list[Case]]) -> bool:
        book = made[0].book()
        return any(verdict.outcome is outcome for case in made[1] for verdict in verdicts(case, book).values())

    search = settings(max_examples=2000, deadline=None, phases=[Phase.generate])
    begin = Random(REACHED_SOON.get(outcome.value))  # noqa: S311 - where the search begins
    assert find(st.tuples(deployments(), many_cases), reached, settings=search, random=begin)


@few
@given(made=deployments(), asked=many_cases)
def test_nothing_crosses_above_its_grant(made, asked):
    """Every route allows class, purpose, task, region, risk and budget; a hosted one has handling and a basis too."""
    book = made.book()
    for case in asked:
        decision = decide(case, book)
        if not decision.routes:
            assert decision.outcome is Outcome.DENY
            continue
        granted = decision.verdict.granted
        label = book.engine.residual(decision.selection.held, granted.redacted)
        residency = book.labels.regions(label.regulations)
        for route in decision.routes:
            row = book.facts[route.name]
            assert label.cls in row.classes
            assert label.cls in route.classes
            assert {case.facts.purpose, ANY} & set(route.purposes)
            assert {case.facts.task, ANY} & set(route.capabilities)
            assert case.wish.placement in {"any", route.placement.value}
            assert not case.wish.regions or route.region in case.wish.regions
            assert residency is None or route.region in residency
            assert case.facts.risk <= risk_of(route.max_risk)
            assert case.wish.budget is None or estimate(route, case.wish) <= case.wish.budget
            if route.placement is Placement.HOSTED:
                handling = book.labels.handling[label.cls]
                assert handling.hosted
                assert row.encryption in handling.encryption
                assert route.retention_days <= handling.destination_days
                assert route.contract == WAYBILL_VERSION
                assert case.facts.basis != "none"


@few
@given(made=deployments(), asked=many_cases)
def test_every_crossing_has_a_whole_waybill(made, asked):
    """Exactly the hosted routes of a decision have a contract; all nine fields of it are filled, and say what goes."""
    book = made.book()
    for case in asked:
        decision = decide(case, book)
        taken_out = redactions(decision.verdict) if decision.verdict else ()
        contracts = waybills("intake", case, decision, case.facts.basis, taken_out, book)
        hosted = [route for route in decision.routes if route.placement is Placement.HOSTED]
        assert set(contracts) == {route.name for route in hosted}
        for route in hosted:
            contract = contracts[route.name]
            assert all(getattr(contract, name) for name in NINE)
            assert contract.data_classification in book.facts[route.name].classes
            assert contract.purpose == case.facts.purpose
            assert contract.destination.region == route.region
            assert contract.model_route == f"{route.name}/{route.model}"
            assert contract.retention.destination_days == route.retention_days
            assert set(route.answer.forbid) <= set(contract.retention.forbidden_in_answer)
            assert contract.encryption == book.facts[route.name].encryption
            assert contract.redaction == (taken_out or ("none",))
            assert len(contract.digest()) == 64


@few
@given(made=deployments(), asked=many_cases)
def test_a_fallback_never_widens_anything(made, asked):
    """Behind the chosen route only those follow that expose no more in any dimension, on what was granted to it."""
    book = made.book()
    for case in asked:
        decision = decide(case, book)
        for other in decision.routes[1:]:
            first, here, there = decision.routes[0], book.facts[decision.routes[0].name], book.facts[other.name]
            verdict = book.engine.recheck(case.facts, decision.selection.held, there, decision.verdict.granted)
            assert verdict.free
            if other.placement is Placement.LOCAL:
                continue
            assert first.placement is Placement.HOSTED
            assert set(other.classes) <= set(first.classes)
            assert other.region == first.region
            assert other.retention_days <= first.retention_days
            assert ANY in first.purposes or set(other.purposes) <= set(first.purposes)
            assert set(first.answer.forbid) <= set(other.answer.forbid)
            if first.answer.forbid:
                assert SEVERITY.index(other.answer.action) >= SEVERITY.index(first.answer.action)
            assert here.encryption == "none" or there.encryption != "none"
            assert LEVELS.index(other.context) <= LEVELS.index(first.context)
            assert (first.on_ambiguous, other.on_ambiguous) != ("stop", "resend")
            assert other.contract == first.contract
            assert set(decision.selection.items) <= set(select(other, case, book).items)


@few
@given(data=st.data(), made=deployments(), asked=many_cases)
def test_a_forbid_never_adds_a_crossing(data, made, asked):
    """With one more forbid, of any kind, the hosted routes that need no person are a part of those before."""
    table = tuple(json.loads(made.routes)["routes"])
    before, after = made.book(), made.plus(data.draw(forbids(table))).book()
    for case in asked:
        assert free(case, after) <= free(case, before)


@few
@given(data=st.data(), made=deployments(), asked=many_cases)
def test_a_plain_forbid_never_adds_a_way_by_a_person(data, made, asked):
    """With one more forbid that nobody can lift, no request waits for a person that would have been denied before."""
    table = tuple(json.loads(made.routes)["routes"])
    before, after = made.book(), made.plus(data.draw(forbids(table, liftable=False))).book()
    for case in asked:
        assert open_to(case, after) <= open_to(case, before)


@few
@given(made=deployments(), raised=st.lists(raises(("required",), finding=False), min_size=1, max_size=PER_DEPLOYMENT))
def test_raising_a_class_never_adds_a_destination(made, raised):
    """A higher declared class, of the conversation or a required source, leaves a part of the hosted routes."""
    book = made.book()
    for lower, higher, _ in raised:
        assert free(higher, book) <= free(lower, book)
        assert open_to(higher, book) <= open_to(lower, book)


@few
@given(
    made=deployments(),
    raised=st.lists(raises(("required",), finding=True), min_size=1, max_size=PER_DEPLOYMENT),
)
def test_a_finding_never_adds_a_destination(made, raised):
    """Where no permit asks for data to be there, one more finding leaves a part of the hosted routes."""
    book = made.book()
    for lower, higher, _ in raised:
        assert free(higher, book) <= free(lower, book)


@few
@given(made=deployments(), raised=st.lists(raises(LEVELS[:2], finding=False), min_size=1, max_size=PER_DEPLOYMENT))
def test_a_source_goes_nowhere_else_when_its_class_is_raised(made, raised):
    """Whatever a source is needed for: the hosted routes on which it goes along become no more with its class."""
    book = made.book()
    for lower, higher, place in raised:
        if place is not None:
            went, goes = (
                {name for name in free(case, book) if place in select(book.table.by_name[name], case, book).items}
                for case in (lower, higher)
            )
            assert goes <= went


@few
@given(made=deployments(), asked=many_cases)
def test_what_was_granted_holds_when_nothing_changed(made, asked):
    """Asked again with what was granted, policy says yes exactly where it said yes, and never needs anything more."""
    book = made.book()
    for case in asked:
        for route in book.table.routes:
            held, row = select(route, case, book).held, book.facts[route.name]
            verdict = book.engine.decide(case.facts, held, row)
            again = book.engine.recheck(case.facts, held, row, verdict.granted)
            assert again.free is (verdict.outcome is not Outcome.DENY)
            if verdict.free:
                assert (again.outcome, again.granted) == (verdict.outcome, verdict.granted)
            else:
                assert not book.engine.recheck(case.facts, held, row, NOTHING).free
        decision = decide(case, book)
        for route in decision.routes:
            held, granted = decision.selection.held, decision.verdict.granted
            assert still_allowed(case, route, held, granted, book, spent=0.0) == ()


@few
@given(made=deployments(), asked=many_cases)
def test_without_consent_that_is_asked_for_nothing_crosses(made, asked):
    """Where consent is the basis, only `granted` crosses; a withdrawal stops what was granted before."""
    book = made.book()
    for case in asked:
        for basis, state in (("consent", "withdrawn"), ("consent", "unknown"), ("consent", "none"), ("none", "granted"),
                             ("legitimate-interest", "withdrawn")):  # fmt: skip
            stopped = case._replace(facts=case.facts._replace(basis=basis, consent=state))
            assert not open_to(stopped, book)
            decision = decide(case, book)
            for route in decision.routes:
                if route.placement is Placement.HOSTED:
                    granted = decision.verdict.granted._replace(approved=True, overridden=True)
                    assert still_allowed(stopped, route, decision.selection.held, granted, book, spent=0.0)


@few
@given(
    made=deployments(),
    asked=st.lists(st.tuples(facts(None), helds(st.sampled_from([["jwt"], ["email", "jwt"], ["email"]]))), min_size=1),
)
def test_a_secret_crosses_nowhere_unless_it_was_taken_out(made, asked):
    """For every way to cross: where a secret was found or declared, a verdict other than denial takes it out first."""
    book = made.book()
    for someone, held in asked:
        for row in book.facts.values():
            verdict = book.engine.decide(someone, held, row)
            secret = "jwt" in held.kinds or "secret" in held.declared.categories
            if row.placement == "hosted" and secret and verdict.outcome is not Outcome.DENY:
                assert "secret" in verdict.granted.redacted
                assert "secret" not in held.declared.categories
            if verdict.outcome is not Outcome.DENY:
                assert {category for category, _ in verdict.styles} >= verdict.granted.redacted
    assert "secret" in ALWAYS


grants = st.builds(
    Granted,
    redacted=st.sampled_from([frozenset(), frozenset({"personal"}), frozenset({"secret"})]),
    approved=st.booleans(),
    overridden=st.booleans(),
)


@few
@given(
    made=deployments(),
    asked=st.lists(st.tuples(facts(None), helds(), grants), min_size=2, max_size=12),
)
def test_the_memory_never_changes_an_answer(made, asked):
    """An engine that has answered much says the same as one that remembers by everything, and as a new one."""
    book = made.book()
    everything = made.book().engine
    everything._key = tuple
    for someone, held, granted in asked:
        for row in book.facts.values():
            new = Engine.__new__(Engine)
            new.__dict__.update({**everything.__dict__, "_memory": {}})
            first = book.engine.decide(someone, held, row)
            assert first == everything.decide(someone, held, row) == new.decide(someone, held, row)
            assert first == book.engine.decide(someone, held, row)
            second = book.engine.recheck(someone, held, row, granted)
            assert second == everything.recheck(someone, held, row, granted) == new.recheck(someone, held, row, granted)


@settings(deadline=None)
@given(case=cases())
def test_a_case_survives_being_written(case):
    """What evidence holds of a case is all of it: read again, it is the same."""
    assert from_json(to_json(case)) == case


@few
@given(made=deployments(), asked=many_cases)
def test_a_case_from_evidence_is_decided_alike(made, asked):
    """The same rulebook, compiled anew, decides a case that was written and read as it decided the first one."""
    before, after = made.book(), made.book()
    assert before.version == after.version
    for case in asked:
        assert decide(case, before) == decide(from_json(to_json(case)), after)


@few
@given(made=deployments(), asked=many_cases, cls=st.sampled_from(CLASSES))
def test_a_rulebook_with_a_row_less_has_no_more_destinations(made, asked, cls):
    """Taking classes out of every row never adds a hosted route."""
    content = json.loads(made.routes)
    for row in content["routes"]:
        row["classes"] = [name for name in row["classes"] if CLASSES.index(name) <= CLASSES.index(cls)]
    fewer, book = replace(made, routes=json.dumps(content)).book(), made.book()
    for case in (case for case in asked if all(item.need == "required" for item in case.items)):
        assert open_to(case, fewer) <= open_to(case, book)
