"""`waybill retention`: what it destroys is told once, and what it reports is what is kept."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from vault_children import KEEP, an_object
from vault_rig import Deployment, deployment

from evidence.errors import ConfigError, UnavailableError
from policy.holds import HoldError
from policy.vault.sealing import KeyDestroyed, Vault, key_of
from policy.vault.store import SealedObject, VaultStore, open_object
from streams.brokers.process import free_port
from waybill.cli import retention

NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=100)


@pytest.fixture
def place(tmp_path: Path, kafka: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """A deployment of this test alone."""
    return deployment(tmp_path, kafka, prefix, monkeypatch)


def fill(folder: Path) -> dict[str, SealedObject]:
    """Keep objects of two tenants that have expired, and one that has not."""
    vault, store = Vault(folder), VaultStore(folder)
    objects = {
        "old": an_object(vault, "old", now=LONG_AGO),
        "other": an_object(vault, "other", now=LONG_AGO, tenant="globex", kind="response", data_class="public"),
        "young": an_object(vault, "young", now=NOW),
    }
    store.put_many(tuple(objects.values()))
    store.close()
    return objects


def details(place: Deployment, count: int) -> list[dict[str, object]]:
    """Give what the events of retention say, sorted by tenant."""
    events = place.events(count)
    assert {event["eventType"] for event in events} == {"retention.applied"}
    assert {event["actorRef"] for event in events} == {"service:timer"}
    found = [{**json.loads(event["detail"]), "intake": event["intakeId"], "of": event["tenantRef"]} for event in events]
    return sorted(found, key=lambda each: str(each["of"]))


@pytest.mark.kafka
def test_a_run_destroys_keys_and_tells_each_once(place, capsys):
    """Each destroyed key is one event with what went and why; what is young opens; a second run does nothing."""
    objects = fill(place.folder)
    retention.run(by="service:timer")
    assert "removed 2 objects and destroyed 2 keys" in capsys.readouterr().out
    retention.run(by="service:timer")
    assert capsys.readouterr().out == "nothing was due: no object has reached its maximum, and no key its end\n"
    acme, globex = details(place, 2)
    assert (acme["tenant"], acme["objects"], acme["class"], acme["kinds"]) == (
        "acme",
        1,
        {"internal": 1},
        {"pseudonyms": 1},
    )
    assert (globex["tenant"], globex["class"], globex["kinds"]) == ("globex", {"public": 1}, {"response": 1})
    assert acme["period"] == f"{LONG_AGO:%Y-%m-%d}"
    assert acme["destruction"] == acme["intake"]
    with pytest.raises(KeyDestroyed):
        open_object(place.vault, objects["old"])
    assert open_object(place.vault, objects["young"]) == b"{}"


@pytest.mark.kafka
def test_a_broker_that_is_down_delays_evidence_and_not_destruction(place, capsys):
    """Without a broker the keys go, the error says that evidence is missing, and the next run writes it once."""
    objects = fill(place.folder)
    with pytest.raises(UnavailableError, match=r"2 keys are destroyed.*run `waybill retention run` again"):
        retention.run(by="service:timer", kafka=f"127.0.0.1:{free_port()}")
    with pytest.raises(KeyDestroyed):
        open_object(place.vault, objects["old"])
    retention.report(as_json=True)
    untold = json.loads(capsys.readouterr().out)["untold"]
    retention.run(by="service:timer")
    assert sorted(str(each["destruction"]) for each in details(place, 2)) == sorted(untold)
    retention.report(as_json=True)
    assert "removed 0" in (said := capsys.readouterr().out)
    assert json.loads(said.partition("\n")[2])["untold"] == []


@pytest.mark.kafka
def test_a_run_that_died_after_telling_does_not_tell_again(place, monkeypatch):
    """Killed between the broker's confirmation and its own note, the next run finds the event and adds none."""
    fill(place.folder)
    mark = VaultStore.mark

    def dies(store: VaultStore, ids: list[str], step: str) -> None:
        if step == "told" and ids:
            raise KeyboardInterrupt
        mark(store, ids, step)

    with monkeypatch.context() as patch:
        patch.setattr(VaultStore, "mark", dies)
        with pytest.raises(KeyboardInterrupt):
            retention.run(by="service:timer")
    assert len(place.store.destructions()) == 2
    retention.run(by="service:timer")
    assert place.store.destructions() == ()
    assert len(details(place, 2)) == 2


