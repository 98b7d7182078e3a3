"""The stories that the page on evidence tells are those that admission writes."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest
from decisions import rules
from doc_pages import DOCS, read_table
from requests_made import encoded, headers, request

from evidence.records import Position
from streams.stages.admit import Incoming, admit

PAGE = (DOCS / "evidence.md").read_text(encoding="utf-8")


def story(value: bytes) -> list[str]:
    """Give the events that admission writes for a record."""
    place = Position(topic="ai.requests", partition=0, offset=0)
    made = admit(Incoming(place, 0, value, headers("a")), rules(), datetime.now(UTC))
    return [json.loads(record.value)["eventType"] for record in made.records if record.topic == "ai.evidence"]


def every_story() -> tuple[list[str], list[str]]:
    """Give the events with which the page says that every story begins and ends."""
    sentence = re.search(r"^Every story .+? begins with (.+), and ends with (.+)\.$", PAGE, flags=re.MULTILINE)
    assert sentence
    begins, ends = (re.findall(r"`([^`]+)`", part) for part in sentence.groups())
    return begins, ends


@pytest.mark.parametrize("placement", ["local", "hosted"])
def test_an_admitted_request_begins_as_told(placement):
    """Admission says the three first events, and then the route."""
    begins, _ = every_story()
    made = story(encoded(request("a", modelPolicy={"placement": placement})))
    assert made == [*begins, "route.selected"]


def test_a_denied_request_has_the_story_that_is_told():
    """Between beginning and end of a denied request there is nothing."""
    begins, ends = every_story()
    assert story(encoded(request("a", classification="restricted", modelPolicy={"placement": "hosted"}))) == [
        *begins,
        *ends,
    ]


def test_a_rejected_record_has_the_story_that_is_told():
    """A record that breaks its contract has one event."""
    told = dict(read_table("evidence.md", "## Stories by outcome"))["`rejected`"]
    assert "`request.rejected` alone" in told
    assert story(b"not JSON") == ["request.rejected"]
