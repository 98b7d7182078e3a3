"""A deployment of a test's own: route table, policy folder and decision records, as a worker wants to find them.

The labels are those of the sample deployment with the words that tests use; policies and retention rules are the
sample's own unless a test says otherwise. Decision records are copies of a complete one, with the right pins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from decision_samples import LOCAL_TEXT, TEXT
from dev_run import ROOT

from evidence.records import Placement
from inference import rulebook
from inference.routes import RouteConfig
from inference.routes import parse as parse_routes
from policy.files import Document
from policy.labels import parse as parse_labels
from waybill.decision_pins import price_digest

SAMPLE = ROOT / "config" / "policy"
"""The policies of the sample deployment."""

PURPOSES = (
    "support", "personal-use", "customer-support", "product-research", "internal-productivity", "patient-care",
)  # fmt: skip
"""Purposes that requests of tests may name."""

TASKS = ("chat", "instruction", "question", "drafting", "translation", "summary")
"""Task types that requests of tests may name."""


def labels() -> str:
    """Give the sample's labels with the tests' words."""
    text = (SAMPLE / "labels.yaml").read_text()
    for name, words in (("purposes", PURPOSES), ("task_types", TASKS)):
        text, count = re.subn(rf"^{name}: \[.*\]$", f"{name}: [{', '.join(words)}]", text, flags=re.MULTILINE)
        assert count == 1, f"config/policy/labels.yaml has no list {name} in one line"
    return text


def policy_files(**changes: str) -> dict[str, str]:
    """Give the files of a policy folder by name; `labels`, `policies` and `retention` replace the sample's texts."""
    return {
        "labels.yaml": changes.get("labels", labels()),
        "policies.cedar": changes.get("policies", (SAMPLE / "sample.cedar").read_text()),
        "retention.yaml": changes.get("retention", (SAMPLE / "retention.yaml").read_text()),
    }


def write_policy(folder: Path, **changes: str) -> Path:
    """Write a policy folder; give it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in policy_files(**changes).items():
        (folder / name).write_text(text)
    return folder


def record(route: RouteConfig, *policies: str) -> str:
    """Give a decision record under which a route may start, with these policies."""
    hosted = route.placement is Placement.HOSTED
    text, name, place = (TEXT, "hosted", "the provider") if hosted else (LOCAL_TEXT, "local", "our own server")
    region = "eu" if hosted else "on-site"
    pins = "\n".join(f"    - {digest}" for digest in policies)
    text = text.replace(f"route: {name}\n", f"route: {route.name}\n")
    text = text.replace(f"place: {place}, region: {region}", f"place: {place}, region: {route.region}")
    text = re.sub(r"name: (large|small)-1\n", f"name: {route.model}\n", text)
    text = re.sub(r"  policy:\n(    - .*\n)+", f"  policy:\n{pins}\n", text)
    return re.sub(r"  price: .*", f"  price: {price_digest(route)}", text)


def write(home: Path, routes: str, *more: Path, **changes: str) -> dict[str, str]:
    """Write a deployment; give the settings of a worker that uses it, its identity apart.

    Args:
        home: where.
        routes: the route table.
        *more: further policy folders that the routes may start with, for tests that change policy.
        **changes: as `policy_files`.
    """
    home.mkdir(parents=True, exist_ok=True)
    table, decisions, policy = home / "routes.yaml", home / "decisions", write_policy(home / "policy", **changes)
    table.write_text(routes)
    decisions.mkdir(exist_ok=True)
    parsed = parse_routes(
        Document(routes, str(table)), parse_labels(Document(changes.get("labels", labels()), "labels"))
    )
    digests = [rulebook.read(folder, table).policy_digest for folder in (policy, *more)]
    for route in parsed.routes:
        (decisions / f"{route.name}.yaml").write_text(record(route, *digests))
    return {"WAYBILL_ROUTES": str(table), "WAYBILL_POLICY": str(policy), "WAYBILL_DECISIONS": str(decisions)}


UNSIGNED: Mapping[str, str] = {
    "WAYBILL_IDENTITY__METHOD": "unsigned",
    "WAYBILL_IDENTITY__ALLOW_UNSIGNED": "true",
}
"""Settings of a worker that believes what requests say of themselves, as `waybill dev` runs it."""
