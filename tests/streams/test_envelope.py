"""CloudEvents in Kafka's binary mode: what a request's headers must say, and what ours do."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests_made import headers

from evidence.errors import RecordError
from streams import envelope

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    "given_headers",
    [
        [],
        headers("h", content_type="text/plain"),
        headers("h", content_type="application/cloudevents+json; charset=UTF-8"),
        headers("h", ce_specversion="0.3"),
        headers("h", ce_type="io.waybill.work.v1"),
        headers("h", ce_source=""),
        headers(""),
        [*headers("h"), ("ce_id", b"again")],
        [*headers("h"), ("CE_Type", b"io.waybill.request.v1")],
        [*headers("h"), ("ce_dataclassification", b"\xff")],
        [(name, None) for name, _ in headers("h")],
        *([pair for pair in headers("h") if pair[0] != name] for name, _ in headers("h")),
    ],
)
def test_a_wrong_envelope_is_refused(given_headers):
    """A missing, repeated, undecodable or unexpected header is `bad_envelope`."""
    with pytest.raises(RecordError) as caught:
        envelope.read(given_headers)
    assert caught.value.code == "bad_envelope"


@pytest.mark.parametrize(
    ("given_headers", "said"),
    [
        ([], ["content-type is missing and must be application/json", "ce_specversion is missing and must be 1.0",
              "ce_type is missing and must be io.waybill.request.v1", "ce_id is missing", "ce_source is missing"]),
        ([("ce_datacontenttype", b"application/json"), *headers("h")[:-1]],
         ["content-type is missing and must be application/json (ce_datacontenttype stands in its place)"]),
        ([("Content_Type", b"x"), ("ce-type", b"x"), ("cloudEvents:id", b"x"), ("source", b"x"),
          ("ce_specVersion", b"2")],
         ["(Content_Type stands in its place)", "(ce-type stands in its place)", "(cloudEvents:id stands in its place)",
          "(source stands in its place)", "header ce_specversion must be 1.0"]),
        ([("ce-\x1bid", b"x"), *[pair for pair in headers("h") if pair[0] != "ce_id"]], ["header ce_id is missing"]),
    ],
)  # fmt: skip
def test_all_headers_that_are_missing_are_named_at_once(given_headers, said):
    """One refusal names each header that is missing or wrong, and what stands in its place, but no value."""
    with pytest.raises(RecordError) as caught:
        envelope.read(given_headers)
    assert all(part in str(caught.value) for part in said)
    assert str(caught.value).count("header ") == len(said)
    assert "\x1b" not in str(caught.value)


def test_a_good_envelope_is_read_whatever_else_is_in_it():
    """Names may be in any case, a charset may follow the type, and headers of others may repeat and be binary."""
    found = envelope.read(
        [
            *headers("h", content_type="application/json; charset=utf-8", ce_dataclassification="internal"),
            ("x-other", b"\xff"),
            ("x-other", None),
            ("Traceparent", PARENT.encode()),
            ("tracestate", b"vendor=1"),
        ]
    )
    assert (found.event_id, found.source, found.declared_class) == ("h", "/tests", "internal")
    assert (found.traceparent, found.tracestate) == (PARENT, "vendor=1")


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([("traceparent", b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01"), ("tracestate", b"a=1")], (None, "")),
        ([("traceparent", b"rubbish"), ("tracestate", b"a=1")], (None, "")),
        ([("tracestate", b"a=1")], (None, "")),
        ([("traceparent", PARENT.encode()), ("traceparent", PARENT.encode())], (None, "")),
        ([("traceparent", PARENT.encode()), ("tracestate", b"a=1"), ("tracestate", b"b=2")], (PARENT, "a=1,b=2")),
        ([("traceparent", PARENT.encode()), ("tracestate", b"a" * 513)], (PARENT, "")),
        ([("traceparent", PARENT.encode()), ("tracestate", b"a=\xff")], (PARENT, "")),
        ([("traceparent", None)], (None, "")),
    ],
)
def test_a_broken_trace_context_counts_as_absent(pairs, expected):
    """A trace context that W3C calls invalid starts a new trace; a long tracestate is dropped, not multiplied."""
    assert envelope.trace_context(pairs) == expected


@given(pairs=st.lists(st.tuples(st.text(max_size=12), st.none() | st.binary(max_size=30)), max_size=8))
def test_reading_headers_ends_in_an_envelope_or_a_record_error(pairs):
    """No headers raise anything but `RecordError`, and none of their values is in its text."""
    envelope.trace_context(pairs)
    with pytest.raises(RecordError, match=r"must be|missing|UTF-8|served|twice"):
        envelope.read(pairs)


def test_what_we_write_is_cloudevents_1_0():
    """Our headers are those of the Kafka binding, with a time in Z and the hop's own trace context."""
    at = datetime(2026, 11, 2, 12, 0, 0, 5, tzinfo=UTC)
    found = dict(envelope.Hop(source="/s", subject="ü", traceparent=PARENT).headers("t", "i", at))
    assert found == {
        "ce_specversion": b"1.0", "ce_type": b"t", "ce_source": b"/s", "ce_id": b"i",
        "ce_time": b"2026-11-02T12:00:00.000005Z", "ce_subject": "ü".encode(),
        "content-type": b"application/json", "traceparent": PARENT.encode(),
    }  # fmt: skip
    more = envelope.Hop(source="/s", subject="u", traceparent=PARENT, tracestate="a=1").headers("t", "i", at)
    assert ("tracestate", b"a=1") in more
