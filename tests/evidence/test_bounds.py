"""Whatever the program tells, the table takes: the bounds of the records are those of their columns, or narrower."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evidence.errors import RecordError
from evidence.parsing import check, parse
from evidence.records import EVIDENCE_VERSION, EventType, EvidenceEvent, Stage, Usage
from evidence.schema import COLUMNS, Column
from streams.story import Story

TEXT = st.characters(exclude_categories=("Cs",))
ROOM = {"integer": 2**63 - 1}
"""The largest value of a column's type."""


def leaves(columns: Iterable[Column], way: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Column]]:
    """Give every column that is no struct, with the names that lead to it."""
    found = []
    for column in columns:
        here = (*way, column.json_name)
        found += leaves(column.children, here) if column.children else [(here, column)]
    return found


def values(column: Column) -> st.SearchStrategy[Any]:
    """Make values of a field, the smallest and the largest among them."""
    match column.kind:
        case "string" if column.json_name == "evidenceVersion":
            return st.just(EVIDENCE_VERSION)
        case "string" if column.values is not None:
            return st.sampled_from(sorted(column.values))
        case "string":
            low, high = column.min_length or 0, column.max_length or 40
            bounds = st.sampled_from(["x" * low, "\U0001f600" * high, "\x00" * max(low, 1), '"\\' * (high // 2)])
            return st.one_of(bounds, st.text(TEXT, min_size=low, max_size=min(high, 30)))
        case "integer":
            low, high = int(column.minimum or 0), int(column.maximum or 0)
            return st.one_of(st.sampled_from([low, high]), st.integers(low, high))
        case "number":
            return st.one_of(st.sampled_from([0.0, 5e-324, 1.7e308]), st.floats(0, 1e300))
        case "boolean":
            return st.booleans()
        case "moment":
            bounds = st.sampled_from([datetime.min, datetime(9999, 12, 31, 23, 59, 59, 999999)])  # noqa: DTZ001, DTZ901
            return st.one_of(bounds, st.datetimes()).map(lambda at: at.replace(tzinfo=UTC))
        case "strings":
            return st.lists(st.text(TEXT, max_size=20), max_size=3)
        case "struct":
            return fields(column.children)
    raise TypeError(column.kind)


def fields(columns: Iterable[Column]) -> st.SearchStrategy[dict[str, Any]]:
    """Make values of some fields, of the required ones always."""
    columns = tuple(columns)
    return st.fixed_dictionaries(
        {each.json_name: values(each) for each in columns if not each.optional and each.json_name != "detector"},
        optional={each.json_name: values(each) for each in columns if each.optional},
    )


def rejected(*records: bytes) -> list[RecordError]:
    """Give what the sink refuses of some records."""
    places = range(len(records))
    return [one.error for one in parse(records, partition=0, offsets=places, timestamps_ms=places).rejects]


@settings(deadline=None)
@given(fields(COLUMNS))
def test_every_event_that_the_model_takes_is_a_row(content):
    """At every bound of every field, and between them."""
    event = EvidenceEvent.model_validate(content, by_alias=True, by_name=False)
    assert rejected(event.to_json()) == []


@settings(deadline=None)
@given(st.sampled_from(EventType), fields(COLUMNS))
def test_every_event_that_a_story_tells_is_a_row(kind, content):
    """A story writes its fields without building the model; the sink takes it all the same."""
    event = EvidenceEvent.model_validate(content, by_alias=True, by_name=False)
    said = {name: value for name in EvidenceEvent.model_fields if (value := getattr(event, name)) is not None}
    own = {"evidence_version", "event_id", "event_type", "sequence", "occurred_at_utc", "stage", "intake_id", "span_id"}
    story = Story(
        stage=Stage.DISPATCH,
        intake=event.intake_id,
        sequence=event.sequence,
        span=event.span_id,
        request_id=event.request_id,
        trace_id=event.trace_id,
        site=event.site,
    )
    told = story.tell(kind, event.occurred_at_utc, **{name: value for name, value in said.items() if name not in own})
    assert rejected(told.value) == []


def test_every_whole_number_has_a_bound_that_its_column_holds():
    """None is left to overflow in the table, or in anybody's sum."""
    for way, column in leaves(COLUMNS):
        if column.kind == "integer":
            assert column.maximum is not None, way
            assert column.minimum is not None, way
            assert column.maximum <= ROOM[column.kind], way


@pytest.mark.parametrize("beyond", ["1000000000001", "9223372036854775808", "1" + "0" * 400])
@pytest.mark.parametrize("field", ["inputTokens", "outputTokens"])
def test_what_is_beyond_a_bound_is_refused_by_model_and_table(field, beyond):
    """A count that no call can have is no event's, whoever writes it."""
    event = EvidenceEvent(
        event_id="e", event_type=EventType.MODEL_COMPLETED, request_id="r", intake_id="i", trace_id="t", span_id="s",
        sequence=0, occurred_at_utc=datetime(2026, 11, 29, tzinfo=UTC), stage=Stage.DISPATCH, site="here",
        usage=Usage(input_tokens=7, output_tokens=7, cost_usd=0.5),
    ).to_json()  # fmt: skip
    bad = event.replace(f'"{field}":7'.encode(), f'"{field}":{beyond}'.encode())
    (refused,) = rejected(event, bad, event)
    assert refused.code in {"invalid_field", "not_json"}
    with pytest.raises(RecordError):
        check(bad)
