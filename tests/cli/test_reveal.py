"""`waybill reveal`: evidence of who looked comes first, or nothing is shown."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from vault_children import an_object
from vault_rig import Deployment, deployment

from evidence.errors import ConfigError, RecordError, UnavailableError
from policy.detection.detectors import Finding
from policy.detection.kinds import KINDS
from policy.holds import Hold, HoldBook
from policy.questions import Style
from policy.vault import reveal as revealing
from policy.vault.sealing import KeyDestroyed, Vault, VaultError, key_of
from policy.vault.store import VaultStore
from policy.view import ALWAYS, Redactor
from streams.brokers.process import free_port
from waybill.cli.reveal import reveal

NOW = datetime.now(UTC)
REQUEST = "request of i1"
ORIGINALS = {"[EMAIL_1]": "ada@example.com", "[EMAIL_2]": "bob@example.org", "[IP_1]": "192.0.2.7"}
ANSWER = "Write to [EMAIL_1] or [EMAIL_1], not to [EMAIL_2]; [PHONE_9] is unknown."
SHOWN = "Write to ada@example.com or ada@example.com, not to bob@example.org; [PHONE_9] is unknown."


@pytest.fixture
def place(tmp_path: Path, kafka: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """A deployment of this test alone."""
    return deployment(tmp_path, kafka, prefix, monkeypatch)


def keep(folder: Path, intake: str = "i1", *, answer: str | None = None, request: str = REQUEST) -> None:
    """Keep the map of an intake, and where it is given its answer."""
    vault, store = Vault(folder), VaultStore(folder)
    store.put(an_object(vault, intake, text=revealing.pack(ORIGINALS), now=NOW, request_id=request, subject="person:7"))
    if answer is not None:
        store.put(an_object(vault, intake, kind="response", text=answer.encode(), now=NOW, request_id=request))
    store.close()


@pytest.fixture
def nobody() -> str:
    """An address where no broker is."""
    return f"127.0.0.1:{free_port()}"


# The pure part


def test_placeholders_become_originals_and_are_counted():
    """Each placeholder that the map has is replaced, counted by its kind; others stay and are counted too."""
    shown = revealing.reveal(ANSWER, ORIGINALS)
    assert (shown.text, shown.counts, shown.unknown) == (SHOWN, (("EMAIL", 3),), 1)


def test_an_original_is_not_looked_into():
    """An original that looks like a placeholder stays as it is, and one number is never taken for another."""
    assert revealing.reveal("[A_1] [A_11]", {"[A_1]": "[B_1]", "[B_1]": "x"}).text == "[B_1] [A_11]"


def test_every_pseudonym_of_redaction_is_recognised():
    """Whatever kind detectors find, the pseudonym that redaction writes for it is one that can be revealed."""
    tried = [kind for kind in KINDS if KINDS[kind].category not in ALWAYS]
    for kind in tried:
        redactor = Redactor({KINDS[kind].category: Style.PSEUDONYM}, b"key")
        text = redactor.take_out("a value here", [Finding(kind, 2, 7)])
        assert text != "a value here"
        assert revealing.reveal(text, redactor.originals).text == "a value here", kind
    assert "email" in tried


@given(
    st.dictionaries(st.from_regex(r"\[[A-Z]{1,4}(_[A-Z]{1,3})?_[0-9]{1,3}\]", fullmatch=True), st.text(), max_size=5)
)
def test_a_map_survives_and_reveals_itself(originals):
    """Packed and unpacked a map is the same, and every placeholder of it is found in a text."""
    assert revealing.unpack(revealing.pack(originals)) == originals
    shown = revealing.reveal("|".join(originals), originals)
    assert shown.text == "|".join(originals.values())
    assert sum(count for _, count in shown.counts) == len(originals)


@pytest.mark.parametrize("data", [b"", b"[]", b'{"[A_1]": 3}', b"{"])
def test_what_is_no_map_is_refused(data):
    """Anything but a map from text to text is the vault's own error."""
    with pytest.raises(VaultError, match="no map"):
        revealing.unpack(data)


# The command


@pytest.mark.kafka
def test_the_answer_on_the_topic_is_shown_once_evidence_has_it(place, capsys):
    """The event says who, why, which request and how many of which kinds, never a value; then the answer is shown."""
    keep(place.folder)
    response = {"requestId": REQUEST, "outcome": "completed", "output": {"text": ANSWER}, "receipt": {"intakeId": "i1"}}
    place.respond(REQUEST, orjson.dumps(response))
    reveal(REQUEST, reason="bob@example.org asked", by="user:dora", yes=True)
    assert capsys.readouterr().out == f"{SHOWN}\n"
    (event,) = place.events(1)
    assert (event["eventType"], event["actorRef"], event["requestId"]) == ("pseudonym.revealed", "user:dora", REQUEST)
    assert (event["tenantRef"], event["subjectRef"], event["stage"]) == ("acme", "person:7", "operator")
    detail = json.loads(event["detail"])
    assert (detail["placeholders"], detail["intake"], detail["shown"]) == ({"EMAIL": 3}, "i1", "answer")
    assert detail["reason"].endswith(" asked")
    assert "example" not in json.dumps(event)


