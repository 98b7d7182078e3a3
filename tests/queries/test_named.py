"""Every named question gives the answer that plain Python gives over the same events."""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta

import pytest
from evidence_samples import NOON, stories
from evidence_stores import local_store

from evidence.errors import ConfigError
from evidence.parsing import parse
from evidence.records import EventType, EvidenceEvent, Outcome, Placement
from queries import named
from queries.database import Evidence
from queries.errors import QueryError

QUESTIONS = named.load()


def store(root, events, *, partition=0):
    """Store some events as one partition's."""
    numbers = list(range(len(events)))
    stamps = [int(event.occurred_at_utc.timestamp() * 1000) for event in events]
    values = [event.to_json() for event in events]
    table = parse(values, partition=partition, offsets=numbers, timestamps_ms=stamps).table
    with local_store(root, "home").open("cluster", "ai.evidence", partition) as writer:
        writer.append(table, end=len(events) - 1)


def broken_events():
    """Give events with every flaw that a question looks for: doubled, missing, unfinished."""
    events = list(stories(400))
    by_type = defaultdict(list)
    for event in events:
        by_type[event.event_type].append(event)
    no_intent = next(e for e in by_type[EventType.MODEL_INTENDED] if e.route.placement is Placement.HOSTED)
    unfinished = by_type[EventType.REQUEST_ENDED][7]
    doubled = by_type[EventType.DATA_CLASSIFIED][3]
    return [event for event in events if event not in (no_intent, unfinished)], [doubled], no_intent, unfinished


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Give evidence with known flaws, and the events that it was made of."""
    root = tmp_path_factory.mktemp("evidence")
    events, again, no_intent, unfinished = broken_events()
    store(root, events)
    store(root, again, partition=1)
    with Evidence(root) as evidence:
        yield evidence, events + again, no_intent, unfinished


def ask(world, name, **given):
    """Give the rows of a question's answer, each as a dict."""
    question = QUESTIONS[name]
    with world[0].query(question.sql, question.bind(given)) as result:
        return [dict(zip(result.columns, row, strict=True)) for row in result]


def intakes(world):
    """Give the distinct events of each intake, in order."""
    found: dict[str, list[EvidenceEvent]] = defaultdict(list)
    for event in sorted(set(world[1]), key=lambda event: event.sequence):
        found[event.intake_id].append(event)
    return found


def of_type(events, *kinds):
    """Give the events of some types."""
    return [event for event in events if event.event_type in kinds]


def ended(events):
    """Give the end of an intake, or None."""
    return next(iter(of_type(events, EventType.REQUEST_ENDED, EventType.REQUEST_REJECTED)), None)


def effective(events):
    """Give the class that an intake was last held to be."""
    return next((e.classification.effective for e in reversed(events) if e.classification), None)


def last_route(events):
    """Give the route that an intake last named."""
    return next((e.route for e in reversed(events) if e.route), None)


def is_hosted(event):
    """Say whether an event is about a hosted model."""
    return event.route is not None and event.route.placement is Placement.HOSTED


def test_there_are_enough_questions_and_each_says_what_it_asks():
    """At least twelve questions ship, each with a title and a sentence."""
    assert len(QUESTIONS) >= 12
    assert all(question.title and question.about.endswith(".") for question in QUESTIONS.values())


@pytest.mark.parametrize("name", sorted(QUESTIONS))
def test_each_question_can_be_asked_of_no_evidence(name, tmp_path):
    """Before anything is stored every question has an answer: no rows."""
    question = QUESTIONS[name]
    given = {parameter.name: "x" for parameter in question.parameters if parameter.required}
    with Evidence(tmp_path) as evidence:
        assert list(evidence.query(question.sql, question.bind(given))) == []


def test_outcomes(world):
    """Each outcome is counted, the unfinished as open, and the shares add up."""
    counted = Counter(end.outcome.value if (end := ended(story)) else "open" for story in intakes(world).values())
    rows = ask(world, "outcomes")
    assert {row["outcome"]: row["requests"] for row in rows} == counted
    assert sum(row["percent"] for row in rows) == pytest.approx(100, abs=0.1)
    durations = [
        (end.occurred_at_utc - story[0].occurred_at_utc) / timedelta(milliseconds=1)
        for story in intakes(world).values()
        if (end := ended(story)) and end.outcome is Outcome.COMPLETED
    ]
    completed = next(row for row in rows if row["outcome"] == "completed")
    assert completed["median_ms"] == pytest.approx(statistics.median(durations), abs=0.11)


def test_outcomes_since_a_moment(world):
    """A moment as parameter leaves out what was admitted before it."""
    since = NOON + timedelta(seconds=8)
    begun = [story for story in intakes(world).values() if story[0].occurred_at_utc >= since]
    rows = ask(world, "outcomes", since=since.isoformat())
    assert 0 < sum(row["requests"] for row in rows) == len(begun)


