"""Requests and route tables for tests, small and readable."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from inference.routes import RouteTable, parse
from streams.envelope import Headers

ROUTES = """
version: 1
policy_id: test-routes
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
    price: {input_per_million_usd: 1.0, output_per_million_usd: 2.0}
    answer: {forbid: [personal, financial, secret], action: mask}
    fallback: [local-small]
  - name: local-small
    placement: local
    endpoint: local
    model: smollm2
    region: on-premises
    capabilities: ["*"]
    classes: [public, internal, confidential]
    purposes: ["*"]
    max_risk: high
    max_tokens: 32
    timeout_s: 30
    price: {input_per_million_usd: 0, output_per_million_usd: 0}
"""


def table(text: str = ROUTES) -> RouteTable:
    """Give a route table: a hosted route for public and internal, a local one that is also its fallback."""
    return parse(text, source="test")


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
