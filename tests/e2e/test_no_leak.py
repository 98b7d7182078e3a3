"""One run with markers planted everywhere, and a search of everything that it left: topics, files, logs, spans, pages.

What goes to `ai.requests` is the application's own, and what a local model is asked stays inside; neither is searched.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from kafka_fixtures import unique_prefix
from leak_run import Left, run
from markers import Hit, hits

OWN = "header authorization"
"""An approver's token is in the header of their own verdict, where they put it, as a request's is on `ai.requests`."""

SEED = 20_261_124
"""What the markers are made from; any other number does as well."""

pytestmark = [pytest.mark.kafka, pytest.mark.triton]


@pytest.fixture(scope="module")
def left(kafka: str, triton: str, tmp_path_factory: pytest.TempPathFactory) -> Left:
    """What the run left."""
    folder: Path = tmp_path_factory.mktemp("leaks")
    return asyncio.run(run(folder, kafka, unique_prefix("leak"), triton, SEED))


def told(found: list[Hit]) -> str:
    """Give a list of leaks, each kind once."""
    lines = Counter(str(hit) for hit in found)
    return f"{len(found)} leaks:\n" + "\n".join(sorted(lines))


def test_every_case_took_its_way(left: Left):
    """Each request ended as it was meant to, with the reason that was meant: no way was left out of the search."""
    ends = {}
    for case in left.cases:
        for response in left.responses.get(case.name, ()):
            served = (response.get("receipt") or {}).get("servedBy") or {}
            ends[case.name] = response["outcome"], response.get("failure", {}).get("code"), served.get("placement")
    wrong = [
        f"{case.name}: {ends.get(case.name)}"
        for case in left.cases
        if (case.outcome is None or not case.answered) != (case.name not in ends)
        or (case.name in ends and ends[case.name][0] != case.outcome)
        or (case.name in ends and case.code and ends[case.name][1] != case.code)
        or (case.placement and ends[case.name][2] != case.placement)
    ]
    assert not wrong, "\n".join(wrong)
    codes = Counter(letter["failure"]["code"] for letter in left.dead)
    wanted = Counter(case.code for case in left.cases if case.outcome == "rejected")
    wanted.pop("idempotency_conflict")  # it was admitted: it has an end, and no dead letter
    wanted["no_identity"] += 1  # of an approver without a token
    assert codes == wanted


def test_an_approver_without_a_token_changes_nothing(left: Left):
    """Where identity is signed, a verdict with a claimed role and no token is a dead letter, and the request waits."""
    (letter,) = [letter for letter in left.dead if letter["stage"] == "approvals"]
    assert (letter["failure"]["code"], letter["requestId"]) == ("no_identity", "leave-me")
    assert "leave-me" not in left.responses


@pytest.mark.parametrize("what", ["topics", "files", "spans", "said", "received"])
def test_no_credential_is_anywhere(left: Left, what: str):
    """No key, token or authorization header, of a request, an answer or an id, is in any place that the run has."""
    places = [
        place for place in getattr(left, what) if not place.name.startswith("ai.approvals") or OWN not in place.name
    ]
    found = hits(places, (marker for marker in left.markers if marker.family == "credential"))
    assert not [hit for hit in found if (hit.marker.where, what) != ("the key of a provider", "received")], told(found)


@pytest.mark.parametrize("what", ["topics", "files", "spans", "said", "received"])
def test_no_personal_data_can_be_read_anywhere(left: Left, what: str):
    """No address or account, of a request or an answer, can be read in any place, and none has reached a provider."""
    found = hits(getattr(left, what), (marker for marker in left.markers if marker.family == "personal"))
    assert not found, told(found)


@pytest.mark.parametrize("what", ["topics", "files", "spans", "said"])
def test_texts_of_requests_are_nowhere(left: Left, what: str):
    """Not one word of a prompt is in a topic, a file, a span or a page; only the providers were told."""
    plain = [marker for marker in left.markers if marker.family == "plain" and marker.side == "asked"]
    found = hits(getattr(left, what), plain)
    assert not found, told(found)
    received = {hit.marker for hit in hits(left.received, plain)}
    kept = {"deny-me prompt", "leave-me prompt"}
    assert received == {marker for marker in plain if marker.where not in kept}


def test_answers_are_on_their_topic_alone(left: Left):
    """A word of an answer is in the response, and nowhere else."""
    plain = [marker for marker in left.markers if marker.family == "plain" and marker.side == "answered"]
    found = hits([*left.topics, *left.files, *left.spans, *left.said], plain)
    assert {hit.place.partition("[")[0] for hit in found} == {"ai.responses"}


def test_the_search_finds_what_is_there(left: Left):
    """One marker put on purpose into a file, a record and a span, in other forms than its own, is found in each."""
    assert left.planted_marker is not None
    found = hits(left.planted, [left.planted_marker])
    assert [hit.place.partition("[")[0] for hit in found] == ["ai.ledger", "planted.log", "span planted"]


def test_there_is_something_to_search(left: Left):
    """Every topic but the requests' own has records, and there are evidence, vault, log and spans."""
    topics = {place.name.partition("[")[0] for place in left.topics}
    assert {"ai.work.local", "ai.work.hosted", "ai.responses", "ai.evidence", "ai.deadletter", "ai.ledger"} <= topics
    assert "ai.approvals" in topics
    files = " ".join(place.name for place in left.files)
    assert all(part in files for part in ("parquet, decoded", "vault/", "worker.log", "stand-in.log"))
    assert len(left.spans) > len(left.cases)
