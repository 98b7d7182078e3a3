"""The vault's store: what is kept comes back, whole or not at all, whoever kills whom and whatever the disk does."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from vault_children import NOW, an_object, child, files

from policy.holds import Hold, Holds
from policy.vault.sealing import Bucket, KeyDestroyed, Vault, VaultError
from policy.vault.store import VaultStore, bound_to, open_object

TEXT = b"write to ada@example.com about the invoice"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a vault will be."""
    return tmp_path / "vault"


@pytest.fixture
def vault(folder: Path) -> Vault:
    """A vault of its own."""
    return Vault(folder)


def test_an_object_comes_back_as_it_was_kept(folder, vault):
    """Every field survives, for a fresh process too, and the bounds are those of the term."""
    item = an_object(vault, "i1", text=TEXT, subject="person:7", bucket=Bucket("keep", 10, 30, "day"), legal_hold=True)
    VaultStore(folder).put(item)
    found = VaultStore(folder).get("i1", "pseudonyms")
    assert found == item
    assert (item.keep_until_min - NOW, item.keep_until_max - NOW) == (timedelta(days=10), timedelta(days=30))
    assert open_object(Vault(folder), found) == TEXT
    assert VaultStore(folder).of_request("request of i1") == (item,)
    assert VaultStore(folder).get("i1", "request") is None


def test_asking_an_empty_vault_makes_nothing(folder):
    """Questions to a vault that has kept nothing are answered, and leave no file."""
    store = VaultStore(folder)
    assert (store.get("i", "request"), store.groups(NOW), store.cover(Holds), store.remove_expired(NOW, Holds)) == (
        None,
        (),
        0,
        0,
    )
    assert Vault(folder).ring.keys() == ()
    assert not folder.exists()


def test_an_object_cannot_stand_for_another_kind_or_intake(vault):
    """An object that was moved in the store to another kind or intake does not open."""
    item = an_object(vault, "i1", text=TEXT)
    for moved in (replace(item, kind="response"), replace(item, intake_id="i2"), replace(item, tenant="globex")):
        with pytest.raises(VaultError):
            open_object(vault, moved)
    assert bound_to("request", "i1") != bound_to("response", "i1")


def test_doing_the_work_again_replaces_and_never_lifts_a_hold(folder, vault):
    """An object kept twice is there once, as it was last; a legal hold that was placed meanwhile stays."""
    store = VaultStore(folder)
    store.put(an_object(vault, "i1", text=b"old"))
    hold = Hold(id="0" * 12, request="request of i1", reason="case 117", by="user:dora", at=NOW)
    assert store.cover(lambda: Holds((hold,))) == store.count(hold) == 1
    store.put(an_object(vault, "i1", text=b"new"))
    (found,) = store.of_request("request of i1")
    assert open_object(vault, found) == b"new"
    assert found.legal_hold


def test_bounds_that_contradict_each_other_are_refused(folder, vault):
    """What must be kept longer than it may be is refused before anything is written."""
    item = an_object(vault, "i1")
    with pytest.raises(ValueError, match="longer than it may be"):
        VaultStore(folder).put_many([an_object(vault, "i0"), replace(item, keep_until_min=NOW + timedelta(days=31))])
    assert VaultStore(folder).groups(NOW) == ()


def test_nothing_is_kept_under_a_key_that_is_being_destroyed(folder, vault):
    """Once the destruction of a key is decided, an object under it is refused, and the others of its call with it."""
    store = VaultStore(folder)
    item = an_object(vault, "i1", now=NOW - timedelta(days=40))
    (info,) = vault.ring.keys()
    assert store.plan(info, new_id="d1", now=NOW)
    with pytest.raises(KeyDestroyed):
        store.put_many([an_object(vault, "i2"), item])
    assert store.groups(NOW) == ()


def test_a_killed_process_leaves_whole_batches_only(folder):
    """After kill -9 in the midst of puts every batch is there whole or not at all, and all that were told are there."""
    for _ in range(5):
        shutil.rmtree(folder, ignore_errors=True)
        with child("put", folder) as writer:
            told = -1
            end = time.monotonic() + 0.15
            while told < 0 or time.monotonic() < end:
                told = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            rest = writer.stdout.read().split()
            writer.wait()
        complete = max([told, *(int(line) for line in rest)])
        store = VaultStore(folder)
        (group,) = store.groups(NOW)
        assert group.objects % 10 == 0
        assert complete + 1 <= group.objects // 10 <= complete + 2
        store.put(an_object(Vault(folder), "later"))
        with sqlite3.connect(folder / "objects.db") as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        database.close()


