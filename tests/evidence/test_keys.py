"""The keys of a site: made whole or not at all, never readable for others, never replaced."""

from __future__ import annotations

import multiprocessing
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from merkle_logs import FailingDisk

from evidence.errors import ConfigError, UnavailableError
from evidence.log.keys import KeyRing, load_key
from evidence.log.notes import NoteError, Verifier, open_note

TEXT = "waybill/home/id/topic-0\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"


def files(folder: Path) -> list[str]:
    """Give the names of what lies in a folder, without the lock."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def mode(path: Path) -> int:
    """Give a file's permissions."""
    return stat.S_IMODE(path.stat().st_mode)


def pem(key, password: bytes | None = None) -> bytes:
    """Give a private key's file."""
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden)


def test_the_first_key(tmp_path):
    """It is for its owner only, in a folder for its owner only, and signs in the name of the site."""
    old = os.umask(0)
    try:
        ring = KeyRing.create(tmp_path / "keys" / "home", "home")
    finally:
        os.umask(old)
    folder = tmp_path / "keys" / "home"
    assert files(folder) == ["1.pem"]
    assert (mode(folder / "1.pem"), mode(folder), mode(folder.parent)) == (0o600, 0o700, 0o700)
    assert b"BEGIN PRIVATE KEY" in (folder / "1.pem").read_bytes()
    note = ring.newest().sign(TEXT)
    assert ring.newest().name == "waybill/home"
    assert open_note(note, [Verifier.from_vkey(ring.newest().vkey)]).text == TEXT
    assert KeyRing(folder, "home").vkeys == ring.vkeys == (ring.newest().vkey,)


def test_a_key_is_never_replaced(tmp_path):
    """A first key is made once; making it again is refused and leaves it as it was."""
    KeyRing.create(tmp_path, "home")
    before = (tmp_path / "1.pem").read_bytes()
    with pytest.raises(ConfigError, match=r"1.pem is there already; rotate the key"):
        KeyRing.create(tmp_path, "home")
    assert (tmp_path / "1.pem").read_bytes() == before
    assert files(tmp_path) == ["1.pem"]


def test_keys_follow_each_other(tmp_path):
    """The newest signs, older ones stay for the logs that still name them, and each is found by its verifier key."""
    ring = KeyRing.create(tmp_path, "home")
    first = ring.newest()
    second = ring.rotate()
    assert ring.newest() == second != first
    assert ring.vkeys == (first.vkey, second.vkey)
    assert [verifier.vkey for verifier in ring.verifiers] == list(ring.vkeys)
    assert ring.by_key(first.vkey) == first
    assert ring.signed(first.sign(TEXT)) == first.vkey
    assert ring.signed(first.sign(TEXT, second)) == second.vkey
    assert KeyRing(tmp_path, "home").newest().vkey == second.vkey
    for _ in range(9):
        last = ring.rotate()
    assert files(tmp_path)[:2] == ["1.pem", "10.pem"]
    assert KeyRing(tmp_path, "home").newest().vkey == last.vkey  # 11 is newer than 9


def test_a_running_ring_sees_a_rotation(tmp_path):
    """A key that another process made signs at once; that it is durable is made sure of before."""
    KeyRing.create(tmp_path, "home")
    disk = FailingDisk()
    running = KeyRing(tmp_path, "home", disk=disk)
    before = running.newest()
    assert disk.steps == []
    made = KeyRing(tmp_path, "home").rotate()
    disk.fail_at = 0
    with pytest.raises(UnavailableError, match="cannot be read: "):
        running.newest()
    assert running.newest().vkey == made.vkey != before.vkey
    assert disk.steps == [("sync", tmp_path.name)] * 2
    assert running.by_key(before.vkey).vkey == before.vkey


