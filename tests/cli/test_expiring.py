"""Expiry in a worker: rules and holds of the deployment decide, what is removed is told, what is unclear stays."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from evidence_samples import NOON, stories
from evidence_stores import local_store
from vault_rig import deployment

from evidence.parsing import parse as parse_rows
from evidence.store.live import read_live
from evidence.store.site import EvidenceStore
from policy.files import Document
from policy.holds import Hold, HoldBook
from policy.retention import RetentionRules, parse
from streams.brokers.process import free_port
from streams.kafka import KafkaSettings
from waybill.expiring import Expiring, Telling

LATER = (NOON + timedelta(days=11)).timestamp()
LOG = ("cluster-1", "ai.evidence", 0)
CLASSES = ("public", "internal", "confidential")


def rules(text: str = "max_days: 10") -> RetentionRules:
    """Rules under which rows of confidential requests go after ten days, and the others never."""
    said = (
        'version: 1\nrules:\n  - {classes: ["*"], purposes: ["*"], payload: none, pseudonym_days: 0}\n'
        f'evidence:\n  - {{name: short, classes: [confidential], purposes: ["*"], {text}}}\n'
        '  - {name: others, classes: ["*"], purposes: ["*"]}\n'
    )
    return parse(Document(said, "rules"), classes=CLASSES, categories=(), purposes=None)


def fill(root: Path) -> tuple[EvidenceStore, int]:
    """Store twenty stories; give the store and the number of rows."""
    store, events = local_store(root), list(stories(20))
    offsets = list(range(len(events)))
    told = parse_rows([event.to_json() for event in events], partition=0, offsets=offsets, timestamps_ms=offsets)
    with store.open(*LOG) as writer:
        writer.append(told.table, end=len(events) - 1)
    return store, len(events)


def left(store: EvidenceStore) -> int:
    """Count the live rows."""
    return sum(added.rows for added in read_live(store.files, "cluster-1.ai.evidence-0").files.values())


@pytest.mark.kafka
def test_what_is_removed_is_told(tmp_path, kafka, prefix, monkeypatch):
    """The event names log, day, commit, rule and the statement's hash, and is written by the sink."""
    place = deployment(tmp_path / "home", kafka, prefix, monkeypatch)
    store, rows = fill(tmp_path / "evidence")
    expiring = Expiring(
        store.files,
        rules,
        HoldBook(tmp_path / "holds"),
        tell=Telling(KafkaSettings(bootstrap=kafka, prefix=prefix), "home"),
        now=lambda: LATER,
    )
    with store.open(*LOG) as writer:
        expiring(writer)
        commit = writer.commit
    assert 0 < left(store) < rows
    (event,) = place.events(1)
    said = json.loads(event["detail"])
    assert (event["eventType"], event["actorRef"], event["stage"]) == ("evidence.expired", "service:sink", "operator")
    assert (said["log"], said["day"]) == ("cluster-1.ai.evidence-0", f"{NOON:%Y-%m-%d}")
    assert (said["commit"], said["statement"]) == (commit.number, commit.statement)
    assert said["rows"] == {"short": rows - left(store)}


def test_a_broker_that_is_down_keeps_nothing_alive(tmp_path, caplog):
    """The rows are gone, the commit says so, and the log of the worker that no event does."""
    store, rows = fill(tmp_path)
    nobody = KafkaSettings(bootstrap=f"127.0.0.1:{free_port()}")
    with store.open(*LOG) as writer:
        Expiring(store.files, rules, HoldBook(tmp_path / "h"), tell=Telling(nobody, "home"), now=lambda: LATER)(writer)
        assert writer.commit.expire
    assert left(store) < rows
    assert "no event says so" in caplog.text


def test_a_damaged_hold_removes_nothing_and_stops_nothing(tmp_path, caplog):
    """Where a hold cannot be read every row stays, the upkeep goes on, and the log names the file."""
    store, rows = fill(tmp_path)
    (tmp_path / "holds").mkdir()
    (tmp_path / "holds" / "0123456789ab.json").write_text("{")
    with store.open(*LOG) as writer:
        Expiring(store.files, rules, HoldBook(tmp_path / "holds"), now=lambda: LATER)(writer)
    assert left(store) == rows
    assert "0123456789ab.json is damaged" in caplog.text


def test_rules_and_holds_count_as_they_are_at_each_round(tmp_path):
    """A hold that is placed while the worker runs keeps its rows, and rules that change count in the next round."""
    store, rows = fill(tmp_path)
    book, current = HoldBook(tmp_path / "holds"), ["min_days: 1"]
    with store.open(*LOG) as writer:
        expiring = Expiring(store.files, lambda: rules(current[0]), book, now=lambda: LATER)
        expiring(writer)
        assert left(store) == rows
        for number, tenant in enumerate(("acme", "globex", "initech")):
            now = datetime.now(UTC)
            book.place(Hold(id=f"{number:012x}", tenant=tenant, reason="case 117", by="user:dora", at=now))
        current[0] = "max_days: 10"
        expiring(writer)
        assert left(store) == rows
        for path in (tmp_path / "holds").glob("*.json"):
            path.unlink()
        expiring(writer)
    assert 0 < left(store) < rows
