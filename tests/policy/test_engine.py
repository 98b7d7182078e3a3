"""The policy engine: five outcomes, the least demanding way first, and what no policy can allow."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from made_policies import CLASSES, PURPOSES, TASKS, Deployment

from inference.rulebook import Rulebook
from policy.engine import CLASS, DEFAULT_DENY, Held
from policy.labels import Label
from policy.questions import CROSSINGS, NOTHING, Facts, Granted, Outcome, Style, Verdict

LABELS = json.dumps({
    "version": 1,
    "classes": [{"name": name, "handling": {"hosted": name != "restricted"}} for name in CLASSES],
    "categories": {
        "personal": {"implies": "confidential", "regulations": ["gdpr"]}, "financial": {"implies": "internal"},
        "secret": {"implies": "public"},
    },
    "regulations": {"gdpr": {"regions": ["eu"]}}, "purposes": PURPOSES, "task_types": TASKS,
})  # fmt: skip
ROW = {
    "name": "out", "placement": "hosted", "endpoint": "hosted", "model": "m", "region": "eu", "capabilities": ["*"],
    "classes": CLASSES[:3], "purposes": ["*"], "max_tokens": 1, "timeout_s": 1, "contract": "1.1",
    "price": {"input_per_million_usd": 0, "output_per_million_usd": 0},
}  # fmt: skip
ROUTES = json.dumps({
    "version": 1, "policy_id": "test",
    "routes": [ROW, {**ROW, "name": "far", "region": "us"},
               {**ROW, "name": "in", "placement": "local", "endpoint": "local", "classes": CLASSES}],
})  # fmt: skip
ANA = Facts(
    "ana", "user", "acme", frozenset({"analyst"}), "jwt", "model-call", "support", "chat", 0, "contract", "none"
)
CROSS = '(principal, action in Action::"cross", resource)'
PUBLIC = 'when { context.class == Class::"public" }'
UP_TO_INTERNAL = 'when { [Class::"public", Class::"internal"].contains(context.class) }'


def book(*policies: str) -> Rulebook:
    """A rulebook with these policies; their ids are `p0`, `p1` and so on."""
    return Deployment(LABELS, ROUTES, policies).book()


def held(cls: str = "public", *kinds: str) -> Held:
    """Data of a class with findings."""
    return Held(Label(cls), frozenset(kinds))


def ask(made: Rulebook, data: Held, facts: Facts = ANA, route: str = "out") -> Verdict:
    """What policy says."""
    return made.engine.decide(facts, data, made.facts[route])


@pytest.mark.parametrize(
    ("policies", "outcome", "authorities", "granted"),
    [
        ((f"permit{CROSS};",), Outcome.ALLOW, (), NOTHING),
        ((f'@redact("personal") permit{CROSS};',), Outcome.TRANSFORM, (), Granted(frozenset({"personal"}))),
        ((f'@approval("office") permit{CROSS};',), Outcome.REQUIRE_APPROVAL, ("office",), Granted(approved=True)),
        ((f'@escalate("dpo") permit{CROSS};',), Outcome.ESCALATE, ("dpo",), Granted(approved=True, overridden=True)),
        ((f"forbid{CROSS};", f"permit{CROSS};"), Outcome.DENY, (), NOTHING),
    ],
)
def test_the_five_outcomes(policies, outcome, authorities, granted):
    """A plain permit allows, an annotated one asks for what it rests on, and a forbid wins."""
    verdict = ask(book(*policies), held())
    assert (verdict.outcome, verdict.authorities, verdict.granted) == (outcome, authorities, granted)
    assert verdict.reasons == ("p0",)
    assert verdict.free is (outcome in {Outcome.ALLOW, Outcome.TRANSFORM})


def test_what_no_policy_permits_is_denied():
    """Without a permit that matches there is no way, and the reason says so."""
    made = book('permit(principal, action == Action::"local-call", resource);')
    assert ask(made, held()) == Verdict(Outcome.DENY, (DEFAULT_DENY,))
    assert ask(made, held(), route="in").outcome is Outcome.ALLOW


LADDER = (
    f"permit{CROSS} {PUBLIC};",
    f'@redact("personal") @style("hash") permit{CROSS} {UP_TO_INTERNAL};',
    f'@approval("office") permit{CROSS} {UP_TO_INTERNAL};',
    f'@escalate("dpo") permit{CROSS};',
)


@pytest.mark.parametrize(
    ("data", "outcome", "reasons"),
    [
        (held("public"), Outcome.ALLOW, ("p0",)),
        (held("public", "email"), Outcome.TRANSFORM, ("p0", "p1")),
        (held("internal"), Outcome.TRANSFORM, ("p1",)),
        (held("confidential"), Outcome.ESCALATE, ("p3",)),
    ],
)
def test_the_least_demanding_way_is_the_answer(data, outcome, reasons):
    """As it is before something is taken out, that before an approval, and that before an override."""
    verdict = ask(book(*LADDER), data)
    assert (verdict.outcome, verdict.reasons) == (outcome, reasons)


def test_an_approval_comes_before_an_override():
    """Where both would do, the lesser authority is asked."""
    assert ask(book(LADDER[2], LADDER[3]), held("internal")).outcome is Outcome.REQUIRE_APPROVAL


def test_of_two_styles_the_one_that_keeps_less_counts():
    """Two permits that take the same out differently: the stricter style is used."""
    made = book(
        f'@redact("personal") @style("pseudonym") permit{CROSS};', f'@redact("personal") @style("drop") permit{CROSS};'
    )
    assert ask(made, held("public", "email")).styles == (("personal", Style.DROP),)


def test_what_is_taken_out_counts_for_nothing_but_what_it_is():
    """Taking personal data out leaves the account number, and what was declared stays whatever was found."""
    made = book(f'@redact("personal") permit{CROSS} {PUBLIC};')
    assert ask(made, held("public", "email")).outcome is Outcome.TRANSFORM
    assert ask(made, held("public", "email", "iban")).outcome is Outcome.DENY
    declared = Held(Label("public", frozenset({"personal"})), frozenset({"email"}))
    assert ask(made, declared).outcome is Outcome.DENY


@pytest.mark.parametrize(
    ("policies", "authority"),
    [
        (('@approval("ann") permit{};', '@approval("bob") permit{};'), "ann"),
        (("permit{};", '@approval("bob") forbid{} unless {{ context.approved }};'), "bob"),
        (('@approval("bob") permit{};', '@approval("bob") forbid{} unless {{ context.approved }};'), "bob"),
        (('@approval("ann") permit{};', '@approval("bob") forbid{} unless {{ context.approved }};'), None),
        (("permit{};", '@approval("ann") forbid{} unless {{ context.approved }};',
          '@approval("bob") forbid{} unless {{ context.approved }};'), None),
        (("permit{};", "forbid{};"), None),
        (("permit{};", '@escalate("dpo") forbid{} unless {{ context.overridden }};'), "dpo"),
    ],
)  # fmt: skip
def test_whose_approval_it_is(policies, authority):
    """One of several permits is enough, each forbid has to be lifted, and what two would have to lift stays."""
    verdict = ask(book(*(text.format(CROSS) for text in policies)), held())
    assert verdict.authorities == ((authority,) if authority else ())
    assert (verdict.outcome is Outcome.DENY) is (authority is None)


def test_what_a_lower_class_may_not_no_higher_one_may():
    """A permit of a class alone opens nothing outside while a lower one has none; inside, each class is for itself."""
    made = book('permit(principal, action, resource) when { context.class == Class::"confidential" };')
    assert ask(made, held("confidential")).outcome is Outcome.DENY
    assert ask(made, held("confidential"), route="in").outcome is Outcome.ALLOW


def test_a_forbid_of_a_low_class_closes_the_higher_ones():
    """What must not go as public data must not go under a higher label either."""
    made = book(f"permit{CROSS};", f"forbid{CROSS} {PUBLIC};")
    verdicts = [ask(made, held(cls)) for cls in CLASSES[:3]]
    assert [verdict.reasons for verdict in verdicts] == [("p1",)] * 3


def test_a_class_that_nobody_can_approve_closes_the_higher_ones():
    """Two people would have to lift the forbids of public data; then internal data waits for nobody either."""
    rules = [f'@approval("{name}") forbid{CROSS} {PUBLIC} unless {{ context.approved }};' for name in ("ann", "bob")]
    permit = f'@approval("office") permit{CROSS};'
    assert ask(book(permit), held("internal")).outcome is Outcome.REQUIRE_APPROVAL
    made = book(permit, *rules)
    assert ask(made, held("public")).outcome is Outcome.DENY
    assert ask(made, held("internal")).outcome is Outcome.DENY


@pytest.mark.parametrize("action", CROSSINGS)
@pytest.mark.parametrize(
    ("changes", "data", "reason"),
    [
        ({"basis": "none"}, held(), "no_consent"),
        ({"basis": "consent", "consent": "none"}, held(), "consent_not_granted"),
        ({"basis": "consent", "consent": "withdrawn"}, held(), "consent_not_granted"),
        ({"basis": "consent", "consent": "unknown"}, held(), "consent_not_granted"),
        ({"basis": "legitimate-interest", "consent": "withdrawn"}, held(), "consent_withdrawn"),
        ({"basis": "legitimate-interest", "consent": "unknown"}, held(), "consent_withdrawn"),
        ({}, held("public", "jwt"), "secret_stays"),
    ],
)
def test_the_guards_win_over_every_permit(action, changes, data, reason):
    """What is built in stops all four ways to cross, whoever would approve or override it; inside it stops nothing."""
    made = book("permit(principal, action, resource);", f'@escalate("dpo") permit{CROSS};')
    someone = ANA._replace(action=action, **changes)
    assert ask(made, data, someone).reasons == (reason,)
    assert ask(made, data, someone).outcome is Outcome.DENY
    everything = Granted(approved=True, overridden=True)
    assert not made.engine.recheck(someone, data, made.facts["out"], everything).free
    assert ask(made, data, someone, "in").outcome is Outcome.ALLOW


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"basis": "consent", "consent": "granted"}, Outcome.ALLOW),
        ({"basis": "legitimate-interest", "consent": "none"}, Outcome.ALLOW),
        ({"basis": "public-task", "consent": "withdrawn"}, Outcome.ALLOW),
    ],
)
def test_the_guards_stop_no_more_than_that(changes, outcome):
    """Consent that was granted, an interest without an objection, and a task in law may cross."""
    assert ask(book(f"permit{CROSS};"), held(), ANA._replace(**changes)).outcome is outcome


def test_the_row_and_the_regions_stand_above_policy():
    """A class that the row or its handling does not take, and a region that a regulation forbids, stay closed."""
    made = book("permit(principal, action, resource);")
    assert ask(made, held("restricted")) == Verdict(Outcome.DENY, (CLASS,))
    personal = Held(Label("public"), frozenset({"email"}))
    assert ask(made, personal).outcome is Outcome.ALLOW
    assert ask(made, personal, route="far") == Verdict(Outcome.DENY, ("residency",))


def test_asked_again_only_what_was_granted_counts():
    """A permit that rests on an approval does not hold without it, and what is withdrawn stops at once."""
    made = book(f'@approval("office") permit{CROSS};')
    row = made.facts["out"]
    assert not made.engine.recheck(ANA, held(), row, NOTHING).free
    assert made.engine.recheck(ANA, held(), row, Granted(approved=True)).outcome is Outcome.ALLOW
    assert made.engine.recheck(ANA._replace(basis="none"), held(), row, Granted(approved=True)).reasons == (
        "no_consent",
    )


def test_what_was_taken_out_for_another_route_is_no_objection_inside():
    """After a redaction a route on this side may stand in; one outside needs a permit that speaks of it."""
    made = book(f'@redact("personal") permit{CROSS};', "permit(principal, action, resource);")
    granted = Granted(frozenset({"personal"}))
    assert made.engine.recheck(ANA, held("public", "email"), made.facts["in"], granted).free
    plain = book("permit(principal, action, resource);")
    assert not plain.engine.recheck(ANA, held(), plain.facts["out"], granted).free


@pytest.mark.parametrize(
    ("condition", "changes"),
    [
        ('principal.tenant == "acme"', {"tenant": "other"}),
        ('principal.roles.contains("analyst")', {"roles": frozenset()}),
        ('principal == Actor::"ana"', {"actor": "eve"}),
        ('principal.kind == ActorKind::"user"', {"kind": "service"}),
        ('principal.identity == Identity::"jwt"', {"identity": "unsigned"}),
        ('context.task == Task::"chat"', {"task": "summary"}),
        ('context["purpose"] == Purpose::"support"', {"purpose": "research"}),
        ("{a: context}.a.risk < 1", {"risk": 2}),
        ('(if context.risk < 1 then principal else principal).tenant == "acme"', {"tenant": "other"}),
        ('context.basis == Basis::"contract"', {"basis": "public-task"}),
    ],
)
def test_what_a_policy_reads_is_what_answers_are_remembered_by(condition, changes):
    """An engine that has answered for one request does not answer so for another that differs in what is read."""
    made = book(f"permit{CROSS} when {{ {condition} }};")
    assert ask(made, held()).outcome is Outcome.ALLOW
    assert ask(made, held(), ANA._replace(**changes)).outcome is Outcome.DENY
    assert ask(made, held()).outcome is Outcome.ALLOW


def test_what_no_policy_reads_is_not_remembered():
    """Requests that differ only in what no policy reads share an answer."""
    made = book(f'permit{CROSS} when {{ principal.tenant == "acme" }};')
    for number in range(20):
        ask(made, held(), ANA._replace(actor=f"user-{number}", purpose="research"))
    assert len(made.engine._memory) == 1


def test_two_rulebooks_with_another_policy_have_another_version():
    """A policy that changes in a word changes the version of every decision."""
    made = Deployment(LABELS, ROUTES, (f"permit{CROSS};",))
    versions = {one.book().version for one in (made, made.plus(f"forbid{CROSS};"), replace(made, labels=LABELS + "\n"))}
    assert len(versions) == 3
