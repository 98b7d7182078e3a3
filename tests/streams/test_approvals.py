"""Approvals without a broker: which answers count, what follows from each, and what stays as it was."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations

import orjson
import pytest
from approvals_made import SECRET, asked, verdict
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from evidence.errors import RecordError
from evidence.records import ApprovalRef, EvidenceEvent, Position
from streams.approvals import (
    LONGEST_WAIT,
    UNSIGNED,
    ApprovalClosed,
    Approvals,
    Approver,
    Judgement,
    Ruling,
    judge,
    members,
    read,
    released,
    unsigned,
)
from streams.stages.answer import Answering, note_of

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
BOB = Approver("user:bob", frozenset({"data-steward"}), "jwt")
REQUEST = asked(1, now=NOON)
OVERRIDE = asked(2, now=NOON, kind="override", authority="risk-owner")
OWNER = Approver("user:eve", frozenset({"risk-owner"}), "jwt")
REF = ApprovalRef(approval_id="a", authority="data-steward", payload_sha256="0")


def ruled(request=REQUEST, approver=BOB, answer="approved", at=NOON, **changes):
    """Give what a verdict comes to: the ruling, and the code where it is void."""
    found = judge(request, verdict(request, answer, **changes), approver, at)
    return found.code or found.ruling


@pytest.mark.parametrize(("told", "expected"), [
    ({}, Ruling.APPROVE),
    ({"answer": "denied"}, Ruling.DENY),
    ({"payload_sha256": "f" * 64}, "payload_mismatch"),
    ({"answer": "denied", "payload_sha256": "f" * 64}, "payload_mismatch"),
    ({"approver": Approver("user:bob", frozenset(), "jwt")}, "role_missing"),
    ({"approver": Approver("user:bob", frozenset({"DATA-STEWARD", "admin"}), "jwt")}, "role_missing"),
    ({"approver": Approver("user:bob", frozenset({"data-steward"}), "jwt", "globex")}, "other_tenant"),
    ({"approver": Approver("user:bob", frozenset({"data-steward"}), "jwt", "acme")}, Ruling.APPROVE),
    ({"approver": Approver("user:ann", frozenset({"data-steward"}), "jwt")}, "self_approval"),
    ({"approver": Approver("ann", frozenset({"data-steward"}), "jwt")}, "self_approval"),
    ({"approver": Approver("service:ANN", frozenset({"data-steward"}), "jwt")}, "self_approval"),
    ({"override": True}, "override_mismatch"),
    ({"request": OVERRIDE, "approver": OWNER}, Ruling.APPROVE),
    ({"request": OVERRIDE, "approver": OWNER, "override": False}, "override_mismatch"),
    ({"request": OVERRIDE, "approver": OWNER, "answer": "denied"}, Ruling.DENY),
    ({"request": OVERRIDE, "approver": BOB}, "role_missing"),
    ({"at": REQUEST.expires_at}, Ruling.LATE),
    ({"at": REQUEST.expires_at - timedelta(microseconds=1)}, Ruling.APPROVE),
    ({"at": REQUEST.expires_at, "decided_at_utc": NOON}, Ruling.LATE),
])  # fmt: skip
def test_which_answers_count(told, expected):
    """An answer counts only from another person with the role, on this payload, in time, and meant as what is asked."""
    assert ruled(**told) == expected


def test_what_an_approver_says_of_their_roles_counts_only_unsigned():
    """With a signed identity the verdict's own roles are nothing; unsigned they are taken at their word."""
    said = verdict(REQUEST, roles=("data-steward",))
    assert judge(REQUEST, said, Approver("user:bob", frozenset(), "jwt"), NOON).code == "role_missing"
    assert unsigned([], said) == Approver("user:bob", frozenset({"data-steward"}), UNSIGNED)


@pytest.mark.parametrize(("changes", "ends"), [
    ({}, NOON + timedelta(seconds=3600)),
    ({"deadline_utc": NOON + timedelta(seconds=9)}, NOON + timedelta(seconds=9)),
    ({"expires_at_utc": NOON + timedelta(days=400)}, NOON + LONGEST_WAIT),
])  # fmt: skip
def test_nothing_waits_longer_than_it_is_of_use(changes, ends):
    """The earliest of expiry, deadline and longest wait is the end."""
    assert asked(1, now=NOON, **changes).expires_at == ends


