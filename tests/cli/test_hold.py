"""`waybill hold`: what is held stays, whoever wants it gone; placing and releasing are evidence."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from vault_children import an_object
from vault_rig import Deployment, deployment

from evidence.errors import ConfigError, RecordError, UnavailableError
from policy.holds import HoldBook
from policy.vault.sealing import KeyDestroyed, Vault
from policy.vault.store import SealedObject, VaultStore, open_object
from streams.brokers.process import free_port
from waybill.cli import hold, retention

NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=100)


@pytest.fixture
def place(tmp_path: Path, kafka: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """A deployment of this test alone."""
    return deployment(tmp_path, kafka, prefix, monkeypatch)


def fill(folder: Path) -> dict[str, SealedObject]:
    """Keep expired objects of two people and two tenants."""
    vault, store = Vault(folder), VaultStore(folder)
    objects = {
        "ada": an_object(vault, "ada", now=LONG_AGO, subject="person:7"),
        "bob": an_object(vault, "bob", now=LONG_AGO + timedelta(days=1), subject="person:8"),
        "ada elsewhere": an_object(vault, "ada elsewhere", now=LONG_AGO, subject="person:7", tenant="globex"),
    }
    store.put_many(tuple(objects.values()))
    store.close()
    return objects


def placed(home: Path) -> str:
    """Give the id of the one hold."""
    (one,) = HoldBook(home / "vault" / "holds").all()
    return one.id


@pytest.mark.kafka
def test_a_hold_keeps_until_it_is_released(place, capsys):
    """Held, an object outlives its maximum; both the hold and its release are evidence, with a masked reason."""
    objects = fill(place.folder)
    reason = "case 117, asked by ada.lovelace@example.com"
    hold.place(reason=reason, subject="person:7", tenant="acme", by="user:dora")
    identity = placed(place.home)
    told = capsys.readouterr().out
    assert f"hold {identity} is in force: subject person:7, tenant acme; it covers 1 payload now" in told
    retention.run(by="service:timer")
    assert open_object(place.vault, objects["ada"]) == b"{}"
    for name in ("bob", "ada elsewhere"):
        with pytest.raises(KeyDestroyed):
            open_object(place.vault, objects[name])
    hold.release(identity, reason="closed", by="user:eve")
    retention.run(by="service:timer")
    with pytest.raises(KeyDestroyed):
        open_object(place.vault, objects["ada"])
    found = {event["eventType"]: event for event in place.events(5)}
    assert found["hold.placed"]["subjectRef"] == found["hold.released"]["subjectRef"] == "person:7"
    assert (found["hold.placed"]["actorRef"], found["hold.released"]["actorRef"]) == ("user:dora", "user:eve")
    said = json.loads(found["hold.placed"]["detail"])
    assert (said["hold"], said["covers"]) == (identity, "subject person:7, tenant acme")
    assert "case 117" in said["reason"]
    assert "lovelace" not in json.dumps(found)
    assert "lovelace" not in (place.folder / "holds" / f"{identity}.json").read_text()


@pytest.mark.kafka
def test_a_hold_is_told_once_the_broker_is_back(place, capsys):
    """Placed while no broker answers, it holds; the next command on holds writes its evidence, and only once."""
    fill(place.folder)
    with pytest.raises(UnavailableError):
        hold.place(reason="case 117", request="request of ada", by="user:dora", kafka=f"127.0.0.1:{free_port()}")
    assert "is in force, but evidence does not say so" in capsys.readouterr().err
    hold.place(reason="case 118", tenant="globex", by="user:dora")
    events = place.events(2)
    assert sorted(json.loads(event["detail"])["reason"] for event in events) == ["case 117", "case 118"]
    assert {event["eventType"] for event in events} == {"hold.placed"}
    assert next(event for event in events if event.get("tenantRef") is None)["requestId"] == "request of ada"


def test_a_hold_whose_evidence_cannot_be_written_holds(tmp_path):
    """Without a broker the hold is placed all the same, and a release is not."""
    fill(tmp_path / "vault")
    nobody = f"127.0.0.1:{free_port()}"
    with pytest.raises(UnavailableError):
        hold.place(reason="case 117", request="request of ada", home=tmp_path, kafka=nobody)
    with pytest.raises(UnavailableError):
        hold.release(placed(tmp_path), reason="over", home=tmp_path, kafka=nobody)
    (one,) = HoldBook(tmp_path / "vault" / "holds").active().active
    (item,) = VaultStore(tmp_path / "vault").of_request("request of ada")
    assert item.legal_hold
    assert one.request == "request of ada"


def test_holds_are_listed(tmp_path, capsys):
    """The list shows what each covers, by whom and why; one that was released only with --all."""
    nobody = f"127.0.0.1:{free_port()}"
    hold.show(home=tmp_path)
    assert "there are no legal holds" in capsys.readouterr().out
    with pytest.raises(UnavailableError):
        hold.place(reason="case 117", tenant="acme", by="user:dora", home=tmp_path, kafka=nobody)
    capsys.readouterr()
    hold.show(home=tmp_path)
    said = capsys.readouterr().out
    assert all(text in said for text in (placed(tmp_path), "tenant acme", "user:dora", "case 117"))
    hold.show(as_json=True, home=tmp_path)
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["tenant"], one["told"]) == ("acme", False)


def test_what_cannot_be_held_is_refused(tmp_path):
    """Nothing to hold, an empty word, an empty reason, a nameless actor and an unknown id are each one error."""
    nobody = f"127.0.0.1:{free_port()}"
    with pytest.raises(ConfigError, match="say what to hold"):
        hold.place(reason="case 117", home=tmp_path, kafka=nobody)
    with pytest.raises(ConfigError, match="--tenant is empty"):
        hold.place(reason="case 117", tenant=" ", home=tmp_path, kafka=nobody)
    with pytest.raises(ConfigError, match="--reason is empty"):
        hold.place(reason=" ", tenant="acme", home=tmp_path, kafka=nobody)
    with pytest.raises(ConfigError, match="--by is KIND:NAME"):
        hold.place(reason="case 117", tenant="acme", by="dora", home=tmp_path, kafka=nobody)
    for identity in ("0123456789ab", "../../etc/passwd"):
        with pytest.raises(RecordError, match="there is no hold"):
            hold.release(identity, reason="over", home=tmp_path, kafka=nobody)
    assert not (tmp_path / "vault").exists()
