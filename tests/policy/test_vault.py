"""The vault: what it seals only the right tenant and request can open, and nothing once the key is destroyed."""

from __future__ import annotations

import base64
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from broken_disk import BrokenDisk
from hypothesis import given
from hypothesis import strategies as st
from vault_children import KEEP, NOW, an_object, child, files

from evidence.errors import ConfigError, UnavailableError
from policy.vault.sealing import TRANSIT, Bucket, KeyDestroyed, KeyId, Vault, VaultError, key_of
from policy.vault.store import VaultStore

TEXT = b"write to ada@example.com about the invoice"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a vault will be."""
    return tmp_path / "vault"


@pytest.fixture
def vault(folder: Path) -> Vault:
    """A vault of its own."""
    return Vault(folder)


def test_what_was_sealed_can_be_opened_and_is_ascii(vault):
    """A sealed text is printable ASCII without the plaintext, never twice the same, and gives the plaintext back."""
    first, second = (vault.seal("acme", TEXT, now=NOW, bound_to=b"i") for _ in range(2))
    assert first != second
    assert first.isascii()
    assert first.isprintable()
    assert "ada" not in first
    assert vault.open(first, tenant="acme", bound_to=b"i") == TEXT


def test_a_fresh_process_opens_what_another_sealed(folder, vault):
    """Keys are on disk: a vault that has never seen a text opens it."""
    sealed = vault.seal("acme", TEXT, now=NOW, bound_to=b"i")
    assert Vault(folder).open(sealed, tenant="acme", bound_to=b"i") == TEXT


def test_a_sealed_text_belongs_to_one_request_and_one_tenant(vault):
    """Bound to something else, or asked for by another tenant, it does not open."""
    sealed = vault.seal("acme", TEXT, now=NOW, bound_to=b"intake-1")
    vault.seal("globex", TEXT, now=NOW, bound_to=b"intake-1")
    with pytest.raises(VaultError, match="another request"):
        vault.open(sealed, tenant="acme", bound_to=b"intake-2")
    with pytest.raises(VaultError, match="another tenant's"):
        vault.open(sealed, tenant="globex", bound_to=b"intake-1")


def test_every_changed_character_is_noticed(vault):
    """Whichever character of a sealed text is changed, it does not open, and the error is the vault's own."""
    sealed = vault.seal("acme", b"short", now=NOW, bound_to=b"i")
    for place, letter in enumerate(sealed):
        changed = sealed[:place] + ("A" if letter != "A" else "B") + sealed[place + 1 :]
        with pytest.raises(VaultError):
            vault.open(changed, tenant="acme", bound_to=b"i")


@given(st.text(max_size=120))
def test_what_is_no_sealed_text_is_refused(text):
    """Any other text is refused as such, whatever it is."""
    with pytest.raises(VaultError, match=r"sealed text"):
        Vault(Path("/nonexistent/vault")).open(text, tenant="acme", bound_to=b"i")


def test_a_key_id_of_another_key_does_not_open(vault):
    """A text moved under the id of another key of the same tenant does not open."""
    first = vault.seal("acme", TEXT, now=NOW, bound_to=b"i")
    second = vault.seal("acme", TEXT, now=NOW, bound_to=b"i", bucket=KEEP)
    moved = second.rpartition(".")[0] + "." + first.rpartition(".")[2]
    with pytest.raises(VaultError, match="was changed"):
        vault.open(moved, tenant="acme", bound_to=b"i")


def test_the_plaintext_and_the_keys_are_nowhere_on_disk(folder, vault):
    """Neither what was sealed nor a data key is in any file of the folder."""
    with closing(VaultStore(folder)) as store:
        store.put(an_object(vault, "i1", text=TEXT))
    plain = vault.ring.read(key_of(vault.seal("acme", TEXT, now=NOW, bound_to=b"i", bucket=KEEP)))[1]
    for name in files(folder):
        data = (folder / name).read_bytes()
        assert b"ada@example.com" not in data
        assert plain not in data
        assert base64.b64encode(plain) not in data


