"""Rotation of the vault's master key: nothing is lost wherever it stops, and nobody has to stop for it."""

from __future__ import annotations

import base64
import errno
import os
import random
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from broken_disk import BrokenDisk
from vault_children import KEEP, NOW, an_object, files
from vault_rotating import process, whole

from evidence.errors import ConfigError, UnavailableError
from policy.vault import master, rotation
from policy.vault.files import Files
from policy.vault.keys import KeyRing, tenant_hash
from policy.vault.sealing import Vault, VaultError, key_of
from policy.vault.store import VaultStore, open_object

TEXT = b"write to ada@example.com"
TENANTS = ("acme", "globex", "initech")
LAST_STEP = 46
"""Steps on the disk of a rotation of six keys."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a vault will be."""
    return tmp_path / "vault"


@pytest.fixture
def sealed(folder: Path) -> list[tuple[str, str]]:
    """Texts under six keys of three tenants, and one object, in a vault of its own."""
    vault, store = Vault(folder), VaultStore(folder)
    store.put(an_object(vault, "i1", text=TEXT))
    store.close()
    terms = {"bucket": KEEP}, {}
    return [(each, vault.seal(each, TEXT, now=NOW, bound_to=b"i", **term)) for each in TENANTS for term in terms]


def check(folder: Path, sealed: list[tuple[str, str]], key_file: Path | None = None) -> None:
    """See that a process that starts now opens everything."""
    vault = Vault(folder, key_file)
    for tenant, text in sealed:
        assert vault.open(text, tenant=tenant, bound_to=b"i") == TEXT
    store = VaultStore(folder)
    kept = store.get("i1", "pseudonyms")
    assert kept is not None
    assert open_object(vault, kept) == TEXT
    store.close()


def keys_in(path: Path) -> tuple[bytes, ...]:
    """Give the keys of a master key's file."""
    return master.read(path).keys


def lines(*keys: bytes) -> bytes:
    """Give such a file's content."""
    return b"".join(base64.b64encode(key) + b"\n" for key in keys)


def test_a_rotation_keeps_everything_readable_and_leaves_no_old_key(folder, sealed):
    """All opens under the new key alone, hashes stay as they were, and the old key is in no file of the folder."""
    (old,) = keys_in(folder / "master.key")
    hashed = Vault(folder).hash_key("acme")
    made = whole(folder)
    (new,) = keys_in(folder / "master.key")
    assert (made.new, made.old, made.keys) == (new, (old,), len(sealed))
    assert new != old
    check(folder, sealed)
    assert Vault(folder).hash_key("acme") == hashed
    for name in files(folder):
        content = (folder / name).read_bytes()
        assert base64.b64encode(old) not in content, name
        assert old not in content, name
    assert (folder / "master.key").stat().st_mode & 0o777 == 0o600


def test_the_old_key_opens_nothing_any_more(folder, sealed):
    """With the old master key in the new one's place, no key can be read and the vault does not start."""
    old = (folder / "master.key").read_bytes()
    whole(folder)
    (folder / "master.key").write_bytes(old)
    with pytest.raises(ConfigError, match="another master key"):
        Vault(folder).prepare()
    (folder / "hash.key").unlink()
    with pytest.raises(VaultError, match="another master key"):
        Vault(folder).open(sealed[0][1], tenant="acme", bound_to=b"i")


def test_data_keys_stay_the_same(folder, sealed):
    """A rotation wraps the data keys anew; they themselves stay, so that no object has to be sealed again."""
    before = [Vault(folder).ring.read(key_of(text)) for _, text in sealed]
    names = files(folder / "keys")
    whole(folder)
    assert [Vault(folder).ring.read(key_of(text)) for _, text in sealed] == before
    assert files(folder / "keys") == names


