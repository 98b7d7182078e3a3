"""`waybill approvals` against a broker and the stage: what people see, and what becomes of their answers."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import pytest
from approvals_made import SECRET, asked, parked
from approvals_process import stage_in_thread
from command_rig import Commands
from topic_rig import TopicReader, topics

from evidence.errors import ConfigError, RecordError
from policy.identity.jwks import KeySet
from policy.identity.jws import SigningKey, public_set
from policy.identity.verify import Verifier
from streams.signed import signed_by
from streams.topics import APPROVALS, EVIDENCE, WORK_HOSTED
from streams.transactions import Batch, Writer
from waybill.cli import approvals

pytestmark = pytest.mark.kafka
ROLE = ("--role", "data-steward", "--by", "user:bob")


@pytest.fixture
def settings(kafka, prefix):
    """Make a test's own topics, with two requests that wait: an approval and an override."""
    made = asyncio.run(topics(kafka, prefix))

    async def park():
        writer = await Writer(made, transactional_id="waybill-admission-0", group="g").start()
        for request in (asked(1), asked(2, kind="override", authority="risk-owner"), asked(3, seconds=-1)):
            await writer.write(Batch(parked(request, made.name)))
        await writer.stop()

    asyncio.run(park())
    return made


@pytest.fixture
def waybill(settings, monkeypatch, capsys):
    """Give the commands."""
    return Commands(approvals.app, settings, monkeypatch, capsys)


@pytest.fixture
def stage(settings):
    """Run the stage beside the commands."""
    with stage_in_thread(settings):
        yield


def read(settings, topic, count):
    """Give what lies on a topic."""

    async def reading():
        async with TopicReader(settings, topic) as reader:
            return await reader.until(topic, count)

    return asyncio.run(reading())


def test_the_list_shows_labels_and_no_content(waybill):
    """What waits is listed with class, route, purpose and whose approval is needed; what is too old is not."""
    told = waybill("list").out
    for word in ("r1", "confidential", "hosted-eu", "support", "data-steward", "risk-owner (override)", "waiting"):
        assert word in told
    assert "r3" not in told
    assert "r3" in waybill("list", "--all").out
    assert SECRET not in told


def test_one_is_shown_whole_but_for_its_content(waybill):
    """Route, reasons, class, purpose, what would be taken out and the payload's hash are shown; the work never is."""
    for arguments in (("show", "r1"), ("show", f"{1:032x}", "--json")):
        told = waybill(*arguments).out
        for word in ("hosted-eu:needs-a-steward", "confidential", "personal:mask", "email", "user:ann", f"{1:064x}"):
            assert word in told
        assert SECRET not in told
        assert "acme/1" not in told


def test_an_approval_goes_the_whole_way(waybill, settings, stage):
    """The command shows the hash, waits for the stage and names the evidence; the work is released."""
    said = waybill("approve", "r1", "--note", "ticket 12, ann@example.com agreed", *ROLE)
    assert said.code == 0
    assert f"approved is bound to the payload {1:064x}" in said.out
    (work,) = read(settings, WORK_HOSTED, 1)
    assert (work["approval"]["approver"], work["approval"]["note"]) == ("user:bob", "ticket 12, [EMAIL] agreed")
    event = next(event for event in read(settings, EVIDENCE, 10) if event["eventType"] == "approval.approved")
    assert said.out.rstrip().endswith(f"r1 goes on; evidence {event['eventId']}")
    (listed,) = [item for item in json.loads(waybill("list", "--all", "--json").out) if item["requestId"] == "r1"]
    assert (listed["state"], listed["closed"]["approver"]) == ("approved", "user:bob")
    with pytest.raises(RecordError, match="it is approved"):
        waybill("deny", "r1", "--note", "too late", *ROLE)
    assert "ann@example.com" not in str(read(settings, APPROVALS, 5))


def test_a_denial_ends_the_request(waybill, settings, stage):
    """A denial says that the request has ended."""
    assert "r1 has ended; evidence " in waybill("deny", "r1", "--note", "no", *ROLE).out


def test_an_override_has_to_be_meant(waybill, stage):
    """Approving against policy needs `--override`, and then goes on."""
    who = ("--role", "risk-owner", "--by", "user:eve")
    with pytest.raises(ConfigError, match="--override"):
        waybill("approve", "r2", "--note", "yes", *who)
    assert "r2 goes on" in waybill("approve", "r2", "--note", "yes", "--override", *who).out


