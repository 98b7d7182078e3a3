"""Deployments and requests that nobody thought of: labels, route tables, Cedar policies and cases, for property tests.

Everything is written as the texts that people write and read by `inference.rulebook`, so that what a property is tested
on is what a worker would hold.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from inference.routes import Endpoint
from inference.rulebook import Rulebook, Texts, compile_texts
from policy.cedar import GUARDS, Source
from policy.contract import WAYBILL_VERSION
from policy.engine import Held
from policy.labels import Label
from policy.questions import BASES, CONSENT_STATES, CROSSINGS, Facts
from streams.processors.cases import Case, Item, Wish

CLASSES = ("public", "internal", "confidential", "restricted")
KINDS = ("email", "iban", "card", "jwt")
REGIONS = ("eu", "us")
PURPOSES = ("support", "research")
TASKS = ("chat", "summary")
ENDPOINTS = {
    "hosted": Endpoint("hosted", "acme-ai", "tls"),
    "plain": Endpoint("plain", "plain-ai", "none"),
    "near": Endpoint("near", "near-ai", "loopback"),
    "local": Endpoint("local", "triton", "loopback"),
}
"""Where generated routes lead."""

RETENTION = """version: 1
rules:
  - {classes: [restricted], purposes: ["*"], payload: none, pseudonym_days: 1, answer: {forbid: [secret]}}
  - {classes: ["*"], purposes: ["*"], payload: none, pseudonym_days: 1}