def test_a_running_process_learns_the_new_key_by_itself(folder, sealed):
    """One that has read the old master key opens keys it has not read yet, and makes new ones under the new key."""
    running = Vault(folder, revalidate_s=3600)
    hashed = running.hash_key("acme")
    whole(folder)
    assert running.open(sealed[0][1], tenant="acme", bound_to=b"i") == TEXT
    idle = Vault(folder, revalidate_s=3600)
    idle.prepare()
    whole(folder)
    text = idle.seal("umbrella", TEXT, now=NOW, bound_to=b"i")
    assert running.open(text, tenant="umbrella", bound_to=b"i") == TEXT
    check(folder, [*sealed, ("umbrella", text)])
    assert running.hash_key("acme") == hashed == Vault(folder).hash_key("acme")


def test_a_running_process_forgets_the_old_key(folder, sealed):
    """Once it has looked whether a key was destroyed, it holds the new master key alone."""
    now = [0.0]
    running = Vault(folder, clock=lambda: now[0])
    check_old = running.ring.load().masters.keys
    running.open(sealed[0][1], tenant="acme", bound_to=b"i")
    whole(folder)
    now[0] = 2.0
    running.open(sealed[0][1], tenant="acme", bound_to=b"i")
    held = running.ring._loaded
    assert held is not None
    assert held.masters.keys == keys_in(folder / "master.key") != check_old


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("failing", range(1, 52))
def test_a_rotation_that_fails_at_any_step_goes_on(folder, sealed, failing, after):
    """Wherever it stops, everything opens and keys can be made; run again it ends, and the old key is nowhere."""
    (old,) = keys_in(folder / "master.key")
    ring = Vault(folder, files=BrokenDisk(failing, after=after)).ring
    stopped = False
    try:
        with rotation.exclusive(ring):
            rotation.begin(ring, rotation.plan(ring))
            rotation.rewrap(ring)
            rotation.finish(ring)
    except UnavailableError:
        stopped = True
    check(folder, sealed)
    new = Vault(folder).seal("umbrella", TEXT, now=NOW, bound_to=b"i")
    if not rotation.complete(Vault(folder).ring) and (old in keys_in(folder / "master.key")):
        whole(folder)
    check(folder, [*sealed, ("umbrella", new)])
    assert len(keys_in(folder / "master.key")) == 1
    for name in files(folder):
        assert base64.b64encode(old) not in (folder / name).read_bytes(), name
        assert ".master.key." not in name
    assert stopped == (failing <= LAST_STEP), "the steps of a rotation have changed: change the range"


def test_killed_at_any_moment_under_load_nothing_is_lost(folder, sealed):
    """Two processes seal and open while a third rotates and is killed again and again: every text opens to the end."""
    workers = [process("work", folder, str(each)) for each in range(2)]
    for each in workers:
        assert each.stdout is not None
        assert each.stdout.readline() == "at work\n"
    dice, begun = random.Random(7), 0  # noqa: S311 - moments, no secrets
    for round_ in range(9):
        rotating = process("rotate", folder)
        assert rotating.stdout is not None
        assert rotating.stdout.readline() == "begins\n"
        time.sleep(dice.random() * 0.4)
        rotating.kill()
        rotating.communicate(timeout=20)
        begun += len(keys_in(folder / "master.key")) > 1
        check(folder, sealed)
        if round_ % 3 == 2:
            whole(folder)
            assert len(keys_in(folder / "master.key")) == 1
    (folder.parent / "stop").touch()
    for each in workers:
        said, _ = each.communicate(timeout=60)
        assert each.returncode == 0
        assert int(said) > 20
    assert begun > 0, "no kill came in the middle of a rotation: kill at other moments"
    whole(folder)
    check(folder, sealed)
    assert len(keys_in(folder / "master.key")) == 1
    assert [name for name in files(folder) if ".master.key." in name] == []


def test_two_rotations_at_once_are_one_and_an_error(folder, sealed):
    """Whoever comes second is told so, and changes nothing."""
    ring = Vault(folder).ring
    with rotation.exclusive(ring), pytest.raises(UnavailableError, match="by somebody else"):
        whole(folder)
    whole(folder)
    check(folder, sealed)


