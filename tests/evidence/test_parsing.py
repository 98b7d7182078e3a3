"""Each value is one row or one reject, and both ways of reading agree."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from evidence_samples import stories, story
from hypothesis import given, settings
from hypothesis import strategies as st

from evidence import parsing
from evidence.errors import RecordError
from evidence.parsing import check, parse
from evidence.records import (
    MOST_TOKENS,
    Classification,
    EventType,
    EvidenceEvent,
    Failure,
    Outcome,
    Placement,
    PolicyRef,
    Position,
    Retained,
    RouteRef,
    Stage,
    Usage,
)

SAMPLE = story(1)[0]
TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20) | st.sampled_from(
    ["é" * 256, "\x00", '"\\\n', "😀"]
)
COUNT = st.integers(0, 2**31 - 1)
TOKENS = st.integers(0, MOST_TOKENS)
NUMBER = st.floats(min_value=0, allow_nan=False, allow_infinity=False)
TEXTS = st.lists(TEXT, max_size=3).map(tuple)
MOMENT = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds the zone


def made(kind, **fields):
    """Make records from strategies for their fields."""
    return st.fixed_dictionaries(fields).map(lambda values: kind(**values))


def maybe(strategy):
    """Give a value, or none."""
    return st.none() | strategy


EVENTS = made(
    EvidenceEvent,
    evidence_version=st.sampled_from(["1.0", "1.1", "1.7"]),
    event_id=TEXT,
    event_type=st.sampled_from(EventType),
    request_id=TEXT,
    intake_id=TEXT,
    correlation_id=maybe(TEXT),
    trace_id=TEXT,
    span_id=TEXT,
    sequence=COUNT,
    occurred_at_utc=MOMENT,
    stage=st.sampled_from(Stage),
    site=TEXT,
    tenant_ref=maybe(TEXT),
    deadline_utc=maybe(MOMENT),
    classification=maybe(
        made(Classification, declared=TEXT, detected=maybe(TEXT), effective=TEXT, findings=TEXTS, detector=TEXT)
    ),
    policy=maybe(made(PolicyRef, decision=TEXT, policy_id=TEXT, policy_version=TEXT, reasons=TEXTS)),
    route=maybe(
        made(RouteRef, name=TEXT, placement=st.sampled_from(Placement), provider=TEXT, model=TEXT, region=TEXT)
    ),
    fallbacks=maybe(TEXTS),
    attempt=maybe(st.integers(1, 2**31 - 1)),
    usage=maybe(made(Usage, input_tokens=TOKENS, output_tokens=TOKENS, cost_usd=NUMBER)),
    retained=maybe(made(Retained, action=TEXT, removed=TEXTS)),
    outcome=maybe(st.sampled_from(Outcome)),
    failure=maybe(made(Failure, code=TEXT, message=TEXT, retryable=st.booleans())),
    duration_ms=maybe(NUMBER),
    source=maybe(made(Position, topic=TEXT, partition=COUNT, offset=st.integers(0, 2**63 - 1))),
)


def rows(values, **overrides):
    """Parse values at offsets 0, 1, 2 and so on."""
    numbers = list(range(len(values)))
    return parse(values, partition=0, offsets=numbers, timestamps_ms=overrides.get("timestamps_ms", numbers))


def document(**changes):
    """Give a good event's JSON object with some fields changed; None removes one."""
    changed = {**json.loads(SAMPLE.to_json()), **changes}
    return {name: value for name, value in changed.items() if value is not None}


def dumped(**changes):
    """Give the same as bytes."""
    return json.dumps(document(**changes)).encode()


@settings(max_examples=max(150, settings().max_examples), deadline=None)
@given(st.lists(EVENTS, min_size=1, max_size=5))
def test_both_ways_give_the_same_rows(events):
    """Reading a batch at once and judging each record by its model give equal tables, whatever the values."""
    values = [event.to_json() for event in events]
    fast = parsing._read(values)
    assert fast is not None
    slow = pa.concat_tables([parsing._read([check(value).to_json()]) for value in values]).unify_dictionaries()
    assert fast.to_pylist() == slow.to_pylist()
    assert fast.column("occurred_at").to_pylist() == [event.occurred_at_utc for event in events]
    assert fast.column("event_id").to_pylist() == [event.event_id for event in events]


