"""What evidence says of cost, capacity and latency, and how that compares with what was assumed."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from decision_samples import TEXT
from evidence_samples import ROUTES, stories
from evidence_stores import local_store

from evidence.parsing import parse
from evidence.records import EventType, EvidenceEvent, Failure, Placement, RouteRef, Stage, Usage
from policy.files import Document
from policy.placement.records import parse as parse_record
from queries.database import Evidence
from queries.measured import compare, measure, strangers

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
RECORD = parse_record(Document(TEXT, "hosted.yaml"), "hosted")


def route(name="hosted", provider="provider", model="large-1") -> RouteRef:
    """Give a route as events name it."""
    return RouteRef(name=name, placement=Placement.HOSTED, provider=provider, model=model, region="eu")


def call(number: int, end: datetime, ms: float | None, usd: float | None, **fields) -> EvidenceEvent:
    """Give the end of a call; without a price it failed."""
    request = fields.pop("request", f"r-{number}")
    return EvidenceEvent(
        event_id=f"e-{number}",
        event_type=EventType.MODEL_FAILED if usd is None else EventType.MODEL_COMPLETED,
        request_id=request,
        intake_id=request,
        trace_id="0" * 32,
        span_id="0" * 16,
        sequence=number,
        occurred_at_utc=end,
        stage=Stage.DISPATCH,
        site="home",
        duration_ms=ms,
        usage=None if usd is None else Usage(input_tokens=1, output_tokens=1, cost_usd=usd),
        failure=Failure(code="http_503", message="away") if usd is None else None,
        **{"route": route(), **fields},
    )


def measured(root, events, **options):
    """Store events and give what is measured of them."""
    numbers = list(range(len(events)))
    table = parse([e.to_json() for e in events], partition=0, offsets=numbers, timestamps_ms=numbers).table
    with local_store(root, "home").open("cluster", "ai.evidence", 0) as writer:
        writer.append(table, end=numbers[-1])
    with Evidence(root) as evidence:
        return measure(evidence, **options)


def at(seconds: float) -> datetime:
    """Give a moment of the day."""
    return NOON + timedelta(seconds=seconds)


def test_without_evidence_nothing_is_known(tmp_path):
    """An empty store gives no route, and every line of the comparison says so."""
    with Evidence(tmp_path) as evidence:
        assert measure(evidence) == {}
    lines = compare(RECORD, None)
    assert [line.verdict for line in lines] == ["no data"] * 6
    assert [line.measured for line in lines] == [None] * 6


def test_calls_at_the_same_time_are_counted(tmp_path):
    """The most calls at once are those whose durations overlap; one that ends as another begins does not."""
    events = [
        call(0, at(10), 10_000, 0.0),  # 0 to 10
        call(1, at(8), 6000, 0.0),  # 2 to 8
        call(2, at(9), 1000, None),  # 8 to 9: begins where the one before ends
        call(3, at(30), 1000, 0.0),
    ]
    assert measured(tmp_path, events)["hosted"].in_flight == 2


def test_the_busiest_minute_counts_begins(tmp_path):
    """A call counts in the minute in which it began, answered or not."""
    events = [
        call(0, at(65), 10_000, 0.0),  # begun in the first minute
        call(1, at(20), 100, None),
        call(2, at(40), 100, 0.0),
        call(3, at(61), 100, 0.0),
    ]
    assert measured(tmp_path, events)["hosted"].requests_per_minute == 3


def test_the_dearest_request_and_month(tmp_path):
    """Calls of one request are added, and a month is a calendar month, not thirty days."""
    events = [
        call(0, at(1), 10, 0.25, request="a"),
        call(1, at(2), 10, 0.5, request="a"),
        call(2, at(3), 10, 0.5, request="b"),
        call(3, at(4) - timedelta(days=30), 10, 2.0, request="c"),
    ]
    found = measured(tmp_path, events)["hosted"]
    assert (found.usd_per_request, found.usd_per_month) == (2.0, 2.0)
    later = measured(tmp_path / "later", events[:3])["hosted"]
    assert (later.usd_per_request, later.usd_per_month) == (0.75, 1.25)


def test_an_answer_of_no_use_costs_what_was_counted(tmp_path):
    """A failed call whose tokens were counted has its price in what is measured, in the views and in the question."""
    failure = Failure(code="empty_answer", message="no text")
    counted = call(0, at(1), 10, 0.25, request="a")
    empty = call(1, at(2), 10, 0.5, request="a")
    empty = empty.model_copy(update={"event_type": EventType.MODEL_FAILED, "failure": failure})
    found = measured(tmp_path, [counted, empty, call(2, at(3), 10, None)])["hosted"]
    assert (found.usd_per_request, found.answered) == (0.75, 1)
    with Evidence(tmp_path) as evidence:
        assert list(evidence.query("SELECT sum(cost_usd), sum(input_tokens) FROM requests")) == [(0.75, 2)]


def test_latency_is_that_of_answers(tmp_path):
    """Failed calls do not change the percentiles; a call without a duration is counted nowhere."""
    events = [call(number, at(number), float(number + 1), 0.0) for number in range(101)]
    events += [call(200, at(200), 90_000, None), call(201, at(201), None, None)]
    found = measured(tmp_path, events)["hosted"]
    assert (found.p50_ms, found.p95_ms) == (51.0, 96.0)
    assert (found.calls, found.answered) == (102, 101)


def test_a_route_without_answers_has_no_cost_and_no_latency(tmp_path):
    """Where every call failed, only capacity is known."""
    lines = compare(RECORD, measured(tmp_path, [call(0, at(0), 10, None)])["hosted"])
    assert [line.verdict for line in lines] == ["no data", "no data", "within", "within", "no data", "no data"]


def test_since_leaves_out_what_ended_before(tmp_path):
    """Only calls that ended from then on count."""
    events = [call(0, at(0), 10, 0.5), call(1, at(100), 20, 0.25)]
    found = measured(tmp_path, events, since=at(50))["hosted"]
    assert (found.calls, found.usd_per_request, found.p50_ms) == (1, 0.25, 20.0)
    with Evidence(tmp_path) as evidence:
        assert measure(evidence, since=at(101)) == {}


def test_routes_are_told_apart(tmp_path):
    """Each route has its own numbers, whoever answers on it."""
    events = [
        call(0, at(0), 10, 0.5),
        call(1, at(0), 20, 0.25, route=route("other", "b", "m-1")),
        call(2, at(0), 30, 0.25, route=route("other", "a", "m-2")),
    ]
    found = measured(tmp_path, events)
    assert {name: one.calls for name, one in found.items()} == {"hosted": 1, "other": 2}
    assert (found["other"].providers, found["other"].models) == (("a", "b"), ("m-1", "m-2"))


def test_another_model_is_told(tmp_path):
    """A model that answers under a name that the record does not pin is told; a stand-in's name is none."""
    events = [
        call(0, at(0), 10, 0.5, route=route(model="large-1-2026-06-01")),
        call(1, at(1), 10, 0.5, route=route(model="large-1-2027-01-01")),
        call(2, at(2), 10, 0.5, route=route(provider="stand-in", model="stand-in/large-1")),
        call(3, at(3), 10, None, route=route(model="never-answered")),
    ]
    assert strangers(RECORD, measured(tmp_path, events)["hosted"]) == ("large-1-2027-01-01",)
    assert strangers(RECORD, None) == ()