@pytest.mark.parametrize(("arguments", "code"), [
    (("r1", "--note", "x", "--by", "user:bob"), "role_missing"),
    (("r1", "--note", "x", "--by", "user:ann", "--role", "data-steward"), "self_approval"),
    (("r1", "--note", "x", *ROLE, "--override"), "override_mismatch"),
    (("r3", "--note", "x", *ROLE), "not_waiting"),
    (("r9", "--note", "x", *ROLE), "unknown_approval"),
])  # fmt: skip
def test_what_cannot_count_is_refused_at_once(waybill, settings, arguments, code):
    """Without the role, for oneself, too late or for nothing: the command says so, and nothing is written."""
    with pytest.raises(RecordError) as caught:
        waybill("approve", *arguments)
    assert caught.value.code == code
    assert {record["record"] for record in read(settings, APPROVALS, 3)} == {"request"}


@pytest.mark.parametrize(("arguments", "told"), [
    (("r1", "--note", " ", *ROLE), "--note is empty"),
    (("r1", "--note", "x", "--by", "bob"), "user:dora"),
    (("r1", "--note", "x", "--token-file", "nowhere.jwt"), "nowhere.jwt"),
])  # fmt: skip
def test_wrong_flags_are_told(waybill, arguments, told):
    """A wrong flag is an error that says what to write."""
    with pytest.raises(ConfigError, match=told):
        waybill("approve", *arguments)


KEY = SigningKey.generate()


def token(tmp_path, sub="bob", roles=("data-steward",), key=KEY):
    """Write a token to a file; give its path."""
    now = int(datetime.now(UTC).timestamp())
    claims = {
        "iss": "idp",
        "aud": "waybill",
        "sub": sub,
        "tenant": "acme",
        "roles": list(roles),
        "iat": now,
        "exp": now + 60,
    }
    file = tmp_path / "token.jwt"
    file.write_text(key.sign(claims) + "\n", encoding="ascii")
    return str(file)


@pytest.fixture
def signed_stage(settings):
    """Run the stage with signed identities alone."""
    verifier = Verifier(KeySet.parse(public_set(KEY), "test"), issuer="idp", audience="waybill")
    with stage_in_thread(settings, authenticate=signed_by(verifier, lambda: datetime.now(UTC))):
        yield


def test_a_signed_approver_is_who_the_token_says(waybill, settings, signed_stage, tmp_path):
    """With a token neither name nor role has to be said; evidence shows how the approver was established."""
    said = waybill("approve", "r1", "--note", "x", "--token-file", token(tmp_path))
    assert "r1 goes on" in said.out
    (event,) = [event for event in read(settings, EVIDENCE, 10) if event["eventType"] == "approval.approved"]
    assert (event["identity"], event["approval"]["approver"]) == ("jwt", "bob")
    secret = (tmp_path / "token.jwt").read_text(encoding="ascii").strip()
    assert secret not in said.out + said.err + str(read(settings, APPROVALS, 5)) + str(read(settings, EVIDENCE, 10))


@pytest.mark.parametrize(("made", "more", "code"), [
    ({"roles": ()}, (), "role_missing"),
    ({"roles": ()}, ("--role", "data-steward"), "role_missing"),
    ({"sub": "ann"}, (), "self_approval"),
    ({}, ("--by", "user:eve"), "identity_mismatch"),
    ({"key": SigningKey.generate()}, (), "unknown_key"),
])  # fmt: skip
def test_a_token_that_does_not_suffice_is_refused_by_the_stage(waybill, signed_stage, tmp_path, made, more, code):
    """What the command says of name and roles counts for nothing beside the token; the stage's code comes back."""
    with pytest.raises(RecordError) as caught:
        waybill("approve", "r1", "--note", "x", "--token-file", token(tmp_path, **made), *more)
    assert caught.value.code == code


def test_without_a_token_a_signing_stage_lets_nobody_in(waybill, signed_stage):
    """Where identities are signed, saying who one is does not suffice."""
    with pytest.raises(RecordError) as caught:
        waybill("approve", "r1", "--note", "x", *ROLE)
    assert caught.value.code == "no_identity"


def test_an_answer_that_nobody_takes_is_told(waybill, settings):
    """Without a worker the answer is sent, and the command says when it will count."""
    said = waybill("approve", "r1", "--note", "x", *ROLE, "--wait", "1")
    assert said.code == 0
    assert "as soon as a worker runs the stage approvals" in said.err
    assert len(read(settings, APPROVALS, 4)) == 4


def test_a_file_that_holds_no_token_is_told(waybill, tmp_path):
    """Something else than a token is an error before anything is sent, and is not quoted."""
    file = tmp_path / "token.jwt"
    file.write_text("password-7", encoding="ascii")
    with pytest.raises(ConfigError) as caught:
        waybill("approve", "r1", "--note", "x", "--token-file", str(file))
    assert "password-7" not in str(caught.value)