@settings(max_examples=max(300, settings().max_examples), deadline=None)
@given(st.data())
def test_the_batch_check_accepts_nothing_that_the_model_refuses(data):
    """A record that passes the column checks also passes its model, whatever one field is replaced by."""
    name = data.draw(st.sampled_from(sorted(json.loads(SAMPLE.to_json()))))
    odd = st.sampled_from(
        [
            "",
            "x" * 256,
            "x" * 257,
            "é" * 256,
            "é" * 257,
            -1,
            0,
            1.5,
            2**63,
            2**64,
            True,
            None,
            [],
            {},
            [None],
            ["a"],
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00+00:00",
            "2026-01-01",
            "2026-01-01 00Z",
            "0000-01-01T00:00:00Z",
            "2026-02-30T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00.1234567Z",
            "2026-01-01 00:00:00Z",
            "2.0",
            "1",
            float("nan"),
            float("inf"),
            {"topic": "t", "partition": 0},
            {"topic": "t", "partition": 0, "offset": -1},
        ]
    )
    value = json.dumps({**json.loads(SAMPLE.to_json()), name: data.draw(odd)}).encode()
    if (table := parsing._read([value])) is not None:
        assert table.to_pylist() == parsing._read([check(value).to_json()]).to_pylist()
    parsed = rows([value])
    assert parsed.table.num_rows + len(parsed.rejects) == 1


BAD = {
    "not_json": [
        b"",
        b"nonsense",
        b"[]",
        b"{",
        b'{"a":1}{"a":2}',
        SAMPLE.to_json() * 2,
        SAMPLE.to_json() + b" x",
        b"\xef\xbb\xbf{}",
        SAMPLE.to_json().replace(b"admission", b"admis\nsion"),
        SAMPLE.to_json().replace(b"home", b"h\xffme"),
        SAMPLE.to_json().replace(b'"sequence":0', b'"sequence":NaN'),
        SAMPLE.to_json().replace(b"home", b"h\x00me"),
        SAMPLE.to_json()[:-1] + b',"durationMs":Infinity}',
        SAMPLE.to_json()[:-1] + b',"durationMs":1e999}',
        SAMPLE.to_json().replace(b'"home"', b'"\\ud800"'),
        b"[" * 100_000,
        b'{"a":' * 100_000,
        SAMPLE.to_json()[:-1] + b',"fallbacks":' + b"[" * 100_000,
        SAMPLE.to_json() + b"\n" + SAMPLE.to_json(),
        SAMPLE.to_json() + b"\r" + SAMPLE.to_json(),
    ],
    "empty": [None],
    "missing_field": [b"{}", dumped(eventId=None)],
    "unknown_field": [dumped(colour="blue"), SAMPLE.to_json()[:-1] + b',"event_id":"x"}', dumped(EventId="x")],
    "duplicate_field": [
        SAMPLE.to_json().replace(b'"sequence":', b'"sequence":1,"sequence":'),
        SAMPLE.to_json().replace(b'"offset":', b'"offset":1,"offset":'),
    ],
    "unsupported_version": [dumped(evidenceVersion="2.0"), dumped(evidenceVersion="2.0", colour="blue")],
    "invalid_field": [
        dumped(eventType="request.lost"),
        dumped(outcome="fine"),
        dumped(eventId=""),
        dumped(eventId="x" * 257),
        dumped(sequence=-1),
        dumped(sequence=1.5),
        dumped(occurredAtUtc="2026-01-01T00:00:00"),
        dumped(attempt=0),
        dumped(occurredAtUtc="2026-01-01T02:00:00+02:00"),
        dumped(occurredAtUtc="2026-01-01 00Z"),
        dumped(source=[]),
        dumped(occurredAtUtc="0000-01-01T00:00:00Z"),
        dumped(failure={"code": "x", "message": "m" * 2001}),
        dumped(retained={"action": "keep", "removed": [None]}),
        dumped(durationMs=-0.5),
        dumped(site={"a": 1}),
        dumped(classification={"declared": "a", "effective": "b", "findings": [["x"]]}),
        dumped(sequence=2**63),
        dumped(sequence=2**31),
        dumped(usage={"inputTokens": 10**12 + 1, "outputTokens": 1, "costUsd": 0}),
    ],
}