def test_the_warm_path_touches_no_disk(folder):
    """With the key in memory both ways work although the folder is gone."""
    vault = Vault(folder, revalidate_s=3600)
    sealed = vault.seal("acme", TEXT, now=NOW, bound_to=b"i")
    shutil.rmtree(folder)
    again = vault.seal("acme", TEXT, now=NOW + timedelta(seconds=1), bound_to=b"i")
    assert vault.open(sealed, tenant="acme", bound_to=b"i") == vault.open(again, tenant="acme", bound_to=b"i") == TEXT
    assert not folder.exists()


def test_threads_share_one_vault(vault):
    """Eight threads that seal for the same tenants at once get what opens again, under one key each."""

    def work(number: int) -> list[str]:
        return [vault.seal(f"t{each % 5}", TEXT, now=NOW, bound_to=b"%d" % number) for each in range(200)]

    with ThreadPoolExecutor(8) as pool:
        sealed = list(pool.map(work, range(8)))
    for number, texts in enumerate(sealed):
        for each, text in enumerate(texts):
            assert vault.open(text, tenant=f"t{each % 5}", bound_to=b"%d" % number) == TEXT
    assert len(vault.ring.keys()) == 5


def test_processes_that_start_at_once_agree_on_one_master_and_one_key(folder):
    """Six processes on an empty folder make one master key and one data key, and each opens what the others sealed."""
    children = [child("seal", folder, f"text {number}") for number in range(6)]
    for each in children:
        assert each.stdout.readline() == "ready\n"
    (folder.parent / "go").touch()
    sealed = [each.communicate(timeout=60)[0].strip() for each in children]
    vault = Vault(folder)
    opened = {vault.open(text, tenant="acme", bound_to=b"i").decode() for text in sealed}
    assert opened == {f"text {number}" for number in range(6)}
    assert len(vault.ring.keys()) == 1
    assert [name for name in files(folder) if ".new-" in name] == []


def test_hash_keys_belong_to_a_tenant_and_a_master_key(folder, vault, tmp_path):
    """The key for keyed hashes is the same for every process of a vault, and another for each tenant and vault."""
    keys = [vault.hash_key("acme"), vault.hash_key("globex"), Vault(tmp_path / "elsewhere").hash_key("acme")]
    assert Vault(folder).hash_key("acme") == keys[0]
    assert len(set(keys)) == 3
    assert {len(key) for key in keys} == {32}


# Periods and terms


@pytest.mark.parametrize(
    ("period", "moment", "name", "end"),
    [
        ("day", datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC), "2026-12-31", datetime(2027, 1, 1, tzinfo=UTC)),
        ("month", datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC), "2026-12", datetime(2027, 1, 1, tzinfo=UTC)),
        ("month", datetime(2028, 2, 1, tzinfo=UTC), "2028-02", datetime(2028, 3, 1, tzinfo=UTC)),
    ],
)
def test_a_key_seals_for_one_utc_period_and_is_due_its_term_later(period, moment, name, end):
    """A key's period holds the moment, ends where the next begins, and its destruction is due `max_days` after that."""
    key = KeyId.of("acme", Bucket("keep", 10, 30, period), moment)
    assert (key.period, key.bucket) == (name, "keep-10-30")
    assert key.span()[0] <= moment < key.span()[1] == end
    assert key.due == end + timedelta(days=30)
    assert KeyId.parse(str(key)) == key


def test_tenants_periods_and_terms_have_keys_of_their_own(vault):
    """What differs in tenant, period or term is never sealed under one key; the next period has a new one by itself."""
    later = NOW + timedelta(days=1)
    keys = {
        key_of(vault.seal(tenant, TEXT, now=moment, bound_to=b"i", bucket=bucket))
        for tenant in ("acme", "globex")
        for moment in (NOW, later, NOW)
        for bucket in (TRANSIT, KEEP, Bucket("keep", 10, 30, "day"))
    }
    assert len(keys) == 2 * 2 * 3


