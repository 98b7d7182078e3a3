"""`waybill vault rotate-key`: told before it changes anything, and before the old key is gone."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from vault_children import NOW, an_object
from vault_rig import Deployment, deployment

from evidence.errors import ConfigError, UnavailableError
from policy.vault import master, rotation
from policy.vault.sealing import Vault
from policy.vault.store import VaultStore, open_object
from streams.brokers.process import free_port
from waybill.cli.vault import rotate_key


@pytest.fixture
def place(tmp_path: Path, kafka: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """A deployment of this test alone, whose vault has kept one object."""
    made = deployment(tmp_path, kafka, prefix, monkeypatch)
    fill(made.folder)
    return made


def fill(folder: Path) -> None:
    """Keep one object."""
    vault, store = Vault(folder), VaultStore(folder)
    store.put(an_object(vault, "i1", text=b"hello", now=NOW))
    store.close()


def opens(folder: Path) -> bool:
    """Say whether a process that starts now opens it."""
    store = VaultStore(folder)
    kept = store.get("i1", "pseudonyms")
    store.close()
    return kept is not None and open_object(Vault(folder), kept) == b"hello"


def keys_in(folder: Path) -> tuple[bytes, ...]:
    """Give the master keys."""
    return master.read(folder / "master.key").keys


def test_a_rotation_is_told_twice_and_never_shows_a_key(place, capsys):
    """Evidence has who, why, and both keys by hash, when it begins and when it ends; a key itself is nowhere."""
    (old,) = keys_in(place.folder)
    rotate_key("asked by ada@example.com", by="user:dora")
    (new,) = keys_in(place.folder)
    assert opens(place.folder)
    events = place.events(2)
    assert [(event["eventType"], event["actorRef"], event["requestId"]) for event in events] == [
        ("vault.rekeyed", "user:dora", "vault")
    ] * 2
    told = [json.loads(event["detail"]) for event in events]
    assert [each["step"] for each in told] == ["begun", "done"]
    assert told[1] == {
        "step": "done",
        "keys": 1,
        "new": master.key_id(new),
        "old": [master.key_id(old)],
        "oldKey": "destroyed",
        "newHashes": False,
        "reason": "asked by [EMAIL]",
    }
    shown = capsys.readouterr().out + json.dumps(events)
    assert f"1 data keys are under the master key {master.key_id(new)}; the old one is destroyed" in shown
    for key in (old, new):
        assert base64.b64encode(key).decode() not in shown
        assert key.hex() not in shown


def test_without_evidence_nothing_changes(tmp_path, monkeypatch):
    """Where the broker does not answer, not a byte of the vault is another one."""
    monkeypatch.setenv("WAYBILL_HOME", str(tmp_path))
    fill(tmp_path / "vault")
    before = {path: path.read_bytes() for path in (tmp_path / "vault").rglob("*.key")}
    with pytest.raises(UnavailableError):
        rotate_key("yearly", kafka=f"127.0.0.1:{free_port()}")
    assert {path: path.read_bytes() for path in (tmp_path / "vault").rglob("*.key")} == before


def test_without_evidence_of_its_end_the_old_key_stays_and_the_next_run_ends_it(place, monkeypatch, capsys):
    """A broker that goes away in the middle leaves both keys in the file, says so, and the next run goes on."""
    nobody = replace(place.kafka, bootstrap=f"127.0.0.1:{free_port()}")
    begin = rotation.begin
    with monkeypatch.context() as patched:

        def begin_and_lose_the_broker(ring, plan):
            begin(ring, plan)
            patched.setattr("waybill.settings.Settings.kafka_settings", lambda _: nobody)

        patched.setattr(rotation, "begin", begin_and_lose_the_broker)
        with pytest.raises(UnavailableError):
            rotate_key("yearly")
    assert "still holds the old one too" in capsys.readouterr().err
    assert len(keys_in(place.folder)) == 2
    assert opens(place.folder)
    rotate_key("yearly")
    assert len(keys_in(place.folder)) == 1
    assert opens(place.folder)
    assert [json.loads(event["detail"])["step"] for event in place.events(3)] == ["begun", "resumed", "done"]


def test_the_old_key_is_kept_where_the_operator_says(place, tmp_path):
    """`--keep-old` writes it to a file of its own; `--leave-old` leaves it in the file until the next run."""
    (first,) = keys_in(place.folder)
    rotate_key("yearly", keep_old=tmp_path / "old.key")
    assert master.read(tmp_path / "old.key").keys == (first,)
    (second,) = keys_in(place.folder)
    rotate_key("yearly", leave_old=True)
    third, left = keys_in(place.folder)
    assert left == second
    rotate_key("yearly")
    assert keys_in(place.folder) == (third,)
    assert opens(place.folder)
    told = [json.loads(event["detail"]) for event in place.events(6)]
    assert [each["oldKey"] for each in told[1::2]] == ["kept", "left in the file", "destroyed"]
    with pytest.raises(ConfigError, match="give one of them"):
        rotate_key("yearly", keep_old=tmp_path / "x", leave_old=True)


def test_a_given_key_is_read_from_its_file(place, tmp_path):
    """`--new-key` names a file, which must be its owner's alone and hold one key."""
    given, file = os.urandom(32), tmp_path / "new.key"
    with pytest.raises(ConfigError, match="there is no master key"):
        rotate_key("yearly", new_key=file)
    file.write_bytes(master.text([given]))
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        rotate_key("yearly", new_key=file)
    file.chmod(0o600)
    rotate_key("yearly", new_key=file)
    assert keys_in(place.folder) == (given,)
    file.write_bytes(master.text([given, os.urandom(32)]))
    with pytest.raises(ConfigError, match="holds 2 keys"):
        rotate_key("yearly", new_key=file)


def test_a_dry_run_changes_nothing(tmp_path, monkeypatch, capsys):
    """`--dry-run` says how many keys would be wrapped anew, needs no broker, and leaves all as it was."""
    monkeypatch.setenv("WAYBILL_HOME", str(tmp_path))
    fill(tmp_path / "vault")
    before = {path: path.read_bytes() for path in (tmp_path / "vault").rglob("*.key")}
    rotate_key("look", dry_run=True)
    assert "would wrap 1 of 1 data keys anew" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in (tmp_path / "vault").rglob("*.key")} == before


def test_a_home_without_a_vault_is_an_error(tmp_path, monkeypatch):
    """Where nothing was kept there is nothing to rotate, and no vault is made."""
    monkeypatch.setenv("WAYBILL_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="there is no vault at"):
        rotate_key("yearly")
    assert not (tmp_path / "vault").exists()
