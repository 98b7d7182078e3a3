"""What is settled: shared decisions, and records that are written from them as their own types would write them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from decisions import SCANNER
from requests_made import book, encoded, request

from inference.rulebook import Rulebook
from policy.identity.verify import unsigned
from streams.processors.cases import Case
from streams.processors.classification import classify
from streams.processors.routing import decide, policy_ref, waybills
from streams.processors.settled import settle
from streams.request import parse
from streams.stages.admitted import case_of


def case(by: Rulebook, **changes: Any) -> Case:
    """All that a decision on a request rests on."""
    made = parse(encoded(request("r1", **changes)))
    classified = classify(made, by.labels, SCANNER)
    return case_of(made, unsigned(made.actor.id, made.actor.kind, made.tenant.id), classified, "none", frozenset())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"classification": "confidential"},
        {"classification": "restricted"},
        {"budget": {"maxCostUsd": 0.0000001}},
        {"input": {"messages": [{"role": "user", "content": "Write to anna@example.org."}]}},
    ],
)
def test_what_is_settled_is_written_as_the_records_themselves_are(changes: dict[str, Any]) -> None:
    """Decision record and contracts from fixed parts are byte for byte those of the models, with the same digest."""
    by = book()
    asked = case(by, **changes)
    settled, decision = settle(asked, by), decide(asked, by)
    assert settled.decision == decision
    assert orjson.dumps(settled.policy(asked, "d1")) == policy_ref(decision, asked, by, identity="d1").to_json()
    made = waybills("i1", asked, decision, "contract:a", ("none",), by)
    found = settled.contracts("i1", "contract:a", ("none",))
    assert {name: orjson.dumps(one.text) for name, one in found.items()} == {n: w.to_json() for n, w in made.items()}
    assert {name: one.digest for name, one in found.items()} == {name: one.digest() for name, one in made.items()}


def test_a_case_is_decided_anew_by_another_rulebook_and_for_another_size_that_breaks_the_budget() -> None:
    """Nothing is remembered for longer than the rulebook that said it, nor past a bound that the request sets."""
    by = book()
    other = replace(by)
    asked = case(by)
    assert settle(asked, by) is settle(asked, by)
    assert settle(asked, other) is not settle(asked, by)
    cheap = asked._replace(wish=asked.wish._replace(budget=0.001))
    large = cheap._replace(wish=cheap.wish._replace(size=10_000_000))
    assert settle(cheap, by).decision != settle(large, by).decision
    assert settle(large, by).decision == decide(large, by)
