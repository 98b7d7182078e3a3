"""Admission: every record becomes one work record or one end, told whole, and no refusal repeats what was sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime

import orjson
import pytest
from decisions import Broken, all_bytes, asked, dead_letters, incoming, on, rules, told, unsealed, utc_now, work_of
from hypothesis import given
from hypothesis import strategies as st
from requests_made import ENDPOINTS, ROUTES, encoded, headers, request

from evidence.errors import RecordError
from evidence.records import EvidenceEvent
from streams.envelope import Headers
from streams.response import Response
from streams.stages.admit import admit, refuse
from streams.story import event_id, span_id
from streams.topics import RESPONSES, WORK_HOSTED, WORK_LOCAL
from streams.transactions import Outgoing
from streams.work import Work

MARK = "Zq7planted"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CARD = "4111 1111 1111 1111"

REFUSALS = {
    "empty": incoming(b""),
    "not_json": incoming(f'{{"requestId": "r1", "input": "{MARK}'.encode()),
    "bad_envelope": incoming(encoded(request("r1", MARK)), headers("h", ce_specversion="0.3", ce_source=MARK)),
    "unsupported_version": asked("r1", MARK, contractVersion="2.0"),
    "no_identity": asked("r1", MARK, actor={"id": MARK + "\x00"}),
    "unknown_label": asked("r1", MARK, classification=MARK),
    "unknown_field": asked("r1", MARK, extra=MARK),
    "unsupported_field": asked("r1", MARK, allowedTools=[MARK]),
    "invalid_field": asked("r1", MARK, input={"messages": MARK}),
    "oversized": asked("r1", MARK * 3000),
    "label_conflict": incoming(encoded(request("r1", MARK)), headers("h", ce_dataclassification=MARK)),
    "expired_deadline": asked("r1", MARK, deadlineUtc="2026-01-01T00:00:00Z"),
}


@pytest.mark.parametrize("code", REFUSALS)
def test_each_refusal_is_told_three_times_and_repeats_nothing(code):
    """A bad record gives a dead letter with its position, evidence, and a response where its id can be read."""
    record = REFUSALS[code]
    admitted = admit(record, rules(), utc_now())
    assert (admitted.result, admitted.reason) == ("rejected", code)
    (letter,), (event,) = dead_letters(admitted.records), told(admitted.records)
    assert letter["source"] == event["source"] == {"topic": "ai.requests", "partition": 0, "offset": 0}
    assert letter["failure"] == event["failure"]
    assert letter["failure"]["code"] == code
    assert letter["payloadBytes"] == event["inputBytes"] == len(record.value)
    assert letter["payloadSha256"] == event["inputSha256"]
    assert (event["eventType"], event["sequence"], event["outcome"]) == ("request.rejected", 0, "rejected")
    responses = on(admitted.records, RESPONSES)
    known = "h" if code in {"empty", "not_json"} else "r1"  # else by the record's own id
    assert [response["requestId"] for response in responses] == [known]
    assert event["requestId"] == known
    assert letter["requestId"] == known
    assert all(response["failure"] == event["failure"] for response in responses)
    assert MARK.encode() not in all_bytes(admitted.records)


@pytest.mark.parametrize(
    ("value", "given_headers", "known"),
    [
        (encoded(request("r" * 129)), headers("h"), "h"),
        (encoded(request("r\n1")), headers("h"), "h"),
        (encoded(request("r1", MARK)).replace(MARK.encode(), b"\\ud83d"), headers("h"), "r1"),
        (b"\xef\xbb\xbf" + encoded(request("r1")), headers("h"), "r1"),
        (b'{"requestId": "r\\ud83d"}', headers("h"), "h"),
        (b"[" * 100_000, headers("h"), "h"),
        (b"\xff\xfe", headers("h"), "h"),
        (None, headers("h" * 129), None),
        (None, headers("h\x1b[2J"), None),
        (None, [*headers("h"), ("CE_ID", b"i")], None),
        (None, headers("AKIAIOSFODNN7EXAMPL2"), None),
        (None, [], None),
    ],
)
def test_who_sent_what_cannot_be_read_is_answered_by_the_records_own_id(value, given_headers, known):
    """Where the request's id cannot be read, the response carries `ce_id`, where that can be repeated."""
    admitted = admit(incoming(value, given_headers), rules(max_bytes=10**6), utc_now())
    assert admitted.result == "rejected"
    assert [response["requestId"] for response in on(admitted.records, RESPONSES)] == [known] * (known is not None)
    (event,) = told(admitted.records)
    assert event["requestId"] == (known or "unreadable")


