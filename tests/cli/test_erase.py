"""`waybill erase`: what is kept about a person ends for good and is told; holds and minimums count."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from vault_children import an_object, files
from vault_rig import Deployment, deployment

from evidence.errors import ConfigError, RecordError, UnavailableError
from policy.vault.erasure import Erasures
from policy.vault.sealing import Bucket, Vault, VaultError
from policy.vault.store import SealedObject, VaultStore, open_object
from streams.brokers.process import free_port
from waybill.cli import hold, retention
from waybill.cli.erase import erase
from waybill.cli.reveal import reveal

NOW = datetime.now(UTC)
MINIMUM = Bucket("keep", 30, 180, "day")
"""The term of what the sample rules keep for customer support."""


@pytest.fixture
def place(tmp_path: Path, kafka: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """A deployment of this test alone."""
    return deployment(tmp_path, kafka, prefix, monkeypatch)


def fill(folder: Path, *, purpose: str = "customer-support") -> dict[str, SealedObject]:
    """Keep a map and an answer of one person, and a map of another one; the answer has a minimum."""
    vault, store = Vault(folder), VaultStore(folder)
    of = {"subject": "person:7", "now": NOW, "purpose": purpose}
    objects = {
        "map": an_object(vault, "i1", text=b'{"[EMAIL_1]": "ada@example.com"}', **of),
        "answer": an_object(vault, "i1", text=b"Dear Ada", kind="response", bucket=MINIMUM, **of),
        "other": an_object(vault, "i2", subject="person:8", now=NOW),
    }
    store.put_many(tuple(objects.values()))
    store.close()
    return objects


def kinds(events: list[dict]) -> list[str]:
    """Give what events tell, in no order."""
    return sorted(event["eventType"] for event in events)


@pytest.mark.kafka
def test_erasure_is_told_before_and_after(place, capsys):
    """Both events name the person and who asked; the second counts keys by kind and class, and never a value."""
    objects = fill(place.folder)
    erase("person:7", reason="letter by ada@example.com", by="user:dora")
    assert "Erased 2 payloads of person:7." in capsys.readouterr().out
    events = place.events(2)
    assert kinds(events) == ["erasure.requested", "subject.erased"]
    assert {(e["actorRef"], e["subjectRef"], e["tenantRef"]) for e in events} == {("user:dora", "person:7", "acme")}
    done = json.loads(next(e["detail"] for e in events if e["eventType"] == "subject.erased"))
    assert (done["keys"], done["kinds"], done["classes"]) == (2, {"pseudonyms": 1, "response": 1}, {"internal": 2})
    assert "example.com" not in json.dumps(events)
    assert "Ada" not in json.dumps(events)
    assert place.store.of_request("request of i1") == ()
    (other,) = place.store.of_request("request of i2")
    assert open_object(place.vault, other) == open_object(place.vault, objects["other"]) == b"{}"


@pytest.mark.kafka
def test_every_copy_is_erased(place, tmp_path):
    """A copy of the objects from before opens no more, although the key of their term is still there."""
    fill(place.folder)
    shutil.copy(place.folder / "objects.db", tmp_path / "copy.db")
    erase("person:7", reason="letter", by="user:dora")
    shutil.copy(tmp_path / "copy.db", place.folder / "objects.db")
    for leftover in ("objects.db-wal", "objects.db-shm"):
        (place.folder / leftover).unlink(missing_ok=True)
    (answer, map_) = place.store.of_request("request of i1")
    for item in (answer, map_):
        with pytest.raises(VaultError, match="the key of the"):
            open_object(place.vault, item)
    assert len(place.vault.ring.keys()) == 2


@pytest.mark.kafka
def test_destroyed_keys_are_in_no_file_of_the_vault(place):
    """The sealed keys of what was erased, and its ciphertext, are overwritten in the files."""
    objects = fill(place.folder)
    erase("person:7", reason="letter", by="user:dora")
    for item in (objects["map"], objects["answer"]):
        for needle in (item.payload_key[-40:].encode(), item.sealed[-40:].encode()):
            assert [name for name in files(place.folder) if needle in (place.folder / name).read_bytes()] == []


@pytest.mark.kafka
def test_reveal_says_that_it_was_erased(place):
    """Asked for a request of the person, the program says when it was erased; another's is still there."""
    fill(place.folder)
    erase("person:7", reason="letter", by="user:dora")
    with pytest.raises(RecordError, match=r"request of i1 was erased on 20\d\d-\d\d-\d\d, as the person asked"):
        reveal("request of i1", reason="test")
    assert place.store.of_request("request of i2")


