"""The sample routes, requests and stand-in rules of `config/` show what they are there to show."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import orjson

from inference.routes import load
from inference.standin.script import Script
from policy.detectors import Detectors
from policy.labels import DataClass
from streams.processors.classification import classify
from streams.processors.routing import decide
from streams.request import parse
from waybill.cli.lines import read

CONFIG = Path(__file__).resolve().parents[2] / "config"
NOW = datetime(2026, 4, 1, tzinfo=UTC)


def sample():
    """Give the sample lines."""
    numbers = count(1)
    return read(CONFIG / "requests.jsonl", NOW, lambda: f"id-{next(numbers)}")


def decided():
    """Give each sample request with its classification and the table's decision."""
    table, detectors = load(CONFIG / "routes.yaml"), Detectors()
    for line in sample():
        if not line.raw:
            request = parse(line.value)
            held = classify(request.classification, request.texts(), detectors)
            yield request, held, decide(request, DataClass(held.effective), table)


def test_samples_take_every_way():
    """Among the sample requests some go to each route, some are denied, and one is broken."""
    first = {decision.routes[0].name if decision.routes else "denied" for _, _, decision in decided()}
    assert first == {"hosted-summaries", "hosted-general", "local-small", "denied"}
    assert sum(line.raw for line in sample()) == 1


def test_nothing_above_internal_goes_hosted():
    """No sample whose effective class is confidential or restricted has a hosted route or fallback."""
    for _, held, decision in decided():
        if held.effective in {"confidential", "restricted"}:
            assert all(route.placement == "local" for route in decision.routes)


def test_detection_raises_what_is_declared_too_low():
    """Personal data in a public sample makes it confidential, and a secret makes one restricted."""
    raised = {(held.declared, held.effective) for _, held, _ in decided() if held.declared != held.effective}
    assert raised == {("public", "confidential"), ("internal", "restricted")}


def test_each_rule_of_the_stand_in_meets_one_sample():
    """Every behaviour that the stand-in is scripted for is asked for by exactly one sample."""
    rules = Script.load(CONFIG / "standin.json").rules
    texts = [orjson.loads(line.value)["input"]["messages"][-1]["content"] for line in sample() if not line.raw]
    assert [sum((rule.contains or "") in text for text in texts) for rule in rules] == [1] * len(rules)
    assert {rule.do.name for rule in rules} == {"status:429", "text", "refusal", "drop:after-accept"}


def test_samples_are_sent_with_fresh_ids():
    """No sample carries an id or a time of its own: the file can be sent again and again."""
    for text in (CONFIG / "requests.jsonl").read_bytes().splitlines():
        assert not {"requestId", "timestampUtc", "idempotencyKey"} & set(orjson.loads(text))
