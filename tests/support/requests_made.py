"""Requests and rulebooks for tests, small and readable."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import orjson

from inference.routes import Endpoint, RouteTable, parse
from inference.rulebook import Rulebook, Texts, compile_texts
from policy import cedar
from policy.cedar import Source
from policy.files import Document
from policy.labels import Labels
from policy.labels import parse as parse_labels
from streams.envelope import Headers

LABELS = """
version: 1
classes:
  - {name: public}
  - {name: internal}
  - {name: confidential}
  - {name: restricted, handling: {hosted: false}}
categories:
  personal: {implies: confidential, regulations: [gdpr]}
  financial: {implies: confidential}
  secret: {implies: restricted}
  health: {implies: restricted, regulations: [gdpr]}
kinds: {card: restricted}
regulations:
  gdpr: {regions: [eu, on-premises]}
  home: {regions: [on-premises]}
  free: {}
"""
"""Four classes; any word is a purpose or a task type."""

CLOSED = f"""{LABELS}
purposes: [support, training, archive]
task_types: [chat, summary]
"""
"""The same, with purposes and task types listed."""

NAMES_WANTED = f"""{LABELS}
names: {{purposes: [support]}}
"""
"""The same, with names looked for in requests for support."""

POLICY = """
@id("stay-inside")
permit(principal, action == Action::"local-call", resource);

@id("ordinary-work")
permit(principal, action == Action::"model-call", resource)
when { [Class::"public", Class::"internal"].contains(context.class) };
"""
"""What is public or internal may cross."""


def redacting(style: str = "pseudonym", categories: str = "personal") -> str:
    """Give policies under which what holds these categories may cross without them."""
    return f"""{POLICY}
@id("without-them")
@redact("{categories}") @style("{style}")
permit(principal, action == Action::"model-call", resource)
when {{ [Class::"public", Class::"internal"].contains(context.class) }};
"""


APPROVING = f"""{POLICY}
@id("asked-first")
@approval("privacy-office")
permit(principal, action == Action::"model-call", resource)
when {{ context.class == Class::"confidential" }};
"""
"""Policies under which confidential data may cross once somebody has approved it."""

FORBIDDING = f"""{POLICY}
@id("nothing-crosses")
forbid(principal, action in Action::"cross", resource);
"""
"""Policies under which nothing crosses any more."""

RETENTION = """
version: 1
key_period: day
transit_days: 7
rules:
  - {classes: [restricted], purposes: ["*"], payload: none, pseudonym_days: 7, answer: {forbid: [secret], action: drop}}
  - {classes: ["*"], purposes: [archive], payload: keep, min_days: 1, max_days: 30, pseudonym_days: 30}
  - {classes: ["*"], purposes: ["*"], payload: none, pseudonym_days: 30, answer: {forbid: [secret], action: mask}}
"""
"""Nothing is kept but what pseudonyms stand for, and, for the purpose `archive`, requests and answers."""

ROUTES = """
version: 1
policy_id: test-policy
routes:
  - name: hosted-general
    placement: hosted
    endpoint: hosted
    model: gpt-test
    region: eu
    capabilities: ["*"]
    classes: [public, internal]
    purposes: ["*"]
    max_risk: medium
    max_tokens: 64
    timeout_s: 5
    contract: "1.1"
    price: {input_per_million_usd: 1.0, output_per_million_usd: 2.0}
    answer: {forbid: [personal, financial, secret], action: mask}
  - name: local-small
    placement: local
    endpoint: local
    model: smollm2
    region: on-premises
    context: all
    capabilities: ["*"]
    classes: [public, internal, confidential]
    purposes: ["*"]
    max_risk: high
    max_tokens: 32
    timeout_s: 30
    price: {input_per_million_usd: 0, output_per_million_usd: 0}