@pytest.mark.parametrize(("code", "value"), [(code, value) for code, values in BAD.items() for value in values])
def test_a_bad_record_is_found_among_good_ones_and_costs_none_of_them(code, value):
    """A bad record becomes the one reject, with its place and reason; its neighbours become rows."""
    events = story(1) + story(2)
    values = [event.to_json() for event in events]
    values.insert(4, value)
    parsed = rows(values)
    assert [(reject.index, reject.error.code) for reject in parsed.rejects] == [(4, code)]
    assert parsed.table.column("event_id").to_pylist() == [event.event_id for event in events]
    assert parsed.table.column("log_offset").to_pylist() == [number for number in range(len(values)) if number != 4]


UNUSUAL = [
    json.dumps(document(), indent=2).encode(),
    b"\r\n " + SAMPLE.to_json().replace(b",", b"\r,\n\t") + b" \n",
    dumped(sequence="0"),
    dumped(occurredAtUtc=SAMPLE.occurred_at_utc.isoformat()),
    SAMPLE.to_json()[:-1] + b',"outcome":null}',
    json.dumps(document(), ensure_ascii=True).encode(),
]


@pytest.mark.parametrize("value", UNUSUAL)
def test_a_legal_record_in_an_unusual_form_gives_the_same_row(value):
    """Line feeds between tokens, explicit nulls, numbers as text and `+00:00` are legal, and change nothing."""
    parsed = rows([SAMPLE.to_json(), value, SAMPLE.to_json()])
    assert parsed.rejects == ()
    first, second, third = parsed.table.drop_columns(["log_offset", "log_timestamp"]).to_pylist()
    assert first == second == third


def test_fields_with_a_default_may_be_left_out():
    """A foreign producer that leaves out an empty list gets the same row as one that writes it."""
    with_it = dumped(retained={"action": "keep", "removed": []})
    without = dumped(retained={"action": "keep"})
    table = rows([with_it, without]).table
    assert table.column("retained").to_pylist() == [{"action": "keep", "removed": []}] * 2


def test_many_bad_records_among_many_good_ones_are_all_found():
    """Halving finds every bad record of a large batch and keeps the order of the good ones."""
    events = list(stories(300))
    values = [event.to_json() for event in events]
    bad = {number for number in range(len(values)) if number % 97 == 5 or 1000 <= number < 1040}
    mixed = [b'{"broken":' if number in bad else value for number, value in enumerate(values)]
    parsed = rows(mixed)
    assert {reject.index for reject in parsed.rejects} == bad
    assert parsed.table.column("event_id").to_pylist() == [
        event.event_id for number, event in enumerate(events) if number not in bad
    ]


def test_a_reject_names_fields_and_never_values():
    """The reason of a reject reaches logs and dead letters, so it holds none of the record's values."""
    with pytest.raises(RecordError) as caught:
        check(dumped(sequence="secret-7", occurredAtUtc="secret-8"))
    assert "secret" not in str(caught.value)
    assert "sequence" in str(caught.value)


def test_an_empty_batch_is_an_empty_table():
    """No values give no rows, in the same schema."""
    assert rows([]).table.num_rows == 0


def test_a_log_without_timestamps_gives_nulls():
    """Kafka writes -1 where a record has no timestamp."""
    table = rows([SAMPLE.to_json()] * 2, timestamps_ms=[-1, 5]).table
    assert [moment is None for moment in table.column("log_timestamp").to_pylist()] == [True, False]


def test_lengths_must_agree():
    """A batch with more values than offsets is a programming error, not a shorter table."""
    with pytest.raises(ValueError, match="2 values, 1 offsets"):
        parse([b"{}", b"{}"], partition=0, offsets=[1], timestamps_ms=[1, 2])