def test_two_vaults_that_share_a_key_are_rotated_one_after_the_other(tmp_path):
    """A rotation that begins within the other's step is told so: else the new key of one of them would be lost."""
    file = tmp_path / "keys" / "shared.key"
    file.parent.mkdir()
    edited(file, os.urandom(32))
    texts = {name: Vault(tmp_path / name, file).seal("acme", TEXT, now=NOW, bound_to=b"i") for name in ("one", "two")}

    def begin(ring: KeyRing) -> None:
        with rotation.exclusive(ring):
            rotation.begin(ring, rotation.plan(ring))
            rotation.rewrap(ring)

    class Meanwhile(Files):
        """The other vault's rotation comes between this one's look at the file and its change."""

        def publish(self, temporary: Path, path: Path) -> None:
            if temporary == file:
                with pytest.raises(UnavailableError, match="by somebody else just now"):
                    begin(Vault(tmp_path / "one", file).ring)
            super().publish(temporary, path)

    begin(Vault(tmp_path / "two", file, files=Meanwhile()).ring)
    begin(Vault(tmp_path / "one", file).ring)
    for name, text in texts.items():
        rotation.finish(Vault(tmp_path / name, file).ring)
        assert Vault(tmp_path / name, file).open(text, tenant="acme", bound_to=b"i") == TEXT


def test_keys_of_another_master_key_stop_it_before_anything_changes(folder, sealed):
    """Where a data key is under none of the keys in the file, it says what to do and leaves every byte as it was."""
    (old,) = keys_in(folder / "master.key")
    (folder / "master.key").write_bytes(lines(os.urandom(32)))
    before = {name: (folder / name).read_bytes() for name in files(folder)}
    with pytest.raises(ConfigError, match=r"6 of 6 data keys.*line below the others"):
        whole(folder)
    after = {name: (folder / name).read_bytes() for name in files(folder) if name != "rotation.lock"}
    assert after == before
    (folder / "master.key").write_bytes((folder / "master.key").read_bytes() + lines(old))
    whole(folder)
    check(folder, sealed)


def test_a_missing_key_or_vault_is_an_error_that_names_it(folder, tmp_path):
    """Neither a vault nor a master key is made by a rotation."""
    with pytest.raises(ConfigError, match="there is no vault at"):
        whole(folder)
    assert not folder.exists()
    Vault(folder).seal("acme", TEXT, now=NOW, bound_to=b"i")
    with pytest.raises(ConfigError, match="there is no master key"):
        whole(folder, tmp_path / "absent.key")
    (folder / "master.key").unlink()
    with pytest.raises(ConfigError, match="there is no master key"):
        whole(folder)


def test_a_key_that_is_given_takes_its_place_once(folder, sealed):
    """The given key wraps; given twice it is refused, and so is another one while a rotation is under way."""
    ring, given = Vault(folder).ring, os.urandom(32)
    rotation.begin(ring, rotation.plan(ring, given))
    with pytest.raises(ConfigError, match="a rotation to another key was begun"):
        rotation.plan(ring, os.urandom(32))
    assert rotation.plan(ring, given).begun
    whole(folder)
    assert keys_in(folder / "master.key") == (given,)
    with pytest.raises(ConfigError, match="already"):
        rotation.plan(ring, given)
    check(folder, sealed)


def test_a_key_file_that_cannot_be_replaced_is_the_operators_to_edit(folder, tmp_path):
    """A mounted secret: the command says what to write into it, wraps the keys, and says what to take out."""

    class Mounted(Files):
        def publish(self, temporary: Path, path: Path) -> None:
            if temporary.name == "mounted.key":
                raise OSError(errno.EROFS, "Read-only file system")
            super().publish(temporary, path)

    file = tmp_path / "mounted.key"
    old, new = os.urandom(32), os.urandom(32)
    file.write_bytes(lines(old))
    file.chmod(0o600)
    text = Vault(folder, file).seal("acme", TEXT, now=NOW, bound_to=b"i")
    hashed = Vault(folder, file).hash_key("acme")
    ring = Vault(folder, file, files=Mounted()).ring
    with pytest.raises(ConfigError, match="put the new key as a line above the old one"):
        rotation.begin(ring, rotation.plan(ring))
    file.write_bytes(lines(new, old))
    assert Vault(folder, file).hash_key("acme") == hashed
    assert rotation.rewrap(ring) == 1
    with pytest.raises(ConfigError, match="take the others out of it yourself"):
        rotation.finish(ring)
    file.write_bytes(lines(new))
    assert Vault(folder, file).open(text, tenant="acme", bound_to=b"i") == TEXT
    assert Vault(folder, file).hash_key("acme") == hashed


