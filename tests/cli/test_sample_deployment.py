"""The sample policies, routes, requests and stand-in rules of `config/` show what they are there to show."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from itertools import count
from pathlib import Path

import orjson

from inference import rulebook
from inference.routes import Endpoint
from inference.rulebook import Rulebook
from inference.standin.script import Script
from policy.detection.detectors import Detectors
from policy.identity.verify import unsigned
from policy.questions import Outcome
from streams.processors.classification import Classified, classify
from streams.processors.routing import Decision, decide
from streams.request import RuntimeRequest, parse
from streams.stages.admitted import case_of
from waybill.cli.lines import Line, read

CONFIG = Path(__file__).resolve().parents[2] / "config"
NOW = datetime(2026, 4, 1, tzinfo=UTC)
DETECTORS = Detectors()


@cache
def book() -> Rulebook:
    """Give the sample rulebook, with the endpoints that `waybill dev` starts."""
    ours = {"hosted": Endpoint("hosted", "stand-in", "loopback"), "local": Endpoint("local", "in-process", "loopback")}
    return rulebook.load(CONFIG / "policy", CONFIG / "routes.yaml", ours)


def sample() -> tuple[Line, ...]:
    """Give the sample lines."""
    numbers = count(1)
    return read(CONFIG / "requests.jsonl", NOW, lambda: f"id-{next(numbers)}")


def decision(request: RuntimeRequest) -> tuple[Classified, Decision]:
    """Classify a request and decide on it, as admission does."""
    held = classify(request, book().labels, DETECTORS)
    principal = unsigned(request.actor.id, request.actor.kind, request.tenant.id)
    return held, decide(case_of(request, principal, held, "none", frozenset()), book())


def decided() -> Iterator[tuple[RuntimeRequest, Classified, Decision]]:
    """Give each sample request with its classification and the decision on it."""
    for line in sample():
        if not line.raw:
            request = parse(line.value)
            yield request, *decision(request)


def test_samples_take_every_way():
    """Of the samples some go to each route, one without its personal data, some are denied, and one is broken."""
    first = {made.routes[0].name if made.routes else "denied" for _, _, made in decided()}
    assert first == {"hosted-summaries", "hosted-general", "local-small", "denied"}
    assert {made.outcome for _, _, made in decided()} == {Outcome.ALLOW, Outcome.TRANSFORM, Outcome.DENY}
    assert sum(line.raw for line in sample()) == 1


def test_every_sample_has_words_that_the_labels_know():
    """Class, purpose and task of each sample request are labels of the sample deployment."""
    for request, _, _ in decided():
        book().labels.check_request(
            request.classification, request.purpose, request.task_type, request.data_categories,
            request.data_regulations,
        )  # fmt: skip


def test_nothing_above_internal_goes_hosted_as_it_is():
    """What is confidential or restricted leaves, if at all, only without what makes it so."""
    for _, held, made in decided():
        hosted = [route for route in made.routes if route.placement == "hosted"]
        if not hosted or held.classification.effective not in {"confidential", "restricted"}:
            continue
        assert made.verdict.granted.redacted
        left = book().engine.residual(made.selection.held, made.verdict.granted.redacted)
        assert left.cls in {"public", "internal"}


def test_the_sample_policies_give_each_outcome():
    """A confidential translation waits for the privacy office, a support question is redacted, a secret stays."""
    base = {line["taskType"]: line for line in map(orjson.loads, sample_texts()) if line["taskType"] == "translation"}
    line = {**base["translation"], "classification": "confidential", "requestId": "r", "modelPolicy": {
        "placement": "hosted"}, "timestampUtc": "2026-04-01T00:00:00Z"}  # fmt: skip
    _, made = decision(parse(orjson.dumps(line)))
    assert (made.outcome, made.verdict.authorities) == (Outcome.REQUIRE_APPROVAL, ("privacy-office",))
    assert made.reasons[0] == "hosted-general:confidential-by-approval"
    reasons = {reason for _, _, found in decided() if found.outcome is Outcome.TRANSFORM for reason in found.reasons}
    assert "hosted-general:support-without-names" in reasons
    for _, held, found in decided():
        if "secret" in held.classification.categories:
            assert all(route.placement == "local" for route in found.routes)


def sample_texts() -> list[bytes]:
    """Give the sample lines that are requests."""
    return [line.value for line in sample() if not line.raw]


def test_detection_raises_what_is_declared_too_low():
    """Personal data in a public sample makes it confidential, and a secret makes one restricted."""
    raised = {
        (held.classification.declared, held.classification.effective)
        for _, held, _ in decided()
        if held.classification.declared != held.classification.effective
    }
    assert raised == {("public", "confidential"), ("internal", "restricted")}


def test_each_rule_of_the_stand_in_meets_one_sample():
    """Every behaviour that the stand-in is scripted for is asked for by exactly one sample."""
    rules = Script.load(CONFIG / "standin.json").rules
    texts = [orjson.loads(value)["input"]["messages"][-1]["content"] for value in sample_texts()]
    assert [sum((rule.contains or "") in text for text in texts) for rule in rules] == [1] * len(rules)
    assert {rule.do.name for rule in rules} == {"status:429", "text", "refusal", "drop:after-accept"}


def test_samples_are_sent_with_fresh_ids():
    """No sample carries an id or a time of its own: the file can be sent again and again."""
    for text in (CONFIG / "requests.jsonl").read_bytes().splitlines():
        assert not {"requestId", "timestampUtc", "idempotencyKey"} & set(orjson.loads(text))