def answering(request=REQUEST):
    """Give what writes the answer on a request."""
    return Answering(request, site="here", name=lambda topic: topic.name, now=NOON)


def by_topic(answer):
    """Give the values of an answer's records, by topic."""
    found = {}
    for record in answer.records:
        found.setdefault(record.topic, []).append(orjson.loads(record.value))
    return found


def test_an_approval_releases_the_work_once_and_continues_the_story():
    """Evidence goes on where admission stopped, the work knows its place after it and its approval, and is marked."""
    told = by_topic(answering().approved(BOB, "fine"))
    (event,) = told["ai.evidence"]
    assert (event["eventType"], event["sequence"], event["identity"], event["stage"]) == (
        "approval.approved",
        3,
        "jwt",
        "approvals",
    )
    assert (event["actorRef"], event["tenantRef"], event["purpose"]) == ("user:ann", "acme", "support")
    (work,) = told["ai.work.hosted"]
    assert work["nextSequence"] == 4
    assert work["approval"] == event["approval"]
    assert work["approval"] == {
        "approvalId": REQUEST.approval_id, "authority": "data-steward", "approver": "user:bob", "note": "fine",
        "payloadSha256": REQUEST.payload_sha256, "expiresAtUtc": "2026-11-24T13:00:00Z", "override": False,
    }  # fmt: skip
    (marker,) = told["ai.approvals"]
    assert (marker["record"], marker["result"], marker["eventId"]) == ("closed", "approved", event["eventId"])
    assert set(told) == {"ai.evidence", "ai.work.hosted", "ai.approvals"}


def test_released_work_lies_under_its_own_key():
    """The work record has the key that dispatch's ledger goes by; evidence has the request id."""
    keys = {record.topic: record.key for record in answering().approved(BOB, "").records}
    assert keys == {"ai.evidence": b"r1", "ai.work.hosted": b"acme/1", "ai.approvals": REQUEST.approval_id.encode()}


@pytest.mark.parametrize(("how", "outcome"), [("denied", "denied"), ("expired", "expired")])
def test_a_refusal_or_an_expiry_ends_the_request(how, outcome):
    """The story ends, the response says why and carries the receipt as admission wrote it, and no work is released."""
    answer = answering().denied(BOB, "not this one") if how == "denied" else answering().expired()
    told = by_topic(answer)
    first, last = told["ai.evidence"]
    assert (first["eventType"], first["sequence"]) == (f"approval.{how}", 3)
    assert (last["eventType"], last["sequence"], last["outcome"]) == ("request.ended", 4, outcome)
    assert (last["spanId"], last.get("parentSpanId")) == (REQUEST.parent_span_id, None)
    (response,) = told["ai.responses"]
    assert (response["requestId"], response["outcome"], response["failure"]["code"]) == (
        "r1",
        outcome,
        f"approval_{how}",
    )
    assert response["receipt"] == {"receiptVersion": "1.0", "leftTheSite": False}
    assert (answer.marker.result, answer.outcome) == (how, outcome)
    assert set(told) == {"ai.evidence", "ai.responses", "ai.approvals"}


def test_an_override_is_a_new_decision_that_links_to_the_old_one():
    """The event carries an allow of its own which names the decision that it overrides; that one is not touched."""
    (event,) = by_topic(answering(OVERRIDE).approved(OWNER, ""))["ai.evidence"]
    assert (event["policy"]["decision"], event["policy"]["overrides"]) == ("allow", "decision-2")
    assert event["policy"]["decisionId"] == event["eventId"]
    assert event["approval"]["override"]
    assert "policy" not in by_topic(answering().approved(BOB, ""))["ai.evidence"][0]


def test_what_is_told_is_evidence():
    """Every event fits the record of evidence."""
    for answer in (
        answering().approved(BOB, "x"),
        answering().denied(BOB, "x" * 512),
        answering().expired(),
        answering(OVERRIDE).approved(OWNER, ""),
    ):
        for record in answer.records:
            if record.topic == "ai.evidence":
                EvidenceEvent.model_validate_json(record.value)
                assert SECRET.encode() not in record.value