@pytest.mark.parametrize(
    ("usd", "ms", "verdicts"),
    [
        (0.02, 600.0, ["within", "within"]),  # 500 ms and a fifth more
        (0.022, 600.001, ["within", "over by 20 %"]),
        (0.04, 1000.0, ["over by 100 %", "over by 100 %"]),
        (0.0221, 6000.0, ["over by 10.5 %", "over by 1,100 %"]),
    ],
)
def test_what_is_beyond_the_tolerance_is_over(tmp_path, usd, ms, verdicts):
    """Up to the tolerance a number is within; beyond it, it is over by its share of the assumption."""
    lines = {line.what: line for line in compare(RECORD, measured(tmp_path, [call(0, at(0), ms, usd)])["hosted"])}
    assert [lines["cost.usd_per_request"].verdict, lines["latency.p50_ms"].verdict] == verdicts


def test_anything_is_over_nothing(tmp_path):
    """Where a route was assumed to cost nothing, any price is over."""
    free = TEXT.replace("value: 0.02,", "value: 0,").replace("value: 100,", "value: 0,")
    record = parse_record(Document(free, "hosted.yaml"), "hosted")
    (line, *_) = compare(record, measured(tmp_path, [call(0, at(0), 1, 1e-9)])["hosted"])
    assert line.verdict == "over (nothing was assumed)"
    assert line.over_percent == math.inf


def test_numbers_are_those_that_the_stories_tell(tmp_path):
    """Over stories as the pipeline writes them, the query agrees with a plain count of their events."""
    events = list(stories(300))
    ends = [e for e in events if e.event_type in {EventType.MODEL_COMPLETED, EventType.MODEL_FAILED}]
    found = measured(tmp_path, events)
    assert set(found) == set(ROUTES)
    for name, one in found.items():
        calls = [e for e in ends if e.route.name == name]
        answers = [e for e in calls if e.usage is not None]
        assert (one.calls, one.answered) == (len(calls), len(answers))
        assert one.usd_per_request == pytest.approx(max(e.usage.cost_usd for e in answers))
        assert one.usd_per_month == pytest.approx(sum(e.usage.cost_usd for e in answers))
        begins = [e.occurred_at_utc - timedelta(milliseconds=e.duration_ms) for e in calls]
        most = max(sum(b <= begin < e.occurred_at_utc for b, e in zip(begins, calls, strict=True)) for begin in begins)
        assert one.in_flight == most