@pytest.mark.kafka
def test_nothing_is_kept_of_an_erased_intake_any_more(place):
    """What comes later, of an intake that was erased or was asked before, is not kept; the next request is."""
    fill(place.folder)
    erase("person:7", reason="letter", by="user:dora")
    late = an_object(place.vault, "i1", kind="request", subject="person:7", now=NOW)
    now = datetime.now(UTC)
    waited = an_object(place.vault, "i4", subject="person:7", now=now, requested=NOW)
    later = an_object(place.vault, "i3", subject="person:7", now=now, requested=now)
    place.store.put_many([late, waited, later])
    assert place.store.of_request("request of i1") == place.store.of_request("request of i4") == ()
    assert len(place.store.of_request("request of i3")) == 1


@pytest.mark.kafka
def test_who_is_only_under_way_is_erased_too(place, capsys):
    """Where nothing is kept yet, the tenant has to be named; then it is told all the same, with no keys."""
    erase("person:9", tenant="acme", reason="letter", by="user:dora")
    assert "Nothing was kept about person:9 of acme. Requests in progress will end" in capsys.readouterr().out
    events = place.events(2)
    assert kinds(events) == ["erasure.requested", "subject.erased"]
    assert json.loads(next(e["detail"] for e in events if e["eventType"] == "subject.erased"))["keys"] == 0
    assert NOW < place.store.people.when("acme", "person:9") <= datetime.now(UTC)
    assert place.store.people.when("globex", "person:9") is place.store.people.when("acme", "person:8") is None


@pytest.mark.kafka
def test_a_hold_on_a_person_keeps_what_is_under_way(place):
    """Where nothing is kept yet of a person who is held, erasure is refused and nothing of theirs ends."""
    hold.place(reason="case 117", subject="person:9", by="user:dora")
    for _ in range(2):
        with pytest.raises(RecordError, match="nothing about person:9 is erased, because of the legal hold"):
            erase("person:9", tenant="acme", reason="letter", by="user:dora")
    assert place.store.people.when("acme", "person:9") is None
    about = [event for event in place.events(4) if event["eventType"].startswith("erasure.")]
    assert kinds(about) == ["erasure.refused", "erasure.refused", "erasure.requested"]
    assert len({json.loads(event["detail"])["erasure"] for event in about}) == 1


@pytest.mark.kafka
def test_a_hold_refuses_and_the_request_waits(place, capsys):
    """Under a hold nothing goes and the error names it; once it is released, the next run of retention erases."""
    objects = fill(place.folder)
    hold.place(reason="case 117", request="request of i1", by="user:dora")
    (one,) = [path.stem for path in (place.folder / "holds").glob("*.json")]
    with pytest.raises(RecordError, match=rf"nothing about person:7 is erased, because of the legal hold {one}"):
        erase("person:7", reason="letter", by="user:ada")
    assert open_object(place.vault, place.store.get("i1", "response")) == b"Dear Ada"
    retention.run(by="service:timer")
    assert open_object(place.vault, objects["answer"]) == b"Dear Ada"
    retention.report(as_json=True)
    (waits,) = json.loads(capsys.readouterr().out.partition("\n{")[2].join(["{", ""]))["erasures"]
    assert (waits["subject"], waits["told"]) == ("person:7", True)
    hold.release(one, reason="closed", by="user:dora")
    retention.run(by="service:timer")
    assert "erased 2 payloads of people who had asked for it" in capsys.readouterr().out
    assert place.store.of_request("request of i1") == ()
    events = place.events(5)
    assert kinds(events) == ["erasure.refused", "erasure.requested", "hold.placed", "hold.released", "subject.erased"]
    assert one in next(e["detail"] for e in events if e["eventType"] == "erasure.refused")


