"""What workers tell each other: what is read of it, who was first, and in what they differ."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from streams.workers import (
    DEAD_AFTER_S,
    SITE,
    WORKER,
    Facts,
    Roster,
    SiteVault,
    Worker,
    copied_vault,
    differences,
    vault_differs,
)

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
MS = int(NOW.timestamp() * 1000)
A, B = "a" * 32, "b" * 32
FACTS = Facts(
    site="hq", vault=A, master="c" * 32, keys=("d" * 32,), store="e" * 32, log="log-1", identity="jwt", hosted="real"
)


def worker(name: str = A, facts: Facts = FACTS) -> Worker:
    """Make a worker."""
    return Worker(worker=name, host="node-1", pid=7, started=NOW, facts=facts)


def roster(*records: tuple[str, bytes | None, int]) -> Roster:
    """Read records: key, value, seconds before now."""
    made = Roster()
    for offset, (key, value, age_s) in enumerate(records):
        made.take(key.encode(), value, offset, MS - age_s * 1000)
    return made


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, b"{}"),
        (b"\xff\xfe", b"{}"),
        (b"worker/" + A.encode(), b"\x00not json"),
        (b"worker/" + A.encode(), b"[]"),
        (b"worker/" + A.encode(), worker(B).to_json()),
        (b"worker/" + A.encode(), worker().to_json().replace(b"node-1", b"\\u001b[31m")),
        (b"worker/" + A.encode(), worker().to_json().replace(b"2026-", b"0001-")),
        (b"worker/" + A.encode(), worker().to_json().replace(b'"pid":7', b'"pid":1e400')),
        (b"vault/x", b'{"vault":"../../etc","host":"h","pid":1}'),
        (b"vault/x", b"[" * 100_000),
        (b"something/else", b"{}"),
    ],
)
@pytest.mark.parametrize("timestamp_ms", [MS, -1, 2**62])
def test_a_record_that_says_nothing_is_counted_and_changes_nothing(key, value, timestamp_ms):
    """Whatever lies on the topic, reading it goes on, and only whole records of ours count."""
    made = roster((WORKER + B, worker(B).to_json(), 0))
    made.take(key, value, 5, timestamp_ms)
    assert (made.unreadable, set(made.workers), made.claims) == (1, {WORKER + B}, {})


def test_fields_of_a_later_version_are_ignored():
    """An old worker reads what a newer one writes."""
    later = worker().to_json().replace(b'"facts":{', b'"later":[1],"facts":{"laterToo":1,')
    assert roster((WORKER + A, later, 0)).workers[WORKER + A].worker == worker()


def test_the_first_record_names_the_vault_for_good():
    """A later record takes nothing from the first one; a tombstone does."""
    first, second = (SiteVault(vault=vault, host="h", pid=1).to_json() for vault in (A, B))
    made = roster((SITE + "1", first, 9000), (SITE + "2", second, 0))
    assert made.vault is not None
    assert made.vault.vault.vault == A
    made.take(b"vault/1", None, 2, MS)
    assert made.vault.vault.vault == B


def test_a_worker_lives_as_long_as_it_is_heard_of():
    """Who has not been heard of for a while, or has said that it ends, is not there."""
    old, gone = int(DEAD_AFTER_S) + 1, "f" * 32
    records = [(WORKER + A, worker(A).to_json(), old), (WORKER + B, worker(B).to_json(), 3)]
    made = roster(*records, (WORKER + gone, worker(gone).to_json(), 2), (WORKER + gone, None, 1))
    assert [seen.worker.worker for seen in made.alive(NOW)] == [B]
    assert made.alive(NOW + timedelta(seconds=DEAD_AFTER_S)) == ()


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        ({"site": "edge"}, "WAYBILL_SITE"),
        ({"vault": B}, "WAYBILL_VAULT"),
        ({"master": B}, "WAYBILL_VAULT_KEY_FILE"),
        ({"store": B}, "WAYBILL_EVIDENCE_STORE"),
        ({"keys": (B,)}, "WAYBILL_EVIDENCE_KEYS"),
        ({"log": "log-2"}, "WAYBILL_LOG_ID"),
        ({"identity": "unsigned"}, "WAYBILL_IDENTITY__METHOD"),
        ({"hosted": "stand-in"}, "WAYBILL_ENDPOINTS__<NAME>__PROVIDER"),
    ],
)
def test_each_setting_that_must_be_equal_is_named(change, setting):
    """The sentence says which setting differs, from whom, and what to do."""
    (found,) = differences(FACTS.model_copy(update=change), worker())
    assert found.variable == setting
    assert f"set {setting} to the" in found.sentence
    assert "worker node-1:7, which runs since 2026-11-29T12:00:00Z" in found.sentence


@pytest.mark.parametrize("change", [{}, {"store": None, "keys": ()}, {"keys": ("d" * 32, B)}, {"hosted": None}])
def test_what_a_worker_does_not_need_or_has_rotated_is_no_difference(change):
    """A worker without a sink has no store; after a rotation there are keys beside the one that both have."""
    assert list(differences(FACTS.model_copy(update=change), worker())) == []


def test_a_vault_of_the_same_id_in_another_folder_is_a_copy():
    """The other worker's mark is not in the folder, so that keys made in one are not in the other."""
    assert copied_vault(FACTS, worker(B), {B}) is None
    assert "is a copy" in copied_vault(FACTS, worker(B), {A}).sentence


def test_the_vault_of_the_site_is_compared_by_its_id():
    """Another id is refused with both, and the setting."""
    made = roster((SITE + "1", SiteVault(vault=A, host="node-1", pid=7).to_json(), 0))
    assert vault_differs(FACTS, made.vault) is None
    assert "WAYBILL_VAULT" in vault_differs(FACTS.model_copy(update={"vault": B}), made.vault).sentence
