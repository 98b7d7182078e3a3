"""Who was erased: known to all at once, exact in time, and never forgotten half-way."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from uuid import uuid4

import pytest
from vault_children import NOW, an_object

from evidence.errors import ConfigError, UnavailableError
from policy.files import Document
from policy.holds import Hold, Holds
from policy.retention import parse
from policy.vault.erased import EVERYTHING, ErasedPeople, digest_of
from policy.vault.erasure import Erasure, Erasures, carry_out
from policy.vault.files import Files
from policy.vault.sealing import Bucket, Vault
from policy.vault.store import VaultStore

RULES = parse(
    Document('version: 1\nrules:\n  - {classes: ["*"], purposes: ["*"], payload: none, pseudonym_days: 3}\n', "rules"),
    classes=("internal",),
    categories=(),
    purposes=None,
)
ASKED = Erasure("e" * 32, "acme", "person:7", "letter", "user:ada", NOW)


def utc_now():
    """The time."""
    return datetime.now(UTC)


def decide(store, *, asked=ASKED, holds=Holds, clock=utc_now):
    """Carry out a request for erasure."""
    erasures = Erasures(store, clock)
    erasures.ask(asked)
    return erasures.decide(asked, now=NOW, new_id=lambda: "5" * 32, holds=holds, rules=RULES)


def test_a_person_is_erased_up_to_a_moment(tmp_path):
    """What was asked up to the moment counts as erased, in every other process too; nobody else is."""
    assert ErasedPeople(tmp_path).when("acme", "person:7") is None
    ErasedPeople(tmp_path).close("acme", "person:7", "e1", lambda: NOW)
    others = ErasedPeople(tmp_path)
    assert others.when("acme", "person:7") == NOW
    assert (others.when("acme", "person:70"), others.when("acm", "e\0person:7")) == (None, None)


def waiting(tmp_path, *, asked_again):
    """Erase a person of whom something must be kept for 10 days, who asks again a day later; come back after 20."""
    store, vault, moment = VaultStore(tmp_path), Vault(tmp_path), [NOW]
    erasures, terms = Erasures(store, lambda: moment[0]), Bucket("keep", 10, 30)

    def keep(intake, now):
        store.put(an_object(vault, intake, subject="person:7", now=now, requested=now, bucket=terms))

    def run(now):
        moment[0] = now
        for each in erasures.open():
            erasures.mark_asked([each.id], "told")
            erasures.decide(each, now=now, new_id=lambda: uuid4().hex, holds=Holds, rules=RULES)

    keep("before", NOW)
    erasures.ask(ASKED)
    run(NOW)
    keep("after", NOW + timedelta(days=1))
    if asked_again:
        erasures.ask(replace(ASKED, id="f" * 32, asked=NOW + timedelta(days=2)))
        run(NOW + timedelta(days=2))
    run(NOW + timedelta(days=20))
    return store, erasures


def test_an_erasure_that_had_to_wait_leaves_alone_what_was_asked_since(tmp_path):
    """Carried out again, it has the moment of the first time: what came since is kept as the rules say, and it ends."""
    store, erasures = waiting(tmp_path, asked_again=False)
    assert store.people.when("acme", "person:7") == NOW
    assert [len(store.of_request(f"request of {each}")) for each in ("before", "after")] == [0, 1]
    assert erasures.open() == ()


def test_an_erasure_that_waits_and_is_asked_for_again_reaches_what_was_asked_since(tmp_path):
    """It stays one request, with a later moment: what is under way and what was kept since ends too."""
    store, erasures = waiting(tmp_path, asked_again=True)
    assert store.people.when("acme", "person:7") == NOW + timedelta(days=2)
    assert [len(store.of_request(f"request of {each}")) for each in ("before", "after")] == [0, 0]
    assert {each.erasure for each in erasures.steps()} == {ASKED.id}


def test_an_erasure_that_was_not_told_yet_reaches_what_was_asked_since(tmp_path):
    """Run again a day later it has a later moment, and is still one thing to tell; what nobody began is not begun."""
    store, later = VaultStore(tmp_path), NOW + timedelta(days=1)
    Erasures(store).again("acme", "person:7", later)
    store.put(an_object(Vault(tmp_path), "i1", subject="person:7"))
    assert Erasures(store).again("acme", "person:7", later) is None
    assert Erasures(store).open() == ()
    decide(store, clock=lambda: NOW)
    erasures = Erasures(store, lambda: later)
    again = erasures.again("acme", "person:7", later)
    assert again is not None
    assert (again.id, again.asked, again.told) == (ASKED.id, later, True)
    (step,) = carry_out(erasures, now=later, new_id=lambda: uuid4().hex, holds=Holds, rules=RULES)
    assert (step.erasure, step.keys, step.destroyed) == (ASKED.id, 1, True)
    assert store.people.when("acme", "person:7") == later
    assert erasures.open() == ()


def test_nobody_is_erased_as_another_user(tmp_path, monkeypatch):
    """Workers could not read what another user notes, and would serve nobody: it is refused, and nothing is changed."""
    store = VaultStore(tmp_path)
    store.put(an_object(Vault(tmp_path), "i1", subject="person:7"))
    Erasures(store).ask(ASKED)
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(ConfigError, match="belongs to another user"):
        Erasures(store).ask(ASKED)
    with pytest.raises(ConfigError, match="belongs to another user"):
        Erasures(store).decide(ASKED, now=NOW, new_id=lambda: "5" * 32, holds=Holds, rules=RULES)
    assert not store.people.folder.exists()
    assert len(store.of_request("request of i1")) == 1


def test_whoever_looked_before_lies_before_the_moment(tmp_path):
    """When the moment is taken, everybody sees already that the person is erased."""
    people, seen = ErasedPeople(tmp_path), []

    def clock():
        seen.append(ErasedPeople(tmp_path).when("acme", "person:7"))
        return NOW

    people.close("acme", "person:7", "e1", clock)
    assert seen == [EVERYTHING]


@pytest.mark.parametrize("step", range(2))
def test_a_disk_that_fails_leaves_either_nobody_or_everything_erased(tmp_path, step):
    """After a fault in the first step nothing has changed, after one in the second all is erased; again, it ends."""

    class Failing(Files):
        """Fails at one step."""

        left = count(step, -1)

        def replace(self, temporary, path):
            if next(self.left) == 0:
                raise OSError(28, "No space left on device")
            super().replace(temporary, path)

    people = ErasedPeople(tmp_path, Failing())
    with pytest.raises(UnavailableError, match="No space left"):
        people.close("acme", "person:7", "e1", lambda: NOW)
    assert people.when("acme", "person:7") == (None, EVERYTHING)[step]
    ErasedPeople(tmp_path).close("acme", "person:7", "e1", lambda: NOW)
    assert people.when("acme", "person:7") == NOW


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"erasure":"e1","at":"soon"}', b'{"erasure":"e1","at":7}']
)
def test_a_damaged_file_keeps_its_person_erased(tmp_path, content):
    """Whatever the file of a person says that cannot be read, all that they asked counts as erased."""
    people = ErasedPeople(tmp_path)
    people.close("acme", "person:7", "e1", lambda: NOW)
    (people.folder / digest_of("acme", "person:7")).write_bytes(content)
    assert people.when("acme", "person:7") == EVERYTHING


def test_a_disk_that_does_not_say_is_an_error(tmp_path):
    """Where the folder cannot be read nobody is taken to be there: the error stops who asks."""
    (tmp_path / "erased").mkdir()
    (tmp_path / "erased" / digest_of("acme", "person:7")).symlink_to(digest_of("acme", "person:7"))
    with pytest.raises(UnavailableError):
        ErasedPeople(tmp_path).when("acme", "person:7")


def test_no_reference_stands_in_the_folder(tmp_path):
    """The file of a person names neither tenant nor person."""
    people = ErasedPeople(tmp_path)
    people.close("acme", "person:7", "e1", lambda: NOW)
    (path,) = people.folder.iterdir()
    assert "person" not in path.name
    assert b"person" not in path.read_bytes()


def test_a_hold_comes_first(tmp_path):
    """Of a person who is held nothing ends, whether something of theirs is kept or not, and nobody is told erased."""
    store = VaultStore(tmp_path)
    hold = Hold(id="a" * 12, subject="person:7", reason="case", by="user:ada", at=NOW)
    for _ in range(2):
        verdict = decide(store, holds=lambda: Holds((hold,)))
        assert (verdict.held, store.people.when("acme", "person:7")) == ((hold,), None)
        store.put(an_object(Vault(tmp_path), "i1", subject="person:7"))
    assert len(store.of_request("request of i1")) == 1


def test_an_erasure_that_cannot_be_noted_is_not_done(tmp_path):
    """Where it cannot be noted who is erased, the payloads stay too, and the request waits."""
    store = VaultStore(tmp_path)
    store.put(an_object(Vault(tmp_path), "i1", subject="person:7"))
    (tmp_path / "erased").write_text("in the way")
    with pytest.raises(UnavailableError):
        decide(store)
    assert len(store.of_request("request of i1")) == 1
    assert [each.id for each in Erasures(store).open()] == [ASKED.id]


def test_nothing_slips_past_an_erasure_that_is_under_way(tmp_path):
    """Of what several workers keep while a person is erased, nothing stays that was asked before; the rest does."""
    vault, began = Vault(tmp_path), utc_now()
    vault.prepare()
    VaultStore(tmp_path).put(an_object(vault, "first", subject="person:7", now=began, requested=began))

    def keep(worker):
        store = VaultStore(tmp_path)
        for number in range(60):
            subject = ("person:7", "person:8")[number % 2]
            intake = f"{worker}-{number}"
            store.put(an_object(vault, intake, subject=subject, now=utc_now(), requested=began))
        store.close()

    with ThreadPoolExecutor(4) as pool:
        keeping = [pool.submit(keep, worker) for worker in range(3)]
        done = pool.submit(decide, VaultStore(tmp_path)).result()
        assert not all(each.done() for each in keeping)
        for each in keeping:
            each.result()
    assert done.goes
    store = VaultStore(tmp_path)
    left = store.database.read("SELECT subject, count(*) FROM objects GROUP BY subject", ())
    assert left == [("person:8", 90)]
    store.put(an_object(vault, "after", subject="person:7", now=utc_now(), requested=utc_now()))
    assert len(store.of_request("request of after")) == 1
