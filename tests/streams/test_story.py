"""A story's ids are derived: the same record tells the same story, and no two records share an id."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from told_story import ToldStory

from evidence.records import EventType, EvidenceEvent, Placement, RouteRef, Stage
from streams.story import Story, event_id, intake_id, span_id, trace_of, traceparent

PLACE = st.tuples(st.sampled_from(["log-a", "log-b"]), st.just("t"), st.integers(0, 99), st.integers(0, 10**9),
                  st.integers(0, 2**41))  # fmt: skip


@given(places=st.lists(PLACE, min_size=2, max_size=20, unique=True))
def test_different_places_have_different_ids(places):
    """Intakes, and the events of intakes, never share an id."""
    intakes = [intake_id(*place) for place in places]
    assert len(set(intakes)) == len(places)
    events = [event_id(intake, sequence) for intake in intakes for sequence in range(12)]
    assert len(set(events)) == len(events)


@given(place=PLACE)
def test_ids_have_the_forms_that_w3c_asks_for(place):
    """Derived ids are lower-case hex of the right length, and read back as a trace context."""
    intake = intake_id(*place)
    trace, parent = trace_of(None, intake)
    assert parent is None
    assert re.fullmatch(r"[0-9a-f]{32}", trace)
    assert trace_of(traceparent(trace, span_id(intake, "x")), intake) == (trace, span_id(intake, "x"))


@given(text=st.text(max_size=60))
def test_a_broken_traceparent_starts_a_new_trace(text):
    """Whatever stands in the header, a trace id comes out, and the same one each time."""
    assert trace_of(text, "intake") == trace_of(text, "intake")
    assert trace_of(f"{text} ", "intake")[1] is None


def test_events_are_numbered_without_a_gap():
    """A story counts its events from where it goes on, and its common fields can be overruled by an event."""
    story = ToldStory(
        stage=Stage.DISPATCH, intake="i", sequence=4, span="a" * 16, request_id="r", trace_id="b" * 32, site="s"
    )
    now = datetime(2026, 11, 2, tzinfo=UTC)
    first, second = (
        story.event(EventType.MODEL_INTENDED, now),
        story.event(EventType.REQUEST_ENDED, now, span_id="c" * 16),
    )
    assert [first.sequence, second.sequence, story.sequence] == [4, 5, 6]
    assert [first.span_id, second.span_id] == ["a" * 16, "c" * 16]
    assert first.event_id == event_id("i", 4)


def test_an_unknown_field_is_an_error():
    """A story cannot tell what no evidence event has."""
    story = Story(stage=Stage.DISPATCH, intake="i", sequence=0, span="a" * 16, request_id="r", trace_id="b" * 32)
    with pytest.raises(KeyError):
        story.tell(EventType.MODEL_INTENDED, datetime(2026, 11, 2, tzinfo=UTC), colour="blue")


def test_a_told_event_is_the_record_that_it_stands_for():
    """What a story tells reads back as the event that the model itself would have written."""
    now = datetime(2026, 11, 2, 1, 2, 3, 4, tzinfo=UTC)
    route = RouteRef(name="r", placement=Placement.HOSTED, provider="p", model="m", region="eu")
    common = {"request_id": "ü", "trace_id": "b" * 32, "site": "s", "parent_span_id": "c" * 16, "session_ref": None}
    story = Story(stage=Stage.DISPATCH, intake="i", sequence=3, span="a" * 16, **common)

    told = story.tell(EventType.MODEL_INTENDED, now, route=route, attempt=1, fallbacks=("x",), parent_span_id=None)

    wanted = EvidenceEvent(
        event_id=event_id("i", 3), event_type=EventType.MODEL_INTENDED, intake_id="i", sequence=3, occurred_at_utc=now,
        stage=Stage.DISPATCH, span_id="a" * 16, route=route, attempt=1, fallbacks=("x",),
        **{**common, "parent_span_id": None},
    )  # fmt: skip
    assert EvidenceEvent.model_validate_json(told.value) == wanted
    assert told.event_id == wanted.event_id