@pytest.mark.parametrize(
    "given_headers",
    [[], headers("h", content_type="application/cloudevents+json"), [*headers("h"), ("ce_id", b"x")]],
)
def test_an_envelope_that_is_none_still_gets_a_response(given_headers):
    """A request in a broken envelope is refused, and its sender hears of it."""
    admitted = admit(incoming(encoded(request("r1")), given_headers), rules(), utc_now())
    assert admitted.reason == "bad_envelope"
    assert on(admitted.records, RESPONSES)[0]["requestId"] == "r1"


def check_story(admitted) -> None:
    """One terminal event or one work record, sequences without a gap, ids unique, headers whole."""
    events = [EvidenceEvent.model_validate_json(orjson.dumps(event)) for event in told(admitted.records)]
    assert [event.sequence for event in events] == list(range(len(events)))
    assert [event.event_id for event in events] == [event_id(events[0].intake_id, n) for n in range(len(events))]
    work = on(admitted.records, WORK_HOSTED) + on(admitted.records, WORK_LOCAL)
    ends = [event for event in events if event.outcome is not None]
    assert len(ends) + len(work) == 1
    assert not ends or ends == events[-1:]
    for item in work:
        assert item["nextSequence"] == len(events)
    assert len(on(admitted.records, RESPONSES)) <= 1
    ids = Counter((dict(record.headers)["ce_source"], dict(record.headers)["ce_id"]) for record in admitted.records)
    assert set(ids.values()) == {1}
    for record in admitted.records:
        found = dict(record.headers)
        assert {"ce_specversion", "ce_type", "ce_source", "ce_id", "ce_time", "ce_subject", "content-type",
                "traceparent"} <= set(found)  # fmt: skip


HEADERS = st.lists(
    st.tuples(st.sampled_from([name for name, _ in headers("h")] + ["traceparent", "tracestate", "x"]),
              st.none() | st.binary(max_size=20)), max_size=8,
)  # fmt: skip
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
CHANGES = st.dictionaries(
    st.sampled_from([*request("r1"), "modelPolicy", "budget", "session", "riskLevel", "idempotencyKey", "odd"]),
    ANYTHING, max_size=3,
)  # fmt: skip


@given(value=st.none() | st.binary(max_size=80), given_headers=HEADERS | st.just(headers("h")))
def test_any_bytes_end_in_one_story(value, given_headers):
    """Admission never raises, and tells exactly one end or writes exactly one work record."""
    check_story(admit(incoming(value, given_headers), rules(), utc_now()))


@given(changes=CHANGES, text=st.text(min_size=1, max_size=40), given_headers=HEADERS | st.just(headers("h")))
def test_any_request_ends_in_one_story(changes, text, given_headers):
    """The same holds for requests that are right but for a few fields."""
    value = orjson.dumps({**request("r1", text), **changes})
    check_story(admit(incoming(value, given_headers), rules(), utc_now()))


def without_seal(records: Iterable[Outgoing]) -> list[Outgoing]:
    """Records in which a seal is replaced by what it holds, since no two seals are alike."""
    found = []
    for record in records:
        value = orjson.loads(record.value)
        if "sealed" in value:
            value["sealed"] = unsealed(Work.model_validate_json(record.value))
        found.append(record._replace(value=orjson.dumps(value)))
    return found


@given(changes=CHANGES)
def test_the_same_record_tells_the_same_story(changes):
    """A replay gives the same records with the same ids, but for the seal's nonce; another offset, other ids."""
    value = orjson.dumps({**request("r1"), **changes})
    now = utc_now()
    first, again, other = (admit(incoming(value, offset=offset), rules(), now) for offset in (5, 5, 6))
    assert without_seal(first.records) == without_seal(again.records)
    ids = [{event["eventId"] for event in told(admitted.records)} for admitted in (first, other)]
    assert not ids[0] & ids[1]


def test_a_good_request_tells_its_way():
    """An admitted request tells its admission, its class, the decision and the route, and hands on the contract."""
    admitted = admit(asked(), rules(), utc_now())
    check_story(admitted)
    events = told(admitted.records)
    assert [event["eventType"] for event in events] == [
        "request.admitted", "data.classified", "policy.decided", "route.selected",
    ]  # fmt: skip
    work = work_of(admitted)
    assert work.routes == ("hosted-general", "local-small")
    assert events[3]["waybillHash"] == work.waybills["hosted-general"].digest()
    assert events[3]["fallbacks"] == ["local-small"]
    assert on(admitted.records, WORK_HOSTED)
    assert {event["identity"] for event in events} == {"unsigned"}