def test_a_tenants_name_may_be_anything(vault, folder):
    """A tenant's name never becomes a path."""
    for tenant in ("../../etc", "a/b", "Ä ö\n", "x" * 256, ""):
        sealed = vault.seal(tenant, TEXT, now=NOW, bound_to=b"i")
        assert vault.open(sealed, tenant=tenant, bound_to=b"i") == TEXT
    assert files(folder.parent) == [f"vault/{name}" for name in files(folder)]
    known = vault.ring.keys()
    assert {info.tenant for info in known} == {"../../etc", "a/b", "Ä ö\n", "x" * 256, ""}


# Destruction


def test_a_destroyed_key_is_gone_for_good(folder, vault):
    """Its file is gone, opening says that retention did it, and the period's key is never made again."""
    sealed = vault.seal("acme", TEXT, now=NOW, bound_to=b"i")
    vault.destroy(key_of(sealed), now=NOW, reason="test")
    for one in (vault, Vault(folder)):
        with pytest.raises(KeyDestroyed, match="destroyed by retention"):
            one.open(sealed, tenant="acme", bound_to=b"i")
        with pytest.raises(KeyDestroyed):
            one.seal("acme", TEXT, now=NOW, bound_to=b"i")
    assert vault.ring.keys() == ()
    assert not list(folder.rglob("*.key")) or [path.name for path in folder.rglob("*.key")] == ["master.key"]
    later = vault.seal("acme", TEXT, now=NOW + timedelta(days=1), bound_to=b"i")
    assert vault.open(later, tenant="acme", bound_to=b"i") == TEXT


def test_another_vault_uses_a_destroyed_key_for_at_most_the_stated_time(folder):
    """A vault that holds the key in memory refuses it as soon as its time to look again has come."""
    moment = [100.0]
    other = Vault(folder, clock=lambda: moment[0])
    sealed = other.seal("acme", TEXT, now=NOW, bound_to=b"i")
    Vault(folder).destroy(key_of(sealed), now=NOW, reason="test")
    moment[0] += 0.999
    assert other.open(sealed, tenant="acme", bound_to=b"i") == TEXT
    moment[0] += 0.001
    with pytest.raises(KeyDestroyed):
        other.open(sealed, tenant="acme", bound_to=b"i")
    with pytest.raises(KeyDestroyed):
        other.seal("acme", TEXT, now=NOW, bound_to=b"i")


def test_a_running_process_notices_within_two_seconds(folder, vault):
    """A process that opens a text all the time can no longer do so two seconds after another destroyed the key."""
    sealed = vault.seal("acme", TEXT, now=NOW, bound_to=b"i")
    with child("use", folder, sealed) as other:
        assert other.stdout.readline() == "open\n"
        vault.destroy(key_of(sealed), now=NOW, reason="test")
        start = time.monotonic()
        assert other.stdout.readline() == "KeyDestroyed\n"
        assert time.monotonic() - start < 5  # two seconds, on a machine that is busy


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("failing", range(1, 14))
def test_a_destruction_that_fails_at_any_step_can_be_done_again(folder, failing, after):
    """Wherever it stops, the text opens as before or is destroyed, nothing between; done again, it ends the same."""
    sealed = Vault(folder).seal("acme", TEXT, now=NOW, bound_to=b"i")
    other = Vault(folder).seal("acme", TEXT, now=NOW + timedelta(days=1), bound_to=b"i")
    key = key_of(sealed)
    stopped = False
    try:
        Vault(folder, files=BrokenDisk(failing, after=after)).destroy(key, now=NOW, reason="test")
    except UnavailableError:
        stopped = True
    try:
        assert Vault(folder).open(sealed, tenant="acme", bound_to=b"i") == TEXT
        assert stopped
    except KeyDestroyed:
        pass
    Vault(folder).destroy(key, now=NOW, reason="test")
    Vault(folder).destroy(key, now=NOW, reason="again")
    with pytest.raises(KeyDestroyed):
        Vault(folder).open(sealed, tenant="acme", bound_to=b"i")
    assert Vault(folder).open(other, tenant="acme", bound_to=b"i") == TEXT
    names = [name for name in files(folder) if name.startswith("keys/")]
    assert sorted(name.rpartition("/")[2] for name in names) == [
        "2026-11-24-transit-7.gone",
        "2026-11-25-transit-7.key",
    ]
    assert stopped == (failing <= 10), "the steps of a destruction have changed: change the range"