def test_left_the_building(world):
    """Each hosted intent is one crossing, with the result of the call that belongs to it."""
    events = set(world[1])
    results = {e.intent_id: e.event_type for e in of_type(events, EventType.MODEL_COMPLETED, EventType.MODEL_FAILED)}
    words = {EventType.MODEL_COMPLETED: "completed", EventType.MODEL_FAILED: "failed", None: "open"}
    expected = sorted(
        (e.occurred_at_utc, e.request_id, e.classification.effective, e.route.provider, words[results.get(e.event_id)])
        for e in of_type(events, EventType.MODEL_INTENDED)
        if is_hosted(e)
    )
    rows = ask(world, "left-the-building")
    assert [(r["intended_at"], r["request_id"], r["class"], r["provider"], r["result"]) for r in rows] == expected


def test_by_class(world):
    """Requests are counted by the class they were held to be and where they went."""
    expected = Counter()
    for story in intakes(world).values():
        if kind := effective(story):
            route = last_route(story)
            expected[kind, route.placement.value if route else None] += 1
    assert {(row["class"], row["placement"]): row["requests"] for row in ask(world, "by-class")} == expected


def test_who_sent_what(world):
    """Requests, crossings and tokens are counted for each tenant and task."""
    expected = defaultdict(lambda: [0, 0, 0, 0])
    for story in intakes(world).values():
        counted = expected[story[0].tenant_ref, story[0].task_type]
        counted[0] += 1
        counted[1] += bool((end := ended(story)) and end.outcome is Outcome.COMPLETED)
        counted[2] += any(is_hosted(e) for e in of_type(story, EventType.MODEL_INTENDED))
        counted[3] += sum(e.usage.input_tokens for e in of_type(story, EventType.MODEL_COMPLETED))
    found = {
        (r["tenant_ref"], r["task_type"]): [r["requests"], r["completed"], r["crossed"], r["input_tokens"]]
        for r in ask(world, "who-sent-what")
    }
    assert found == dict(expected)


def test_refusals(world):
    """Denied, refused and withheld requests are listed, the latest first."""
    ends = [e for story in intakes(world).values() if (e := ended(story))]
    wanted = {Outcome.DENIED, Outcome.REFUSED, Outcome.WITHHELD}
    expected = [e for e in sorted(ends, key=lambda e: e.occurred_at_utc, reverse=True) if e.outcome in wanted]
    rows = ask(world, "refusals")
    assert rows
    assert [(row["request_id"], row["outcome"]) for row in rows] == [(e.request_id, e.outcome) for e in expected]


def test_fallbacks(world):
    """Requests with more than one attempt are listed with their routes in order."""
    expected = {}
    for intake, story in intakes(world).items():
        calls = (EventType.MODEL_INTENDED, EventType.MODEL_COMPLETED, EventType.MODEL_FAILED)
        routes = {e.attempt: e.route.name for e in of_type(story, *calls)}
        if len(routes) > 1:
            expected[intake] = [routes[number] for number in sorted(routes)]
    rows = ask(world, "fallbacks")
    assert rows
    assert {row["intake_id"]: row["routes"] for row in rows} == expected


def test_unknowns(world):
    """Each request of unknown outcome is there once, with the call that is to be reconciled."""
    expected = {}
    for story in intakes(world).values():
        if (end := ended(story)) and end.outcome is Outcome.UNKNOWN:
            calls = of_type(story, EventType.MODEL_INTENDED)
            expected[end.request_id] = calls[-1].event_id if calls else None
    rows = ask(world, "unknowns")
    assert rows
    assert {row["request_id"]: row["intent_id"] for row in rows} == expected
    assert len(rows) == len(expected)


def test_incomplete_stories(world):
    """The one request without an end is found, unless it is too young."""
    assert [row["intake_id"] for row in ask(world, "incomplete-stories")] == [world[3].intake_id]
    assert ask(world, "incomplete-stories", older_than_s=str(100 * 365 * 86400)) == []


def test_latency(world):
    """Percentiles by route are those of the calls that were answered."""
    expected = defaultdict(list)
    for event in of_type(world[1], EventType.MODEL_COMPLETED):
        expected[event.route.name].append(event.duration_ms)
    rows = {row["route"]: row for row in ask(world, "latency")}
    assert set(rows) == set(expected)
    for name, values in expected.items():
        assert rows[name]["calls"] == len(values)
        assert rows[name]["max_ms"] == pytest.approx(max(values), abs=0.06)
        assert rows[name]["p50_ms"] == pytest.approx(statistics.median(values), abs=0.06)
        cut = statistics.quantiles(values, n=100, method="inclusive")
        assert rows[name]["p95_ms"] == pytest.approx(cut[94], abs=0.06)
        assert rows[name]["p99_ms"] == pytest.approx(cut[98], abs=0.06)