def test_what_is_found_keeps_the_request_at_home():
    """A request that holds an e-mail address goes to the local route, whatever it was declared to be."""
    admitted = admit(asked(prompt="Write to anna@example.org."), rules(), utc_now())
    assert work_of(admitted).routes == ("local-small",)
    assert on(admitted.records, WORK_LOCAL)
    context = {
        "messages": [{"role": "user", "content": "x"}],
        "context": [{"sourceId": "anna@example.org", "content": "y"}],
    }
    assert work_of(admit(asked(input=context), rules(), utc_now())).routes == ("local-small",)


@pytest.mark.parametrize("changed", [{"scanner": Broken()}, {}])
def test_what_no_route_allows_is_denied_with_its_reasons(changed):
    """A denial is an answer with a receipt that names each route and why it was passed over."""
    prompt = "Say hello." if changed else f"Charge {CARD}."
    admitted = admit(asked(prompt=prompt), rules(**changed), utc_now())
    check_story(admitted)
    assert admitted.result == "denied"
    (response,) = on(admitted.records, RESPONSES)
    Response.model_validate_json(orjson.dumps(response))
    assert response["outcome"] == "denied"
    assert response["receipt"]["policy"]["reasons"] == ["no_route", "hosted-general:class", "local-small:class"]
    assert response["failure"]["message"].startswith("the detectors could not finish") is bool(changed)
    assert response["receipt"]["leftTheSite"] is False
    assert CARD.encode() not in all_bytes(admitted.records)


def test_a_denial_by_a_long_table_is_still_a_denial():
    """With many routes the sentence is cut and every reason stays in the decision."""
    one = ROUTES[ROUTES.index("  - name: local-small") :].replace('purposes: ["*"]', "purposes: [other]")
    routes = "version: 1\npolicy_id: long\nroutes:\n" + "".join(
        one.replace("local-small", f"{'long' * 12}-{number}") for number in range(60)
    )
    admitted = admit(asked(), rules(routes), utc_now())
    assert admitted.result == "denied"
    (decided,) = told(admitted.records, "policy.decided")
    assert len(decided["policy"]["reasons"]) == 61


def traced(value: bytes) -> Headers:
    """The headers of a request that belongs to a trace."""
    return [*headers("h"), ("traceparent", value), ("tracestate", b"vendor=1")]


@pytest.mark.parametrize("prompt", ["Say hello.", f"Charge {CARD}."])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_the_trace_goes_on_with_a_new_hop(prompt, version):
    """Records stay in the sender's trace under a span of ours, and its tracestate is handed on."""
    record = incoming(encoded(request("r1", prompt, contractVersion=version)), traced(PARENT.encode()))
    admitted = admit(record, rules(), utc_now())
    events = told(admitted.records)
    root = span_id(events[0]["intakeId"], "request")
    assert (events[0]["spanId"], events[0]["parentSpanId"]) == (root, PARENT[36:52])
    for written in admitted.records:
        found = dict(written.headers)
        assert found["traceparent"][:35] == PARENT[:35].encode()
        assert found["traceparent"] != PARENT.encode()
        assert found["tracestate"] == b"vendor=1"


def test_a_broken_trace_is_begun_anew_without_its_tracestate():
    """Vendor data of a trace that cannot be read is not handed on."""
    admitted = admit(incoming(encoded(request("r1")), traced(b"rubbish")), rules(), utc_now())
    assert all("tracestate" not in dict(record.headers) for record in admitted.records)


def test_evidence_lies_with_its_request():
    """All evidence and the response have the request id as key, the work its idempotency scope."""
    admitted = admit(asked("r-7"), rules(), utc_now())
    for record in admitted.records:
        assert record.key == (work_of(admitted).scope.encode() if "work" in record.topic else b"r-7")


def test_an_inner_fault_is_refused_like_a_bad_record():
    """`refuse` makes the whole story of any record error, also of our own faults."""
    admitted = refuse(asked(), RecordError("internal_error", "x" * 5000), rules(), datetime(2026, 1, 1, tzinfo=UTC))
    check_story(admitted)
    assert len(told(admitted.records)[0]["failure"]["message"]) == 2000


def test_only_declared_endpoints_are_used():
    """The provider in evidence and waybill is the endpoint's."""
    work = work_of(admit(asked(), rules(), utc_now()))
    assert work.waybills["hosted-general"].destination.provider == ENDPOINTS["hosted"].provider