def test_the_same_answer_has_the_same_ids():
    """Told again after a crash, an answer has the same event and record ids."""
    first, again = (answering().denied(BOB, "no").records for _ in range(2))
    assert first == again


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON, max_size=5), st.integers(min_value=0, max_value=99))
def test_only_two_members_of_the_work_change(content, number):
    """Whatever the sealed work holds, its other members come out as they were written, to the byte."""
    import json  # noqa: PLC0415 - spaces and escapes that our own writer never makes

    try:
        text = json.dumps(content, indent=1)
        orjson.loads(text)
    except (ValueError, OverflowError):
        return  # lone surrogates and numbers beyond JSON are none of our writer's
    made = released(text, next_sequence=number, approval=REF).decode()
    after = dict(members(made))
    assert after.pop("nextSequence") == str(number)
    assert orjson.loads(after.pop("approval")) == orjson.loads(REF.to_json())
    assert after == {name: value for name, value in members(text) if name not in {"nextSequence", "approval"}}


def test_large_numbers_and_lookalikes_survive_the_release():
    """A number that no float holds stays as written, and a `nextSequence` inside the request is not ours."""
    made = released(REQUEST.work, next_sequence=8, approval=REF)
    assert b'"big":12345678901234567890123,"half":1.50' in made
    assert orjson.loads(made)["request"]["nextSequence"] == 99


@pytest.mark.parametrize("changes", [
    {"work": "[]"}, {"work": "{"}, {"work": ""}, {"work": '{"a":1,"a":2}'}, {"receipt": "1"},
    {"work_topic": "ai.evidence"},
    {"kind": "wish"}, {"authority": ""}, {"next_sequence": -1},
])  # fmt: skip
def test_a_request_that_could_not_be_released_is_refused(changes):
    """Work that is no object, a topic that is none of work, and unknown kinds are found when the request is read."""
    with pytest.raises(ValidationError):
        asked(1, **changes)


@pytest.mark.parametrize(("key", "value"), [
    (b"x", b"{}"), (b"x", b"nonsense"), (b"x", b"[1]"), (b"x", None), (b"x", b'{"record":"request"}'),
    (b"other", verdict(REQUEST).to_json()), (None, verdict(REQUEST).to_json()),
    (REQUEST.approval_id.encode(), verdict(REQUEST).to_json()[:-1] + b',"more":1}'),
])  # fmt: skip
def test_what_is_no_record_is_refused_without_quoting_it(key, value):
    """Unknown kinds, wrong fields and a foreign key give one code and no content."""
    with pytest.raises(RecordError) as caught:
        read(key, value)
    assert caught.value.code == "bad_approval"
    assert "nonsense" not in str(caught.value)


def closed(request=REQUEST):
    """Give the marker of a closed request."""
    return ApprovalClosed(
        approval_id=request.approval_id, request_id="r1", result="denied", event_id="e", closed_at_utc=NOON
    )


def test_request_and_marker_in_any_order_leave_nothing_waiting():
    """Whichever of request and marker is read first, and however often, nothing waits in the end."""
    place = Position(topic="ai.approvals", partition=0, offset=0)
    for order in permutations(["park", "close", "park"]):
        known = Approvals()
        for step in order:
            known.park(REQUEST, place) if step == "park" else known.close(closed())
        assert len(known) == (0 if "close" in order else 1)
        assert known.closed(REQUEST.approval_id) == closed()


def test_what_is_due_is_found():
    """The next expiry is known, and at that moment its request is due and no other."""
    known, place = Approvals(), Position(topic="ai.approvals", partition=0, offset=0)
    for number in (1, 2, 3):
        assert known.park(asked(number, now=NOON, seconds=10 * number), place)
    assert known.next_due() == NOON + timedelta(seconds=10)
    assert [one.request.request_id for one in known.due(NOON + timedelta(seconds=20))] == ["r1", "r2"]


def test_a_note_is_masked_and_bounded():
    """What detectors find in a note does not reach evidence, however long masking makes it."""
    assert note_of(verdict(REQUEST, note="call 123"), lambda text: text.replace("123", "[PHONE]")) == "call [PHONE]"
    assert len(note_of(verdict(REQUEST, note="x"), lambda _: "y" * 900)) == 512
    assert note_of(verdict(REQUEST, note=""), lambda _: "never") == ""


def test_a_judgement_without_a_reason_is_no_dead_letter():
    """Rulings that are no fault of anybody carry no code."""
    assert Judgement(Ruling.LATE).code == ""
