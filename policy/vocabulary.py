"""The Cedar schema of a deployment: what policies can speak of, with every label as an enumerated entity.

Labels, routes, providers and regions are entities of enumerated types, so that a word in a policy that is none of them
is an error when the policy is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from policy.detection.kinds import KINDS
from policy.labels import Label, Labels
from policy.questions import BASES, CONSENT_STATES, CROSSINGS, IDENTITIES, Facts, Granted, RouteFacts

_OPEN: Final = "entity {name};"
_CLOSED: Final = "entity {name} enum [{words}];"

_ROUTE: Final = (
    "entity Route { name: String, placement: String, provider: Provider, region: Region, model: String, "
    "retentionDays: Long, encryption: Encryption };"
)
_FACTS: Final = (
    "type Facts = { class: Class, findings: Set<Kind>, categories: Set<Category>, regulations: Set<Regulation>, "
    "purpose: Purpose, task: Task, risk: Long, basis: Basis, consent: Consent, redacted: Set<Category>, "
    "approved: Bool, overridden: Bool };"
)

PRINCIPAL: Final = ("id", "tenant", "kind", "roles", "identity")
"""What policies can read of `principal`, an `Actor`."""

RESOURCE: Final = ("name", "placement", "provider", "region", "model", "retentionDays", "encryption")
"""What policies can read of `resource`, a `Route`."""

CONTEXT: Final = (
    "class", "findings", "categories", "regulations", "purpose", "task", "risk", "basis", "consent",
    "redacted", "approved", "overridden",
)  # fmt: skip
"""What policies can read of `context`."""


def schema(labels: Labels, routes: Iterable[RouteFacts]) -> str:
    """Give the schema as Cedar text."""
    table = tuple(routes)
    config = labels.config
    lines = [
        _entity("Class", labels.classes),
        _entity("Category", config.categories),
        _entity("Kind", KINDS),
        _entity("Regulation", config.regulations),
        _entity("Purpose", config.purposes),
        _entity("Task", config.task_types),
        _entity("Provider", {route.provider for route in table}),
        _entity("Region", {route.region for route in table}),
        _entity("Basis", BASES),
        _entity("Consent", CONSENT_STATES),
        _entity("Identity", IDENTITIES),
        _entity("ActorKind", ("user", "service")),
        _entity("Encryption", ("tls", "loopback", "none")),
        "entity Actor { id: String, tenant: String, kind: ActorKind, roles: Set<String>, identity: Identity };",
        _ROUTE,
        _FACTS,
        'action "cross";',
        *(
            f'action "{name}" in [Action::"cross"] appliesTo {{ principal: Actor, resource: Route, context: Facts }};'
            for name in CROSSINGS
        ),
        'action "local-call" appliesTo { principal: Actor, resource: Route, context: Facts };',
    ]
    return "\n".join(lines)


def _entity(name: str, words: Iterable[str] | None) -> str:
    listed = None if words is None else sorted(words)
    if not listed:  # Cedar knows no empty enumeration: then any word is one, and none is ever in a request
        return _OPEN.format(name=name)
    return _CLOSED.format(name=name, words=", ".join(json.dumps(word) for word in listed))


def question(facts: Facts, label: Label, route: RouteFacts, granted: Granted) -> dict[str, Any]:
    """Give what Cedar is asked, in its JSON form."""
    action = facts.action if route.placement == "hosted" else "local-call"
    return {
        "principal": {"type": "Actor", "id": facts.actor},
        "action": {"type": "Action", "id": action},
        "resource": {"type": "Route", "id": route.name},
        "context": context(facts, label, granted),
    }


def context(facts: Facts, label: Label, granted: Granted) -> dict[str, Any]:
    """Give the context of a question."""
    return {
        "class": _uid("Class", label.cls),
        "findings": _uids("Kind", label.kinds),
        "categories": _uids("Category", label.categories),
        "regulations": _uids("Regulation", label.regulations),
        "purpose": _uid("Purpose", facts.purpose),
        "task": _uid("Task", facts.task),
        "risk": facts.risk,
        "basis": _uid("Basis", facts.basis),
        "consent": _uid("Consent", facts.consent),
        "redacted": _uids("Category", granted.redacted),
        "approved": granted.approved,
        "overridden": granted.overridden,
    }


def entities(facts: Facts, route: RouteFacts) -> list[dict[str, Any]]:
    """Give the two entities that a question is about."""
    return [
        {
            "uid": {"type": "Actor", "id": facts.actor},
            "attrs": {
                "id": facts.actor,
                "tenant": facts.tenant,
                "kind": _uid("ActorKind", facts.kind),
                "roles": sorted(facts.roles),
                "identity": _uid("Identity", facts.identity),
            },
            "parents": [],
        },
        {
            "uid": {"type": "Route", "id": route.name},
            "attrs": {
                "name": route.name,
                "placement": route.placement,
                "provider": _uid("Provider", route.provider),
                "region": _uid("Region", route.region),
                "model": route.model,
                "retentionDays": route.retention_days,
                "encryption": _uid("Encryption", route.encryption),
            },
            "parents": [],
        },
    ]


def _uid(kind: str, name: str) -> Mapping[str, Any]:
    return {"__entity": {"type": kind, "id": name}}


def _uids(kind: str, names: Iterable[str]) -> list[Mapping[str, Any]]:
    return [_uid(kind, name) for name in sorted(names)]
