"""`waybill consent` against a broker: what is written, what is shown, and what is refused."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from command_rig import Commands
from topic_rig import TopicReader, topics

from evidence.errors import ConfigError, RecordError
from streams.brokers.process import free_port
from streams.errors import BrokerUnavailable
from streams.kafka import KafkaSettings
from streams.topics import EVIDENCE
from waybill.cli import consent

pytestmark = pytest.mark.kafka
SCOPE = ("--tenant", "acme", "--subject", "customer-17", "--purpose", "support")
ALL = (*SCOPE[:-1], "*")


@pytest.fixture
def settings(kafka, prefix):
    """Make a test's own topics."""
    return asyncio.run(topics(kafka, prefix))


@pytest.fixture
def waybill(settings, monkeypatch, capsys):
    """Give the commands."""
    return Commands(consent.app, settings, monkeypatch, capsys)


def evidence(settings, count):
    """Give the evidence that was written."""

    async def read():
        async with TopicReader(settings) as reader:
            return await reader.until(EVIDENCE, count)

    return asyncio.run(read())


def test_from_grant_to_forgotten(waybill, settings):
    """Grant, withdrawal and forgetting each print their revision, show as such, and leave evidence of who did it."""
    assert waybill("show", *SCOPE).code == 1
    granted = waybill(
        "grant", *SCOPE, "--reference", "form 7", "--expires", "2099-01-01T00:00:00Z", "--by", "user:dora"
    )
    assert re.fullmatch(r"granted: customer-17 of acme for support, revision \d:\d+\n", granted.out)
    shown = waybill("show", *SCOPE)
    assert shown.code == 0
    assert f"granted at {granted.out.split()[-1]}" in shown.out
    assert "reference form 7, until 2099-01-01T00:00:00Z" in shown.out
    assert waybill("withdraw", *SCOPE, "--by", "user:dora").out.startswith("withdrawn: ")
    assert waybill("show", *SCOPE).out.startswith("withdrawn at ")
    assert waybill("forget", *SCOPE, "--by", "user:eve").out.startswith("forgotten: ")
    assert waybill("show", *SCOPE).out == "none\n"
    told = [(event["consent"]["state"], event["actorRef"], event["outcome"]) for event in evidence(settings, 3)]
    assert told == [
        ("granted", "user:dora", "completed"),
        ("withdrawn", "user:dora", "completed"),
        ("none", "user:eve", "completed"),
    ]


def test_everything_can_be_withdrawn_and_forgotten(waybill):
    """`*` withdraws each purpose; grants are refused until the subject is forgotten as a whole."""
    waybill("grant", *SCOPE)
    waybill("withdraw", *ALL)
    assert waybill("show", *SCOPE).out.startswith("withdrawn at ")
    with pytest.raises(RecordError, match="waybill consent forget"):
        waybill("grant", *SCOPE)
    assert len(waybill("forget", *ALL).out.splitlines()) == 2
    waybill("grant", *SCOPE)
    assert waybill("show", *SCOPE).code == 0


def test_the_list_shows_what_is_known(waybill):
    """Entries are listed with state and reference, and a filter leaves out the others."""
    waybill("grant", *SCOPE, "--reference", "form 7")
    waybill("withdraw", "--tenant", "globex", "--subject", "c2", "--purpose", "training")
    everything = waybill("list").out
    assert "customer-17" in everything
    assert "form 7" in everything
    assert "globex" in everything
    assert "customer-17" not in waybill("list", "--tenant", "globex").out


def test_show_as_json(waybill):
    """As JSON, `show` gives state, revision and the entry as it lies on the topic."""
    waybill("grant", *SCOPE, "--by", "user:dora")
    said = json.loads(waybill("show", *SCOPE, "--json").out)
    assert said["state"] == "granted"
    assert (said["entry"]["subject"], said["entry"]["recordedBy"]) == ("customer-17", "user:dora")


@pytest.mark.parametrize(("arguments", "told"), [
    (("grant", *ALL), "consent is for a purpose"),
    (("grant", *SCOPE, "--expires", "tomorrow"), "such as 2026-04-01T09:00:00Z"),
    (("grant", *SCOPE, "--expires", "2020-01-01T00:00:00Z"), "past"),
    (("grant", *SCOPE, "--expires", "2099-01-01"), "time zone"),
    (("grant", *SCOPE, "--by", "dora"), "user:dora"),
    (("withdraw", "--tenant", "acme", "--subject", "", "--purpose", "x"), "--subject"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused_before_anything_is_written(waybill, arguments, told):
    """A wrong flag is an error that names it and says what to write."""
    with pytest.raises(ConfigError, match=told):
        waybill(*arguments)


def test_there_is_nothing_to_forget(waybill):
    """Forgetting somebody of whom nothing is known is an error, and no evidence of an erasure that was none."""
    with pytest.raises(RecordError, match="nothing is known"):
        waybill("forget", *SCOPE)


def test_without_a_broker_nothing_is_claimed(monkeypatch, capsys):
    """A broker that is not there is an error, and no revision is printed."""
    run = Commands(consent.app, KafkaSettings(f"127.0.0.1:{free_port()}"), monkeypatch, capsys)
    with pytest.raises(BrokerUnavailable):
        run("withdraw", *SCOPE)
    assert "revision" not in capsys.readouterr().out