@pytest.mark.kafka
def test_a_minimum_keeps_what_its_rule_does_not_let_go(place, monkeypatch, tmp_path):
    """The map goes; the answer waits for its minimum, named by class, purpose and day, and goes by itself then."""
    policy = tmp_path / "policy"
    shutil.copytree(Path(__file__).resolve().parents[2] / "config" / "policy", policy)
    rules = (policy / "retention.yaml").read_text()
    (policy / "retention.yaml").write_text(rules.replace("erasure: at-once", "erasure: after-minimum"))
    monkeypatch.setenv("WAYBILL_POLICY", str(policy))
    fill(place.folder)
    day = f"{NOW + timedelta(days=30):%Y-%m-%d}"
    with pytest.raises(RecordError, match=rf"1 payloads .* 1 of class internal for customer-support until {day}"):
        erase("person:7", reason="letter", by="user:ada")
    (left,) = place.store.of_request("request of i1")
    assert (left.kind, open_object(place.vault, left)) == ("response", b"Dear Ada")
    retention.carry_out(retention.resolve(), place.store, NOW + timedelta(days=29))
    assert place.store.of_request("request of i1") == (left,)
    assert retention.carry_out(retention.resolve(), place.store, NOW + timedelta(days=31)) == 1
    assert place.store.of_request("request of i1") == ()
    assert Erasures(place.store).open() == ()
    assert kinds(place.events(4)) == ["erasure.refused", "erasure.requested", "subject.erased", "subject.erased"]


def test_without_evidence_nothing_is_erased(tmp_path):
    """Where no broker answers, everything opens afterwards, and the request is noted for the next run."""
    objects = fill(tmp_path / "vault")
    with pytest.raises(UnavailableError, match="run it again"):
        erase("person:7", reason="letter", home=tmp_path, kafka=f"127.0.0.1:{free_port()}")
    store = VaultStore(tmp_path / "vault")
    assert len(store.of_request("request of i1")) == 2
    assert open_object(Vault(tmp_path / "vault"), objects["answer"]) == b"Dear Ada"
    assert [each.subject for each in Erasures(store).open()] == ["person:7"]


def test_a_dry_run_changes_nothing(tmp_path, capsys):
    """It says how much would go, needs no broker, and notes nothing."""
    fill(tmp_path / "vault")
    erase("person:7", reason="letter", dry_run=True, home=tmp_path)
    assert "would erase 2 of 2 payloads about person:7" in capsys.readouterr().out
    assert Erasures(VaultStore(tmp_path / "vault")).open() == ()


def test_who_is_meant_has_to_be_clear(tmp_path):
    """A person whom several tenants know needs one of them; a stranger, and an actor without a kind, are errors."""
    fill(tmp_path / "vault")
    nobody = f"127.0.0.1:{free_port()}"
    with pytest.raises(RecordError, match="keeps nothing about person:9"):
        erase("person:9", reason="letter", home=tmp_path, kafka=nobody)
    with pytest.raises(ConfigError, match="--by is KIND:NAME"):
        erase("person:7", reason="letter", by="dora", home=tmp_path, kafka=nobody)
    VaultStore(tmp_path / "vault").put(an_object(Vault(tmp_path / "vault"), "i9", subject="person:7", tenant="globex"))
    with pytest.raises(ConfigError, match=r"2 tenants know person:7: choose with --tenant acme, globex"):
        erase("person:7", reason="letter", home=tmp_path, kafka=nobody)


STEPS = ("ask", "mark_asked", "mark_asked", "decide", "destroy", "mark", "mark")


@pytest.mark.kafka
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", range(len(STEPS)))
def test_an_erasure_that_is_killed_at_any_step_is_ended_by_the_next(place, monkeypatch, number, after):
    """Whatever step it dies before or after, run again it leaves nothing of the person and tells each thing once."""
    fill(place.folder)
    left = iter(range(number, -1000, -1))
    seen: list[str] = []

    class Killed(BaseException):
        """The process ends here."""

    def fragile(name: str):
        step = getattr(Erasures, name)

        def guarded(*arguments, **named):
            mine = next(left)
            seen.append(name)
            if mine == 0 and not after:
                raise Killed
            result = step(*arguments, **named)
            if mine == 0:
                raise Killed
            return result

        return guarded

    with monkeypatch.context() as patch:
        for name in set(STEPS):
            patch.setattr(Erasures, name, fragile(name))
        with pytest.raises(Killed):
            erase("person:7", reason="letter", by="user:dora")
    assert tuple(seen) == STEPS[: number + 1], "the steps of an erasure have changed"
    if (number, after) == (len(STEPS) - 1, True):
        with pytest.raises(RecordError, match="nothing to erase"):  # it had died after its last step
            erase("person:7", reason="letter", by="user:dora")
    else:
        erase("person:7", reason="letter", by="user:dora")
    assert place.store.of_request("request of i1") == ()
    assert (Erasures(place.store).open(), Erasures(place.store).steps()) == ((), ())
    assert kinds(place.events(2)) == ["erasure.requested", "subject.erased"]
    assert place.store.of_request("request of i2")