def test_the_report_says_what_is_kept_and_what_is_overdue(tmp_path, capsys):
    """By tenant, period, class and purpose: how many, the oldest, when they go, and how many should be gone."""
    objects = fill(tmp_path / "vault")
    retention.report(as_json=True, home=tmp_path)
    said = json.loads(capsys.readouterr().out)
    by_intake = {(row["tenant"], row["period"]): row for row in said["objects"]}
    assert len(by_intake) == 3
    old, young = by_intake["acme", f"{LONG_AGO:%Y-%m-%d}"], by_intake["acme", f"{NOW:%Y-%m-%d}"]
    assert (old["objects"], old["overdue"], old["class"], old["purpose"]) == (1, 1, "internal", "customer-support")
    assert (young["overdue"], young["held"], young["term"]) == (0, 0, KEEP.name)
    assert datetime.fromisoformat(old["lastExpiry"]) == objects["old"].keep_until_max
    assert len(said["keys"]) == 3
    retention.report(home=tmp_path)
    told = capsys.readouterr().out
    assert "overdue: 2 objects; run `waybill retention run`" in told
    assert re.search(r"globex.*public.*customer-support.*response", told)


def test_a_report_without_a_vault_makes_none(tmp_path, capsys):
    """Where nothing was ever kept, report and run say so and leave no folder behind."""
    retention.report(home=tmp_path)
    retention.run(home=tmp_path)
    said = capsys.readouterr().out
    assert "keeps no objects" in said
    assert f"there is no vault yet at {tmp_path / 'vault'}: nothing is kept" in " ".join(said.split())
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_changes_nothing(tmp_path, capsys):
    """It says what would go at that moment, asks no broker, and everything opens afterwards."""
    objects = fill(tmp_path / "vault")
    retention.run(dry_run=True, home=tmp_path)
    assert "would remove 2 objects and destroy 2 keys" in capsys.readouterr().out
    retention.run(dry_run=True, now=(NOW + timedelta(days=40)).isoformat(), home=tmp_path)
    assert "would remove 3 objects and destroy 3 keys" in capsys.readouterr().out
    for item in objects.values():
        assert open_object(Vault(tmp_path / "vault"), item) == b"{}"


@pytest.mark.parametrize(
    ("now", "said"),
    [
        pytest.param((NOW + timedelta(days=40)).isoformat(), "ahead of the clock", id="ahead"),
        ("2026-01-01T00:00:00", "time zone"),
        ("tomorrow", "must be a time such as"),
    ],
)
def test_a_moment_that_must_not_count_is_refused(tmp_path, now, said):
    """A moment to come would end what must still be kept: it, and what is no moment, are errors and change nothing."""
    objects = fill(tmp_path / "vault")
    with pytest.raises(ConfigError, match=said):
        retention.run(now=now, home=tmp_path)
    assert open_object(Vault(tmp_path / "vault"), objects["old"]) == b"{}"


def test_an_earlier_moment_ends_less(tmp_path):
    """As of a moment before anything had expired, a run ends nothing."""
    objects = fill(tmp_path / "vault")
    retention.run(now=(LONG_AGO + timedelta(days=29)).isoformat(), home=tmp_path)
    assert open_object(Vault(tmp_path / "vault"), objects["old"]) == b"{}"
    known = Vault(tmp_path / "vault").ring.keys()
    assert key_of(objects["old"].sealed) in {info.key for info in known}


def test_who_cannot_be_named_is_an_error(tmp_path):
    """An actor without a kind, without a name, or with a line break is refused before anything is told."""
    fill(tmp_path / "vault")
    for actor in ("dora", "user:", ":dora", "user:do\nra"):
        with pytest.raises(ConfigError, match="--by is KIND:NAME"):
            retention.run(by=actor, home=tmp_path, kafka=f"127.0.0.1:{free_port()}")


def test_a_damaged_hold_stops_the_run(tmp_path):
    """Where a hold cannot be read, nothing is removed and no key destroyed, and the error names the file."""
    objects = fill(tmp_path / "vault")
    folder = tmp_path / "vault" / "holds"
    folder.mkdir()
    (folder / "0123456789ab.json").write_text('{"version": 1, "id": "0123456789ab"')
    with pytest.raises(HoldError, match=r"0123456789ab\.json is damaged"):
        retention.run(home=tmp_path)
    for item in objects.values():
        assert open_object(Vault(tmp_path / "vault"), item) == b"{}"
    assert sum(group.objects for group in VaultStore(tmp_path / "vault").groups(NOW)) == 3