@pytest.mark.parametrize("step", range(1, 11))
def test_the_keys_can_be_listed_while_one_is_destroyed(folder, step):
    """Amid a destruction another process lists the other keys, and this one or not; opening says that it is gone."""
    sealed = Vault(folder).seal("acme", TEXT, now=NOW, bound_to=b"i")
    other = Vault(folder).seal("acme", TEXT, now=NOW + timedelta(days=1), bound_to=b"i")
    listed = list(Vault(folder).ring.entries())
    with pytest.raises(UnavailableError):
        Vault(folder, files=BrokenDisk(step, after=True)).destroy(key_of(sealed), now=NOW, reason="test")
    ring = Vault(folder).ring
    listed_now = ring.keys()
    found = {info.key for info in listed_now}
    assert {key_of(other)} <= found <= {key_of(sealed), key_of(other)}
    if ring.destroyed(key_of(sealed)) is not None:
        with pytest.raises(KeyDestroyed):
            Vault(folder).open(sealed, tenant="acme", bound_to=b"i")
    Vault(folder).destroy(key_of(sealed), now=NOW, reason="test")
    assert [ring.content(key, path) is None for key, path, _ in listed] == [True, False]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("failing", range(1, 16))
def test_a_key_that_cannot_be_made_leaves_nothing_half_written(folder, failing, after):
    """Wherever making the first keys fails, a later try works, and all agree on what is there then."""
    stopped = False
    try:
        Vault(folder, files=BrokenDisk(failing, after=after)).seal("acme", TEXT, now=NOW, bound_to=b"i")
    except UnavailableError:
        stopped = True
    sealed = Vault(folder).seal("acme", TEXT, now=NOW, bound_to=b"i")
    assert Vault(folder).open(sealed, tenant="acme", bound_to=b"i") == TEXT
    assert len(Vault(folder).ring.keys()) == 1
    assert stopped == (failing <= 11), "the steps have changed: change the range"


def test_a_full_disk_is_told_and_leaves_no_key(folder):
    """Where the disk takes no more, sealing says so as something that may work later, and no key file is left."""
    said, _ = child("full", folder, "keys").communicate(timeout=60)
    assert said == "UnavailableError\n"
    assert [name for name in files(folder) if name.startswith("keys/")] == []
    assert Vault(folder).seal("acme", TEXT, now=NOW, bound_to=b"i")


# What can be wrong with the files


def test_the_master_key_is_made_for_its_owner_alone(folder, vault):
    """The first use makes 32 random bytes that nobody else may read, and no error text or repr shows them."""
    vault.prepare()
    master = folder / "master.key"
    assert master.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(base64.b64decode(master.read_text())) == 32


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_master_key_that_others_may_read_is_refused(folder, vault, mode):
    """A key file that its group or the world can read is no secret, and the error says what to run."""
    vault.prepare()
    (folder / "master.key").chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        Vault(folder).prepare()


@pytest.mark.parametrize("text", ["", "short", "!" * 44, base64.b64encode(b"x" * 31).decode(), "A" * 5000])
def test_a_master_key_that_is_none_is_refused_without_showing_it(tmp_path, folder, text):
    """A truncated or foreign file is no master key; the error names the file and not its content."""
    file = tmp_path / "given.key"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(ConfigError, match="not 32 bytes") as error:
        Vault(folder, file).prepare()
    assert not text or text not in str(error.value)