@pytest.mark.kafka
def test_the_stored_answer_and_a_given_text_are_shown(place, capsys, monkeypatch):
    """Where the topic has no answer the vault's is taken; a file, stdin or the kept request may take its place."""
    keep(place.folder, answer="[IP_1] answered")
    asked = an_object(place.vault, "i1", kind="request", text=b"what of [IP_1]?", now=NOW, request_id=REQUEST)
    place.store.put(asked)
    reveal(REQUEST, reason="test", yes=True)
    assert capsys.readouterr().out == "192.0.2.7 answered\n"
    file = place.home / "text.txt"
    file.write_text("to [EMAIL_2]\n")
    reveal(REQUEST, reason="test", file=file, yes=True)
    assert capsys.readouterr().out == "to bob@example.org\n\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("[EMAIL_1]"))
    reveal(REQUEST, reason="test", file=Path("-"), yes=True)
    assert capsys.readouterr().out == "ada@example.com\n"
    reveal(REQUEST, reason="test", request=True, yes=True)
    assert capsys.readouterr().out == "what of 192.0.2.7?\n"
    told = [json.loads(event["detail"])["shown"] for event in place.events(4)]
    assert sorted(told) == ["answer", "file", "file", "request"]


def test_where_evidence_cannot_be_written_nothing_is_shown(tmp_path, nobody, capsys):
    """Without a broker there is an error, and neither output holds an original."""
    keep(tmp_path / "vault")
    file = tmp_path / "text.txt"
    file.write_text(ANSWER)
    with pytest.raises(UnavailableError) as error:
        reveal(REQUEST, reason="test", file=file, yes=True, home=tmp_path, kafka=nobody)
    said = capsys.readouterr()
    assert said.out == ""
    assert "example" not in said.err + str(error.value)


def test_whoever_says_no_sees_nothing_and_leaves_no_trace(tmp_path, nobody, capsys, monkeypatch):
    """Asked first, a person who declines is shown nothing; no broker is needed for that."""
    keep(tmp_path / "vault")
    file = tmp_path / "text.txt"
    file.write_text(ANSWER)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    with pytest.raises(typer.Abort):
        reveal(REQUEST, reason="test", file=file, home=tmp_path, kafka=nobody)
    said = capsys.readouterr()
    assert said.out.strip() == ""
    assert "3 originals" in said.err
    assert "example" not in said.err


def test_a_destroyed_key_reveals_nothing(tmp_path, nobody):
    """Once retention has destroyed the key, the error says that it is gone for good."""
    keep(tmp_path / "vault")
    vault, store = Vault(tmp_path / "vault"), VaultStore(tmp_path / "vault")
    vault.destroy(key_of(store.of_request(REQUEST)[0].sealed), now=NOW, reason="test")
    file = tmp_path / "text.txt"
    file.write_text(ANSWER)
    with pytest.raises(KeyDestroyed, match="gone for good"):
        reveal(REQUEST, reason="test", file=file, yes=True, home=tmp_path, kafka=nobody)


def test_what_has_to_be_gone_is_not_revealed(tmp_path, nobody):
    """Past its maximum nothing is revealed, although no run has removed it yet; under legal hold it is."""
    vault, store = Vault(tmp_path / "vault"), VaultStore(tmp_path / "vault")
    store.put(an_object(vault, "i1", now=NOW - timedelta(days=31), request_id=REQUEST))
    file = tmp_path / "text.txt"
    file.write_text(ANSWER)
    with pytest.raises(RecordError, match="keeps nothing"):
        reveal(REQUEST, reason="test", file=file, yes=True, home=tmp_path, kafka=nobody)
    HoldBook(tmp_path / "vault" / "holds").place(
        Hold(id="0" * 12, request=REQUEST, reason="case 117", by="user:dora", at=NOW)
    )
    with pytest.raises(UnavailableError):
        reveal(REQUEST, reason="test", file=file, yes=True, home=tmp_path, kafka=nobody)


def test_a_request_that_arrived_twice_has_to_be_told_apart(tmp_path, nobody):
    """Where several arrivals have maps of their own, one must be chosen, and one that is not there is an error."""
    keep(tmp_path / "vault", "i1")
    keep(tmp_path / "vault", "i2")
    file = tmp_path / "text.txt"
    file.write_text(ANSWER)
    with pytest.raises(ConfigError, match=r"2 times: choose with --intake i1, i2"):
        reveal(REQUEST, reason="test", file=file, yes=True, home=tmp_path, kafka=nobody)
    with pytest.raises(RecordError, match="of the arrival i3"):
        reveal(REQUEST, reason="test", file=file, intake="i3", yes=True, home=tmp_path, kafka=nobody)
    with pytest.raises(UnavailableError):
        reveal(REQUEST, reason="test", file=file, intake="i2", yes=True, home=tmp_path, kafka=nobody)


def test_wrong_use_is_told_before_anything_is_opened(tmp_path, nobody):
    """An unknown request, an empty reason, stdin without --yes, and a file that is not there are each one error."""
    with pytest.raises(RecordError, match="keeps nothing of nobody's"):
        reveal("nobody's", reason="test", home=tmp_path, kafka=nobody)
    with pytest.raises(ConfigError, match="--reason is empty"):
        reveal(REQUEST, reason="", home=tmp_path, kafka=nobody)
    with pytest.raises(ConfigError, match="add --yes"):
        reveal(REQUEST, reason="test", file=Path("-"), home=tmp_path, kafka=nobody)
    keep(tmp_path / "vault")
    with pytest.raises(RecordError, match="no request of"):
        reveal(REQUEST, reason="test", request=True, yes=True, home=tmp_path, kafka=nobody)
    with pytest.raises(ConfigError, match="not both"):
        reveal(REQUEST, reason="test", request=True, file=tmp_path / "x", home=tmp_path, kafka=nobody)
    with pytest.raises(ConfigError, match="cannot read"):
        reveal(REQUEST, reason="test", file=tmp_path / "absent", yes=True, home=tmp_path, kafka=nobody)
