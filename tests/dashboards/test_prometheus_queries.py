"""Every query of the dashboard and every alert, asked of a real Prometheus that scraped a real exposition."""

from __future__ import annotations

import json
import math
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_fixtures import (
    ALERTS,
    Prometheus,
    WorkerMetrics,
    exercise,
    exposition_url,
    need,
    prometheus,
    substituted,
)

from dashboards import grafana

__all__ = ["exposition_url", "prometheus"]  # fixtures

pytestmark = pytest.mark.prometheus

HERE = Path(__file__).resolve().parent
BOARD = json.loads(grafana.PATH.read_text(encoding="utf-8"))
TARGETS = [
    (f"{panel['title']} {target['refId']}", target["expr"])
    for panel in BOARD["panels"]
    if panel["type"] != "row"
    for target in panel["targets"]
]
RULES = [rule for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]


def test_the_exercise_moves_every_metric() -> None:
    """No metric can be added to the program without these tests asking for it."""
    metrics = WorkerMetrics()
    exercise(metrics)
    silent = [family.name for family in metrics.registry.collect() if not family.samples]
    assert silent == []


def test_the_program_speaks_prometheus(prometheus: Prometheus) -> None:
    """Prometheus takes the exposition without an error."""
    (target,) = prometheus.targets()
    assert (target["health"], target["lastError"]) == ("up", "")


@pytest.mark.parametrize("expr", [expr for _, expr in TARGETS], ids=[title for title, _ in TARGETS])
def test_every_panel_has_data(prometheus: Prometheus, expr: str) -> None:
    """Each query of the dashboard is valid and finds numbers in what the program exposes."""
    samples = prometheus.query(substituted(expr))
    values = [float(sample["value"][1]) for sample in samples]
    assert values
    assert not any(math.isnan(value) for value in values)


def test_rates_are_those_of_the_program(prometheus: Prometheus) -> None:
    """What a panel shows is what happened: three ended requests for each rejected record, a third of them unknown."""
    shares = dict(TARGETS)
    (trouble,) = prometheus.query(substituted(shares["Share in trouble A"]))
    assert float(trouble["value"][1]) == pytest.approx(1 / 3, abs=0.02)
    (p50,) = prometheus.query(substituted(shares["Time from admission to end A"]))
    assert 0.02 < float(p50["value"][1]) <= 0.05, "0.03 s lies in the bucket from 0.02 to 0.05"


def test_variables_find_their_values(prometheus: Prometheus) -> None:
    """The drop-downs for job, site and instance are filled."""
    found = {}
    for variable in BOARD["templating"]["list"]:
        if variable["type"] == "query":
            selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]).groups()
            found[label] = prometheus.label_values(label, substituted(selector))
    assert (found["job"], found["site"], len(found["instance"])) == (["waybill"], ["local"], 1)


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_alerts_can_be_asked(prometheus: Prometheus, rule: dict) -> None:
    """Each alert's expression is valid and matches metrics that exist; those that need trouble find none here."""
    prometheus.query(rule["expr"])
    for name in re.findall(r"\bwaybill_[a-z_]+", rule["expr"]):
        assert prometheus.query(f"{name}{{job='waybill'}}"), name


def test_prometheus_evaluates_the_alerts(prometheus: Prometheus) -> None:
    """All rules are loaded, none fails, and the dead letters of the exercise raise their alert."""
    rules = {rule["name"]: rule for rule in prometheus.rules()}
    assert rules.keys() == {rule["alert"] for rule in RULES}
    assert {name: rule["lastError"] for name, rule in rules.items() if rule.get("lastError")} == {}
    letters = prometheus.query(next(rule["expr"] for rule in RULES if rule["alert"] == "DeadLettersRising"))
    assert [sample["metric"]["reason"] for sample in letters] == ["not_json"]


def test_promtool_accepts_the_configuration() -> None:
    """Prometheus' own checker finds nothing in its configuration and in the rules."""
    for what, name in (("config", "prometheus.yml"), ("rules", "alerts.yml")):
        done = subprocess.run(
            [need("promtool"), "check", what, ALERTS.parent / name], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr + done.stdout


def test_alerts_fire_when_they_should_and_only_then() -> None:
    """Prometheus' own unit tests of the rules pass: each alert is silent, waits, fires and says the right thing."""
    done = subprocess.run(
        [need("promtool"), "test", "rules", HERE / "alert_cases.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout


def test_each_alert_has_a_test_a_severity_and_a_runbook() -> None:
    """No alert is untested, and each leads to a heading in the operator's page that says what to do."""
    cases = yaml.safe_load((HERE / "alert_cases.yml").read_text(encoding="utf-8"))
    fired = {each["alertname"] for test in cases["tests"] for each in test["alert_rule_test"] if each.get("exp_alerts")}
    page = (ALERTS.parents[1] / "docs" / "operations.md").read_text(encoding="utf-8")
    for rule in RULES:
        name = rule["alert"]
        assert name in fired
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"
        assert f"### {name}\n" in page