def test_a_master_key_that_was_named_is_never_made(tmp_path, folder):
    """A path that was given and is not there is an error (a secret that was not mounted), not a new key."""
    with pytest.raises(ConfigError, match="there is no master key"):
        Vault(folder, tmp_path / "absent.key").seal("acme", TEXT, now=NOW, bound_to=b"i")
    assert not (tmp_path / "absent.key").exists()


def test_a_lost_master_key_is_not_replaced(folder, vault):
    """Where keys exist that it wraps, a missing master key is an error: a new one would make them unreadable."""
    vault.seal("acme", TEXT, now=NOW, bound_to=b"i")
    (folder / "master.key").unlink()
    with pytest.raises(ConfigError, match="restore it"):
        Vault(folder).prepare()
    assert not (folder / "master.key").exists()


def test_another_master_key_opens_nothing(folder, vault):
    """Under another master key the data keys cannot be read, and the error says which of the two may be wrong."""
    sealed = vault.seal("acme", TEXT, now=NOW, bound_to=b"i")
    (folder / "master.key").write_bytes(base64.b64encode(os.urandom(32)))
    with pytest.raises(VaultError, match="another master key"):
        Vault(folder).open(sealed, tenant="acme", bound_to=b"i")


@pytest.mark.parametrize("size", [0, 1, 40, 120])
def test_a_truncated_key_file_is_an_error_with_its_name(folder, vault, size):
    """Of a key file that was cut short nothing is used, nothing is overwritten, and the error names it."""
    sealed = vault.seal("acme", TEXT, now=NOW, bound_to=b"i")
    (path,) = (folder / "keys").rglob("*.key")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(VaultError, match="damaged") as error:
        Vault(folder).open(sealed, tenant="acme", bound_to=b"i")
    assert str(path) in str(error.value)
    with pytest.raises(VaultError, match="damaged"):
        Vault(folder).seal("acme", TEXT, now=NOW, bound_to=b"i")
    assert path.stat().st_size == size


def test_a_key_file_under_another_name_is_refused(folder, vault):
    """A key file that was put in the place of another, of another period or of another tenant, does not open there."""
    for tenant, moment in (("acme", NOW), ("acme", NOW + timedelta(days=1)), ("globex", NOW)):
        vault.seal(tenant, TEXT, now=moment, bound_to=b"i")
    one, next_day = sorted((folder / "keys" / KeyId.of("acme", TRANSIT, NOW).tenant_hash).iterdir())
    (other,) = (folder / "keys" / KeyId.of("globex", TRANSIT, NOW).tenant_hash).iterdir()
    for foreign in (next_day, other):
        shutil.copy(foreign, one)
        with pytest.raises(VaultError, match=r"damaged|another tenant"):
            Vault(folder).seal("acme", TEXT, now=NOW, bound_to=b"i")


@pytest.mark.parametrize("name", ["keys/notes.txt", "keys/{tenant}/notes.txt", "keys/other/2026-11-24-transit-7.key"])
def test_a_foreign_file_among_the_keys_is_named(folder, vault, name):
    """Where retention has to know every key, a file that is none stops it, and the error says which."""
    vault.seal("acme", TEXT, now=NOW, bound_to=b"i")
    path = folder / name.format(tenant=KeyId.of("acme", TRANSIT, NOW).tenant_hash)
    path.parent.mkdir(exist_ok=True)
    path.write_text("hello")
    with pytest.raises(VaultError, match="no key file") as error:
        vault.ring.keys()
    assert str(path) in str(error.value)


def test_what_another_vault_sealed_is_not_opened(tmp_path, vault):
    """A text of another site's vault is refused with the reason that its key is not here."""
    sealed = Vault(tmp_path / "elsewhere").seal("acme", TEXT, now=NOW, bound_to=b"i")
    with pytest.raises(VaultError, match="there is no data key"):
        vault.open(sealed, tenant="acme", bound_to=b"i")