def edited(file: Path, *keys: bytes) -> None:
    """Do what an editor does: write the new content beside the file, and give it the file's name."""
    beside = file.with_name("edited")
    beside.write_bytes(lines(*keys))
    beside.chmod(0o600)
    beside.replace(file)


def test_what_could_not_take_its_place_leaves_no_key_behind(folder, tmp_path):
    """A file that is mounted by itself cannot be renamed over: no key, new or old, lies in the folder beside it."""

    class Mounted(Files):
        def replace(self, temporary: Path, path: Path) -> None:
            if path.name == "mounted.key":
                raise OSError(errno.EBUSY, "Device or resource busy")
            super().replace(temporary, path)

    file = tmp_path / "mounted.key"
    edited(file, os.urandom(32))
    Vault(folder, file).seal("acme", TEXT, now=NOW, bound_to=b"i")
    ring = Vault(folder, file, files=Mounted()).ring
    with pytest.raises(ConfigError, match="put the new key as a line above the old one"):
        rotation.begin(ring, rotation.plan(ring))
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["mounted.key"]


def test_a_rotation_that_leaves_the_old_key_leaves_it_in_its_file_alone(folder, sealed):
    """Killed before it destroyed what it had replaced, and ended with `--leave-old`: no other file has the old key."""
    file, (old,) = folder / "master.key", keys_in(folder / "master.key")

    class Killed(Files):
        def overwrite(self, path: Path) -> None:
            raise KeyboardInterrupt(path)

    ring = Vault(folder, files=Killed()).ring
    with pytest.raises(KeyboardInterrupt):
        rotation.begin(ring, rotation.plan(ring))
    ring = Vault(folder).ring
    made = rotation.plan(ring)
    assert (made.begun, made.old) == (True, (old,))
    rotation.begin(ring, made)
    rotation.rewrap(ring)
    edited(file, made.new)
    check(folder, sealed)
    assert [name for name in files(folder) if base64.b64encode(old) in (folder / name).read_bytes()] == []


def test_a_key_file_that_is_being_edited_stops_new_keys_for_a_while_only(folder, sealed):
    """A running worker goes on with the keys it has; for a new one it has to try again, and that is what it says."""
    running, file = Vault(folder), folder / "master.key"
    running.open(sealed[0][1], tenant="acme", bound_to=b"i")
    content = file.read_bytes()
    for broken in (b"", content[:20]):
        file.write_bytes(broken)
        with pytest.raises(UnavailableError, match="is not 32 bytes in base64"):
            running.seal("umbrella", TEXT, now=NOW, bound_to=b"i")
        running.seal("acme", TEXT, now=NOW, bound_to=b"i")
    file.write_bytes(content)
    check(folder, [*sealed, ("umbrella", running.seal("umbrella", TEXT, now=NOW, bound_to=b"i"))])


def test_a_damaged_key_for_hashes_does_not_stop_a_running_worker(folder, sealed):
    """What it has in memory stays in use; one that starts is told which file to restore."""
    whole(folder)
    running = Vault(folder, revalidate_s=0)
    hashed = running.hash_key("acme")
    (folder / "hash.key").write_bytes(b"{")
    (folder / "generation").write_bytes(b"another")
    assert running.open(sealed[0][1], tenant="acme", bound_to=b"i") == TEXT
    assert running.hash_key("acme") == hashed
    with pytest.raises(VaultError, match=r"hash\.key is damaged"):
        Vault(folder).prepare()


def test_bytes_that_are_destroyed_are_read_as_no_key(folder):
    """Whoever has opened the master key's file when it is replaced reads it again, and not what was put over it."""
    folder.mkdir(mode=0o700)
    file, (old, new) = folder / "master.key", (os.urandom(32), os.urandom(32))
    edited(file, old)
    stop = threading.Event()

    def swapping() -> None:
        while not stop.is_set():
            master.swap(Files(), file, (new, old))
            master.swap(Files(), file, (old,))

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(swapping)
        try:
            until = time.monotonic() + 1
            while time.monotonic() < until:
                assert keys_in(file)[-1] == old
        finally:
            stop.set()
        done.result()


