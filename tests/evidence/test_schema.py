"""The table `events` has the fields of the record, no more and no less."""

from __future__ import annotations

import pyarrow as pa
from evidence_samples import stories

from evidence.parsing import parse
from evidence.records import EventType, EvidenceEvent
from evidence.schema import COLUMNS, EVENTS_SCHEMA, POSITION_FIELDS


def test_every_field_has_its_column_and_every_column_its_field():
    """A field of the model without a column, or a column without a field, cannot exist."""
    fields = {name.removesuffix("_utc") for name in EvidenceEvent.model_fields}
    columns = set(EVENTS_SCHEMA.names) - {field.name for field in POSITION_FIELDS}
    assert columns == fields
    nested = {column.name: {child.name for child in column.children} for column in COLUMNS if column.children}
    for name, children in nested.items():
        record = next(arg for arg in EvidenceEvent.model_fields[name].annotation.__args__ if arg is not type(None))
        assert children == {field.removesuffix("_utc") for field in record.model_fields}


def test_columns_have_the_types_that_analysts_expect():
    """Moments are UTC timestamps, closed lists are dictionaries, nested records are structs."""
    schema = EVENTS_SCHEMA
    assert schema.field("occurred_at").type == pa.timestamp("us", tz="UTC")
    assert schema.field("deadline").type == pa.timestamp("us", tz="UTC")
    assert pa.types.is_dictionary(schema.field("event_type").type)
    assert pa.types.is_string(schema.field("event_id").type)
    assert schema.field("route").type.get_field_index("placement") >= 0
    assert schema.field("fallbacks").type == pa.list_(pa.string())
    assert not schema.field("event_id").nullable
    assert schema.field("outcome").nullable


def test_closed_lists_come_from_the_model():
    """The values that a batch check accepts are those of the enum."""
    event_type = next(column for column in COLUMNS if column.name == "event_type")
    assert event_type.values == frozenset(EventType)


def test_a_row_holds_what_the_event_held():
    """Each value of an event is found again in its row, under the column's name."""
    events = list(stories(30))
    numbers = list(range(len(events)))
    table = parse([event.to_json() for event in events], partition=3, offsets=numbers, timestamps_ms=numbers).table
    assert table.schema.equals(EVENTS_SCHEMA)
    for event, row in zip(events, table.to_pylist(), strict=True):
        expected = event.model_dump(by_alias=False, mode="python")
        expected = _listed(expected)
        assert {name: row[name] for name in expected} == expected
        assert row["log_partition"] == 3


def _listed(value):
    if isinstance(value, dict):
        return {name.removesuffix("_utc"): _listed(inner) for name, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value