def test_processes_keep_objects_side_by_side(folder):
    """Three processes on a vault that does not exist yet lose nothing of what they keep at once."""
    children = [child("put", folder, str(number)) for number in (21, 22, 23)]
    for each in children:
        each.communicate(timeout=60)
    assert [each.returncode for each in children] == [0, 0, 0]
    assert sum(group.objects for group in VaultStore(folder).groups(NOW)) == 10 * (21 + 22 + 23)


def test_threads_keep_objects_side_by_side(folder, vault):
    """Threads that share one store lose nothing."""
    store = VaultStore(folder)
    barrier = threading.Barrier(4)

    def work(number: int) -> None:
        barrier.wait()
        for each in range(10):
            store.put(an_object(vault, f"{number}-{each}"))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert sum(group.objects for group in store.groups(NOW)) == 40


def test_a_full_disk_keeps_what_was_there_and_nothing_half(folder):
    """Where the disk takes no more, keeping says so as retryable, and nothing of the call is kept."""
    said, _ = child("full", folder, "store").communicate(timeout=60)
    assert said == "UnavailableError\n"
    (group,) = VaultStore(folder).groups(NOW)
    assert group.objects == 1


def test_files_that_are_not_the_stores_are_refused(folder, vault):
    """Another program's database, a text, and a store that was cut short each give one clear error."""
    store = folder / "objects.db"
    vault.prepare()
    with sqlite3.connect(store) as database:
        database.execute("CREATE TABLE theirs (x)")
    database.close()
    with pytest.raises(VaultError, match="another program's"):
        VaultStore(folder).put(an_object(vault, "i1"))
    store.write_bytes(b"hello, this is no database at all\n" * 40)
    with pytest.raises(VaultError, match="damaged"):
        VaultStore(folder).groups(NOW)
    store.unlink()
    writer = VaultStore(folder)
    writer.put_many([an_object(vault, f"i{number}", text=b"x" * 5000) for number in range(20)])
    writer.tidy()
    writer.close()
    store.write_bytes(store.read_bytes()[: store.stat().st_size // 2])
    with pytest.raises(VaultError, match="damaged"):
        VaultStore(folder).of_request("request of i1")


def test_removed_objects_leave_the_file(folder, vault):
    """The ciphertext of what was removed is in no file of the vault afterwards."""
    store = VaultStore(folder)
    item = an_object(vault, "i1", text=TEXT, now=NOW - timedelta(days=31))
    store.put_many([item, an_object(vault, "i2")])
    assert store.remove_expired(NOW, Holds) == 1
    store.tidy()
    needle = item.sealed[-40:].encode()
    assert [name for name in files(folder) if needle in (folder / name).read_bytes()] == []
    assert store.get("i2", "pseudonyms") is not None


def test_a_payload_opens_only_with_its_own_key(folder, vault):
    """Without its key, or with another's, an object of the store does not open, although the data key is there."""
    store = VaultStore(folder)
    item, other = an_object(vault, "i1", text=TEXT), an_object(vault, "i2", text=TEXT)
    store.put_many([item, other])
    with pytest.raises(VaultError):
        open_object(vault, replace(item, payload_key=other.payload_key))
    store.keys.destroy_of([("i1", "pseudonyms")])
    with pytest.raises(VaultError, match="the key of the pseudonyms of i1 is not there"):
        open_object(vault, store.get("i1", "pseudonyms"))
    assert open_object(vault, store.get("i2", "pseudonyms")) == TEXT


def test_a_key_without_an_object_goes_once_it_is_old(folder, vault):
    """Keys of objects that were replaced are tidied away after a day, and never one that an object needs."""
    store = VaultStore(folder)
    store.put(an_object(vault, "i1", text=b"old"))
    store.put(an_object(vault, "i1", text=b"new"))

    def keys() -> int:
        with sqlite3.connect(folder / "payload-keys.db") as database:
            found = database.execute("SELECT count(*) FROM payload_keys").fetchone()[0]
        database.close()
        return int(found)

    store.tidy()
    assert keys() == 2
    with sqlite3.connect(folder / "payload-keys.db") as database:
        database.execute("UPDATE payload_keys SET put = put - 90000")
    database.close()
    store.tidy()
    assert keys() == 1
    assert open_object(vault, store.get("i1", "pseudonyms")) == b"new"