def test_a_lock_that_cannot_be_taken_is_told(folder, sealed):
    """It is an error of the disk, and not a fault of the program."""
    (folder / "rotation.lock").mkdir()
    with pytest.raises(UnavailableError, match="could not lock"):
        whole(folder)


def test_a_key_file_of_another_users_is_left_alone(folder, sealed, monkeypatch):
    """Whoever is not the owner would write files that the workers cannot read, and is told to be them."""
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(ConfigError, match="as that user"):
        whole(folder)


def test_a_kept_key_opens_an_old_backup(folder, sealed, tmp_path):
    """A copy from before opens with the kept key; a key file put back from it is taken up by the next rotation."""
    shutil.copytree(folder, tmp_path / "backup")
    ring, kept = Vault(folder).ring, tmp_path / "old.key"
    made = rotation.plan(ring)
    for _ in range(2):
        rotation.keep(ring, kept, made.old)
    assert kept.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError, match="something else"):
        rotation.keep(ring, kept, [os.urandom(32)])
    with pytest.raises(ConfigError, match="own file"):
        rotation.keep(ring, folder / "master.key", made.old)
    whole(folder)
    (tmp_path / "backup" / "master.key").unlink()
    check(tmp_path / "backup", sealed, kept)
    shutil.rmtree(folder / "keys" / tenant_hash("acme"))
    shutil.copytree(tmp_path / "backup" / "keys" / tenant_hash("acme"), folder / "keys" / tenant_hash("acme"))
    with pytest.raises(VaultError, match="another master key"):
        check(folder, sealed)
    (folder / "master.key").write_bytes((folder / "master.key").read_bytes() + kept.read_bytes())
    check(folder, sealed)
    whole(folder)
    check(folder, sealed)


def test_hashes_change_where_that_is_asked_for(folder, sealed):
    """After a leak the same value gets another hash, in every process, and a later rotation keeps that one."""
    before = Vault(folder).hash_key("acme")
    whole(folder, new_hashes=True)
    new = Vault(folder).hash_key("acme")
    assert new != before
    whole(folder)
    assert Vault(folder).hash_key("acme") == new
    check(folder, sealed)


def test_a_destroyed_key_stays_destroyed(folder, sealed):
    """A rotation brings no key back, and one that a backup put back beside its note stops nothing."""
    vault, key = Vault(folder), key_of(sealed[1][1])
    old = vault.ring.path(key).read_bytes()
    vault.destroy(key, now=NOW + timedelta(days=40), reason="test")
    whole(folder)
    assert not vault.ring.path(key).exists()
    vault.ring.path(key).write_bytes(old)
    whole(folder)
    assert vault.ring.path(key).read_bytes() == old
    check(folder, sealed[:1] + sealed[2:])


def test_the_plan_of_a_rotation_shows_no_key(folder, sealed):
    """What is printed of a plan names keys by hashes, and of what was read no key at all."""
    loaded = Vault(folder).ring.load()
    assert all(repr(key) not in repr(loaded) for key in (*loaded.masters.keys, loaded.hashing))
    made = rotation.plan(Vault(folder).ring)
    assert repr(made.new) not in repr(made)
    assert base64.b64encode(made.new).decode() not in repr(made)
    assert made.new_id in repr(made)


@pytest.mark.parametrize("count", [9, 20])
def test_a_file_of_too_many_keys_is_refused(folder, count):
    """More than eight lines are no rotation; and the same key twice is a mistake."""
    folder.mkdir(mode=0o700)
    (folder / "master.key").touch(mode=0o600)
    (folder / "master.key").write_bytes(lines(*(os.urandom(32) for _ in range(count))))
    with pytest.raises(ConfigError, match="at most 8"):
        Vault(folder).prepare()
    (folder / "master.key").write_bytes(lines(b"x" * 32, b"x" * 32))
    with pytest.raises(ConfigError, match="twice"):
        Vault(folder).prepare()