"""

_CATEGORIES: dict[str, dict[str, Any]] = {
    "personal": {"implies": "confidential", "regulations": ["gdpr"]},
    "financial": {"implies": "internal"},
    "secret": {"implies": "restricted"},
    "health": {"implies": "confidential", "regulations": ["gdpr"]},
}


@dataclass(frozen=True, slots=True)
class Deployment:
    """The texts of a rulebook."""

    labels: str
    """`labels.yaml`."""
    routes: str
    """`routes.yaml`."""
    policies: tuple[str, ...]
    """One policy each, without its `@id`."""

    def book(self) -> Rulebook:
        """Read them, as a worker does."""
        written = "\n".join(f'@id("p{number}")\n{text}' for number, text in enumerate(self.policies))
        sources = [Source("(built in)", GUARDS.read_text(encoding="utf-8")), Source("made.cedar", written)]
        texts = Texts(
            labels=Source("labels.yaml", self.labels),
            retention=Source("retention.yaml", RETENTION),
            policies=tuple(sources),
            routes=Source("routes.yaml", self.routes),
        )
        return compile_texts(texts, ENDPOINTS)

    def plus(self, policy: str) -> Deployment:
        """Give the same with one more policy."""
        return replace(self, policies=(*self.policies, policy))


def few(values: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    """Give some of these, or all by `*`."""
    return st.sampled_from([("*",), ("*",), ("*",), values, values, values[:1], values[1:]])


@st.composite
def labels(draw: st.DrawFn) -> str:
    """Labels whose handling becomes stricter with the class, in any way."""
    hosted = draw(st.sampled_from([4, 4, 3, 2]))
    days = draw(st.sampled_from([(3, 3, 3, 3), (3, 2, 1, 0), (3, 3, 0, 0), (1, 0, 0, 0)]))
    stricter = draw(st.sampled_from([4, 3, 2, 1]))
    ways = draw(st.sampled_from([["tls", "loopback"], ["tls", "loopback", "none"]]))
    classes = [
        {
            "name": name,
            "handling": {
                "hosted": rank < hosted, "encryption": ways if rank < stricter else ["tls"],
                "destination_days": days[rank],
            },
        }
        for rank, name in enumerate(CLASSES)
    ]  # fmt: skip
    content = {
        "version": 1, "classes": classes, "categories": _CATEGORIES, "kinds": {"card": "restricted"},
        "regulations": {"gdpr": {"regions": draw(st.sampled_from([[], ["eu"], ["eu", "us"]]))}},
        "purposes": PURPOSES, "task_types": TASKS,
    }  # fmt: skip
    return json.dumps(content)


@st.composite
def rows(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """One route; nothing narrows its fallbacks."""
    hosted = draw(st.sampled_from([True, True, False]))
    found: dict[str, Any] = {
        "name": name, "placement": "hosted" if hosted else "local",
        "endpoint": draw(st.sampled_from(["hosted", "hosted", "hosted", "near", "plain"])) if hosted else "local",
        "model": "m", "region": draw(st.sampled_from(REGIONS)), "capabilities": draw(few(TASKS)),
        "classes": CLASSES[: draw(st.sampled_from([4, 4, 3, 2, 1]))], "purposes": draw(few(PURPOSES)),
        "max_risk": draw(st.sampled_from(["high", "high", "low"])), "max_tokens": 10, "timeout_s": 1,
        "retention_days": draw(st.integers(0, 3)),
        "price": {"input_per_million_usd": draw(st.sampled_from([0, 1, 90])), "output_per_million_usd": 0},
        "answer": {
            "forbid": draw(st.lists(st.sampled_from(["personal", "financial", "secret"]), unique=True)),
            "action": draw(st.sampled_from(["mask", "drop", "refuse"])),
        },
        "context": draw(st.sampled_from(["required", "useful", "all"])),
        "on_ambiguous": draw(st.sampled_from(["stop", "resend"])),
    }  # fmt: skip
    if hosted:
        found["contract"] = draw(st.sampled_from([*[WAYBILL_VERSION] * 6, "0.9"]))
    return found


@st.composite
def tables(draw: st.DrawFn) -> tuple[dict[str, Any], ...]:
    """One to four routes."""
    return tuple(draw(rows(name)) for name in "abcd"[: draw(st.integers(1, 4))])


def _literals(kind: str, names: tuple[str, ...]) -> st.SearchStrategy[str]:
    return st.sampled_from([f'{kind}::"{name}"' for name in names])


_OF_DATA = st.sampled_from([
    *(f'context.findings.contains(Kind::"{kind}")' for kind in KINDS),
    *(f'context.categories.contains(Category::"{name}")' for name in _CATEGORIES),
    'context.regulations.contains(Regulation::"gdpr")', "!context.findings.isEmpty()",
])  # fmt: skip
"""Something that only more data makes true."""


def _atoms(table: tuple[dict[str, Any], ...]) -> st.SearchStrategy[str]:
    """Something that a policy can ask, of anything but the data itself."""
    return st.sampled_from([
        *(f'context.class == Class::"{name}"' for name in CLASSES),
        'context.class != Class::"restricted"', '[Class::"public", Class::"internal"].contains(context.class)',
        '[Class::"internal", Class::"confidential"].contains(context.class)',
        'context.purpose == Purpose::"support"', 'context.task == Task::"chat"', "context.risk <= 1",
        'context.basis == Basis::"contract"', 'context.consent == Consent::"granted"',
        *(f'context.redacted.contains(Category::"{name}")' for name in ("personal", "financial", "secret")),
        'principal.tenant == "acme"', 'principal == Actor::"ada"', 'principal.roles.contains("analyst")',
        'principal.kind == ActorKind::"user"', 'principal.identity == Identity::"jwt"', 'principal.id like "a*"',
        *(f'resource.region == Region::"{region}"' for region in sorted({row["region"] for row in table})),
        *(f'resource == Route::"{row["name"]}"' for row in table),
        "resource.retentionDays <= 1", 'resource.encryption == Encryption::"tls"', 'resource.placement == "hosted"',
    ])  # fmt: skip


@st.composite
def _conditions(draw: st.DrawFn, table: tuple[dict[str, Any], ...]) -> str:
    """One or two questions, of which any may be turned round."""
    parts = [f"{draw(st.sampled_from(['', '', '!']))}({draw(_atoms(table))})" for _ in range(draw(st.integers(1, 2)))]
    return draw(st.sampled_from([" && ", " || "])).join(parts)


_SCOPES = (
    "action", 'action in Action::"cross"', 'action == Action::"model-call"', 'action == Action::"local-call"',
    'action in [Action::"model-call", Action::"local-call"]',
)  # fmt: skip

_BROAD = (
    "permit(principal, action, resource);",
    'permit(principal, action, resource) when { context.class != Class::"restricted" };',
    'permit(principal, action, resource) unless { context.class == Class::"internal" };',
    '@redact("personal") @style("pseudonym") permit(principal, action, resource);',
    '@approval("ann") permit(principal, action, resource);',
    '@escalate("dpo") permit(principal, action in Action::"cross", resource);',
)
"""Without one of these, most of what is made would be denied to everybody."""

_STYLES = ("mask", "hash", "drop", "pseudonym")


@st.composite
def permits(draw: st.DrawFn, table: tuple[dict[str, Any], ...]) -> str:
    """One permit, as Cedar text.

    Args:
        draw: of Hypothesis.
        table: the routes that it may name.
    """
    notes = []
    redacted = draw(st.sampled_from([[], [], ["personal"], ["secret"], ["financial", "personal"]]))
    if redacted:
        notes.append(f'@redact("{", ".join(redacted)}") @style("{draw(st.sampled_from(_STYLES))}")')
    asks = draw(st.sampled_from(["", "", "", '@approval("ann")', '@approval("bob")', '@escalate("dpo")']))
    clauses = [
        f"{draw(st.sampled_from(['when', 'unless']))} {{ {draw(_conditions(table))} }}"
        for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2])))
    ]
    if draw(st.booleans()):
        clauses.append(f"unless {{ {draw(_OF_DATA)} }}")
    return (
        f"{' '.join([*notes, asks])} permit(principal, {draw(st.sampled_from(_SCOPES))}, resource) {' '.join(clauses)};"
    )


@st.composite
def forbids(draw: st.DrawFn, table: tuple[dict[str, Any], ...], *, liftable: bool = True) -> str:
    """One forbid, as Cedar text; `liftable` ones may be lifted by a person."""
    asks, clause = "", ""
    if liftable:
        asks, clause = draw(
            st.sampled_from([
                ("", ""), ("", ""), ('@approval("ann")', "unless { context.approved }"),
                ('@approval("bob")', "unless { context.approved }"),
                ('@escalate("dpo")', "unless { context.overridden }"),
            ])
        )  # fmt: skip
    data = draw(_OF_DATA) if draw(st.booleans()) else "true"
    condition = f"({draw(_conditions(table))}) && {data}"
    return f"{asks} forbid(principal, {draw(st.sampled_from(_SCOPES))}, resource) when {{ {condition} }} {clause};"


@st.composite
def deployments(draw: st.DrawFn) -> Deployment:
    """Labels, one to four routes, one to four permits and up to three forbids."""
    table = draw(tables())
    allowed = [draw(st.sampled_from(_BROAD)), *draw(st.lists(permits(table), max_size=3))]
    refused = draw(st.lists(forbids(table), max_size=2))
    content = {"version": 1, "policy_id": "made", "routes": table}
    return Deployment(draw(labels()), json.dumps(content), (*allowed, *refused))


@st.composite
def helds(draw: st.DrawFn, kinds: st.SearchStrategy[list[str]] | None = None) -> Held:
    """Data of any class, with any declared categories and findings."""
    categories = draw(st.sampled_from([(), (), (), ("health",), ("personal",), ("secret",)]))
    regulations = draw(st.sampled_from([(), (), (), ("gdpr",)]))
    any_kinds = st.one_of(st.just([]), st.lists(st.sampled_from(KINDS), max_size=2, unique=True))
    found = draw(any_kinds if kinds is None else kinds)
    declared = draw(st.sampled_from(["public", "public", "public", *CLASSES]))
    return Held(Label(declared, frozenset(categories), frozenset(regulations)), frozenset(found))


@st.composite
def facts(draw: st.DrawFn, action: str | None = "model-call") -> Facts:
    """Anybody who asks for anything."""
    return Facts(
        actor=draw(st.sampled_from(["ada", "bob"])),
        kind=draw(st.sampled_from(["user", "service"])),
        tenant=draw(st.sampled_from(["acme", "other"])),
        roles=frozenset(draw(st.lists(st.sampled_from(["analyst", "clerk"]), unique=True))),
        identity=draw(st.sampled_from(["jwt", "unsigned"])),
        action=action or draw(st.sampled_from(CROSSINGS)),
        purpose=draw(st.sampled_from(PURPOSES)),
        task=draw(st.sampled_from(TASKS)),
        risk=draw(st.sampled_from([0, 0, 0, 1, 2])),
        basis=draw(st.sampled_from(["contract", "contract", "contract", *BASES])),
        consent=draw(st.sampled_from(["granted", *CONSENT_STATES])),
    )


def wishes() -> st.SearchStrategy[Wish]:
    """What an application may want of the route."""
    narrow = st.builds(
        Wish,
        placement=st.sampled_from(["any", "any", "any", "hosted", "local"]),
        regions=st.sampled_from([(), (), (), ("eu",), ("us", "eu")]),
        max_tokens=st.sampled_from([None, 5, 50]),
        budget=st.sampled_from([None, None, None, 1.0, 1e-9]),
        size=st.integers(0, 10_000),
        turns=st.integers(1, 5),
    )
    return st.one_of(st.just(Wish(size=100)), st.just(Wish(size=5000)), narrow)


@st.composite
def cases(draw: st.DrawFn, needs: tuple[str, ...] = ("required", "useful", "background")) -> Case:
    """Any request, with up to three sources of context."""
    items = draw(st.lists(st.builds(Item, need=st.sampled_from(needs), held=helds()), max_size=3))
    return Case(draw(facts()), draw(wishes()), draw(helds()), tuple(items))


def _raised(held: Held, draw: st.DrawFn, *, finding: bool) -> Held:
    if finding:
        return held._replace(kinds=held.kinds | {draw(st.sampled_from(KINDS))})
    at_least = CLASSES.index(held.declared.cls)
    return held._replace(declared=replace(held.declared, cls=draw(st.sampled_from(CLASSES[at_least:]))))


@st.composite
def raises(draw: st.DrawFn, needs: tuple[str, ...], *, finding: bool) -> tuple[Case, Case, int | None]:
    """A request, the same with one class raised or one finding added, and in which source; None in the conversation."""
    case = draw(cases(needs))
    places = [None, *range(len(case.items))]
    place = draw(st.sampled_from(places))
    if place is None:
        return case, case._replace(held=_raised(case.held, draw, finding=finding)), None
    items = list(case.items)
    items[place] = items[place]._replace(held=_raised(items[place].held, draw, finding=finding))
    return case, case._replace(items=tuple(items)), place


def shrinking(values: list[set[Any]], say: Callable[[], str]) -> None:
    """Assert that each set is part of the one before."""
    for before, after in pairwise(values):
        assert after <= before, say()
