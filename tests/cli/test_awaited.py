"""Which response answers which request, whatever was sent before and in which order responses come."""

from __future__ import annotations

from typing import Any

import pytest

from evidence.records import Outcome
from waybill.cli.awaited import Awaited


def response(request_id: str, outcome: str, first: str | None = None) -> dict[str, Any]:
    """Give a response."""
    return {"requestId": request_id, "outcome": outcome, **({"duplicateOf": first} if first else {})}


def settled(awaited: Awaited, *responses: dict[str, Any], earlier: bool = False) -> list[tuple[str, str]]:
    """Give id and outcome of the answers that responses settle."""
    return [(each["requestId"], each["outcome"]) for one in responses for each in awaited.take(one, earlier=earlier)]


@pytest.mark.parametrize("outcome", [each for each in Outcome if each != "duplicate"])
def test_each_end_that_comes_is_an_answer(outcome):
    """A response to what was just sent is its answer, whatever the outcome, and only the first one is."""
    awaited = Awaited(["a", "b"])
    assert settled(awaited, response("a", outcome), response("a", "completed"), response("x", "completed")) == [
        ("a", outcome)
    ]
    assert awaited.open == {"b"}


@pytest.mark.parametrize(
    ("outcome", "stands"),
    [("completed", True), ("refused", True), ("withheld", True), ("unknown", True),
     ("denied", False), ("rejected", False), ("expired", False), ("failed", False), ("duplicate", False)],
)  # fmt: skip
def test_of_what_came_before_only_what_stands_is_an_answer(outcome, stands):
    """After an outcome that leaves the key free the same request is new work, so that it has to be sent."""
    awaited = Awaited(["a"])
    assert settled(awaited, response("a", outcome, "a"), earlier=True) == ([("a", outcome)] if stands else [])


def test_a_duplicate_waits_for_the_first_answer():
    """A duplicate is no answer; the answer of the first request is, under the id of the one that was sent."""
    awaited = Awaited(["a", "b"])
    assert settled(awaited, response("a", "duplicate", "first"), response("b", "duplicate", "b")) == []
    assert awaited.concerns(b"first")
    (answer,) = awaited.take(response("first", "completed"))
    assert answer == {"requestId": "a", "outcome": "completed", "duplicateOf": "first"}
    assert settled(awaited, response("b", "failed")) == [("b", "failed")]
    assert len(awaited) == 0


def test_the_first_can_be_of_the_same_batch():
    """Two requests of one batch with one key have one answer each, in whichever order they come back."""
    awaited = Awaited(["a", "b"])
    assert settled(awaited, response("b", "duplicate", "a"), response("a", "completed")) == [
        ("a", "completed"),
        ("b", "completed"),
    ]
    awaited = Awaited(["a", "b"])
    assert settled(awaited, response("a", "completed"), response("b", "duplicate", "a")) == [("a", "completed")]
    assert awaited.to_search() == {"a"}
    assert settled(awaited, response("a", "completed"), earlier=True) == [("b", "completed")]


def test_each_first_is_searched_for_once():
    """The topic is read through once for each answer that may lie there, not again at every poll."""
    awaited = Awaited(["a", "b"])
    settled(awaited, response("a", "duplicate", "x"))
    assert awaited.to_search() == {"x"}
    assert awaited.to_search() == frozenset()
    settled(awaited, response("b", "duplicate", "y"))
    assert awaited.to_search() == {"y"}