def test_a_removed_key_is_missed(tmp_path):
    """An old key may be removed; who still needs it is told which one it is, and a log of strangers is refused."""
    ring = KeyRing.create(tmp_path / "a", "home")
    first = ring.newest()
    ring.rotate()
    (tmp_path / "a" / "1.pem").unlink()
    later = KeyRing(tmp_path / "a", "home")
    with pytest.raises(ConfigError, match="has no private key of waybill/home"):
        later.by_key(first.vkey)
    with pytest.raises(ConfigError, match=r"has no private key of the log.*only by waybill/home"):
        later.signed(first.sign(TEXT))
    with pytest.raises(NoteError, match="the note was changed"):
        ring.signed(first.sign(TEXT).replace(b"\n0\n", b"\n1\n"))


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o660, 0o644, 0o602, 0o610, 0o601, 0o777])
def test_a_key_that_others_can_use_is_refused(tmp_path, bits):
    """A single bit for the group or for others is enough, and the error says what to do."""
    KeyRing.create(tmp_path, "home")
    (tmp_path / "1.pem").chmod(bits)
    with pytest.raises(ConfigError, match=rf"1.pem: its group or others can use .*mode {bits:04o}.*chmod 600"):
        KeyRing(tmp_path, "home")
    (tmp_path / "1.pem").chmod(0o400)
    KeyRing(tmp_path, "home")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a private key in PEM"),
        (b"secret words\n", "not a private key in PEM"),
        (pem(Ed25519PrivateKey.generate())[:-40], "not a private key in PEM"),
        (pem(Ed25519PrivateKey.generate(), b"password"), "not a private key in PEM without a password"),
        (pem(generate_private_key(SECP256R1())), "not an Ed25519 key"),
    ],
    ids=["empty", "words", "cut short", "with a password", "of another kind"],  # the keys differ in every run
)
def test_what_is_no_key(tmp_path, content, reason):
    """Another content is an error that names the file and shows nothing of it."""
    path = tmp_path / "1.pem"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"1.pem: {reason}") as caught:
        KeyRing(tmp_path, "home")
    assert "secret words" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_what_is_no_file(tmp_path):
    """A pipe, at which a reader would wait, a folder, a missing file and a folder without keys are errors."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder", "missing"):
        with pytest.raises(ConfigError, match=name):
            load_key(tmp_path / name)
    with pytest.raises(ConfigError, match="holds no key"):
        KeyRing(tmp_path, "home")
    with pytest.raises(ConfigError, match="the folder of the keys cannot be read"):
        KeyRing(tmp_path / "missing", "home")


def test_a_key_is_there_whole_or_not_at_all(tmp_path):
    """Wherever the disk fails while keys are made, the ring works with whole keys, and the next attempt makes one."""
    probe = FailingDisk()
    KeyRing.create(tmp_path / "probe", "home", disk=probe).rotate()
    assert [step for step, _ in probe.steps].count("publish") == 2
    for failing in range(len(probe.steps)):
        folder = tmp_path / str(failing)
        disk = FailingDisk(fail_at=failing)
        try:
            ring = KeyRing.create(folder, "home", disk=disk)
        except UnavailableError:
            there = folder.is_dir() and (folder / "1.pem").exists()
            ring = KeyRing(folder, "home") if there else KeyRing.create(folder, "home")
        before = ring.newest()
        try:
            made = ring.rotate()
        except UnavailableError:
            made = ring.rotate()
        assert made.vkey == ring.newest().vkey != before.vkey
        assert made.vkey == KeyRing(folder, "home").newest().vkey
        assert all(mode(path) == 0o600 for path in folder.glob("*.pem"))
        assert not {name for name in files(folder) if not name.endswith(".pem")}
    assert failing > 10


def test_a_key_is_durable_before_it_is_named(tmp_path):
    """Content before name, name before use: the steps come in this order."""
    disk = FailingDisk()
    KeyRing.create(tmp_path, "home", disk=disk)
    assert [step for step in disk.steps if step[0] != "remove"] == [
        ("write", ".unfinished"),
        ("sync", ".unfinished"),
        ("publish", "1.pem"),
        ("sync", tmp_path.name),
    ]


def rotate(folder):
    """Make the next key, in another process."""
    return KeyRing(folder, "home").rotate().vkey


def test_two_processes_make_two_keys(tmp_path):
    """Rotations at the same time make keys of their own, one after the other, and lose none."""
    KeyRing.create(tmp_path, "home")
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.map(rotate, [tmp_path] * 6)
    assert files(tmp_path) == [f"{number}.pem" for number in range(1, 8)]
    assert len(set(KeyRing(tmp_path, "home").vkeys)) == 7