def test_cost(world):
    """Tokens and dollars are summed by tenant and model, each call once."""
    expected = defaultdict(lambda: [0, 0, 0.0])
    for event in of_type(world[1], EventType.MODEL_COMPLETED):
        sums = expected[event.tenant_ref, event.route.model]
        sums[0] += 1
        sums[1] += event.usage.output_tokens
        sums[2] += event.usage.cost_usd
    found = {(r["tenant_ref"], r["model"]): [r["calls"], r["output_tokens"], r["cost_usd"]] for r in ask(world, "cost")}
    assert found == {
        key: [calls, tokens, pytest.approx(usd, abs=1e-6)] for key, (calls, tokens, usd) in expected.items()
    }


def test_findings(world):
    """Each kind that the detectors found is counted once for each request."""
    expected = Counter(
        (kind, event.classification.effective)
        for event in of_type(world[1], EventType.DATA_CLASSIFIED)
        for kind in event.classification.findings
    )
    assert {(row["kind"], row["class"]): row["requests"] for row in ask(world, "findings")} == expected


def test_rejections(world):
    """Reasons of rejected requests are counted."""
    expected = Counter(event.failure.code for event in of_type(world[1], EventType.REQUEST_REJECTED))
    assert {row["code"]: row["requests"] for row in ask(world, "rejections")} == expected


def test_story(world):
    """All events of one request come back in order, and those of no other."""
    story = max(intakes(world).values(), key=len)
    rows = ask(world, "story", request_id=story[0].request_id)
    assert [row["event_id"] for row in rows] == [event.event_id for event in story]
    assert ask(world, "story", request_id="' OR true --") == []


def test_hosted_without_intent(world):
    """The one hosted call whose intent is missing is found."""
    rows = ask(world, "hosted-without-intent")
    (call,) = [e for e in world[1] if e.intent_id == world[2].event_id]
    assert [row["event_id"] for row in rows] == [call.event_id]


def test_duplicates(world):
    """The one event that is stored twice is found, with both positions."""
    (event_id,) = [event_id for event_id, times in Counter(e.event_id for e in world[1]).items() if times > 1]
    (row,) = ask(world, "duplicates")
    assert (row["event_id"], row["times"]) == (event_id, 2)
    assert [position.split("/")[0] for position in row["positions"]] == ["0", "1"]


def test_gaps(world):
    """The stories that miss an event in the middle are found, and no other."""
    expected = {
        intake for intake, story in intakes(world).items() if [e.sequence for e in story] != list(range(len(story)))
    }
    assert expected == {world[2].intake_id}
    assert {row["intake_id"] for row in ask(world, "gaps")} == expected


def test_freshness(world):
    """Each partition's last event, place and age are those of its newest."""
    rows = ask(world, "freshness")
    assert [row["log_partition"] for row in rows] == [0, 1]
    assert rows[0]["last_event"] == max(e.occurred_at_utc for e in world[1][:-1])
    assert rows[0]["events"] == len(world[1]) - 1 == rows[0]["last_offset"] + 1
    age = (datetime.now(UTC) - rows[0]["last_event"]).total_seconds()
    assert rows[0]["age_s"] == pytest.approx(age, abs=5)


def test_answers_are_json(world):
    """Every answer can be written as JSON."""
    for name in QUESTIONS:
        given = {"request_id": "req-00000001"} if name == "story" else {}
        json.dumps(ask(world, name, **given), default=str)


GOOD = "-- title: T\n-- about: A.\n-- param: who text\n-- param: count integer = 3\nSELECT $who, $count"


def test_a_question_s_file_says_its_parameters():
    """Types and defaults are read from the first lines, and given texts become values."""
    question = named.read("q", GOOD)
    assert (question.title, question.about, question.sql) == ("T", "A.", "SELECT $who, $count")
    assert question.bind({"who": "x"}) == {"who": "x", "count": 3}
    assert question.bind({"who": "null", "count": "4"}) == {"who": None, "count": 4}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("about", "abut"), "is no header"),
        (GOOD.replace("-- about: A.\n", ""), "header about is missing"),
        (GOOD.replace("-- about", "-- title"), "is no header"),
        (GOOD.replace("who text", "who txt"), "is no parameter"),
        (GOOD.replace("$who, ", ""), "declares the parameters"),
        (GOOD.replace("$who", "$whom"), "declares the parameters"),
        ("-- just a remark\n" + GOOD, "is no header"),
    ],
)
def test_a_file_that_says_something_unknown_is_an_error(text, message):
    """A misspelt header, a missing one, or a parameter that is not used stops the program."""
    with pytest.raises(ConfigError, match=message):
        named.read("q", text)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "needs a parameter: waybill ask q who=VALUE"),
        ({"who": "x", "when": "y"}, "no parameter when"),
        ({"who": "x", "count": "z"}, "'z'"),
    ],
)
def test_wrong_parameters_are_an_error(given, message):
    """A missing, unknown or ill-typed parameter is named."""
    with pytest.raises(QueryError, match=message):
        named.read("q", GOOD).bind(given)
