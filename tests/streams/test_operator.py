"""Deeds of people become evidence: whole stories of one event, durable or an error."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import orjson
import pytest
from evidence_stores import local_store
from topic_rig import TopicReader, topics

from evidence.errors import RecordError, UnavailableError
from evidence.parsing import parse
from evidence.records import ConsentRef, EventType, EvidenceEvent
from queries import named
from queries.database import Evidence
from streams.brokers.process import free_port
from streams.kafka import KafkaSettings
from streams.operator import Deed, event, tell, tell_with
from streams.processors.correlation import Correlator
from streams.topics import CONSENT, EVIDENCE
from streams.transactions import Outgoing

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
REVEAL = Deed(EventType.PSEUDONYM_REVEALED, "r1", "human:ann", {"tenant_ref": "acme", "detail": "ticket 7"})
ACTIVATE = Deed(EventType.POLICY_ACTIVATED, "policy", "human:bob", {"identity": "kafka"})


def made(deed=REVEAL, intake="0" * 31 + "1"):
    """Give a deed's event as a record."""
    _, record = event(deed, site="here", now=NOON, intake=intake, name=lambda topic: topic.name)
    return record


def test_a_deed_is_a_whole_story():
    """Its event has sequence 0 and an outcome, says who did it, and correlation closes it as complete at once."""
    told = EvidenceEvent.model_validate_json(made().value)
    assert (told.sequence, told.outcome, told.stage, told.identity) == (0, "completed", "operator", "unsigned")
    assert (told.actor_ref, told.request_id, told.tenant_ref, told.detail) == ("human:ann", "r1", "acme", "ticket 7")
    correlator = Correlator()
    closed = correlator.observe(orjson.loads(made().value), 0, 5)
    assert closed is not None
    assert closed.complete
    assert (len(correlator), correlator.watermark(0)) == (0, 6)


def test_a_deed_lies_with_its_request():
    """The key is the request id, so that the deed is read in order with the request that it is about."""
    record = made()
    assert (record.topic, record.key) == (EVIDENCE.name, b"r1")
    assert dict(record.headers)["ce_source"] == b"/waybill/here/operator"
    assert dict(record.headers)["ce_id"].decode() == orjson.loads(record.value)["eventId"]


@pytest.mark.parametrize("fields", [{"surprise": 1}, {"detail": "x" * 2001}, {"tenant_ref": ""}, {"attempt": 0}])
def test_a_deed_that_is_no_event_is_refused(fields):
    """Unknown fields and values that do not fit are an error before anything is written, and no value is quoted."""
    with pytest.raises(RecordError) as caught:
        made(Deed(EventType.CONSENT_CHANGED, "r1", "human:ann", fields))
    assert caught.value.code == "bad_deed"
    assert "xxx" not in str(caught.value)


def test_a_deed_cannot_be_left_open():
    """Whatever its fields say, the story is whole."""
    assert (
        orjson.loads(made(Deed(EventType.CONSENT_CHANGED, "r1", "human:ann", {"outcome": None})).value)["outcome"]
        == "completed"
    )


def test_the_evidence_store_and_the_questions_bear_deeds(tmp_path):
    """Stored, a deed is one event without gaps, and every named question without parameters still answers."""
    values = [made(REVEAL, uuid4().hex).value, made(ACTIVATE, uuid4().hex).value]
    parsed = parse(values, partition=0, offsets=[0, 1], timestamps_ms=[0, 0])
    assert parsed.table.num_rows == 2
    with local_store(tmp_path, "here").open("cluster", "ai.evidence", 0) as writer:
        writer.append(parsed.table, end=1)
    with Evidence(tmp_path) as evidence:
        for name in ("gaps", "incomplete-stories", "duplicates", "hosted-without-intent", "unknowns"):
            question = named.load()[name]
            with evidence.query(question.sql, question.bind({})) as answer:
                assert list(answer) == [], name


@pytest.mark.kafka
async def test_deeds_are_durable_when_told(kafka, prefix):
    """What `tell` returns is on the topic, each deed with an id of its own, all in one transaction."""
    settings = await topics(kafka, prefix)
    ids = await tell(settings, [REVEAL, ACTIVATE], site="here", now=NOON)
    async with TopicReader(settings) as reader:
        events = await reader.until(EVIDENCE, 2)
    assert sorted(told["eventId"] for told in events) == sorted(ids)
    assert len({told["intakeId"] for told in events}) == 2
    assert {told["eventType"] for told in events} == {"pseudonym.revealed", "policy.activated"}


@pytest.mark.kafka
async def test_a_record_and_its_deed_are_one(kafka, prefix):
    """A record that cannot be written leaves no evidence of it, and a good one says where it lies."""
    settings = await topics(kafka, prefix)
    deed = Deed(EventType.CONSENT_CHANGED, "c", "human:ann", {"consent": ConsentRef(basis="form", state="granted")})
    with pytest.raises(UnavailableError):
        await tell_with(
            settings, [deed], [Outgoing(settings.name(CONSENT), b"k", b"x" * 2_000_000, [])], site="here", now=NOON
        )
    good = Outgoing(settings.name(CONSENT), b"k", b"{}", [])
    written = await tell_with(settings, [deed], [good, good], site="here", now=NOON)
    first, second = written.places
    assert (first.topic, second.offset) == (settings.name(CONSENT), first.offset + 1)
    async with TopicReader(settings) as reader:
        events = await reader.until(EVIDENCE, 1)
    assert [told["eventId"] for told in events] == list(written.event_ids)


async def test_without_a_broker_nothing_is_claimed():
    """A broker that is not there is an error that names it."""
    nobody = KafkaSettings(f"127.0.0.1:{free_port()}")
    with pytest.raises(UnavailableError, match=nobody.bootstrap):
        await tell(nobody, [REVEAL], site="here", now=NOON)