"""
"""A hosted route for public and internal data, and a local one, which may stand in for it."""

TWO_HOSTED = ROUTES.replace(
    "  - name: local-small",
    """  - name: hosted-second
    placement: hosted
    endpoint: other
    model: gpt-other
    region: eu
    capabilities: ["*"]
    classes: [public]
    purposes: ["*"]
    max_tokens: 64
    timeout_s: 5
    contract: "1.1"
    price: {input_per_million_usd: 1.0, output_per_million_usd: 2.0}
    answer: {forbid: [personal, financial, secret], action: mask}
  - name: local-small""",
)
"""A table with a second hosted route, which may stand in for the first one, before the local one."""

CONFIDENTIAL_HOSTED = ROUTES.replace("classes: [public, internal]\n", "classes: [public, internal, confidential]\n")
"""A table whose hosted route takes confidential data, where policy lets it."""

RESEND = ROUTES.replace('    contract: "1.1"', '    contract: "1.1"\n    on_ambiguous: resend')
"""A table whose hosted route accepts a second disclosure."""

ENDPOINTS: Mapping[str, Endpoint] = {
    "hosted": Endpoint("hosted", "acme-ai", "tls", "https://acme-ai.example"),
    "other": Endpoint("other", "other-ai", "tls"),
    "local": Endpoint("local", "triton", "loopback"),
}
"""Where the routes of test tables lead."""


def labels(text: str = LABELS) -> Labels:
    """Give the labels of a text."""
    return parse_labels(Document(text, "labels.yaml"))


def table(text: str = ROUTES, words: str = LABELS) -> RouteTable:
    """Give a route table: a hosted route for public and internal, a local one that is also its fallback."""
    return parse(Document(text, "routes.yaml"), labels(words))


@cache
def _guards() -> Source:
    return Source("(built in)", cedar.GUARDS.read_text(encoding="utf-8"))


def texts(*, labels: str = LABELS, policy: str = POLICY, retention: str = RETENTION, routes: str = ROUTES) -> Texts:
    """Give the texts of a rulebook; the built-in policies are part of it, as they always are."""
    return Texts(
        labels=Source("labels.yaml", labels),
        retention=Source("retention.yaml", retention),
        policies=(_guards(), Source("test.cedar", policy)),
        routes=Source("routes.yaml", routes),
    )


def book(*, endpoints: Mapping[str, Endpoint] = ENDPOINTS, **changes: str) -> Rulebook:
    """Give a rulebook; the same one for the same texts (`labels`, `policy`, `retention`, `routes`)."""
    if endpoints is ENDPOINTS:
        return _book(tuple(sorted(changes.items())))
    return compile_texts(texts(**changes), endpoints)


@cache
def _book(changes: tuple[tuple[str, str], ...]) -> Rulebook:
    return compile_texts(texts(**dict(changes)), ENDPOINTS)


def request(request_id: str, prompt: str = "Say hello.", **changes: Any) -> dict[str, Any]:
    """Give a valid request as JSON content; a change of None removes the field."""
    now = datetime.now(UTC)
    content: dict[str, Any] = {
        "contractVersion": "1.0",
        "requestId": request_id,
        "timestampUtc": now.isoformat().replace("+00:00", "Z"),
        "deadlineUtc": (now + timedelta(minutes=5)).isoformat().replace("+00:00", "Z"),
        "actor": {"id": "ada"},
        "tenant": {"id": "acme"},
        "taskType": "chat",
        "purpose": "support",
        "classification": "public",
        "input": {"messages": [{"role": "user", "content": prompt}]},
        "consent": {"basis": "contract"},
        **changes,
    }
    return {name: value for name, value in content.items() if value is not None}


def source(source_id: str, content: str, need: str | None = None, cls: str | None = None) -> dict[str, Any]:
    """Give a source of context as JSON content."""
    found = {"sourceId": source_id, "content": content, "need": need, "classification": cls}
    return {name: value for name, value in found.items() if value is not None}


def with_context(prompt: str, *sources: dict[str, Any]) -> dict[str, Any]:
    """Give the `input` of a request with sources."""
    return {"messages": [{"role": "user", "content": prompt}], "context": list(sources)}


def headers(request_id: str, **changes: str) -> Headers:
    """Give the headers of a request; names with `_` for `-` in `content_type`."""
    found = {
        "ce_specversion": "1.0",
        "ce_type": "io.waybill.request.v1",
        "ce_source": "/tests",
        "ce_id": request_id,
        "content-type": "application/json",
        **{name.replace("content_type", "content-type"): value for name, value in changes.items()},
    }
    return [(name, value.encode()) for name, value in found.items()]


def encoded(content: dict[str, Any]) -> bytes:
    """Give a request's bytes."""
    return orjson.dumps(content)
